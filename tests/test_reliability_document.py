"""docs/reliability.md names tests that there are."""

from __future__ import annotations

import ast
import fnmatch
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


def functions_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/\w+\.py)::(test_\w+)`", TEXT)
    assert len(named) > 20
    assert [f"{path}::{name}" for path, name in named if name not in functions_of(path)] == []


def test_every_promise_names_a_test() -> None:
    promises = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("| promise |")]
    assert promises
    assert [line for line in promises if "`tests/" not in line] == []


def test_every_command_that_is_named_is_a_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [name for name in re.findall(r"`make (\w+)`", TEXT) if f"\n{name}:" not in makefile] == []


def rows_of_tests() -> set[str]:
    """Every row that a test counts for: the first word of `held` and `survived`, and of the marker `fault`."""
    found = set()
    for path in (ROOT / "tests").glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and path.name != "test_faults.py":
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name in ("held", "survived", "fault") and isinstance(node.args[0], ast.Constant | ast.JoinedStr):
                    found.add(re.sub(r"\{\w+\}", "*", ast.unparse(node.args[0]).removeprefix("f").strip("'\"")))
    return found


def test_the_table_of_the_last_full_run_has_a_row_for_every_promise_that_is_counted() -> None:
    lines = re.findall(r"^(\S.*?) +held (\d+) of (\d+)$", TEXT, flags=re.MULTILINE)
    assert len(lines) > 40
    assert [line for line in lines if line[1] != line[2]] == []
    rows, patterns = {row for row, _, _ in lines}, rows_of_tests()
    assert {pattern for pattern in patterns if not fnmatch.filter(rows, pattern)} == set()
    assert {row for row in rows if not any(fnmatch.fnmatchcase(row, pattern) for pattern in patterns)} == set()

"""Rules that hold for every file: who imports whom, what is never called, how long a file may be."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
from dangers import violations

ROOT = Path(__file__).resolve().parents[1]
OURS = ("finegan_aug", "classifier", "recipes", "benchmarks")
MAX_FILE_LINES = 300
MAX_TEST_FILE_LINES = 500  # cases listed one below the other read easily
MAX_FUNCTION_LINES = 60

# A file or function that may be longer, each with its reason.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS = {
    "finegan_aug/training.py:_loop": "the training loop, readable from top to bottom",
}


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def modules_imported(tree: ast.AST) -> set[str]:
    """Top-level names of all absolute imports, also those inside functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module).split(".")[0])
    return found


@pytest.mark.parametrize("path", python_files(*OURS), ids=name_of)
@pytest.mark.fault("security: source files without a dangerous call")
def test_no_file_unpickles_or_runs_text(path: Path) -> None:
    assert violations(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", python_files("finegan_aug"), ids=name_of)
def test_the_plugin_imports_neither_classifier_nor_recipes(path: Path) -> None:
    imported = modules_imported(ast.parse(path.read_text(encoding="utf-8")))
    assert not imported & {"classifier", "recipes", "benchmarks", "tests"}


@pytest.mark.parametrize("path", python_files(*OURS), ids=name_of)
def test_relative_imports_stand_inside_classifier_only(path: Path) -> None:
    relative = [
        n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.ImportFrom) and n.level
    ]
    assert not relative or path.is_relative_to(ROOT / "classifier")


@pytest.mark.parametrize("path", python_files(*OURS, "tests"), ids=name_of)
def test_every_module_says_what_it_is_for_and_stays_short(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    if tree.body:
        assert ast.get_docstring(tree)
    lines = len(source.splitlines())
    allowed = MAX_TEST_FILE_LINES if path.is_relative_to(ROOT / "tests") else MAX_FILE_LINES
    assert lines <= allowed or name_of(path) in LONG_FILES


def long_functions(path: Path) -> dict[str, int]:
    """Lines of each function that is too long, its docstring not counted."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            said = len((ast.get_docstring(node, clean=False) or "").splitlines())
            lines = int(node.end_lineno or 0) - node.lineno + 1 - said
            if lines > MAX_FUNCTION_LINES:
                found[f"{name_of(path)}:{node.name}"] = lines
    return found


@pytest.mark.parametrize("path", python_files(*OURS), ids=name_of)
def test_every_function_stays_short(path: Path) -> None:
    assert long_functions(path).keys() <= LONG_FUNCTIONS.keys()


def test_every_exception_to_the_length_rule_is_still_needed() -> None:
    for name, reason in LONG_FILES.items():
        assert reason
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) > MAX_FILE_LINES
    for name, reason in LONG_FUNCTIONS.items():
        assert reason
        assert name in long_functions(ROOT / name.split(":")[0])


def project_files() -> list[Path]:
    """Files git tracks or would track."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_file_holds_a_path_of_one_machine() -> None:
    # ann and someone are the examples of tests that hide such paths
    private = re.compile(rb"(?<![\w./:-])/(?:work|root|(?:home|Users)/(?!ann/|someone/?))(?=[/\w])")
    assert private.search(b"see /" + b"home/karl/photos")
    assert private.search(b"see /" + b"root/runs")
    held = [
        name_of(path)
        for path in project_files()
        if b"\0" not in path.read_bytes() and private.search(path.read_bytes())
    ]
    assert held == []

"""What is installed, and what the project's own commands do."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import finegan_aug
from benchmarks.lowest import lowest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULE_OF = {"pillow": "PIL", "scikit-learn": "sklearn", "pyyaml": "yaml"}
COMES_WITH = {"markupsafe": "jinja2"}


def modules(requirements: list[str]) -> set[str]:
    """Import names of a list of requirements."""
    names = [re.match(r"[\w-]+", line)[0] for line in requirements]  # type: ignore[index]
    return {MODULE_OF.get(name, name.replace("-", "_")) for name in names}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)], cwd=ROOT, check=True)
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_the_wheel_holds_the_plugin_alone(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"finegan_aug", f"finegan_aug-{finegan_aug.__version__}.dist-info"}


def test_the_wheel_holds_every_file_of_the_plugin(wheel: zipfile.ZipFile) -> None:
    files = {p.relative_to(ROOT).as_posix() for p in (ROOT / "finegan_aug").rglob("*") if p.is_file()}
    wanted = {name for name in files if "__pycache__" not in name}
    assert "finegan_aug/py.typed" in wanted
    assert wanted <= set(wheel.namelist())


def test_the_wheel_names_licence_command_and_python(wheel: zipfile.ZipFile) -> None:
    info = f"finegan_aug-{finegan_aug.__version__}.dist-info"
    headers = wheel.read(f"{info}/METADATA").decode()
    assert "License-Expression: Apache-2.0\n" in headers
    assert "Requires-Python: >=3.11\n" in headers
    assert b"Apache License" in wheel.read(f"{info}/licenses/LICENSE")
    assert "finegan-aug = finegan_aug.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()


def test_one_version_everywhere() -> None:
    assert finegan_aug.__version__ == PROJECT["version"] == metadata.version("finegan-aug")
    assert f"## {finegan_aug.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def imports_at_the_top(path: Path) -> set[str]:
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module).split(".")[0])
    return found


@pytest.mark.parametrize(
    "path", sorted((ROOT / "finegan_aug").rglob("*.py")), ids=lambda p: p.relative_to(ROOT).as_posix()
)
def test_every_module_imports_at_its_top_what_is_declared(path: Path) -> None:
    allowed = modules(PROJECT["dependencies"]) | COMES_WITH.keys() | set(sys.stdlib_module_names) | {"finegan_aug"}
    assert imports_at_the_top(path) <= allowed


def test_every_declared_dependency_is_used() -> None:
    sources = [
        p.read_text(encoding="utf-8")
        for f in ("finegan_aug", "classifier", "recipes")
        for p in (ROOT / f).rglob("*.py")
    ]
    text = "\n".join(sources)
    unused = {
        name for name in modules(PROJECT["dependencies"]) if not re.search(rf"^\s*(?:import|from) {name}\b", text, re.M)
    }
    assert unused == set()


@pytest.mark.parametrize(
    ("test", "check", "status", "ran"),
    [("true", "true", 0, "tc"), ("false", "true", 1, "tc"), ("true", "false", 1, "tc")],
)
def test_the_ci_command_runs_both_and_fails_when_either_fails(
    tmp_path: Path, test: str, check: str, status: int, ran: str
) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    (tmp_path / "Makefile").write_text(f"test:\n\tprintf t >>ran\n\t{test}\ncheck:\n\tprintf c >>ran\n\t{check}\n")
    done = subprocess.run([tmp_path / ".ci" / "run"], capture_output=True, check=False)
    assert done.returncode == status
    assert (tmp_path / "ran").read_text() == ran


def test_the_ci_command_names_the_flowers_folder_beside_the_checkout(tmp_path: Path) -> None:
    checkout, flowers = tmp_path / "checkout", tmp_path / "shared" / "data" / "flowers"
    (checkout / ".ci").mkdir(parents=True)
    flowers.mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", checkout / ".ci" / "run")
    (checkout / "Makefile").write_text('test check:\n\tprintf %s "$$FINEGAN_AUG_FLOWERS" >flowers\n')
    subprocess.run([checkout / ".ci" / "run"], capture_output=True, check=True, env={"PATH": "/usr/bin:/bin"})
    assert (checkout / "flowers").read_text() == str(flowers)


def test_the_make_targets_use_the_local_environment_and_nothing_else() -> None:
    listed = subprocess.run(
        ["make", "-n", "demo", "test", "check"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    commands = [line for line in listed.stdout.splitlines() if line]
    assert ".venv/bin/python recipes/demo.py" in commands
    assert ".venv/bin/python -m pytest -n 2 --dist loadfile" in commands
    assert {".venv/bin/ruff format --check .", ".venv/bin/ruff check .", ".venv/bin/mypy"} <= set(commands)


def test_make_faults_counts_anew_and_prints_the_table_even_where_a_test_fails() -> None:
    listed = subprocess.run(["make", "-n", "faults"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "rm -f runs/faults.jsonl" in listed
    assert "FINEGAN_AUG_FAULTS=runs/faults.jsonl .venv/bin/python -m pytest -m fault;" in listed
    assert ".venv/bin/python -m benchmarks.faults runs/faults.jsonl && exit $tested" in listed


def test_every_requirement_has_a_lowest_version_for_make_lowest() -> None:
    pins = lowest(PROJECT)
    assert "scipy==1.13" in pins  # the first that goes with numpy 2
    assert "albumentations==2.0.8" in pins
    assert {pin.split("==")[0] for pin in pins} >= {re.match(r"[\w-]+", line)[0] for line in PROJECT["dependencies"]}  # type: ignore[index]
    assert not any(pin.startswith(("finegan-aug", "ruff", "mypy")) for pin in pins)
    with pytest.raises(ValueError, match="every requirement needs a lowest version, found 'tqdm'"):
        lowest({"name": "x", "dependencies": ["tqdm"], "optional-dependencies": {}})

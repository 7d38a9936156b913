"""Damaged and wrongly typed JSON in run folders and synthetic sets is answered in two lines with code 3 or 4."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import tiny_config
from untrained_run import untrained_run

from finegan_aug import cli
from finegan_aug.data.manifest import Manifest
from finegan_aug.errors import DataError, StorageError
from finegan_aug.files import write_bytes
from finegan_aug.report.rows import parse_rows
from finegan_aug.report.sources import is_number
from finegan_aug.samples import redraw
from finegan_aug.synthesis import synthesize
from finegan_aug.synthetic import SyntheticRow
from finegan_aug.trained import open_run

torch.set_num_threads(1)
HUGE = int("9" * 400)
AGAIN = "restore the file, or train again with another --out"
ANEW = "restore the file or make it anew"
CODES = "child_to_parent must hold 12 parents and use each of 0 to 3, got"


pytestmark = pytest.mark.fault("bad input: damaged files of runs and ablations")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, toy_data: Manifest) -> Path:
    config = tiny_config(labels="discovered", num_children=12).resolve(12)
    return untrained_run(tmp_path_factory.mktemp("whole") / "run", config, toy_data)


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def answer(line: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, cause and remedy."""
    code = cli.main(line)
    cause, remedy = capsys.readouterr().err.splitlines()[-2:]
    return code, cause.removeprefix("error: "), remedy.removeprefix("fix: ")


def edited(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    content["config"] |= changes
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"width": "x"}, "width must be float, got 'x'"),
        ({"width": None}, "width must be float, got None"),
        ({"width": HUGE}, f"width must be float, got {'9' * 80}"),
        ({"z_dim": None}, "z_dim must be int, got None"),
        ({"z_dim": 8.5}, "z_dim must be int, got 8.5"),
        ({"num_children": None}, "num_children must be settled by a training, found null"),
        ({"num_children": "12"}, "num_children must be int or null, got '12'"),
        ({"child_to_parent": None}, "child_to_parent must be settled by a training, found null"),
        ({"child_to_parent": "abc"}, "child_to_parent must be list of int or null, got 'abc'"),
        ({"child_to_parent": [99] * 12}, f"{CODES} 12 values with 1 parents"),
        ({"child_to_parent": [-1] * 12}, f"{CODES} 12 values with 1 parents"),
        ({"child_to_parent": [0, 1, 2, 3]}, f"{CODES} 4 values with 4 parents"),
        ({"modes_per_class": "x"}, "modes_per_class must be int, got 'x'"),
        ({"zzz": 1}, "configuration holds unknown keys zzz"),
    ],
    ids=str,
)
def test_a_configuration_of_the_wrong_types_is_refused(
    changes: dict[str, Any], cause: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited(run / "config.json", **changes)
    assert answer(["figures", str(run)], capsys) == (4, f"{run / 'config.json'}: {cause}", AGAIN)


@pytest.mark.parametrize("command", [["synthesize", "--out", "set"], ["evaluate"]], ids=lambda command: command[0])
@pytest.mark.parametrize("count", [None, 5])
def test_another_number_of_classes_than_the_photographs_have_is_refused(
    count: int | None,
    command: list[str],
    run: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(run.parent)
    edited(run / "config.json", num_classes=count)
    cause = f"{run / 'config.json'}: num_classes must be 12 as in data.jsonl, found {'null' if count is None else 5}"
    assert answer([command[0], str(run), *command[1:]], capsys) == (4, cause, AGAIN)


def test_networks_that_no_memory_holds_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edited(run / "config.json", z_dim=10**12)
    cause = f"{run / 'config.json'}: the networks must fit into memory, they do not"
    assert answer(["figures", str(run)], capsys) == (4, cause, AGAIN)


@pytest.mark.parametrize("verb", ["synthesize", "figures", "evaluate", "export-official"])
@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("{}", " must hold config, found no such key"),
        ('{"config": null}', ": config must be object, found None"),
        ('{"config": [1]}', ": config must be object, found [1]"),
    ],
)
def test_a_file_without_configuration_is_refused_by_every_verb(
    verb: str, text: str, cause: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "config.json").write_text(text)
    line = [verb, str(run), *(["--out", str(tmp_path / "out")] if verb != "evaluate" else [])]
    assert answer(line, capsys) == (3, f"{run / 'config.json'}{cause}", ANEW)


@pytest.mark.parametrize(
    ("changes", "cause", "remedy"),
    [
        ({"state": None}, ": state must be str, found None", ANEW),
        ({"state": "\ud800"}, r": state must be str, found '\ud800'", ANEW),
        ({"exit_code": "abc"}, ": exit_code must be int or null, found 'abc'", ANEW),
        ({"exit_code": [1]}, ": exit_code must be int or null, found [1]", ANEW),
        ({"exit_code": float("inf")}, ": exit_code must be int or null, found inf", ANEW),
        ({"exit_code": 999}, ": exit_code must lie from 0 to 255, found 999", "run the same command to go on"),
    ],
    ids=str,
)
def test_a_status_of_the_wrong_types_is_refused(
    changes: dict[str, Any], cause: str, remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "status.json"
    status = {"state": "finished", "exit_code": 0, "seen_images": 8, "message": ""}
    path.write_text(json.dumps(status | changes))
    assert answer(["verify", str(tmp_path), "--status"], capsys) == (3, f"{path}{cause}", remedy)
    path.write_text("{}")
    assert answer(["verify", str(tmp_path), "--status"], capsys)[1] == f"{path} must hold state, found no such key"


def test_the_message_of_a_status_gives_a_terminal_no_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = {"state": "failed", "exit_code": 5, "seen_images": 8, "message": "a\x1b[31m\nb"}
    (tmp_path / "status.json").write_text(json.dumps(status))
    assert cli.main(["verify", str(tmp_path), "--status"]) == 5
    assert capsys.readouterr().out == "failed after 8 images a\\x1b[31m\\nb\n"


@pytest.mark.parametrize(
    ("text", "cause", "remedy"),
    [
        ("{}", " must hold code_to_class, found no such key", ANEW),
        ('{"code_to_class": "x"}', ": code_to_class must be list of int, found 'x'", ANEW),
        ('{"code_to_class": null}', ": code_to_class must be list of int, found None", ANEW),
        ('{"code_to_class": [NaN]}', ": code_to_class must be list of int, found [nan]", ANEW),
        (f'{{"code_to_class": [{HUGE}]}}', f": code_to_class must be list of int, found [{'9' * 79}", ANEW),
        (
            json.dumps({"code_to_class": [*range(12), 0]}),
            ": code_to_class must hold a class from -1 to 11 for each of 12 codes, found 13 from 0 to 11",
            "run finegan-aug evaluate again",
        ),
        (
            json.dumps({"code_to_class": [*range(11), 99]}),
            ": code_to_class must hold a class from -1 to 11 for each of 12 codes, found 12 from 0 to 99",
            "run finegan-aug evaluate again",
        ),
    ],
    ids=["empty", "text", "null", "NaN", "400 digits", "13 codes", "class 99"],
)
def test_an_audit_that_does_not_fit_is_refused(
    text: str, cause: str, remedy: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "audit.json").write_text(text)
    found = answer(["synthesize", str(run), "--out", str(run / "set"), "--per-class", "1"], capsys)
    assert found == (3, f"{run / 'audit.json'}{cause}", remedy)


@pytest.mark.parametrize(
    ("name", "code", "last"),
    [("child", 99, 11), ("child", None, 11), ("child", -5, 11), ("parent", 99, 3), ("background", 99, 11)],
)
def test_a_code_that_the_generator_lacks_is_refused(name: str, code: int | None, last: int, run: Path) -> None:
    opened = open_run(run)
    row = SyntheticRow("a/1.png", "a", 0, 1, **{"child": 0, "parent": 0, "background": 0, "seed": 0, name: code})
    with pytest.raises(DataError) as caught:
        redraw(opened.generator, opened.config, [row])
    found = "null" if code is None else code
    assert caught.value.cause == (
        f"{name} of 'a/1.png' in the set's manifest must be a code from 0 to {last}, found {found}"
    )
    assert caught.value.remedy == "synthesize the set anew"


def test_images_are_not_enlarged_to_whatever_a_header_says(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "audit.json").write_text(json.dumps({"code_to_class": list(range(12))}))
    out = synthesize(run, run / "set", per_class=1)
    header, *lines = (out / "manifest.jsonl").read_text().splitlines()
    changed = json.dumps(json.loads(header) | {"resolution": 20000})
    (out / "manifest.jsonl").write_text("\n".join([changed, *lines, ""]))
    assert answer(["filter", str(out), "--data", str(run / "data.jsonl")], capsys) == (
        3,
        f"{out}: images must have the 20000 x 20000 pixels of the header, the first has 32 x 32",
        "correct resolution in manifest.jsonl, or make the set anew",
    )


@pytest.mark.parametrize("name", ["config.json", "data.jsonl"])
def test_a_named_pipe_is_not_waited_for(name: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / name).unlink()
    os.mkfifo(run / name)
    found = answer(["synthesize", str(run), "--out", str(run / "set"), "--per-class", "1"], capsys)
    assert found == (3, f"{run / name} must be a file, found a pipe, socket or device", ANEW)


def test_a_report_leaves_out_a_named_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "fakes_000001.png")
    assert cli.main(["report", str(tmp_path)]) == 0
    assert "fakes_000001.png is no readable PNG and is left out" in (tmp_path / "report.html").read_text(
        encoding="utf-8"
    )


def test_a_report_takes_a_number_of_400_digits_for_none() -> None:
    row = {"fraction": 1, "arm": "R1", "model": "m", "pair": 0, "accuracy": 0.5, "steps": HUGE}
    assert [is_number(value) for value in (HUGE, -HUGE, True, float("inf"), 5, 0.5)] == [False] * 4 + [True] * 2
    assert parse_rows([row])[0][0].steps is None
    assert parse_rows([row | {"accuracy": HUGE}])[0] == []


def test_a_path_with_nul_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        write_bytes(tmp_path / "a\0b", b"")
    assert caught.value.cause == f"cannot write {str(tmp_path)!r}".rstrip("'") + r"/a\x00b': a path must not hold NUL"
    assert caught.value.remedy == "choose another --out"
    assert list(tmp_path.iterdir()) == []


def test_a_whole_configuration_is_read_as_it_was_written(run: Path) -> None:
    written = json.loads((run / "config.json").read_text())["config"]
    assert json.loads(json.dumps(open_run(run).config.to_json())) == written

"""Every case of the table as a user meets it: exit code, line of cause, line of remedy, nothing written elsewhere."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from bad_inputs import CASES, Case
from bad_pictures import PER_CLASS, photographs, train
from write_guard import content_of, outside, watched_writes

from finegan_aug import cli


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
@pytest.mark.fault("bad input: answered with code, cause and remedy, nothing written elsewhere")
def test_it_is_answered_in_words_and_writes_nowhere_else(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line, out = case.make(tmp_path), tmp_path / "out"
    before = content_of(tmp_path, out)
    with watched_writes() as seen:
        code = cli.main(line)
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    cause, remedy = (text.replace("FOLDER", str(tmp_path)) for text in (case.cause, case.remedy))
    if code:
        answer = [text for text in said.err.splitlines() if not text.startswith("warning: ")]
        assert [text.split(": ")[0] for text in answer] == ["error", "fix"]
        found = [(answer[0].removeprefix("error: "), answer[1].removeprefix("fix: "))]
    else:
        found = [tuple(text.rsplit("; ", 1)) if remedy else (text, "") for text in said.out.splitlines()]
    assert code == case.code
    assert any(re.fullmatch(cause, pair[0]) and pair[1] == remedy for pair in found), found
    assert outside(seen, out) == []
    assert content_of(tmp_path, out) == before
    left = sorted(os.listdir(out)) if out.exists() else []
    assert tuple(name for name in left if name != ".lock") == case.leaves


def test_every_case_has_a_name_of_its_own() -> None:
    assert len({case.id for case in CASES}) == len(CASES) >= 60


@pytest.mark.parametrize("way", ["open", "append", "os.open", "rename", "remove", "mkdir", "rmdir", "symlink", "save"])
def test_the_guard_sees_what_is_written_outside(way: str, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("")
    (tmp_path / "empty").mkdir()
    ways = {
        "open": lambda: (tmp_path / "a").write_text(""),
        "append": lambda: open(tmp_path / "there", "a").close(),
        "os.open": lambda: os.close(os.open(tmp_path / "a", os.O_CREAT | os.O_WRONLY)),
        "rename": lambda: os.replace(tmp_path / "there", tmp_path / "a"),
        "remove": lambda: (tmp_path / "there").unlink(),
        "mkdir": lambda: (tmp_path / "a").mkdir(),
        "rmdir": lambda: (tmp_path / "empty").rmdir(),
        "symlink": lambda: (tmp_path / "a").symlink_to("there"),
        "save": lambda: np.save(tmp_path / "a.npy", np.zeros(1)),
    }
    with watched_writes() as seen:
        (tmp_path / "there").read_text()
        os.listdir(tmp_path)
        ways[way]()
    assert outside(seen, tmp_path / "out")
    assert outside(seen, tmp_path) == []


@pytest.mark.slow
@pytest.mark.fault("bad input: answered with code, cause and remedy, nothing written elsewhere")
def test_a_training_with_quarantine_leaves_the_bad_image_out_lists_it_and_writes_nowhere_else(tmp_path: Path) -> None:
    root = photographs(tmp_path / "photos")
    (root / "ant" / "bad.png").write_bytes(b"")
    line = train(tmp_path, root, "--on-bad-image", "quarantine", "--total-kimg", "0.008", "--batch-size", "8")
    size = "--width 0.05 --ndf 4 --z-dim 8 --num-parents 2 --precision fp32"
    before = content_of(root)
    with watched_writes() as seen:
        assert cli.main([*line, *size.split()]) == 0
    header, *rows = map(json.loads, (tmp_path / "out" / "data.jsonl").read_text().splitlines())
    bad = "E101 ant/bad.png: the file is empty; restore the file from its source or remove it"
    assert header["problems"] == [bad]
    assert len(rows) == 2 * PER_CLASS
    assert not any(row["path"] == "ant/bad.png" for row in rows)
    assert content_of(root) == before
    # torch makes an empty folder for the compiler when its optimisers are first imported, whether it compiles or not.
    torchs_own = [path for path in outside(seen, tmp_path / "out") if path.name.startswith("torchinductor_")]
    assert outside(seen, tmp_path / "out", *torchs_own) == []
    assert not any(path.parent.name.startswith("torchinductor_") for path in seen)

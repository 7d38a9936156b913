"""Checkpoints whose hashes are right and whose contents are not: refused like damage, and an older one is used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from finegan_aug.checkpoint import (
    _manifest,
    best_checkpoint,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
    verify_run,
)
from finegan_aug.errors import CheckpointError


def forged(run: Path, file: str, content: bytes) -> Path:
    """A good checkpoint at step 8, and one at step 16 with another file under a hash that fits."""
    for step in (8, 16):
        save_checkpoint(run, step=step, tensors={"model": {"w": torch.ones(3)}}, state={"seen_images": step})
    folder = run / "checkpoints" / "step-000000016"
    (folder / file).write_bytes(content)
    files = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "manifest.json"}
    (folder / "manifest.json").write_bytes(_manifest(files))
    return folder


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (b"[]", "state.json: no step in it"),
        (b"8", "state.json: no step in it"),
        (b"", "state.json: no step in it"),
        (b"\xff\xfe", "state.json: no step in it"),
        (b"[" * 100_000, "state.json: no step in it"),
        (b'{"step": "16"}', "state.json: no step in it"),
        (b'{"step": null}', "state.json: no step in it"),
        (b'{"step": 16.0}', "state.json: no step in it"),
        (b'{"step": true}', "state.json: no step in it"),
        (b'{"schema": 1}', "state.json: no step in it"),
        (b'{"step": 0}', "state.json: step 0 in a folder of another name"),
        (b'{"step": 12, "schema": 1}', "state.json: step 12 in a folder of another name"),
        (b'{"step": -16, "schema": 1}', "state.json: step -16 in a folder of another name"),
    ],
)
@pytest.mark.fault("checkpoints: contents that fit their hashes and nothing else")
def test_a_state_without_its_step_is_damage_and_the_checkpoint_before_is_used(
    tmp_path: Path, content: bytes, fact: str
) -> None:
    folder = forged(tmp_path, "state.json", content)
    with pytest.raises(CheckpointError, match=f"is damaged: {re.escape(fact)}"):
        load_checkpoint(folder)
    with pytest.warns(RuntimeWarning, match=re.escape(f"step-000000016 is damaged and not used: {fact}")):
        assert latest_checkpoint(tmp_path) == folder.with_name("step-000000008")
    with pytest.warns(RuntimeWarning, match="is damaged"):
        assert best_checkpoint(tmp_path) == folder.with_name("step-000000008")
    assert [line for line in verify_run(tmp_path) if line.startswith("bad")] == [f"bad step-000000016/{fact}"]


@pytest.mark.parametrize("content", [b'{"step": 16}', b'{"step": 16, "schema": null}', b'{"step": 16, "schema": [1]}'])
@pytest.mark.fault("checkpoints: contents that fit their hashes and nothing else")
def test_a_state_without_its_schema_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"must have schema 1, found (None|\[1\]); use the version that wrote it"):
        load_checkpoint(forged(tmp_path, "state.json", content))


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\x10" + bytes(7) + b'{"w": {"dtype"', b"\xff" * 64])
@pytest.mark.fault("checkpoints: contents that fit their hashes and nothing else")
def test_a_file_that_holds_no_tensors_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = forged(tmp_path, "model.safetensors", content)
    with pytest.raises(CheckpointError, match=re.escape(f"{folder / 'model.safetensors'} must hold tensors")):
        load_checkpoint(folder)


@pytest.mark.parametrize("kid", [b'"0.1"', b"null", b"[]", b"1e999", b"NaN"])
@pytest.mark.fault("checkpoints: contents that fit their hashes and nothing else")
def test_a_distance_that_is_no_number_makes_no_best_checkpoint(tmp_path: Path, kid: bytes) -> None:
    forged(tmp_path, "state.json", b'{"step": 16, "schema": 1, "kid": ' + kid + b"}")
    found = best_checkpoint(tmp_path)
    assert found is not None
    assert found.name == "step-000000016"  # the newest, measured or not
    (tmp_path / "checkpoints" / "step-000000016" / "state.json").rename(tmp_path / "away")
    with pytest.warns(RuntimeWarning, match="is damaged"):
        assert best_checkpoint(tmp_path) == found.with_name("step-000000008")


def test_a_schema_of_many_levels_is_not_printed_whole(tmp_path: Path) -> None:
    """Found by `make fuzz`."""
    folder = forged(tmp_path, "state.json", b'{"step": 16, "schema": ' + b"[" * 900 + b"]" * 900 + b"}")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    assert caught.value.cause == f"checkpoint {folder} must have schema 1, found {'[' * 80}"

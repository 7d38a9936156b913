"""A checkpoint that does not belong to the run: 13 kinds are refused and change nothing, another number of processes
is accepted with a warning.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from accelerate import Accelerator
from tiny_runs import files, tiny_config

from finegan_aug.checkpoint import Tensors, _manifest, latest_checkpoint, load_checkpoint
from finegan_aug.data.manifest import Manifest
from finegan_aug.errors import CheckpointError
from finegan_aug.identity import ensure_own
from finegan_aug.training import train
from finegan_aug.training_state import TrainingState

torch.set_num_threads(1)

# What is asked of a folder that holds another run.
SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "width": ({"width": 0.1}, "config.width: 0.05 -> 0.1"),
    "resolution": ({"network": "slim-64", "resolution": 64}, "config.resolution: 32 -> 64"),
    "codes": ({"modes_per_class": 2}, "config.num_children: 12 -> 24"),
    "parents": ({"num_parents": 3}, "config.num_parents: 4 -> 3"),
}


def swapped(part: Tensors) -> Tensors:
    """The parent discriminator's weights under the child's names and the reverse."""
    names = {"parent_d": "child_d", "child_d": "parent_d"}
    return {".".join([names.get(k.split(".")[0], k.split(".")[0]), *k.split(".")[1:]]): v for k, v in part.items()}


FIRST = "generator.child.joint.conv.weight"
TENSORS: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "missing tensor": (lambda part: {k: v for k, v in part.items() if k != FIRST}, FIRST),
    "extra tensor": (lambda part: {**part, "generator.more": torch.ones(2)}, "generator.more"),
    "renamed tensor": (lambda part: {k.replace("child.joint", "child.joined"): v for k, v in part.items()}, "joined"),
    "another dtype": (lambda part: {k: v.double() if k == FIRST else v for k, v in part.items()}, "float64"),
    "discriminators swapped": (swapped, "child_d"),
}


def rewritten(run: Path, to: Path, change: Callable[[dict[str, Tensors], dict[str, Any]], None]) -> Path:
    """A copy of the run whose checkpoint was changed by somebody who also mended the hashes."""
    run = Path(shutil.copytree(run, to / "run"))
    folder = latest_checkpoint(run)
    assert folder is not None
    tensors, state = load_checkpoint(folder)
    change(tensors, state)
    for file in folder.iterdir():
        file.unlink()
    contents = {f"{stem}.safetensors": safetensors.torch.save(part) for stem, part in tensors.items()}
    contents["state.json"] = json.dumps(state).encode()
    for name, data in {**contents, "manifest.json": _manifest(contents)}.items():
        (folder / name).write_bytes(data)
    return run


def refused(run: Path, data: Manifest, words: str, **values: Any) -> None:
    before = files(run)
    with pytest.raises(CheckpointError) as caught:
        train(tiny_config(**{"total_kimg": 0.096, **values}), data, run)
    assert words in str(caught.value)
    assert caught.value.exit_code == 4
    after = files(run)
    unchanged = {name for name in before if name not in ("status.json", "config.json")}
    assert {name: after[name] for name in unchanged} == {name: before[name] for name in unchanged}


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.fault("checkpoints: those of another run, network or format refused and nothing touched")
def test_another_network_is_refused(trained_run: Path, toy_data: Manifest, tmp_path: Path, kind: str) -> None:
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    values, words = SETTINGS[kind]
    refused(run, toy_data, words, **values)


@pytest.mark.fault("checkpoints: those of another run, network or format refused and nothing touched")
def test_other_data_are_refused(trained_run: Path, toy_data: Manifest, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    refused(run, replace(toy_data, images=toy_data.images[1:]), "data_sha256")


@pytest.mark.parametrize("kind", TENSORS)
@pytest.mark.fault("checkpoints: those of another run, network or format refused and nothing touched")
def test_another_set_of_tensors_is_refused(trained_run: Path, toy_data: Manifest, tmp_path: Path, kind: str) -> None:
    change, words = TENSORS[kind]
    run = rewritten(trained_run, tmp_path, lambda tensors, _: tensors.update(model=change(tensors["model"])))
    refused(run, toy_data, words)


@pytest.mark.parametrize("part", ["ema", "optim"])
@pytest.mark.fault("checkpoints: those of another run, network or format refused and nothing touched")
def test_a_checkpoint_without_one_of_its_parts_is_refused(
    trained_run: Path, toy_data: Manifest, tmp_path: Path, part: str
) -> None:
    """Without optimisers it was once taken for an imported one, and Adam began anew."""
    run = rewritten(trained_run, tmp_path, lambda tensors, _: tensors.__delitem__(part))
    kept = ", ".join(sorted({"ema", "model", "optim"} - {part}))
    refused(run, toy_data, f"a checkpoint must hold model, ema, optim, found {kept}; use --overwrite or another --out")


@pytest.mark.fault("checkpoints: those of another run, network or format refused and nothing touched")
def test_a_newer_format_is_refused(trained_run: Path, toy_data: Manifest, tmp_path: Path) -> None:
    run = rewritten(trained_run, tmp_path, lambda _, state: state.update(schema=2))
    refused(run, toy_data, "must have schema 1, found 2; use the version that wrote it")


@pytest.mark.fault("checkpoints: those of another run, network or format refused and nothing touched")
def test_the_checkpoint_of_another_run_is_refused_though_every_tensor_fits(
    trained_run: Path, toy_data: Manifest, tmp_path: Path
) -> None:
    other = train(tiny_config(seed=1), toy_data, tmp_path / "other")
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    shutil.rmtree(run / "checkpoints")
    shutil.copytree(other / "checkpoints", run / "checkpoints")
    refused(run, toy_data, "(config.seed: 1 -> 0)")


def test_networks_are_as_they_were_after_each_refusal(trained_run: Path) -> None:
    folder = latest_checkpoint(trained_run)
    assert folder is not None
    tensors, content = load_checkpoint(folder)
    state = TrainingState(Accelerator(), tiny_config().resolve(12))

    def digest() -> str:
        live = {name: network.state_dict() for name, network in {**state.plain, "average": state.average}.items()}
        return hashlib.sha256(
            b"".join(t.numpy().tobytes() for part in live.values() for t in part.values())
        ).hexdigest()

    before = digest()
    for change, words in TENSORS.values():
        with pytest.raises(CheckpointError, match=words):
            state.load({**tensors, "model": change(tensors["model"])}, content)
        assert digest() == before
    state.load(tensors, content)
    assert digest() != before


@pytest.mark.fault("checkpoints: another number of processes accepted with a warning")
def test_another_number_of_processes_goes_on_with_a_warning() -> None:
    settled: dict[str, Any] = {"config": tiny_config().to_json(), "data_sha256": "a"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ensure_own({"settled": settled, "processes": 2}, settled, 2)
        ensure_own(None, settled, 2)  # imported, or from before the note
    with pytest.warns(RuntimeWarning) as caught:
        ensure_own({"settled": settled, "processes": 2}, settled, 1)
    assert str(caught[0].message) == (
        "2 processes wrote the checkpoint and 1 go on: batch norm sees other groups of images, so that the run ends in "
        "slightly other numbers"
    )

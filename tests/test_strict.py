"""Strict mode: the same bits on 1, 2 and 4 processes, on CPUs with gloo."""

from __future__ import annotations

import copy
import hashlib
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from faults import held
from launched_strict import PLAIN, RUN, STEPS, runs
from tiny_runs import assert_same_run, rows, status, tiny_config
from torch import Tensor

from finegan_aug import update
from finegan_aug.checkpoint import latest_checkpoint, load_checkpoint
from finegan_aug.data.crops import build_crops
from finegan_aug.data.manifest import Manifest, write_manifest
from finegan_aug.data.stream import RealStream
from finegan_aug.errors import CheckpointError, ConfigError
from finegan_aug.identity import ensure_own, identity
from finegan_aug.models.game import Terms
from finegan_aug.randomness import normals, seed_for
from finegan_aug.sizes import check_sizes
from finegan_aug.strict import pairwise_sum, strict_update
from finegan_aug.term_sums import TermSums
from finegan_aug.training import train
from finegan_aug.training_state import TrainingState

TENSORS = {"model.safetensors", "ema.safetensors", "optim.safetensors"}


@pytest.fixture(scope="module")
def out(toy_data: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `launched_strict.py` leaves on one process, then on two, then on four."""
    folder = tmp_path_factory.mktemp("strict")
    write_manifest(toy_data, folder / "data.jsonl")
    runs(toy_data, folder)
    script = Path(__file__).with_name("launched_strict.py")
    line = [sys.executable, str(script), str(folder / "data.jsonl"), str(folder)]
    done = subprocess.run(line, capture_output=True, timeout=550, check=False)
    assert done.returncode == 0, done.stderr.decode()[-5000:]
    return folder


def bits(run: Path) -> dict[str, object]:
    """SHA-256 of networks, averaged generator and optimisers, and every line of metrics.jsonl but for its clock."""
    folder = latest_checkpoint(run)
    assert folder is not None
    hashed = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}
    assert set(hashed) == TENSORS
    return {**hashed, "step": folder.name, "rows": rows(run)}


def model_of(run: Path) -> dict[str, Tensor]:
    folder = latest_checkpoint(run)
    assert folder is not None
    return load_checkpoint(folder)[0]["model"]


@pytest.mark.slow
@pytest.mark.sockets
@pytest.mark.fault
def test_1_2_and_4_processes_end_in_the_same_bits(out: Path) -> None:
    expected = bits(out / "strict-1")
    assert expected["step"] == f"step-{STEPS:09d}"
    found = [bits(out / f"strict-{processes}") for processes in (2, 4)]
    held("same bits: strict mode, 1 process against 2 and 4", sum(each == expected for each in found), 2)


@pytest.mark.slow
@pytest.mark.sockets
@pytest.mark.fault
def test_a_run_that_1_process_begins_2_go_on_with_and_4_end_has_the_bits_of_one_that_nobody_stopped(out: Path) -> None:
    """Each was stopped by a signal to its last process, between two log lines; warnings were errors."""
    assert status(out / "chain")["state"] == "done"
    same = bits(out / "chain") == bits(out / "strict-1")
    held("same bits: strict mode, going on with other numbers of processes", int(same), 1)


@pytest.mark.slow
@pytest.mark.sockets
def test_a_shard_that_is_not_finite_sets_all_processes_back_alike(out: Path) -> None:
    expected = bits(out / "set-back-1")
    folder = latest_checkpoint(out / "set-back-2")
    assert folder is not None
    assert load_checkpoint(folder)[1]["rollbacks"] == 1
    assert expected["rows"] != rows(out / "strict-1")
    assert bits(out / "set-back-2") == expected


@pytest.mark.slow
@pytest.mark.sockets
@pytest.mark.fault
def test_two_plain_processes_learn_the_bits_of_one_with_two_shards(
    out: Path, toy_data: Manifest, tmp_path: Path
) -> None:
    """DDP there, a loop here. Only running statistics of the discriminators and logged means are summed otherwise."""
    run = train(tiny_config(**PLAIN, shards=2), toy_data, tmp_path / "run")
    found, expected = bits(run), bits(out / "plain-2")
    parts = ("ema.safetensors", "optim.safetensors")
    held(
        "same bits: two plain processes against one with two shards",
        sum(found[part] == expected[part] for part in parts),
        2,
    )
    weights, others = model_of(run), model_of(out / "plain-2")
    assert {name for name, tensor in weights.items() if not torch.equal(tensor, others[name])} <= {
        name for name in weights if "running" in name and not name.startswith("generator")
    }
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    for row, other in zip(rows(run), rows(out / "plain-2"), strict=True):
        assert row == pytest.approx(other, rel=1e-5)


@pytest.mark.slow
@pytest.mark.sockets
def test_the_first_update_of_four_plain_processes_is_that_of_one_with_four_shards_but_for_rounding(
    out: Path, toy_data: Manifest, tmp_path: Path
) -> None:
    """DDP sums four gradients in an order of its own; the updates after it amplify the difference."""
    first = PLAIN | {"shards": 4, "total_kimg": 0.008, "hard_negative_kimg": 0.0}
    run = train(tiny_config(**first), toy_data, tmp_path / "run")
    assert rows(run)[0] == pytest.approx(rows(out / "plain-4")[0], rel=1e-5)
    assert rows(run)[0] != pytest.approx(rows(out / "plain-2")[0], rel=1e-3)


@pytest.mark.slow
def test_one_shard_on_one_process_is_a_plain_run_bit_for_bit(toy_data: Manifest, tmp_path: Path) -> None:
    config = tiny_config(**RUN | {"precision": "bf16"})
    whole, run = (train(replace(config, shards=n), toy_data, tmp_path / f"shards-{n}") for n in (0, 1))
    assert_same_run(run, whole)


@pytest.mark.parametrize("values", [{"d_norm": "batch"}, {"labels": "discovered", "num_children": 16}], ids=str)
def test_gradients_and_buffers_are_the_means_over_shards(
    toy_data: Manifest, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]
) -> None:
    """Reference: a copy of the networks for each shard, and means taken by hand."""
    config = tiny_config(**values, shards=4).resolve(12)
    accelerator = Accelerator()
    crops = build_crops(toy_data, resolution=32, boxes="given")
    stream, state = RealStream(config, crops, crops.labels), TrainingState(accelerator, config)
    copies = [copy.deepcopy(state.game) for _ in range(4)]
    shards = [range(8 * 3 + first, 8 * 3 + first + 2) for first in (0, 2, 4, 6)]  # of the fourth update
    found: list[list[Tensor]] = []

    def noted(optimizer: torch.optim.Optimizer) -> Tensor:
        found.append([p.grad.clone() for p in optimizer.param_groups[0]["params"]])
        return torch.zeros(())

    monkeypatch.setattr(update, "gradient_norm", noted)
    terms = strict_update(accelerator, state, stream, 3)

    fakes = [game.forward(*game.sample_codes(shard), shard) for game, shard in zip(copies, shards, strict=True)]
    lost: list[Terms] = []
    for game, shard, fake in zip(copies, shards, fakes, strict=True):
        lost.append(game.discriminator_losses(stream.batch(shard), fake, 3))
        sum(lost[-1].values()).backward()
    expected = [mean_gradients([game.discriminator_networks() for game in copies])]
    for game in copies:  # what the first half learned, from the update itself
        for network, learned in zip(game.discriminator_networks(), state.game.discriminator_networks(), strict=True):
            for parameter, value in zip(network.parameters(), learned.parameters(), strict=True):
                parameter.data.copy_(value)
    for game, fake, d_terms in zip(copies, fakes, lost, strict=True):
        with game.frozen_discriminators():
            d_terms |= game.generator_losses(fake)
            sum(value for name, value in d_terms.items() if name.startswith("g_")).backward()
    expected.append(mean_gradients([game.generator_networks() for game in copies]))
    assert [len(half) for half in found] == [len(half) for half in expected]
    for half, by_hand in zip(found, expected, strict=True):
        for gradient, value in zip(half, by_hand, strict=True):
            torch.testing.assert_close(gradient, value, rtol=1e-4, atol=1e-6)
    for name, network in state.game.networks().items():
        for key, buffer in network.named_buffers():
            each = [dict(game.networks()[name].named_buffers())[key] for game in copies]
            mean = torch.stack(each).double().mean(dim=0)
            torch.testing.assert_close(buffer.double(), mean, rtol=1e-5, atol=1e-6, msg=lambda m, k=key: f"{k}: {m}")
    for name, value in terms.items():
        if not name.startswith("grad_norm"):
            assert float(value) == pytest.approx(sum(each[name].item() for each in lost) / 4, rel=1e-5), name


def mean_gradients(networks: list[list[torch.nn.Module]]) -> list[Tensor]:
    """Of several copies of networks, parameter by parameter."""
    each = [[p.grad for network in copied for p in network.parameters()] for copied in networks]
    return [torch.stack(same).mean(dim=0) for same in zip(*each, strict=True)]


def test_rows_are_summed_neighbours_first() -> None:
    a, b, c, d = rows_of_four = torch.tensor([[1e8, 1.0], [1.0, 2.0], [-1e8, 3.0], [1.0, 4.0]])
    assert pairwise_sum(list(rows_of_four.clone())).tolist() == ((a + b) + (c + d)).tolist() == [0.0, 10.0]
    assert pairwise_sum([a]) is a


@pytest.mark.parametrize("processes", [1, 2, 4, 8, 16])
def test_sums_of_processes_are_summed_to_the_bits_of_the_whole(processes: int) -> None:
    rows_of_16 = torch.from_numpy(normals(seed_for(0, "rows"), range(16), 500)).float()
    parts = [pairwise_sum(list(part.clone())) for part in rows_of_16.chunk(processes)]
    whole = pairwise_sum(list(rows_of_16.clone()))
    assert torch.equal(pairwise_sum(parts), whole)
    torch.testing.assert_close(whole, rows_of_16.double().sum(dim=0).float(), rtol=1e-5, atol=1e-5)


def test_another_number_of_threads_goes_on_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    settled: dict[str, Any] = {"config": tiny_config(shards=4).to_json()}
    noted = identity(settled, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ensure_own(noted, settled, 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    with pytest.warns(RuntimeWarning) as caught:
        ensure_own(noted, settled, 1)
    assert str(caught[0].message) == (
        "a process had threads = 1 when it wrote the checkpoint and has 7 now: strict mode has the same bits for one "
        "number of threads only; set OMP_NUM_THREADS"
    )


class Alone:
    """Stands for an accelerator and must not be asked for anything."""


def test_terms_that_are_alike_are_neither_summed_nor_kept_for_each_process() -> None:
    """Sums of three or more equal numbers can be rounded, and depend on how many there are."""
    sums, again = TermSums(alike=True), TermSums(alike=True)
    sums.add({"a": torch.tensor(0.1), "b": torch.tensor(2.0)})
    pending = sums.pending(cast(Accelerator, Alone()), 8, {})
    assert pending == {"names": ["a", "b"], "count": 1, "totals": [[torch.tensor(0.1).item(), 2.0]]}
    again.restore(pending, Accelerator())
    for each in (sums, again):
        each.add({"a": torch.tensor(0.3), "b": torch.tensor(3.0)})
    assert sums.mean(cast(Accelerator, Alone()), 16, {}) == again.mean(cast(Accelerator, Alone()), 16, {})


@pytest.mark.parametrize(("shards", "batch"), [(3, 12), (-2, 8), (8, 12), (8, 8), (6, 24)])
def test_shards_that_do_not_cut_the_batch_are_refused(shards: int, batch: int) -> None:
    words = (
        "shards must be 0 or a power of two that divides batch_size into parts of 2 images or more, "
        f"got {shards} for batch_size {batch}; change --shards or --batch_size, or drop --shards"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(words)}$"):
        tiny_config(shards=shards, batch_size=batch)


@pytest.mark.parametrize("processes", [3, 8])
def test_processes_that_do_not_divide_the_shards_are_refused(processes: int) -> None:
    config = tiny_config(shards=4, batch_size=24).resolve(12)
    for dividing in (1, 2, 4):
        check_sizes(config, dividing, 48)
    words = (
        f"strict mode needs a number of processes that divides shards = 4, got {processes}; "
        "launch another number of them or change --shards"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(words)}$"):
        check_sizes(config, processes, 48)


def test_what_looks_at_several_images_needs_them_in_a_shard() -> None:
    config = tiny_config(shards=2, batch_deviation=4).resolve(12)
    check_sizes(config, 1, 48)
    words = "the images of a shard must be a multiple of batch_deviation = 4, got 2; change --batch_size or --batch"
    with pytest.raises(ConfigError, match=words):
        check_sizes(replace(config, shards=4), 1, 48)
    for shards, part, share in ((4, "shard", 2), (0, "process", 8)):
        few = replace(config, shards=shards, batch_deviation=0, free_parent_share=0.2)
        words = (
            f"free_parent_share must draw 2 of the {share} images of a {part} or more, got 0.2; "
            "raise --free_parent_share or set it to 0"
        )
        with pytest.raises(ConfigError, match=f"^{re.escape(words)}$"):
            check_sizes(few, 1, 48)


@pytest.mark.slow
def test_another_number_of_shards_is_another_run(toy_data: Manifest, tmp_path: Path) -> None:
    train(tiny_config(total_kimg=0.008, shards=2), toy_data, tmp_path)
    with pytest.raises(CheckpointError, match=r"config\.shards: 2 -> 4\); use --overwrite or another --out"):
        train(tiny_config(shards=4), toy_data, tmp_path)

"""The hard-negative phase: what it draws against a loop, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from test_training import at_row
from tiny_runs import BATCH, assert_same_run, rows, tiny_config
from torch import Tensor, nn

from finegan_aug.config import FineGANConfig
from finegan_aug.data.folder import load_data
from finegan_aug.data.manifest import Manifest
from finegan_aug.data.toy import write_toy
from finegan_aug.hard_negatives import hardest, mines
from finegan_aug.models.game import FineGAN
from finegan_aug.randomness import seed_for
from finegan_aug.training import train
from finegan_aug.training_state import TrainingState

torch.set_num_threads(1)

CPU = torch.device("cpu")
PHASE = {"hard_negative_kimg": 0.032}  # of 0.08: updates 6 to 9, of which 7 and 9 mine
GAMES: list[dict[str, Any]] = [
    {"labels": "discovered", "num_children": 16, "d_norm": "batch", "balanced_codes": False},
    {"d_norm": "group"},
    {"boxes": "none", "d_norm": "batch"},
    {"batch_deviation": 4},
]


def make_game(**values: Any) -> FineGAN:
    game = FineGAN(tiny_config(**values).resolve(12))
    for network in game.networks().values():
        network.train()
    return game


def tensors(networks: dict[str, nn.Module]) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": tensor.clone()
        for name, network in networks.items()
        for key, tensor in network.state_dict().items()
    }


def test_the_phase_begins_with_an_ordinary_update_and_every_second_one_mines() -> None:
    """The official count begins at 0, and its odd numbers mine."""
    config = tiny_config(**PHASE)
    assert [step for step in range(10) if mines(config, step)] == [7, 9]
    assert not [step for step in range(10) if mines(tiny_config(), step)]
    classic = FineGANConfig.preset("classic")
    first = 600 * 736
    assert not [step for step in (0, 1, 735, first - 1, first) if mines(classic, step)]
    updates = range(first, -(-round(classic.total_kimg * 1000) // 16))
    assert [step for step in updates if mines(classic, step)] == [*range(first + 1, first + 738, 2)]


@pytest.mark.parametrize("values", GAMES, ids=str)
def test_the_hardest_samples_are_those_of_a_plain_loop(values: dict[str, Any]) -> None:
    """Reference: ten batches one after another, probabilities by softmax, and Python's sort."""
    game = make_game(**values)
    positions = range(40, 48)
    z, child = game.sample_codes(range(400, 480), seed_for(0, "hard negatives"))
    probabilities = []
    with torch.no_grad():
        for k in range(0, 80, 8):
            stages = game.forward(z[k : k + 8], child[k : k + 8], range(400 + k, 408 + k)).stages
            picture = stages.child if values.get("boxes") == "none" else stages.child_foreground
            logits = game.info(game.child_d.trunk(stages.child_mask * picture))
            softmax = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
            probabilities += [softmax[n, code].item() for n, code in enumerate(child[k : k + 8].tolist())]
    order = sorted(range(80), key=lambda i: probabilities[i])[:8]
    found_z, found_child = hardest(game, positions, CPU)
    assert found_child.dtype == torch.int64
    assert torch.equal(found_child, child[order])
    assert torch.equal(found_z, z[order])
    assert len({i // 8 for i in order}) > 1  # from several of the ten


@pytest.mark.parametrize("values", GAMES, ids=str)
def test_mining_moves_neither_weights_nor_statistics_and_leaves_no_gradient(values: dict[str, Any]) -> None:
    game = make_game(**values)
    before = tensors(game.networks())
    z, _ = hardest(game, range(8), CPU)
    after = tensors(game.networks())
    assert any(name.endswith("running_mean") for name in before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not z.requires_grad
    for network in game.networks().values():
        assert network.training
        assert all(parameter.grad is None for parameter in network.parameters())


def test_statistics_are_put_back_also_when_mining_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    game = make_game(d_norm="batch")
    before = tensors(game.networks())

    def broken(*_: object) -> Tensor:
        raise MemoryError

    monkeypatch.setattr(FineGAN, "code_surprisal", broken)
    with pytest.raises(MemoryError):
        hardest(game, range(8), CPU)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(game.networks()).items())


def test_each_process_mines_candidates_of_its_own_that_no_ordinary_update_draws() -> None:
    game = make_game()

    def drawn(z: Tensor) -> set[tuple[float, ...]]:
        return {tuple(row) for row in z.tolist()}

    def candidates(numbers: range) -> set[tuple[float, ...]]:
        return drawn(game.sample_codes(numbers, seed_for(0, "hard negatives"))[0])

    first, second = (hardest(game, positions, CPU)[0] for positions in (range(8, 12), range(12, 16)))
    assert drawn(first) <= candidates(range(80, 120))
    assert drawn(second) <= candidates(range(120, 160))
    assert not candidates(range(80, 120)) & candidates(range(120, 160))
    assert not candidates(range(80, 160)) & drawn(game.sample_codes(range(160))[0])
    assert torch.equal(hardest(game, range(8, 12), CPU)[0], first)


def test_half_precision_mines_and_the_update_that_follows_still_learns() -> None:
    """Weights that autocast converts without gradient must not be kept for the update."""
    game = make_game(precision="bf16", ndf=8)
    z, child = hardest(game, range(8), CPU)
    assert z.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        terms = game.generator_losses(game.forward(z, child, range(8)))
    torch.stack(list(terms.values())).sum().backward()
    for name, parameter in game.generator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_the_generator_takes_its_average_and_its_optimiser_goes_on() -> None:
    state = TrainingState(Accelerator(), tiny_config().resolve(12))
    game, optimizer = state.game, state.optimizers["g"]
    terms = game.generator_losses(game.forward(*game.sample_codes(range(8)), range(8)))
    torch.stack(list(terms.values())).sum().backward()
    optimizer.step()

    def moments() -> dict[str, Tensor]:
        return {f"{i}": entry["exp_avg"].clone() for i, entry in optimizer.state_dict()["state"].items()}

    def same(some: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
        return some.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in some.items())

    others = {name: network for name, network in state.plain.items() if name != "generator"}
    before, average, momentum = tensors(others), tensors({"generator": state.average}), moments()
    assert not same(tensors({"generator": game.generator}), average)
    state.take_average()
    assert same(tensors({"generator": game.generator}), average)
    assert same(tensors({"generator": state.average}), average)
    assert same(tensors(others), before)
    assert same(moments(), momentum)
    assert all(parameter.requires_grad for parameter in game.generator.parameters())


@pytest.fixture(scope="module")
def phase_run(tmp_path_factory: pytest.TempPathFactory, toy_data: Manifest) -> Path:
    """Ten updates, four of them in the phase, undisturbed."""
    return train(tiny_config(**PHASE), toy_data, tmp_path_factory.mktemp("runs") / "phase")


def test_training_is_as_ever_before_the_phase_and_another_in_it(
    trained_run: Path, phase_run: Path, toy_data: Manifest, tmp_path: Path
) -> None:
    ordinary, found = rows(trained_run), rows(phase_run)
    assert found[:6] == ordinary[:6]
    assert found[6] != ordinary[6]  # from the averaged generator
    live = rows(train(tiny_config(**PHASE, hard_negative_from_ema=False), toy_data, tmp_path / "live"))
    assert live[:7] == ordinary[:7]
    assert live[7]["child_real"] != found[7]["child_real"]
    for term in ("g_child_code", "child_fake"):
        assert live[7][term] != ordinary[7][term]


@pytest.mark.parametrize("row", [6, 7, 8, 9, 10])
def test_a_run_that_breaks_off_before_at_or_in_the_phase_equals_an_undisturbed_one(
    phase_run: Path, toy_data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: int
) -> None:
    """Also it takes the average once, at the beginning of the phase, however often it is resumed."""
    taken: list[int] = []
    take = TrainingState.take_average

    def counted(self: TrainingState) -> None:
        taken.append(row)
        take(self)

    monkeypatch.setattr(TrainingState, "take_average", counted)
    config = tiny_config(**PHASE, checkpoint_kimg=0.008)

    def fall_over() -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as context:
        at_row(context, row, fall_over)  # before this update is saved
        with pytest.raises(RuntimeError, match="power cut"):
            train(config, toy_data, tmp_path)
    assert json.loads((tmp_path / "status.json").read_text())["seen_images"] == BATCH * (row - 1)
    before = len(taken)
    train(config, toy_data, tmp_path)
    assert_same_run(tmp_path, phase_run)
    # The seventh update itself is made twice if it was lost, and begins the phase both times.
    assert (before, len(taken) - before) == {6: (0, 1), 7: (1, 1)}.get(row, (1, 0))


@pytest.mark.slow
def test_preset_classic_trains_with_every_official_option(tmp_path: Path) -> None:
    """The narrow official network on 128 px: four updates, of which the last one mines."""
    toy = write_toy(tmp_path / "toy", resolution=128, num_train=24, num_test=12)
    small = {"width": 0.125, "ndf": 8, "z_dim": 4, "num_children": 3, "num_parents": 2, "precision": "fp32"}
    short = {"batch_size": 4, "total_kimg": 0.016, "hard_negative_kimg": 0.008, "log_kimg": 0.004}
    config = FineGANConfig.preset("classic", official_crops=True, **small, **short)
    assert [step for step in range(4) if mines(config, step)] == [3]
    run = train(config, load_data(toy / "train", boxes=toy / "train_boxes.csv"), tmp_path / "run")
    assert [row["seen_images"] for row in rows(run)] == [4, 8, 12, 16]

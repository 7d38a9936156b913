"""The averaged generator."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from finegan_aug.config import FineGANConfig
from finegan_aug.ema import averaged_copy, ema_decay, update_ema

torch.set_num_threads(1)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def weight_left(batch: int, halflife: float, images: int) -> float:
    """Share of the start that is left in an average after so many images, by running it."""
    start, now = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.ones_(start.weight)
    nn.init.zeros_(now.weight)
    average = averaged_copy(start.double())
    for seen in range(batch, images + 1, batch):
        update_ema(average, now.double(), ema_decay(batch, seen, halflife, None))
    return average.weight.item()


@pytest.mark.parametrize("batch", [1, 8, 16, 96])
def test_the_weight_of_the_past_halves_after_the_half_life_at_any_batch_size(batch: int) -> None:
    assert weight_left(batch, 960, 960) == pytest.approx(0.5)
    assert weight_left(batch, 960, 3 * 960) == pytest.approx(0.125)


def test_the_classic_half_life_is_the_official_decay_at_the_official_batch_size() -> None:
    classic = FineGANConfig.preset("classic")
    decay = ema_decay(16, 16, classic.ema_halflife_kimg * 1000, classic.ema_ramp)
    assert decay == pytest.approx(0.999, abs=1e-6)


def test_the_ramp_shortens_the_half_life_at_first() -> None:
    assert ema_decay(32, 1000, 11_000, 0.05) == pytest.approx(0.5 ** (32 / 50))
    assert ema_decay(32, 220_000, 11_000, 0.05) == pytest.approx(0.5 ** (32 / 11_000))
    assert ema_decay(32, 1_000_000, 11_000, 0.05) == pytest.approx(0.5 ** (32 / 11_000))
    assert ema_decay(32, 1000, 11_000, None) == pytest.approx(0.5 ** (32 / 11_000))
    assert ema_decay(32, 0, 11_000, 0.05) == 0  # nothing seen: the average is the network


def test_parameters_and_floating_buffers_are_averaged_and_counters_copied() -> None:
    now, average = network(), averaged_copy(network())
    before = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    now(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)))  # moves the running statistics
    live = {name: tensor.clone() for name, tensor in now.state_dict().items()}
    update_ema(average, now, 0.75)
    for name, tensor in average.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert (before[name].item(), tensor.item()) == (0, 1)
        else:
            torch.testing.assert_close(tensor, 0.75 * before[name] + 0.25 * live[name])
    assert not torch.equal(before["1.running_mean"], average.state_dict()["1.running_mean"])
    for name, tensor in now.state_dict().items():
        torch.testing.assert_close(tensor, live[name], rtol=0, atol=0)  # the trained network stands still


def test_the_copy_shares_nothing_and_takes_part_in_no_gradient() -> None:
    now = network().train()
    average = averaged_copy(now)
    assert now.training
    assert not average.training
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert all(parameter.requires_grad for parameter in now.parameters())
    with torch.no_grad():
        now[0].weight.add_(1)
    torch.testing.assert_close(now[0].weight.detach() - average[0].weight, torch.ones(4, 3))

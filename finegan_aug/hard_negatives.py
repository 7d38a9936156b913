"""The hard-negative phase: every other update learns from generated objects whose code is hardest to read.

After the last epoch of kkanshul/finegan code/trainer.py. It is importance sampling: codes and noise that give objects
of no clear kind are drawn more often. Positions of the run decide what is drawn, so nothing of it is saved.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from finegan_aug.config import FineGANConfig
from finegan_aug.models.game import FineGAN
from finegan_aug.randomness import seed_for

CANDIDATES = 10  # drawn for each one that is kept


def mines(config: FineGANConfig, step: int) -> bool:
    """Whether this update, counted from 0, learns from hard samples: the second of the phase, the fourth, ..."""
    within = step - config.hard_negative_step
    return within > 0 and within % 2 == 1


@torch.no_grad()
def hardest(game: FineGAN, positions: range, device: torch.device) -> tuple[Tensor, Tensor]:
    """The N of 10 N fresh samples whose own code gets the lowest probability, hardest first.

    All networks stay in training mode and see N samples at a time, so that batch norm has the statistics of training;
    the running ones are put back. With several processes each mines its own share: the hardest N of its 10 N.

    Args:
        game: in training mode, on `device`.
        positions: N places in the stream of fakes that these samples take; they decide the draws.
        device: where to compute.

    Returns:
        Noise float32 [N, z_dim] and child codes int64 [N] on `device`.
    """
    config, count = game.config, len(positions)
    numbers = range(CANDIDATES * positions.start, CANDIDATES * positions.stop)
    z, child = (t.to(device) for t in game.sample_codes(numbers, seed_for(game.noise_seed, "hard negatives")))
    surprisal = []
    # An autocast of its own: torch 2.9 keeps weights that were cast without gradient until it is left, and the
    # update would not teach them (pytorch issue 112583).
    with (
        torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"),
        _buffers_put_back(game.generator, game.child_d, game.info),
    ):
        for first in range(0, len(numbers), count):
            part = slice(first, first + count)
            surprisal.append(game.code_surprisal(game.forward(z[part], child[part], numbers[part])))
    chosen = torch.cat(surprisal).sort(descending=True, stable=True).indices[:count]
    return z[chosen], child[chosen]


@contextmanager
def _buffers_put_back(*networks: nn.Module) -> Iterator[None]:
    # By .data: in strict mode graphs of other images wait, and to put a buffer back is no change to them.
    buffers = [buffer.data for network in networks for buffer in network.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)

"""Strict mode: the same bits on 1, 2, 4, ... processes.

The batch is cut into `config.shards` parts, however many processes there are, and each process plays its share of
them one after another. A shard is what a process is in plain training: batch norm, the spread of neighbours, hard
samples and the mean of every loss term belong to its images alone. Gradients, buffers and terms are summed in one
order, neighbouring shards first: their number is a power of two, so a process sums its own, and one sum of it travels.

Networks are not wrapped by DDP, which sums in an order of its own. The generator's graphs wait for its half of the
update; those of all shards of a process take no more memory than in plain training. On top come gradients: a copy for
each shard of the process, and two for each process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor

from finegan_aug.data.stream import RealBatch, RealStream
from finegan_aug.models.fake_batch import FakeBatch
from finegan_aug.models.game import Terms
from finegan_aug.training_state import TrainingState
from finegan_aug.update import play_discriminators, play_generator, take_step

Shard = TypeVar("Shard")


def strict_update(accelerator: Accelerator, state: TrainingState, stream: RealStream, step: int) -> Terms:
    """A step of both optimisers, as `plain_update`; all processes take the same one and return the same terms."""
    config = state.game.config
    size = config.batch_size // config.shards
    share = config.batch_size // accelerator.num_processes
    first = step * config.batch_size + accelerator.process_index * share
    readers = [p for network in state.game.code_readers() for p in network.parameters()]
    played: list[tuple[RealBatch, FakeBatch, list[Tensor | None]]] = []

    def discriminators(positions: range) -> Terms:
        real, fake, terms = play_discriminators(accelerator, state, stream, positions, step)
        # What the class of real crops leaves in the readers of codes waits for the generator's half of this shard.
        played.append((real, fake, [p.grad for p in readers]))
        for parameter in readers:
            parameter.grad = None
        return terms

    def generator(shard: tuple[RealBatch, FakeBatch, list[Tensor | None]]) -> Terms:
        real, fake, waiting = shard
        for parameter, gradient in zip(readers, waiting, strict=True):
            parameter.grad = gradient
        return play_generator(accelerator, state, real, fake)

    shards = [range(start, start + size) for start in range(first, first + share, size)]
    d_terms = _mean_over_shards(accelerator, state, "d", discriminators, shards)
    d_norm = take_step(state.optimizers["d"])
    g_terms = _mean_over_shards(accelerator, state, "g", generator, played)
    g_norm = take_step(state.optimizers["g"])
    return {**d_terms, **g_terms, "grad_norm_d": d_norm, "grad_norm_g": g_norm}


def _mean_over_shards(
    accelerator: Accelerator,
    state: TrainingState,
    player: str,
    play: Callable[[Shard], Terms],
    shards: Sequence[Shard],
) -> Terms:
    """Plays each shard from the same buffers; leaves the means of gradients and buffers over the shards of all
    processes, and returns that of the terms.

    Args:
        player: whose gradients, "d" or "g".
        play: leaves the gradients of one shard.
        shards: of this process.
    """
    optimizer = state.optimizers[player]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    # By .data: to put a buffer back is no change to the graphs that wait, which hold statistics of their own.
    buffers = [buffer.data for network in state.plain.values() for buffer in network.buffers()]
    before = [buffer.clone() for buffer in buffers]
    rows = []
    for shard in shards:
        torch._foreach_copy_(buffers, before)
        optimizer.zero_grad(set_to_none=True)
        terms = play(shard)
        values = [torch.stack([term.detach().float() for term in terms.values()])]
        values += [buffer for buffer in buffers if buffer.is_floating_point()]  # a count is the same after any shard
        values += [p.grad for p in parameters if p.grad is not None]
        rows.append(torch.cat([value.flatten() for value in values]))
    sums = accelerator.gather(pairwise_sum(rows)[None])
    mean = pairwise_sum(list(sums)) / state.game.config.shards
    for value, part in zip(values, torch.split(mean, [value.numel() for value in values]), strict=True):
        value.copy_(part.view_as(value))
    return dict(zip(terms, values[0].unbind(), strict=True))


def pairwise_sum(rows: Sequence[Tensor]) -> Tensor:
    """The sum of 2**k tensors of one shape, neighbours first; overwrites them.

    Sums of equal parts of the rows, summed in the same way, give the same bits.
    """
    while len(rows) > 1:
        rows = [a.add_(b) for a, b in zip(rows[0::2], rows[1::2], strict=True)]
    return rows[0]

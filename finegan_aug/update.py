"""One update of both players: what the training loop repeats.

Everything that is drawn follows from the seed and the places in the stream that a part of the batch takes.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor

from finegan_aug.data.stream import RealBatch, RealStream
from finegan_aug.hard_negatives import hardest, mines
from finegan_aug.losses import gradient_norm
from finegan_aug.models.fake_batch import FakeBatch
from finegan_aug.models.game import Terms
from finegan_aug.training_state import TrainingState


def plain_update(accelerator: Accelerator, state: TrainingState, stream: RealStream, step: int) -> Terms:
    """A step of both optimisers; each process plays its part of the batch, and DDP takes the mean of the gradients.

    Args:
        state: networks, buffers and optimisers, all of them changed.
        stream: of real images.
        step: number of the update, from 0.

    Returns:
        Loss terms and gradient norms, scalars; the terms are those of this process.
    """
    batch = state.game.config.batch_size
    share = batch // accelerator.num_processes
    first = step * batch + accelerator.process_index * share
    real, fake, d_terms = play_discriminators(accelerator, state, stream, range(first, first + share), step)
    d_norm = take_step(state.optimizers["d"])
    g_terms = play_generator(accelerator, state, real, fake)
    g_norm = take_step(state.optimizers["g"])
    state.average_buffers(accelerator)
    return {**d_terms, **g_terms, "grad_norm_d": d_norm, "grad_norm_g": g_norm}


def play_discriminators(
    accelerator: Accelerator, state: TrainingState, stream: RealStream, positions: range, step: int
) -> tuple[RealBatch, FakeBatch, Terms]:
    """Gradients of the discriminators, on these places in the stream: real images, noise, codes, one generator forward.

    The child discriminator's class of real crops leaves gradients in what reads codes too, which is the generator's.
    """
    game, device = state.game, accelerator.device
    real = stream.batch(positions)
    # In the hard-negative phase every other draw is a choice.
    z, child = hardest(game, positions, device) if mines(game.config, step) else game.sample_codes(positions)
    with torch.autocast(device.type, torch.bfloat16, enabled=game.config.precision == "bf16"):
        fake = game.forward(z.to(device), child.to(device), positions)
        with state.waiting_readers(accelerator):
            terms = game.discriminator_losses(real, fake, step)
    accelerator.backward(_total(terms))
    return real, fake, terms


def play_generator(accelerator: Accelerator, state: TrainingState, real: RealBatch, fake: FakeBatch) -> Terms:
    """Gradients of the generator and of what reads codes, through discriminators that stand still."""
    game, device = state.game, accelerator.device
    with game.frozen_discriminators():
        with torch.autocast(device.type, torch.bfloat16, enabled=game.config.precision == "bf16"):
            terms = game.generator_losses(fake, real)
        accelerator.backward(_total(terms))
    return terms


def take_step(optimizer: torch.optim.Optimizer) -> Tensor:
    """One step, after which no gradient is left; returns their norm before it."""
    norm = gradient_norm(optimizer)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def _total(terms: Terms) -> Tensor:
    return torch.stack(list(terms.values())).sum()

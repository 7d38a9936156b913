"""The averaged generator: weights and floating buffers follow the trained ones, counters are copied."""

from __future__ import annotations

import copy

import torch
from torch import nn


def averaged_copy(network: nn.Module) -> nn.Module:
    """A copy that takes part in no gradient, in eval mode."""
    return copy.deepcopy(network).requires_grad_(False).eval()


def ema_decay(batch_size: int, seen_images: int, halflife_images: float, ramp: float | None) -> float:
    """Share of the average that survives one update: 0.5 ** (batch / half-life), half-life counted in images.

    Args:
        seen_images: images seen so far, this update included.
        ramp: the half-life is at most this share of the images seen; None: off.
    """
    if ramp is not None:
        halflife_images = min(halflife_images, ramp * seen_images)
    decay: float = 0.5 ** (batch_size / max(halflife_images, 1e-8))
    return decay


@torch.no_grad()
def update_ema(average: nn.Module, network: nn.Module, decay: float) -> None:
    """average = decay * average + (1 - decay) * network, for parameters and floating buffers alike."""
    means, values = average.state_dict(), network.state_dict()
    floating = [name for name, tensor in means.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([means[name] for name in floating], [values[name] for name in floating], 1 - decay)
    for name in means.keys() - set(floating):
        means[name].copy_(values[name])

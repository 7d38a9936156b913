"""Batch norm and gated linear unit as one layer, which keeps its input for the backward pass and nothing else.

Left to autograd, the two keep the normalised map and the gate as well: three times the map that the layer gives, now
one and a half (the input has twice the channels of the output). The normalised map is made again instead, from the mean
and deviation that the forward pass found.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def glu(x: Tensor) -> Tensor:
    """Gated linear unit over channels: the first half times the sigmoid of the second, [N, 2C, ...] to [N, C, ...]."""
    value, gate = x.chunk(2, dim=1)
    return value * torch.sigmoid(gate)


class NormGlu(nn.BatchNorm2d):
    """Batch norm over 2C channels, then GLU: [N, 2C, H, W] to [N, C, H, W]. Parameters and buffers of BatchNorm2d."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return F.glu(super().forward(input), dim=1)  # torch's own GLU: half the passes, but a slow backward
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        out: Tensor = _NormGlu.apply(
            input, self.weight, self.bias, self.running_mean, self.running_var, self.momentum, self.eps
        )
        return out


class _NormGlu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        y, mean, inverse_deviation = torch.native_batch_norm(
            x, weight, bias, running_mean, running_var, True, momentum, eps
        )
        ctx.save_for_backward(x, weight, bias, mean, inverse_deviation)
        ctx.eps = eps
        return F.glu(y, dim=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, inverse_deviation = ctx.saved_tensors
        variance = inverse_deviation.pow(-2) - ctx.eps
        y, *_ = torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, ctx.eps)
        # In place: what was the normalised map becomes its gradient, half by half.
        value, gate = y.chunk(2, dim=1)
        of_gate = gradient * value
        torch.mul(gradient, gate.sigmoid_(), out=value)
        torch.ops.aten.sigmoid_backward.grad_input(of_gate, gate, grad_input=gate)
        del of_gate
        of_x, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            y, x, weight, None, None, mean, inverse_deviation, True, ctx.eps, [True, True, True]
        )
        return of_x, of_weight, of_bias, None, None, None, None

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

    def forward(self, input: Tensor, conv_weight: Tensor | None = None) -> Tensor:
        """With `conv_weight` [O, C, 3, 3] also the convolution behind it, to [N, O, H, W], whose input is not kept."""
        if not self.training:
            out = F.glu(super().forward(input), dim=1)  # torch's own GLU: half the passes, but a slow backward
            return out if conv_weight is None else F.conv2d(out, conv_weight, padding=1)
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        result: Tensor = _NormGlu.apply(
            input, self.weight, self.bias, self.running_mean, self.running_var, self.momentum, self.eps, conv_weight
        )
        return result


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
        conv_weight: Tensor | None,
    ) -> Tensor:
        y, mean, inverse_deviation = torch.native_batch_norm(
            x, weight, bias, running_mean, running_var, True, momentum, eps
        )
        ctx.save_for_backward(x, weight, bias, mean, inverse_deviation, conv_weight)
        ctx.eps = eps
        out = F.glu(y, dim=1)
        return out if conv_weight is None else F.conv2d(out, conv_weight.to(out.dtype), padding=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, inverse_deviation, conv_weight = ctx.saved_tensors
        variance = inverse_deviation.pow(-2) - ctx.eps
        y, *_ = torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, ctx.eps)
        value, gate = y.chunk(2, dim=1)
        gate.sigmoid_()
        of_conv = None
        if conv_weight is not None:
            gradient, of_conv = _conv_backward(gradient, value * gate, conv_weight)
        # In place: what was the normalised map becomes its gradient, half by half.
        of_gate = gradient * value
        torch.mul(gradient, gate, out=value)
        torch.ops.aten.sigmoid_backward.grad_input(of_gate, gate, grad_input=gate)
        del of_gate, gradient
        of_x, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            y, x, weight, None, None, mean, inverse_deviation, True, ctx.eps, [True, True, True]
        )
        return of_x, of_weight, of_bias, None, None, None, None, of_conv


def _conv_backward(gradient: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the input and of the weight of a 3x3 convolution that keeps the size."""
    sizes = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)  # stride, padding, dilation, transposed, its padding, groups
    of_x, of_weight, _ = torch.ops.aten.convolution_backward(
        gradient, x, weight.to(x.dtype), None, *sizes, [True, True, False]
    )
    return of_x, of_weight.to(weight.dtype)

"""Building blocks of the generator, after kkanshul/finegan code/model.py, in forms that cost less.

Every block gives what the plain layers give (tests compare them in float64): codes enter by table lookup
instead of one-hot planes, and the up block convolves before it enlarges.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finegan_aug.models.norm_glu import NormGlu, glu

# Rows: top (or left) border, middle, bottom (or right) border; columns: the taps that fall inside the image.
_BORDER_TAPS = ((0.0, 1.0, 1.0), (1.0, 1.0, 1.0), (1.0, 1.0, 0.0))
_SMALL_PX = 16  # below, summing the taps of wide layers costs more than the products it saves


def conv3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """3x3 convolution that keeps the size, no bias."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)


class SameBlock(nn.Module):
    """conv3x3, batch norm, GLU: [N, i, H, W] to [N, o, H, W]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = conv3(in_channels, 2 * out_channels)
        self.norm = NormGlu(2 * out_channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x))
        return out


class UpBlock(nn.Module):
    """Nearest enlargement by 2, conv3x3, batch norm, GLU: [N, i, H, W] to [N, o, 2H, 2W].

    Each of the four positions inside an enlarged pixel sees only 2x2 distinct inputs, so the taps that meet the
    same input are summed first: one transposed convolution with 16 instead of 36 products per input pixel.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = conv3(in_channels, 2 * out_channels)
        self.norm = NormGlu(2 * out_channels)

    def forward(self, x: Tensor) -> Tensor:
        if max(x.shape[2:]) < _SMALL_PX:
            y = self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        else:
            kernel = _summed_taps(_summed_taps(self.conv.weight, dim=2), dim=3)
            y = F.conv_transpose2d(x, kernel.transpose(0, 1), stride=2, padding=1)
        out: Tensor = self.norm(y)
        return out


def _summed_taps(weight: Tensor, dim: int) -> Tensor:
    """Taps (w0, w1, w2) of one axis as (w2, w1 + w2, w0 + w1, w0): those of the transposed convolution."""
    first, middle, last = torch.split(weight, 1, dim)
    return torch.cat([last, middle + last, first + middle, first], dim)


class ResidualBlock(nn.Module):
    """conv3x3, batch norm, GLU, conv3x3, batch norm, plus the input; nothing after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = SameBlock(channels, channels)
        self.conv = conv3(channels, channels)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.first.norm(self.first.conv(x), self.conv.weight))
        return out.add_(x)  # in place: batch norm does not need its output for the backward pass


class JointBlock(nn.Module):
    """A SameBlock over code planes and features, with the planes replaced by a lookup.

    The weight keeps the official channel order, code first. A constant plane convolved with a zero-padded 3x3
    kernel takes nine values only (corners, edges, middle), so the code's part is a [3, 3] table per channel.
    """

    border_taps: Tensor

    def __init__(self, num_codes: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.num_codes = num_codes
        self.conv = conv3(num_codes + in_channels, 2 * out_channels)
        self.norm = NormGlu(2 * out_channels)
        self.register_buffer("border_taps", torch.tensor(_BORDER_TAPS), persistent=False)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Features [N, i, H, W] and codes int64 [N] to [N, o, H, W]; H and W are at least 2."""
        chosen = self.conv.weight[:, : self.num_codes].transpose(0, 1)[code]  # [N, 2o, 3, 3]
        taps = self.border_taps.to(chosen.dtype)
        table = taps @ chosen @ taps.T
        features = F.conv2d(x, self.conv.weight[:, self.num_codes :], padding=1)
        out: Tensor = self.norm(_AddPlane.apply(features, table.to(features.dtype)))
        return out


class _AddPlane(torch.autograd.Function):
    """Adds to [N, C, H, W], in place, a plane that has nine values, [N, C, 3, 3]: corners, edges, middle."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, table: Tensor) -> Tensor:
        ctx.mark_dirty(features)
        out = features.add_(table[:, :, 1:2, 1:2])
        border = table - table[:, :, 1:2, 1:2]
        for i, j in _BORDER:
            out[:, :, _PLACES[i], _PLACES[j]] += border[:, :, i : i + 1, j : j + 1]
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        of_table = gradient.new_empty(*gradient.shape[:2], 3, 3)
        for i, j in (*_BORDER, (1, 1)):
            of_table[:, :, i, j] = gradient[:, :, _PLACES[i], _PLACES[j]].sum(dim=(2, 3))
        return gradient, of_table


_PLACES = (slice(0, 1), slice(1, -1), slice(-1, None))
_BORDER = tuple((i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1))


class CodeTrunk(nn.Module):
    """Code and noise to features: linear, batch norm, GLU, 4x4, then an up block per further width.

    Args:
        num_codes: values of the code.
        z_dim: length of the noise.
        widths: channels at 4, 8, 16, ... pixels.
    """

    def __init__(self, num_codes: int, z_dim: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.num_codes = num_codes
        features = 2 * widths[0] * 16
        self.linear = nn.Linear(num_codes + z_dim, features, bias=False)
        self.norm = nn.BatchNorm1d(features)
        self.ups = nn.Sequential(*(UpBlock(i, o) for i, o in itertools.pairwise(widths)))

    def forward(self, z: Tensor, code: Tensor) -> Tensor:
        """Noise [N, z_dim] and codes int64 [N] to features [N, widths[-1], S, S]."""
        # One-hot after all: looked up, the code's column has a gradient as large as the weight, made and added twice.
        # By comparison: F.one_hot waits for the device to see whether every code is in range.
        one_hot = (code[:, None] == torch.arange(self.num_codes, device=code.device)).to(z.dtype)
        x = self.linear(torch.cat([one_hot, z], dim=1))
        x = glu(self.norm(x)).view(len(z), -1, 4, 4)
        out: Tensor = self.ups(x.contiguous(memory_format=torch.channels_last))
        return out

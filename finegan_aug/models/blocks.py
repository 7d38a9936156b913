"""Building blocks of the generator, after kkanshul/finegan code/model.py, in forms that cost less.

Every block gives what the plain layers give (tests compare them in float64): codes enter by table lookup
instead of one-hot planes, and the up block convolves before it enlarges.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finegan_aug.models.norm_glu import NormGlu, glu

# Rows: the four taps of the enlarged kernel; columns: the three taps of the 3x3 kernel (one axis).
_UP_TAPS = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))
# Rows: top (or left) border, middle, bottom (or right) border; columns: the taps that fall inside the image.
_BORDER_TAPS = ((0.0, 1.0, 1.0), (1.0, 1.0, 1.0), (1.0, 1.0, 0.0))


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

    taps: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = conv3(in_channels, 2 * out_channels)  # its weight is used, never its forward
        self.norm = NormGlu(2 * out_channels)
        self.register_buffer("taps", torch.tensor(_UP_TAPS), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        taps = self.taps.to(self.conv.weight.dtype)
        kernel = torch.einsum("ap,oipq,bq->ioab", taps, self.conv.weight, taps)
        out: Tensor = self.norm(F.conv_transpose2d(x, kernel, stride=2, padding=1))
        return out


class ResidualBlock(nn.Module):
    """conv3x3, batch norm, GLU, conv3x3, batch norm, plus the input; nothing after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = SameBlock(channels, channels)
        self.conv = conv3(channels, channels)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.norm(self.conv(self.first(x)))
        return out


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
        """Features [N, i, H, W] and codes int64 [N] to [N, o, H, W]."""
        height, width = x.shape[2:]
        chosen = self.conv.weight[:, : self.num_codes].transpose(0, 1)[code]  # [N, 2o, 3, 3]
        taps = self.border_taps.to(chosen.dtype)
        table = taps @ chosen @ taps.T
        rows = torch.tensor([1, height - 2, 1], device=x.device)
        columns = torch.tensor([1, width - 2, 1], device=x.device)
        plane = table.repeat_interleave(rows, dim=2, output_size=height)
        plane = plane.repeat_interleave(columns, dim=3, output_size=width)
        features = F.conv2d(x, self.conv.weight[:, self.num_codes :], padding=1)
        out: Tensor = self.norm(features + plane)
        return out


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
        weight = self.linear.weight
        x = F.linear(z, weight[:, self.num_codes :]) + weight[:, : self.num_codes].T[code]
        x = glu(self.norm(x)).view(len(z), -1, 4, 4)
        out: Tensor = self.ups(x.contiguous(memory_format=torch.channels_last))
        return out

"""Geometry of the patch discriminator: which of its units see background only.

Unit (i, j) sees rows [s*i, s*i + F) and columns [s*j, s*j + F) of its input, with receptive field F and
stride s, both derived from the list of (kernel, stride) and never written as constants.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Layers = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class PatchGeometry:
    """What the convolutions of a patch discriminator see.

    Args:
        input_px: side of the square input in pixels.
        layers: (kernel, stride) of every convolution without padding, the head last.
    """

    input_px: int
    layers: Layers

    @property
    def stride_px(self) -> int:
        """Distance between neighbouring units in input pixels."""
        stride = 1
        for _, s in self.layers:
            stride *= s
        return stride

    @property
    def receptive_field_px(self) -> int:
        """Side of the square that one unit sees."""
        field, stride = 1, 1
        for kernel, s in self.layers:
            field += (kernel - 1) * stride
            stride *= s
        return field

    @property
    def units(self) -> int:
        """Units along one side of the output."""
        side = self.input_px
        for kernel, s in self.layers:
            side = (side - kernel) // s + 1
        return side

    def outside_boxes(self, boxes: Tensor) -> Tensor:
        """1 where a unit neither overlaps nor touches the object's box, float32 [N, 1, units, units].

        Args:
            boxes: [N, 4] as x1, y1, x2, y2 in pixels of the input; a degenerate box hides nothing.

        Source: kkanshul/finegan code/trainer.py, whose ceil/floor form this closed form equals.
        """
        start = torch.arange(self.units, device=boxes.device, dtype=boxes.dtype) * self.stride_px
        x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
        columns = (start + self.receptive_field_px >= x1) & (start <= x2)
        rows = (start + self.receptive_field_px >= y1) & (start <= y2)
        degenerate = (boxes[:, 0] == boxes[:, 2]) | (boxes[:, 1] == boxes[:, 3])
        inside = rows[:, :, None] & columns[:, None, :] & ~degenerate[:, None, None]
        return (~inside).float()[:, None]

    def outside_masks(self, masks: Tensor) -> Tensor:
        """1 where a unit sees no object pixel, float32 [N, 1, units, units], from masks [N, 1, input, input]."""
        seen = F.max_pool2d(masks, self.receptive_field_px, self.stride_px)
        return (seen <= 0.5).float()

    def border(self, width: int) -> Tensor:
        """1 on the outer `width` rings of units, 0 inside, float32 [1, 1, units, units]."""
        ring = torch.ones(1, 1, self.units, self.units)
        ring[..., width : self.units - width, width : self.units - width] = 0
        return ring


_LAYERS: dict[int, PatchGeometry] = {
    32: PatchGeometry(32, ((4, 2), (3, 1), (1, 1))),
    64: PatchGeometry(64, ((4, 2), (4, 1), (4, 1))),
    128: PatchGeometry(126, ((4, 2), (4, 2), (4, 1), (4, 1))),
    256: PatchGeometry(254, ((4, 2), (4, 2), (4, 2), (4, 1), (4, 1))),
}


def patch_geometry(resolution_px: int) -> PatchGeometry:
    """The background discriminator's geometry for images of this side: 32, 64, 128 or 256 pixels."""
    return _LAYERS[resolution_px]

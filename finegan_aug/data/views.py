"""Random squares of cached photographs, a whole batch by one gather on the device that holds the pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from finegan_aug.data.manifest import ImageRecord

Draws = Tensor | npt.NDArray[np.float64]

CHUNK = 256  # images cut at once where all are asked for


@dataclass(frozen=True)
class FlatImages:
    """Images of different sizes in one array, cut into equal squares by one gather.

    Args:
        pixels: uint8 [P, channels], the rows of every image one after another.
        offset, height, width: int64 [N], where each image starts in `pixels`, and its size in pixels.
    """

    pixels: Tensor
    offset: Tensor
    height: Tensor
    width: Tensor

    def squares(self, positions: Tensor, top: Tensor, left: Tensor, flip: Tensor, side_px: int) -> Tensor:
        """uint8 [N, channels, side, side] in channels_last, from int64 `positions`, `top`, `left` and bool `flip`."""
        line = torch.arange(side_px, device=self.pixels.device)
        columns = left[:, None] + torch.where(flip[:, None], side_px - 1 - line, line)
        rows = (top[:, None] + line) * self.width[positions, None] + self.offset[positions, None]
        index = rows[:, :, None] + columns[:, None, :]
        found = self.pixels.index_select(0, index.reshape(-1))
        return found.reshape(len(positions), side_px, side_px, -1).permute(0, 3, 1, 2)

    def place(
        self, positions: Tensor, draws: Tensor, side_px: int, *, but_last: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Top, left (int64 [N]) and flip (bool [N]) of a square: uniform over all places, flipped half the time.

        With `but_last` never at the last row or column, whose images must be larger than the square.
        """
        free = torch.stack([self.height[positions], self.width[positions]], 1) - side_px + (not but_last)
        top, left = (draws[:, :2] * free).long().unbind(1)
        return top, left, draws[:, 2] < 0.5

    def to(self, device: torch.device) -> FlatImages:
        return FlatImages(*(t.to(device) for t in (self.pixels, self.offset, self.height, self.width)))


@dataclass(frozen=True)
class Crops:
    """Object crops and full frames of N photographs.

    `positions` are int64 [N] indices into `records`. `draws` are float64 [N, 3] uniforms in [0, 1) for the
    row, the column and the flip (`randomness.uniforms`); the same draws give the same pixels.

    With `official`, as in kkanshul/finegan code/datasets.py, object squares are cut at twice the resolution and then
    halved, and frame squares never lie at the last place of their side.
    """

    records: tuple[ImageRecord, ...]
    labels: Tensor  # int64 [N]; -1 where no label may be used
    resolution: int  # side of an object square, pixels
    input_px: int  # side of a frame square, pixels
    official: bool
    object_images: FlatImages
    frame_images: FlatImages
    frame_boxes: Tensor  # float32 [N, 4], x1, y1, x2, y2 in pixels of the resized frame
    object_masks: FlatImages | None
    frame_masks: FlatImages | None

    def __len__(self) -> int:
        return len(self.records)

    @property
    def device(self) -> torch.device:
        """Where the pixels lie; every result is made there."""
        return self.object_images.pixels.device

    def to(self, device: torch.device | str) -> Crops:
        """The same crops with all pixels on `device`, so that a batch costs no transfer."""
        where = torch.device(device)
        return replace(
            self,
            labels=self.labels.to(where),
            object_images=self.object_images.to(where),
            frame_images=self.frame_images.to(where),
            frame_boxes=self.frame_boxes.to(where),
            object_masks=self.object_masks and self.object_masks.to(where),
            frame_masks=self.frame_masks and self.frame_masks.to(where),
        )

    def objects_uint8(self, positions: Tensor, draws: Draws) -> Tensor:
        """Random squares round the objects, uint8 [N, 3, S, S]."""
        positions, uniform = self._inputs(positions, draws)
        return self._object_squares(self.object_images, positions, uniform)

    def objects(self, positions: Tensor, draws: Draws) -> Tensor:
        """Random squares round the objects, float32 [N, 3, S, S] in [-1, 1], channels_last."""
        return _signed(self.objects_uint8(positions, draws))

    def masks_of_objects(self, positions: Tensor, draws: Draws) -> Tensor | None:
        """Masks of the very squares that `objects` gives, float32 [N, 1, S, S] in [0, 1]; None without masks."""
        if self.object_masks is None:
            return None
        positions, uniform = self._inputs(positions, draws)
        return self._object_squares(self.object_masks, positions, uniform).float() / 255

    def objects_center_uint8(self, positions: Tensor) -> Tensor:
        """Central squares without flip, uint8 [N, 3, S, S]: the reference images of every metric."""
        return torch.cat([self._centers(chunk) for chunk in torch.split(positions.to(self.device), CHUNK)])

    def objects_center(self, positions: Tensor) -> Tensor:
        """Central squares without flip, float32 [N, 3, S, S] in [-1, 1], channels_last."""
        return _signed(self.objects_center_uint8(positions))

    def frames(self, positions: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor | None]:
        """Random squares of the whole photographs with their boxes.

        Returns:
            float32 [N, 3, input_px, input_px] in [-1, 1], channels_last; float32 [N, 4] boxes in pixels of the
            square, clamped to it and flipped with it, degenerate (x1 = x2 or y1 = y2) where the object lies
            outside, the whole square where no box is known; and masks like the images,
            float32 [N, 1, input_px, input_px] in [0, 1], or None.
        """
        positions, uniform = self._inputs(positions, draws)
        side = self.input_px
        top, left, flip = self.frame_images.place(positions, uniform, side, but_last=self.official)
        shift = torch.stack([left, top, left, top], 1)
        boxes = (self.frame_boxes[positions] - shift).clamp(0, side)
        mirrored = torch.stack([side - boxes[:, 2], boxes[:, 1], side - boxes[:, 0], boxes[:, 3]], 1)
        boxes = torch.where(flip[:, None], mirrored, boxes)
        masks = None
        if self.frame_masks is not None:
            masks = self.frame_masks.squares(positions, top, left, flip, side).float() / 255
        return _signed(self.frame_images.squares(positions, top, left, flip, side)), boxes, masks

    def _object_squares(self, images: FlatImages, positions: Tensor, draws: Tensor) -> Tensor:
        side = object_px(self.resolution, self.official)
        squares = images.squares(positions, *images.place(positions, draws, side), side)
        return _halved(squares) if self.official else squares

    def _centers(self, positions: Tensor) -> Tensor:
        images, side = self.object_images, object_px(self.resolution, self.official)
        top, left = (images.height[positions] - side) // 2, (images.width[positions] - side) // 2
        squares = images.squares(positions, top, left, torch.zeros_like(top, dtype=torch.bool), side)
        return _halved(squares) if self.official else squares

    def _inputs(self, positions: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        return positions.to(self.device), torch.as_tensor(draws, device=self.device)


def object_px(resolution: int, official: bool) -> int:
    """Side of the square that is cut out of the stored object crop, pixels."""
    return 2 * resolution if official else resolution


def _halved(squares: Tensor) -> Tensor:
    """uint8 squares at half their side, Pillow's bilinear filter bit for bit: it rounds after the rows' pass too."""
    side = squares.shape[-1]
    for size in ((side, side // 2), (side // 2, side // 2)):
        resized = F.interpolate(squares.float(), size, mode="bilinear", antialias=True)
        squares = (resized + 0.5).to(torch.uint8)
    return squares


def _signed(images: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1]."""
    return images.float().div_(127.5).sub_(1)

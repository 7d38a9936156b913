"""Which share of real background patches each choice of boxes leaves to the background discriminator.

A real patch counts only where its receptive field misses the object (Singh et al., CVPR 2019, section 3.1). Objects
that fill the frame leave nothing to learn from; better known before training than after.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from finegan_aug.data.annotations import MASK_THRESHOLD
from finegan_aug.data.decode import decode_with_notes
from finegan_aug.data.manifest import ImageRecord
from finegan_aug.patches import PatchGeometry, patch_geometry
from finegan_aug.randomness import Floats, seed_for, uniforms

Choice = Literal["given", "from_masks", "border"]
RESOLUTIONS_PX = (32, 64, 128, 256)
CROPS = 8  # random crops of each image
MAX_MASKS = 200  # masks are resized one by one; so many estimate a share within 0.04 (standard error at most)


@dataclass(frozen=True)
class BackgroundShare:
    """Valid background units of one choice of boxes at one resolution, over random crops.

    Args:
        choice: where the boxes come from.
        resolution_px: side of the generated image.
        valid: mean share of valid units, in [0, 1].
        without: share of crops that have none, in [0, 1].
        units: units of one crop; `valid * units` is what an image gives on average.
        images: how many images were looked at.
    """

    choice: Choice
    resolution_px: int
    valid: float
    without: float
    units: int
    images: int


def check_background(
    images: Sequence[ImageRecord], mask_files: Sequence[Path | None], *, seed: int = 0, crops: int = CROPS
) -> list[BackgroundShare]:
    """Shares for 32, 64, 128 and 256 px: `given` where boxes exist, `from_masks` where masks exist, and `border`.

    Args:
        images: of the training split.
        mask_files: one for each image, or None.
    """
    boxed = [image for image in images if image.box is not None]
    masked = [(image, file) for image, file in zip(images, mask_files, strict=True) if file is not None]
    masked = sorted(masked, key=lambda item: seed_for(seed, "doctor masks", item[0].sha256))[:MAX_MASKS]
    shares = []
    for resolution in RESOLUTIONS_PX:
        geometry = patch_geometry(resolution)
        key = seed_for(seed, "doctor crops", resolution)
        if boxed:
            shares.append(_share("given", resolution, _outside_boxes(boxed, geometry, key, crops), len(boxed)))
        if masked:
            shares.append(_share("from_masks", resolution, _outside_masks(masked, geometry, key, crops), len(masked)))
        shares.append(_share("border", resolution, iter([geometry.border(1)]), len(images)))
    return shares


def _share(choice: Choice, resolution: int, outside: Iterator[Tensor], images: int) -> BackgroundShare:
    """From float [B, 1, units, units] blocks, 1 = background."""
    per_crop = torch.cat([block.flatten(1).mean(1) for block in outside])
    units = patch_geometry(resolution).units ** 2
    return BackgroundShare(
        choice, resolution, float(per_crop.mean()), float((per_crop == 0).float().mean()), units, images
    )


def _frame(image: ImageRecord, side_px: int) -> tuple[int, int]:
    """Width and height of the full frame whose shorter side is `side_px`."""
    shorter = min(image.width, image.height)
    return side_px * image.width // shorter, side_px * image.height // shorter


def _offsets(draws: Floats, room: tuple[int, int]) -> tuple[Floats, Floats]:
    """Whole offsets of crops, 0 to room inclusive, from uniform numbers [2 * crops]."""
    x, y = draws.reshape(2, -1)
    return np.floor(x * (room[0] + 1)), np.floor(y * (room[1] + 1))


def _outside_boxes(images: Sequence[ImageRecord], geometry: PatchGeometry, key: int, crops: int) -> Iterator[Tensor]:
    side = geometry.input_px
    draws = uniforms(key, list(range(len(images))), 2 * crops)
    boxes = np.empty((len(images), crops, 4))
    for row, image in enumerate(images):
        assert image.box is not None
        width, height = _frame(image, side * 76 // 64)
        x, y = _offsets(draws[row], (width - side, height - side))
        scale_x, scale_y = width / image.width, height / image.height
        x1, y1, x2, y2 = image.box
        boxes[row] = np.stack([x1 * scale_x - x, y1 * scale_y - y, x2 * scale_x - x, y2 * scale_y - y], axis=1)
    flat = torch.from_numpy(boxes.reshape(-1, 4).clip(0, side)).float()
    for start in range(0, len(flat), 1024):
        yield geometry.outside_boxes(flat[start : start + 1024])


def _outside_masks(
    masked: Sequence[tuple[ImageRecord, Path]], geometry: PatchGeometry, key: int, crops: int
) -> Iterator[Tensor]:
    side = geometry.input_px
    draws = uniforms(key, list(range(len(masked))), 2 * crops)
    for row, (image, file) in enumerate(masked):
        width, height = _frame(image, side * 76 // 64)
        mask = decode_with_notes(file)[0].convert("L").point(lambda value: 255 * (value > MASK_THRESHOLD))
        pixels = np.asarray(mask.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32) / 255
        x, y = _offsets(draws[row], (width - side, height - side))
        crop = [pixels[int(b) : int(b) + side, int(a) : int(a) + side] for a, b in zip(x, y, strict=True)]
        yield geometry.outside_masks(torch.from_numpy(np.stack(crop))[:, None])

"""Augmentation of discriminator inputs, differentiable, alike for real and generated images.

DiffAugment (Zhao et al., NeurIPS 2020, arXiv 2006.10738). Draws come as uniform numbers, one row per image, so that
an image is augmented alike in any batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

POLICIES = ("color", "translation", "cutout")
DRAWS_PER_IMAGE = 7


def diff_augment(images: Tensor, draws: Tensor, policy: tuple[str, ...]) -> Tensor:
    """Augments images [N, C, H, W] in [-1, 1] with uniform draws float [N, 7]; an empty policy is the identity."""
    if "color" in policy:
        colors = draws.to(images.dtype)
        images = _color(images, colors[:, 0], colors[:, 1], colors[:, 2])
    if "translation" in policy:
        images = _translation(images, draws[:, 3], draws[:, 4])
    if "cutout" in policy:
        images = _cutout(images, draws[:, 5], draws[:, 6])
    return images


def _color(x: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Brightness +-0.5, saturation x U(0, 2) about the grey of the pixel, contrast x U(0.5, 1.5) about the mean."""
    b, s, c = (u.view(-1, 1, 1, 1) for u in (brightness, saturation, contrast))
    x = x + (b - 0.5)
    grey = x.mean(dim=1, keepdim=True)
    x = grey + (x - grey) * (2 * s)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (x - mean) * (c + 0.5)


def _translation(x: Tensor, up: Tensor, left: Tensor) -> Tensor:
    """Moves each image by up to an eighth of its side; what enters is zero (mid-grey)."""
    side = x.shape[-1]
    reach = side // 8
    rows = _offsets(up, reach, side, x.device)
    columns = _offsets(left, reach, side, x.device)
    padded = F.pad(x, (reach, reach, reach, reach)).permute(0, 2, 3, 1)
    batch = torch.arange(len(x), device=x.device)[:, None, None]
    return padded[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _offsets(u: Tensor, reach: int, side: int, device: torch.device) -> Tensor:
    """Source positions [N, side] in an axis padded by `reach`, for a shift drawn from -reach ... reach."""
    start = (u * (2 * reach + 1)).long().clamp(max=2 * reach)
    return start[:, None] + torch.arange(side, device=device)


def _cutout(x: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Sets a square of half the side to zero; its centre is uniform over the image, so part of it may lie outside."""
    side = x.shape[-1]
    position = torch.arange(side, device=x.device) + side // 4
    rows = position - (top[:, None] * (side + 1)).long()
    columns = position - (left[:, None] * (side + 1)).long()
    inside_rows, inside_columns = (rows >= 0) & (rows < side // 2), (columns >= 0) & (columns < side // 2)
    hole = inside_rows[:, :, None] & inside_columns[:, None, :]
    return x * (~hole)[:, None]


def random_grid(u: Tensor, side_px: int) -> Tensor:
    """Sampling grids [N, S, S, 2] of one affine map for each image, from uniforms [N, 4] (naver-ai/c3-gan utils.py).

    Scale U(0.8, 1.5), rotation +-15 degrees, shift +-0.15 of the half side.
    """
    scale = 0.8 + 0.7 * u[:, 0]
    angle = (u[:, 1] - 0.5) * (torch.pi / 6)
    shift = (u[:, 2:] - 0.5) * 0.3
    cos, sin = scale * angle.cos(), scale * angle.sin()
    theta = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
    return F.affine_grid(theta, [len(u), 1, side_px, side_px], align_corners=True)

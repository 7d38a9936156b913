"""A walk through what a generator can draw, as an animated picture: along arcs between noises, and through codes."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from finegan_aug.files import write_bytes

TILE_PX = 96  # side of each image; with at most 4 images side by side and 33 frames no file reaches 2 MB
STEPS = 8  # from one noise to the next
STOP_MS = 400  # a frame that shows a code
STEP_MS = 80  # a frame on the way to the next noise
COLOURS = 256


@dataclass(frozen=True, eq=False)
class Walk:
    """What each of F frames shows and for how long."""

    z: Tensor  # float [F, D]
    turn: Tensor  # int64 [F], in 0 ... turns - 1: which of its codes each object wears
    milliseconds: tuple[int, ...]  # [F]


def closed_walk(noise: Tensor, turns: int) -> Walk:
    """Stops at each noise of [N, D], shows every turn there, goes on in STEPS equal arcs and ends where it began."""
    z, turn, milliseconds = [], [], []
    for here, there in zip(noise, noise.roll(-1, dims=0), strict=True):
        z += [here] * turns + [slerp(here, there, step / STEPS) for step in range(1, STEPS)]
        turn += [*range(turns)] + [0] * (STEPS - 1)
        milliseconds += [STOP_MS] * turns + [STEP_MS] * (STEPS - 1)
    return Walk(torch.stack(z), torch.tensor(turn), tuple(milliseconds))


def slerp(start: Tensor, end: Tensor, share: float) -> Tensor:
    """Spherical interpolation (Shoemake, SIGGRAPH 1985, section 3.3), for noise as in White, arXiv 1609.04468.

    A straight line between two normal draws passes through vectors shorter than any that training has seen.

    Args:
        start, end: float [D]; their lengths may differ.
        share: of the angle between them, 0 (start) to 1 (end).
    """
    angle = math.acos(float(F.cosine_similarity(start.double(), end.double(), dim=0).clamp(-1, 1)))
    sine = math.sin(angle)
    if sine < 1e-6:  # on one line: there is no arc, or no single one
        return torch.lerp(start, end, share)
    return (math.sin((1 - share) * angle) * start + math.sin(share * angle) * end) / sine


def save_gif(path: Path, frames: Tensor, milliseconds: Sequence[int]) -> None:
    """Writes frames uint8 [F, 3, H, W] as a GIF that repeats for ever; one palette for all, no dithering.

    Dithered dots would flicker from frame to frame. The same frames give the same bytes with the same Pillow.
    """
    pixels = frames.permute(0, 2, 3, 1)
    sheet = Image.fromarray(pixels.flatten(0, 1).contiguous().numpy())
    palette = sheet.quantize(COLOURS, method=Image.Quantize.MEDIANCUT)
    first, *others = (
        Image.fromarray(frame.contiguous().numpy()).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in pixels
    )
    stream = io.BytesIO()
    first.save(stream, "GIF", save_all=True, append_images=others, duration=list(milliseconds), loop=0)
    write_bytes(path, stream.getvalue())


def side_by_side(images: Tensor) -> Tensor:
    """Images uint8 [F, N, 3, S, S] as F frames uint8 [F, 3, T, N T]; T is at most TILE_PX.

    Small images are enlarged a whole number of times, so that their pixels stay squares; large ones are averaged down.
    """
    side = images.shape[-1]
    if side > TILE_PX:
        flat = F.interpolate(images.flatten(0, 1).float(), size=(TILE_PX, TILE_PX), mode="area").round()
        images = flat.to(torch.uint8).reshape(*images.shape[:3], TILE_PX, TILE_PX)
    times = max(1, TILE_PX // side)
    tiles = images.repeat_interleave(times, dim=-2).repeat_interleave(times, dim=-1)
    return torch.cat(tiles.unbind(dim=1), dim=-1)

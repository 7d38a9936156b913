"""Image grids on disk: what a generator draws, seen by a person."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from finegan_aug.config import FineGANConfig
from finegan_aug.files import write_bytes
from finegan_aug.randomness import normals, seed_for

COLUMNS = 8
MAX_CODES = 24


def to_uint8(images: Tensor) -> Tensor:
    """float [-1, 1] to uint8 [0, 255], rounded; same shape."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()


def save_grid(path: Path, images: Tensor, columns: int) -> None:
    """Write uint8 images [N, 3, H, W] row by row as one PNG with a 1-pixel gap."""
    count, _, height, width = images.shape
    rows = -(-count // columns)
    sheet = torch.full((rows * (height + 1) - 1, columns * (width + 1) - 1, 3), 255, dtype=torch.uint8)
    for i, image in enumerate(images.permute(0, 2, 3, 1)):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        sheet[top : top + height, left : left + width] = image
    stream = io.BytesIO()
    Image.fromarray(sheet.numpy()).save(stream, "PNG")
    write_bytes(path, stream.getvalue())


def fixed_noise(seed: int, count: int, z_dim: int) -> Tensor:
    """The noise of every grid of a run, float32 [count, z_dim]."""
    return torch.from_numpy(normals(seed_for(seed, "grid"), list(range(count)), z_dim)).float()


@torch.no_grad()
def write_training_grids(generator: nn.Module, run_dir: Path, name: str, config: FineGANConfig) -> None:
    """Write fakes_NAME.png (fixed noise, all codes in turn), codes_NAME.png (code x noise) and stages_NAME.png.

    `generator` is in eval mode. Stages, a column each: background, parent mask, parent, child mask, child.
    """
    device = next(generator.parameters()).device
    num_children = config.num_children or 1
    shown = torch.linspace(0, num_children - 1, min(num_children, MAX_CODES)).round().long()
    noise = fixed_noise(config.seed, 64, config.z_dim)
    fakes = generator(noise.to(device), (torch.arange(64) % num_children).to(device)).child
    save_grid(run_dir / f"fakes_{name}.png", to_uint8(fakes), COLUMNS)

    codes = shown.repeat_interleave(COLUMNS)
    stages = generator(noise[:COLUMNS].repeat(len(shown), 1).to(device), codes.to(device))
    save_grid(run_dir / f"codes_{name}.png", to_uint8(stages.child), COLUMNS)

    first = torch.arange(0, len(codes), COLUMNS)[:COLUMNS]
    columns = [stages.background, mask_picture(stages.parent_mask), stages.parent]
    columns += [mask_picture(stages.child_mask), stages.child]
    panel = torch.stack([column[first] for column in columns], dim=1).flatten(0, 1)
    save_grid(run_dir / f"stages_{name}.png", to_uint8(panel), len(columns))


def mask_picture(mask: Tensor) -> Tensor:
    """A mask [N, 1, H, W] in [0, 1] as a grey picture [N, 3, H, W] in [-1, 1]."""
    return (2 * mask - 1).expand(-1, 3, -1, -1)

"""Tiny folders of images for tests: a colour tells the class, the pattern of pixels tells the image."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from finegan_aug.data.duplicates import dhash, pixel_sha256
from finegan_aug.data.manifest import ImageRecord, Manifest
from finegan_aug.synthetic import Header, SyntheticRow, encode, file_name, write_manifest

CLASSES = ("ant", "bee", "cat")
SIDE_PX = 16


def picture(label: int, number: int, *, synthetic: bool = False) -> npt.NDArray[np.uint8]:
    """uint8 [16, 16, 3]: channel `label` is bright; blue-ish noise tells images apart; real and synthetic differ."""
    noise = np.random.Generator(np.random.Philox(key=1000 * label + number + (500 if synthetic else 0)))
    image = noise.integers(0, 80, (SIDE_PX, SIDE_PX, 3)).astype(np.uint8)
    image[..., label % 3] += 150
    return image


def real_folder(root: Path, per_class: int = 4, classes: tuple[str, ...] = CLASSES) -> Path:
    """root/CLASS/0.png ..."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            Image.fromarray(picture(label, number)).save(root / name / f"{number}.png")
    return root


def synthetic_folder(
    root: Path, per_class: int = 5, classes: tuple[str, ...] = CLASSES, dropped: tuple[str, ...] = ()
) -> Path:
    """A folder as `synthesize` writes it; all images of the classes `dropped` are marked as dropped."""
    rows = []
    for label, name in enumerate(classes):
        for number in range(per_class):
            data = encode(picture(label, number, synthetic=True), "png")
            file = file_name(name, label, number, "png")
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_bytes(data)
            kept = name not in dropped
            rows.append(
                SyntheticRow(
                    file,
                    name,
                    label,
                    number,
                    child=2 * label,
                    parent=0,
                    background=label,
                    seed=7,
                    sha256=hashlib.sha256(data).hexdigest(),
                    kept=kept,
                    dropped_by=None if kept else "by_hand",
                )
            )
    write_manifest(root, Header(classes, SIDE_PX, "png", {"seed": 7}), rows)
    return root


def colour_logits(images: Tensor) -> Tensor:
    """A teacher with something of its own to say of every image uint8 [N, 3, H, W]: its mean colours."""
    return images.float().mean((2, 3)) / 40


def said_of(label: int, number: int) -> Tensor:
    """Probabilities of `colour_logits` for a synthetic picture, float32 [3]."""
    pixels = torch.from_numpy(picture(label, number, synthetic=True)).permute(2, 0, 1)
    return colour_logits(pixels[None]).double().softmax(1)[0].float()


def data_manifest(root: Path, splits: dict[str, str], unlabelled: tuple[str, ...] = ()) -> Manifest:
    """A manifest of a `real_folder`; `splits` maps file stems to splits, the others are train."""
    records = []
    for label, name in enumerate(CLASSES):
        for path in sorted((root / name).glob("*.png")):
            image = Image.open(path).convert("RGB")
            records.append(
                ImageRecord(
                    path.relative_to(root).as_posix(),
                    pixel_sha256(image),
                    dhash(image),
                    *image.size,
                    label=label,
                    split=splits.get(path.stem, "train"),
                    labelled=path.stem not in unlabelled,
                )
            )
    return Manifest(root, CLASSES, tuple(records))

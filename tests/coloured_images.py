"""Small noisy images whose class is their colour: a task that a tiny network learns in a few steps."""

from __future__ import annotations

import numpy as np
from PIL import Image

from finegan_aug.randomness import normals, seed_for

COLOURS = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [190, 190, 60]])


class ColouredImages:
    """A map data set of (PIL image, label); labels go round the classes."""

    def __init__(self, count: int, *, classes: int = 3, side_px: int = 24, seed: int = 0, noise: float = 40.0) -> None:
        self.classes = ["red", "green", "blue", "yellow"][:classes]
        self.targets = [index % classes for index in range(count)]
        draws = normals(seed_for(seed, "coloured"), range(count), side_px * side_px * 3) * noise
        pixels = draws.reshape(count, side_px, side_px, 3) + COLOURS[self.targets][:, None, None, :]
        self.images = [Image.fromarray(image) for image in np.clip(pixels, 0, 255).astype(np.uint8)]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.images[index], self.targets[index]


class Sourced:
    """The same items with a third entry: whether the image counts as synthetic."""

    def __init__(self, inner: ColouredImages, synthetic: set[int]) -> None:
        self.inner, self.synthetic = inner, synthetic

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> tuple[Image.Image, int, bool]:
        return (*self.inner[index], index in self.synthetic)

"""Synthetic images put into a batch that a loader has already made. Public as `finegan_aug.SyntheticMix`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from finegan_aug.data.transforms import (
    Transform,
    apply_transform,
    parts_with_seed,
    preserved_generators,
    seed_generators,
)
from finegan_aug.errors import ConfigError, DataError
from finegan_aug.randomness import seed_for, uniforms
from finegan_aug.synthetic_index import ClassPools, open_index


class SyntheticMix:
    """A batch hook, called like timm's Mixup and before it: replaces a share of a batch by synthetic images.

    Args:
        synthetic: folder written by `synthesize`, or any folder with one sub-folder per class.
        alpha: probability that an image of the batch is replaced by a synthetic one of its label.
        to_input: from a PIL image to the tensor [3, H, W] that the loader yields; seeded per image.
        seed: of all choices, and of a random `to_input`.
        classes: class names in the order of the labels; None: that of the synthetic set.

    `step` counts the calls and may be set when a run is resumed; `is_synthetic` (bool [N]) tells of the last batch.

    Raises:
        ConfigError: alpha outside [0, 1].
        DataError: class names differ.
    """

    def __init__(
        self,
        synthetic: str | Path,
        alpha: float = 0.2,
        *,
        to_input: Transform,
        seed: int = 0,
        classes: Sequence[str] | None = None,
    ) -> None:
        check_alpha(alpha)
        self.synthetic = open_index(synthetic)
        self.alpha, self.to_input, self.seed, self.step = alpha, to_input, seed, 0
        self.is_synthetic = torch.zeros(0, dtype=torch.bool)
        self._pools = ClassPools(self.synthetic, list(classes or self.synthetic.header.classes))
        self._parts = parts_with_seed(to_input)

    def __call__(
        self, images: Tensor, labels: Tensor, *, step: int | None = None, position: int = 0
    ) -> tuple[Tensor, Tensor]:
        """The batch with some images replaced, and the same labels.

        Args:
            images: [N, 3, H, W]; not changed.
            labels: int64 [N].
            step: number of the batch; None: the count of calls.
            position: place of the first image in the global batch, where several processes share one.

        Raises:
            DataError: labels are not class indices, or `to_input` gives another shape than the batch has.
        """
        step = self.step if step is None else step
        self.step = step + 1
        classes, at = len(self._pools.sizes), np.arange(position, position + len(labels))
        remedy = "call SyntheticMix before Mixup, on labels in the order of the classes"
        if labels.ndim != 1 or labels.is_floating_point():
            found = f"{labels.dtype} {list(labels.shape)}"
            raise DataError(f"labels must be class indices below {classes}, found {found}", remedy)
        if len(wrong := labels[(labels < 0) | (labels >= classes)]):
            raise DataError(f"labels must be class indices below {classes}, found {int(wrong[0])}", remedy)
        draws, truth = uniforms(seed_for(self.seed, "batch-mix", step), at, 2), labels.cpu().numpy().astype(np.int64)
        chosen = np.flatnonzero((draws[:, 0] < self.alpha) & (self._pools.sizes[truth] > 0))
        entries = self._pools.entries(truth[chosen], draws[chosen, 1], np.zeros(len(chosen), dtype=np.int64))
        self.is_synthetic = torch.zeros(len(labels), dtype=torch.bool)
        self.is_synthetic[chosen] = True
        mixed = images.clone() if len(chosen) else images
        with preserved_generators():
            for place, entry in zip(chosen.tolist(), entries.tolist(), strict=True):
                seed_generators(seed_for(self.seed, "batch-augment", step, position + place), self._parts)
                mixed[place] = self._input(entry, images).to(mixed)
        return mixed, labels

    def _input(self, entry: int, batch: Tensor) -> Tensor:
        image = apply_transform(self.to_input, self.synthetic.image(entry))
        shape, floating = batch.shape[1:], batch.is_floating_point()
        if isinstance(image, Tensor) and image.shape == shape and image.is_floating_point() == floating:
            return image
        found = f"{list(image.shape)} {image.dtype}" if isinstance(image, Tensor) else type(image).__name__
        raise DataError(
            f"to_input must give tensors of shape {list(shape)} and kind {batch.dtype} like the batch, found {found}",
            "pass the transform of the loader",
        )


def check_alpha(alpha: float) -> None:
    """Refuse a share of synthetic images outside [0, 1]."""
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha must lie in [0, 1], found {alpha}", "choose a share of synthetic images such as 0.2")

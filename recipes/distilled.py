"""Arm D2: real images whose labels are half a teacher's, as a control of what a teacher puts into synthetic images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from classifier.data import SquareImages
from finegan_aug.arrays import read_shares, write_array
from finegan_aug.config import FineGANConfig
from finegan_aug.data.manifest import Manifest
from finegan_aug.teacher import shown_images
from finegan_aug.teaching import answers_of_others, half_own

ANSWERS = "answers.npy"  # of a pool: float32 [N, C] for the labelled images of the splits train and val, in order


def write_answers(
    folder: Path, synthetic: Path, manifest: Manifest, config: FineGANConfig, *, teacher_kimg: float, seed: int
) -> Path:
    """Ask teachers of the kind that filtered a set about the labelled images of its budget.

    Args:
        folder: gets the answers.
        synthetic: the set; the teachers see photographs as it shows objects.
        manifest: of the budget.
        config: of the generator, whose kind of teacher is asked.

    Returns:
        `folder`.
    """
    records = manifest.of("train", "val", labelled=True)
    images = shown_images(synthetic, manifest, records, config.boxes)
    labels = torch.tensor([record.label for record in records])
    classes = len(manifest.classes)
    shares = answers_of_others(config.teacher, images, labels, num_classes=classes, seed=seed, kimg=teacher_kimg)
    write_array(folder / ANSWERS, shares.numpy())
    return folder


class Distilled(Dataset[tuple[Image.Image, Tensor]]):
    """(PIL image, shares of the classes float32 [C]): half the label of the image, half the teachers' answer.

    Args:
        real: the labelled images of the splits train and val.
        folder: that `write_answers` wrote.

    Raises:
        DataError: there are no answers, or they are of other images.
    """

    def __init__(self, real: SquareImages, folder: Path) -> None:
        self.real, self.classes, self.targets = real, real.classes, real.targets
        shape, everyone = (len(real), len(real.classes)), np.ones(len(real), dtype=bool)
        answers = read_shares(folder / ANSWERS, shape, everyone, "remove the pool; the same command makes it anew")
        self.shares = half_own(torch.tensor(real.targets), torch.from_numpy(answers.copy()))

    def __len__(self) -> int:
        return len(self.real)

    def __getitem__(self, index: int) -> tuple[Image.Image, Tensor]:
        return self.real[index][0], self.shares[index]

"""The same samples from any number of loader workers, however they are started, and other ones in the next epoch.

`make faults` tries the whole grid; otherwise a few of its points.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from coloured_images import ColouredImages
from faults import FILE, held
from small_sets import real_folder, synthetic_folder
from start_methods import started_by
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from classifier.config import ClassifierConfig
from classifier.data import TrainSamples, TrainStream
from classifier.loading import batches
from classifier.transforms import train_transform
from finegan_aug import SyntheticMixDataset

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations

torch.set_num_threads(1)
pytestmark = pytest.mark.fault
ALL = bool(os.environ.get(FILE))
EPOCHS = 3
BATCH = 12
TRANSFORMS = {
    "torchvision": v2.Compose(
        [v2.RandomResizedCrop(12), v2.ColorJitter(0.5, 0.5, 0.5), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    ),
    "albumentations": albumentations.Compose(
        [
            albumentations.RandomResizedCrop((12, 12)),
            albumentations.ColorJitter(0.5, 0.5, 0.5),
            albumentations.HorizontalFlip(),
            albumentations.ToTensorV2(),
        ]
    ),
}
# Workers, start method, whether they outlive an epoch.
GRID = [
    (workers, method, persistent)
    for workers in (1, 2, 4)
    for method in ("fork", "spawn", "forkserver")
    for persistent in (False, True)
]
FEW = [(4, "fork", True), (2, "fork", False)]  # test_mixing.py has the other start methods


def digest(images: Tensor, labels: Tensor) -> str:
    return hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()


def repeated(first: Tensor, second: Tensor) -> int:
    """How many images [N, 3, H, W] are the same in two epochs."""
    return int((first == second).flatten(1).all(dim=1).sum())


@pytest.fixture(scope="module")
def mixes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SyntheticMixDataset]:
    """120 items, half of them synthetic, under each transform."""
    root = tmp_path_factory.mktemp("grid")
    real, synthetic = real_folder(root / "real", per_class=40), synthetic_folder(root / "synthetic", per_class=60)
    return {
        name: SyntheticMixDataset(ImageFolder(real), synthetic, alpha=0.5, transform=transform)
        for name, transform in TRANSFORMS.items()
    }


def own_loop(
    mixed: SyntheticMixDataset, loader: DataLoader[tuple[Tensor, Tensor]]
) -> list[list[tuple[Tensor, Tensor]]]:
    """The batches of each epoch, as somebody's own training goes through them."""
    epochs = []
    for epoch in range(EPOCHS):
        mixed.set_epoch(epoch)
        epochs.append([(images, labels) for images, labels in loader])
    return epochs


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_samples_of_an_own_loop_do_not_depend_on_its_workers(
    name: str, mixes: dict[str, SyntheticMixDataset]
) -> None:
    mixed, kept, points = mixes[name], 0, GRID if ALL else FEW
    alone = own_loop(mixed, DataLoader(mixed, BATCH))
    expected = [[digest(*batch) for batch in epoch] for epoch in alone]
    for workers, method, persistent in points:
        loader = DataLoader(
            mixed, BATCH, num_workers=workers, multiprocessing_context=method, persistent_workers=persistent
        )
        found = [[digest(*batch) for batch in epoch] for epoch in own_loop(mixed, loader)]
        kept += found == expected
    epochs = [torch.cat([images for images, _ in epoch]) for epoch in alone]
    same = sum(repeated(epochs[a], epochs[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert same <= 0.01 * 3 * len(mixed)
    held("same bits: samples of an own loop, whatever its workers", kept, len(points))


@pytest.mark.parametrize("augment", ["trivial", "albumentations"])
@pytest.mark.parametrize("batch_size", [5, BATCH])
def test_the_samples_of_a_classifier_do_not_depend_on_workers_nor_on_the_size_of_a_batch(
    augment: str, batch_size: int
) -> None:
    data = ColouredImages(60, noise=60)
    config = ClassifierConfig(resolution=24, augment=augment, batch_size=batch_size, steps=EPOCHS * 60 // batch_size)  # type: ignore[arg-type]

    def samples(workers: int) -> list[bytes]:
        config_of = replace(config, num_workers=workers)
        known = TrainSamples(data, data, train_transform(config), config.seed)
        with closing(batches(known, TrainStream(config, len(data)), config_of)) as stream:
            return [image.numpy().tobytes() for images, _, _ in stream for image in images]

    alone, kept = samples(0), 0
    whole = ALL and batch_size == 5
    points = [(workers, method) for workers, method, persistent in GRID if persistent] if whole else [(2, "fork")]
    for workers, method in points:
        with started_by(method):
            kept += samples(workers) == alone
    one_by_one = TrainSamples(data, data, train_transform(config), config.seed)
    keys = [key for batch in TrainStream(replace(config, batch_size=1, steps=EPOCHS * 60), 60) for key in batch]
    assert [one_by_one[key][0].numpy().tobytes() for key in keys] == alone
    shown = {(epoch, index): image for (epoch, index, _), image in zip(keys, alone, strict=True)}
    pairs = [(shown[a, index], shown[b, index]) for index in range(60) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert np.mean([first != second for first, second in pairs]) >= 0.99
    held("same bits: samples of a classifier, whatever its workers", kept, len(points))

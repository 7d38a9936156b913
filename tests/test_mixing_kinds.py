"""What users hand to a mix: joined data sets, labels in tensors, other image modes, pickled copies."""

from __future__ import annotations

import copy
import pickle
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm.data.transforms
import torch
from PIL import Image
from small_sets import CLASSES, picture, real_folder, synthetic_folder
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset
from torchvision import transforms as v1
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from classifier.config import ClassifierConfig
from classifier.training import train_classifier
from finegan_aug import SyntheticMix, SyntheticMixDataset
from finegan_aug.data.folder import scan
from finegan_aug.errors import DataError
from finegan_aug.files import read_json
from finegan_aug.synthetic import read_rows

torch.set_num_threads(1)
TO_TENSOR = v2.PILToTensor()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real_folder(tmp_path_factory.mktemp("kinds") / "real")


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_folder(tmp_path_factory.mktemp("kinds") / "synthetic", per_class=50)


class Pictures(Dataset[tuple[Image.Image, Any]]):
    """Thirty pictures in a mode, their labels as `kind` makes them."""

    classes = CLASSES

    def __init__(self, mode: str = "RGB", kind: Callable[[int], Any] = int) -> None:
        self.mode, self.kind = mode, kind
        self.samples = [("", number % 3) for number in range(30)]

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        return Image.fromarray(picture(index % 3, index)).convert(self.mode), self.kind(index % 3)


# Joined data sets


def test_joined_folders_of_other_classes_are_refused(real: Path, synthetic: Path, tmp_path: Path) -> None:
    """The second folder lacks a class, so its labels mean others: its bees would be replaced by ants."""
    fewer = real_folder(tmp_path / "fewer", classes=("bee", "cat"))
    with pytest.raises(DataError) as caught:
        SyntheticMixDataset(ConcatDataset([ImageFolder(real), ImageFolder(fewer)]), synthetic)
    assert str(caught.value) == (
        "all parts of a ConcatDataset must have the same classes, found ['ant', 'bee', 'cat'] and ['bee', 'cat']; "
        "give every part a folder for each class, an empty one where it has no image"
    )


def test_a_part_that_names_no_class_takes_those_of_the_others(real: Path, synthetic: Path) -> None:
    nameless: Any = Pictures()
    nameless.classes = None
    mixed = SyntheticMixDataset(ConcatDataset([nameless, ImageFolder(real)]), synthetic)
    assert mixed.classes == list(CLASSES)


def test_parts_with_other_target_transforms_are_refused(real: Path, synthetic: Path) -> None:
    """A synthetic item got the label that the first part would have given it."""
    parts = [ImageFolder(real), ImageFolder(real, target_transform=lambda label: label + 10)]
    with pytest.raises(DataError) as caught:
        SyntheticMixDataset(ConcatDataset(parts), synthetic)
    assert str(caught.value) == (
        "all parts of a ConcatDataset must have one target_transform, found several; "
        "give it to the mix as target_transform="
    )


class ByPython:
    """Draws from the generators of Python and numpy."""

    def __call__(self, image: Image.Image) -> Tensor:
        return torch.tensor([random.random(), float(np.random.random_sample())])  # noqa: NPY002


@pytest.mark.parametrize(
    "drawing", [ByPython(), v1.Compose([timm.data.transforms.RandomResizedCropAndInterpolation(12), v1.PILToTensor()])]
)
@pytest.mark.parametrize("place", [0, 1])
def test_the_draws_of_every_part_are_seeded(drawing: Any, place: int, real: Path, synthetic: Path) -> None:
    parts = [ImageFolder(real, transform=v2.Compose([v2.RandomHorizontalFlip(), TO_TENSOR]))]
    parts.insert(place, ImageFolder(real, transform=drawing))
    mixed = SyntheticMixDataset(ConcatDataset(parts), synthetic, alpha=0.0)
    before = random.getstate()
    for index in range(12 * place, 12 * place + 12):
        assert torch.equal(mixed[index][0], mixed[index][0])
    assert random.getstate() == before
    assert len({tuple(mixed[index][0].flatten().tolist()) for index in range(12 * place, 12 * place + 12)}) == 12


# Copies that were pickled


@pytest.mark.parametrize("copied", [lambda mixed: pickle.loads(pickle.dumps(mixed)), copy.deepcopy, copy.copy])
def test_a_pickled_copy_still_tells_running_workers_the_epoch(
    copied: Callable[[SyntheticMixDataset], SyntheticMixDataset], real: Path, synthetic: Path
) -> None:
    mixed = copied(SyntheticMixDataset(ImageFolder(real, transform=TO_TENSOR), synthetic, alpha=1.0))
    loader = DataLoader(mixed, batch_size=12, num_workers=1, persistent_workers=True)
    seen = []
    for epoch in range(3):
        mixed.set_epoch(epoch)
        (batch,) = loader
        seen.append(batch[0])
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


# Without synthetic images


def test_real_only_keeps_what_the_mix_does_to_its_items(real: Path, synthetic: Path) -> None:
    mixed = SyntheticMixDataset(
        ImageFolder(real), synthetic, alpha=0.5, transform=TO_TENSOR, target_transform=lambda label: 2 - label
    )
    plain = mixed.real_only()
    assert len(plain) == len(mixed)
    folder = ImageFolder(real)
    for index in range(len(plain)):
        image, label = plain[index]
        assert label == 2 - folder.targets[index]
        assert torch.equal(image, TO_TENSOR(folder[index][0]))
    assert any(mixed.is_synthetic(index) for index in range(len(mixed)))
    assert not any(plain.is_synthetic(index) for index in range(len(plain)))
    mixed.set_epoch(3)
    assert plain.epoch == 3


def test_real_only_of_an_appending_mix_is_as_long(real: Path, synthetic: Path) -> None:
    mixed = SyntheticMixDataset(ImageFolder(real), synthetic, mode="append", per_class=2)
    plain = mixed.real_only()
    assert len(plain) == len(mixed) == 18
    assert [label for _, label in (plain[i] for i in range(18))] == mixed.targets
    assert not any(plain.is_synthetic(index) for index in range(18))


def test_a_classifier_ends_on_the_transformed_items_of_its_mix(real: Path, synthetic: Path, tmp_path: Path) -> None:
    """Once the labels of the last steps were those from before the target transform, and `append` did not train."""
    labels: list[int] = []

    def noted(label: int) -> int:
        labels.append(label)
        return label

    mixed = SyntheticMixDataset(
        ImageFolder(real), synthetic, mode="append", per_class=2, return_source=True, target_transform=noted
    )
    config = ClassifierConfig(
        model="test_vit", resolution=32, steps=4, batch_size=6, real_only_share=0.5, augment="none", cutmix=0.0
    )
    run = train_classifier(config, mixed, tmp_path / "run", classes=CLASSES)
    assert read_json(run / "result.json")["steps"] == 4
    assert len(labels) == 4 * 6


# Labels and images of other kinds


@pytest.mark.parametrize("kind", [torch.tensor, np.int64, int])
def test_labels_in_tensors_are_mixed(kind: Callable[[int], Any], synthetic: Path) -> None:
    mixed = SyntheticMixDataset(Pictures(kind=kind), synthetic, alpha=0.5, transform=TO_TENSOR)
    labels = torch.cat([batch[1] for batch in DataLoader(mixed, batch_size=10)])
    assert labels.tolist() == [number % 3 for number in range(30)]


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGBA", 4), ("RGB", 3)])
def test_synthetic_images_take_the_mode_of_real_ones(mode: str, channels: int, synthetic: Path) -> None:
    mixed = SyntheticMixDataset(Pictures(mode), synthetic, alpha=0.5, transform=TO_TENSOR)
    shapes = {batch[0].shape for batch in DataLoader(mixed, batch_size=10)}
    assert shapes == {torch.Size([10, channels, 16, 16])}


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_a_first_photograph_without_colours_takes_none_from_synthetic_images(mode: str, synthetic: Path) -> None:
    """Where the transform makes colours of them, photographs may be of any mode."""

    class Mixed(Pictures):
        def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
            image, label = super().__getitem__(index)
            return (image if index else image.convert(mode)), label

    in_colour = v2.Compose([v2.Lambda(lambda image: image.convert("RGB")), TO_TENSOR])
    mixed = SyntheticMixDataset(Mixed(), synthetic, alpha=1.0, transform=in_colour)
    shown = [synthetic / row.file for row in read_rows(synthetic)[1]]
    drawn = {TO_TENSOR(Image.open(path)).numpy().tobytes() for path in shown}
    assert all(mixed[index][0].numpy().tobytes() in drawn for index in range(30))


@pytest.mark.parametrize(
    "labels",
    [[n % 3 for n in range(30)], np.array([n % 3 for n in range(30)], dtype=object), [str(n % 3) for n in range(30)]],
)
def test_labels_of_any_kind_that_are_numbers_are_found(labels: Any, synthetic: Path) -> None:
    pictures: Any = Pictures()
    pictures.targets = labels
    pictures.samples = None
    assert SyntheticMixDataset(pictures, synthetic).targets == [number % 3 for number in range(30)]


def test_a_list_of_names_is_not_taken_for_labels(synthetic: Path) -> None:
    pictures: Any = Pictures()
    pictures.labels = list(CLASSES)
    assert SyntheticMixDataset(pictures, synthetic).targets == [number % 3 for number in range(30)]


def test_class_names_with_accents_are_one_however_they_are_written(tmp_path: Path) -> None:
    written = tuple(unicodedata.normalize("NFD", name) for name in ("bécasse", "café", "x"))
    photos = real_folder(tmp_path / "photos", classes=written)
    composed = scan(photos).classes
    assert composed != written
    for names in (composed, written):
        folder = synthetic_folder(tmp_path / str(len(names[0])), classes=names)
        mixed = SyntheticMixDataset(ImageFolder(photos), folder, alpha=1.0)
        assert [label for _, label in (mixed[i] for i in range(12))] == ImageFolder(photos).targets
        assert mixed.classes == list(written)


# Batches


def test_a_batch_of_another_kind_than_to_input_gives_is_refused(synthetic: Path) -> None:
    """Brightness from 0 to 1 in a batch of bytes was black."""
    floats = v2.Compose([TO_TENSOR, v2.ToDtype(torch.float32, scale=True)])
    with pytest.raises(DataError) as caught:
        SyntheticMix(synthetic, 1.0, to_input=floats)(
            torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.tensor([0, 1])
        )
    assert str(caught.value) == (
        "to_input must give tensors of shape [3, 16, 16] and kind torch.uint8 like the batch, found [3, 16, 16] "
        "torch.float32; pass the transform of the loader"
    )


def test_a_label_that_is_no_class_is_named(synthetic: Path) -> None:
    with pytest.raises(DataError, match="labels must be class indices below 3, found 7; call SyntheticMix before"):
        SyntheticMix(synthetic, 1.0, to_input=TO_TENSOR)(torch.zeros(2, 3, 16, 16), torch.tensor([0, 7]))

"""Soft labels: what a teacher said of a synthetic image reaches the loss as it was said, whoever loads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coloured_images import ColouredImages
from PIL import Image
from small_sets import CLASSES, colour_logits, picture, real_folder, said_of, synthetic_folder
from timm.data.mixup import Mixup
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from classifier.config import ClassifierConfig
from classifier.training import Blend, train_classifier
from finegan_aug import SyntheticMixDataset
from finegan_aug.arrays import write_array
from finegan_aug.data.transforms import seed_generators
from finegan_aug.errors import ConfigError, DataError
from finegan_aug.files import read_json
from finegan_aug.filtering import filter_synthetic
from finegan_aug.randomness import seed_for
from finegan_aug.synthetic import read_rows, write_manifest
from finegan_aug.synthetic_index import SOFT_LABELS

torch.set_num_threads(1)
TO_TENSOR = v2.Compose([v2.ToImage(), v2.ToDtype(torch.uint8)])


@pytest.fixture
def real(tmp_path: Path) -> ImageFolder:
    return ImageFolder(real_folder(tmp_path / "real"))


@pytest.fixture
def filtered(tmp_path: Path) -> Path:
    root = synthetic_folder(tmp_path / "synthetic")
    filter_synthetic(root, teacher=colour_logits, drop_lowest_confidence=0.2, batch_size=4)
    return root


def test_a_filter_keeps_what_its_teacher_said_of_each_image(filtered: Path) -> None:
    shares = np.load(filtered / SOFT_LABELS, allow_pickle=False)
    rows = read_rows(filtered)[1]
    assert (shares.dtype, shares.shape) == (np.float32, (15, 3))
    expected = torch.stack([said_of(row.label, row.image) for row in rows])
    torch.testing.assert_close(torch.from_numpy(shares), expected)
    assert [row.scores["teacher_confidence"] for row in rows] == pytest.approx(
        [float(shares[place, row.label]) for place, row in enumerate(rows)]
    )


def test_an_image_that_another_hand_dropped_has_no_soft_label_and_needs_none(real: ImageFolder, filtered: Path) -> None:
    header, rows = read_rows(filtered)
    write_manifest(filtered, header, [replace(rows[0], kept=False, dropped_by="ugly"), *rows[1:]])
    filter_synthetic(filtered, teacher=colour_logits)
    assert np.isnan(np.load(filtered / SOFT_LABELS, allow_pickle=False)).any(axis=1).tolist() == [True] + 14 * [False]
    assert len(SyntheticMixDataset(real, filtered, alpha=1.0, soft_labels=True)) == 12


def test_a_filter_without_a_teacher_leaves_no_answers_of_an_earlier_one(filtered: Path) -> None:
    filter_synthetic(filtered)
    assert not (filtered / SOFT_LABELS).exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_labels_are_the_teachers_for_synthetic_images_and_one_class_for_real_ones(
    real: ImageFolder, filtered: Path, workers: int
) -> None:
    mixed = SyntheticMixDataset(
        real, filtered, alpha=0.5, transform=TO_TENSOR, return_source=True, soft_labels=True, seed=3
    )
    context = "spawn" if workers else None
    loader = DataLoader(mixed, batch_size=12, num_workers=workers, multiprocessing_context=context)
    ((images, labels, synthetic),) = list(loader)
    assert (labels.dtype, labels.shape) == (torch.float32, (12, 3))
    assert 0 < int(synthetic.sum()) < 12
    for image, label, source, target in zip(images, labels, synthetic, mixed.targets, strict=True):
        expected = (
            colour_logits(image[None]).double().softmax(1)[0].float() if source else F.one_hot(torch.tensor(target), 3)
        )
        torch.testing.assert_close(label, expected.float())
    F.cross_entropy(torch.zeros(12, 3), labels)  # as torch takes them


def test_shares_follow_the_class_names_of_the_real_data(tmp_path: Path, filtered: Path) -> None:
    """The real classes stand in another order than those of the set."""

    class Backwards(Dataset[tuple[Image.Image, int]]):
        classes, targets = CLASSES[::-1], [0, 1, 2]

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            return Image.fromarray(picture(2 - index, 0)), index

    mixed = SyntheticMixDataset(Backwards(), filtered, alpha=1.0, transform=TO_TENSOR, soft_labels=True)
    for image, label in (mixed[index] for index in range(3)):
        torch.testing.assert_close(label, colour_logits(image[None]).double().softmax(1)[0].float().flip(0))


def test_real_images_may_have_shares_of_their_own(filtered: Path) -> None:
    class Halved(Dataset[tuple[Image.Image, Tensor]]):
        classes, targets = CLASSES, [1]

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> tuple[Image.Image, Tensor]:
            return Image.fromarray(picture(1, 0)), torch.tensor([0.0, 0.5, 0.5])

    mixed = SyntheticMixDataset(Halved(), filtered, alpha=0.0, transform=TO_TENSOR, soft_labels=True)
    assert mixed[0][1].tolist() == [0.0, 0.5, 0.5]


def test_without_soft_labels_nothing_has_changed(real: ImageFolder, filtered: Path) -> None:
    mixed = SyntheticMixDataset(real, filtered, alpha=0.5, transform=TO_TENSOR)
    assert {type(mixed[index][1]) for index in range(12)} == {int}


def _none(path: Path) -> None:
    path.unlink()


def _pickle(path: Path) -> None:
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def _short(path: Path) -> None:
    write_array(path, np.ones((14, 3), dtype=np.float32) / 3)


def _double(path: Path) -> None:
    write_array(path, np.ones((15, 3)) / 3)


def _too_much(path: Path) -> None:
    shares = np.load(path)
    shares[np.load(path.parent / "index.npy")[:, 4].argmax()] *= 2
    write_array(path, shares)


REMEDY = "filter the set: finegan-aug filter SET --data DIR"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_none, "{root} must hold soft_labels.npy, the answers of a teacher, found none"),
        (_pickle, "{root}/soft_labels.npy must be a NumPy file of numbers, found another"),
        (_short, "{root}/soft_labels.npy must hold float32 [15, 3], found float32 [14, 3]"),
        (_double, "{root}/soft_labels.npy must hold float32 [15, 3], found float64 [15, 3]"),
        (_too_much, "{root}/soft_labels.npy must hold shares that add up to 1, found 1 rows that do not"),
    ],
)
def test_soft_labels_that_do_not_fit_are_refused(
    real: ImageFolder, filtered: Path, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(filtered / SOFT_LABELS)
    with pytest.raises(DataError) as caught:
        SyntheticMixDataset(real, filtered, soft_labels=True)
    assert str(caught.value) == f"{words.format(root=filtered)}; {REMEDY}"


def test_labels_that_are_changed_on_the_way_are_refused(tmp_path: Path, real: ImageFolder, filtered: Path) -> None:
    real.target_transform = lambda label: label + 1
    with pytest.raises(ConfigError) as caught:
        SyntheticMixDataset(real, filtered, soft_labels=True)
    assert str(caught.value) == (
        "soft_labels are shares of the classes, for which real must have no target_transform, found one; "
        "leave soft_labels out, or take the target_transform away"
    )


def test_labels_are_mixed_as_timm_mixes_them_and_shares_alike() -> None:
    """timm with its own one-hot targets is the reference; the same labels as shares give the same."""
    config = ClassifierConfig(mixup=0.4, cutmix=1.0, mix_prob=1.0, label_smoothing=0.1)
    labels, real = torch.tensor([0, 2, 1, 1]), torch.zeros(4, dtype=torch.bool)
    for step in range(4):
        images = torch.rand(4, 3, 16, 16)
        mixed, targets, _ = Blend(config, 3)(images.clone(), labels, real, step)
        again, shares, _ = Blend(config, 3)(images.clone(), F.one_hot(labels, 3).float(), real, step)
        reference = Mixup(0.4, 1.0, prob=1.0, label_smoothing=0.1, num_classes=3)  # type: ignore[no-untyped-call]
        seed_generators(seed_for(config.seed, "batch-mix", step))
        expected_images, expected = reference(images.clone(), labels)
        torch.testing.assert_close(mixed, expected_images)
        torch.testing.assert_close(targets, expected)
        assert torch.equal(mixed, again)
        assert torch.equal(targets, shares)


def test_shares_are_smoothed_by_source_and_mixed_within_it() -> None:
    """Known answer: half of one image and half of the other, by pixels; smoothing s leaves (1 - s) p + s / C."""
    config = ClassifierConfig(mixup=0.0, cutmix=1.0, mix_prob=1.0, label_smoothing=0.0, synthetic_label_smoothing=0.3)
    shares = torch.tensor([[0.6, 0.4, 0.0], [0.0, 0.0, 1.0], [0.2, 0.3, 0.5]])
    images = torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1, 1).expand(3, 3, 16, 16).clone()
    mixed, targets, _ = Blend(config, 3)(images, shares, torch.ones(3, dtype=torch.bool), 5)
    smooth = 0.7 * shares + 0.1
    first = 1 - float(mixed[0].mean())  # share of its own pixels
    torch.testing.assert_close(targets[0], first * smooth[0] + (1 - first) * smooth[1])
    torch.testing.assert_close(targets[2], smooth[2])


SMALL = ClassifierConfig(model="test_efficientnet", resolution=24, steps=60, batch_size=16, threads=1, lr=3e-3)


def test_a_classifier_learns_from_shares(tmp_path: Path) -> None:
    """Chance is 1/3."""

    class Shared(ColouredImages):
        def __getitem__(self, index: int) -> tuple[Image.Image, Tensor]:  # type: ignore[override]
            return self.images[index], F.one_hot(torch.tensor(self.targets[index]), 3).float()

    config = replace(SMALL, cutmix=0.0, ema_decay=0.9, augment="flip-crop")
    held_out = ColouredImages(60, seed=1)
    run = train_classifier(config, Shared(48), tmp_path / "run", classes=held_out.classes, validation=held_out)
    assert read_json(run / "result.json")["validation"]["accuracy"] >= 0.9


def test_a_class_number_in_a_tensor_of_one_is_no_share(tmp_path: Path) -> None:
    class Numbered(ColouredImages):
        def __getitem__(self, index: int) -> tuple[Image.Image, Tensor]:  # type: ignore[override]
            return self.images[index], torch.tensor([self.targets[index]])

    config = replace(SMALL, steps=2)
    runs = [
        train_classifier(config, data, tmp_path / name, classes=CLASSES)
        for name, data in (("tensors", Numbered(12)), ("numbers", ColouredImages(12)))
    ]
    assert (runs[0] / "model.safetensors").read_bytes() == (runs[1] / "model.safetensors").read_bytes()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_training_on_soft_labels_ends_on_real_images_under_their_own(
    tmp_path: Path, real: ImageFolder, filtered: Path, workers: int
) -> None:
    mixed = SyntheticMixDataset(real, filtered, alpha=0.5, return_source=True, soft_labels=True)
    config = replace(SMALL, steps=4, real_only_share=0.5, num_workers=workers)
    run = train_classifier(config, mixed, tmp_path / "run", classes=CLASSES)
    assert read_json(run / "result.json")["steps"] == 4

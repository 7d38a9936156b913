"""The mixed data set: which items are synthetic, the same for every loader, and what is refused."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_sets import CLASSES, SIDE_PX, data_manifest, picture, real_folder, synthetic_folder
from timm.data import ImageDataset
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from finegan_aug import SyntheticMix, SyntheticMixDataset
from finegan_aug.errors import ConfigError, DataError, LeakError
from finegan_aug.lineage import Lineage, write_lineage
from finegan_aug.synthetic import encode

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations

torch.set_num_threads(1)
TO_TENSOR = v2.Compose([v2.ToImage(), v2.ToDtype(torch.uint8)])
RANDOM = v2.Compose([v2.RandomResizedCrop(12), v2.RandomHorizontalFlip(), v2.ToImage(), v2.RandomErasing(0.5)])


class Folders:
    """A real and a synthetic folder of three classes."""

    def __init__(self, root: Path) -> None:
        self.real = real_folder(root / "real")
        self.synthetic = synthetic_folder(root / "synthetic")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("mixing"))


def pixels(item: tuple[object, ...]) -> bytes:
    return np.asarray(item[0]).tobytes()


def kinds_of_real(folders: Folders) -> dict[str, tuple[object, list[tuple[int, int]]]]:
    """Data sets by name, each with the (label, image number) of its items."""
    folder = ImageFolder(folders.real)
    whole = [(label, n) for label in range(3) for n in range(4)]
    return {
        "ImageFolder": (folder, whole),
        "Subset": (Subset(folder, [3, 4, 11]), [(0, 3), (1, 0), (2, 3)]),
        "Subset of a Subset": (Subset(Subset(folder, [0, 5, 10, 11]), [3, 1]), [(2, 3), (1, 1)]),
        "timm": (ImageDataset(str(folders.real)), whole),
        "Subset of timm": (Subset(ImageDataset(str(folders.real)), np.array([5, 6])), [(1, 1), (1, 2)]),
        "ConcatDataset": (ConcatDataset([folder, Subset(folder, [8])]), [*whole, (2, 0)]),
        "own class": (OwnDataset(), [(2, 0), (0, 1)]),
    }


class OwnDataset(Dataset[tuple[Image.Image, int]]):
    """The least that is asked for: length, items, targets, classes."""

    classes = CLASSES
    targets = torch.tensor([2, 0])

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(picture(*[(2, 0), (0, 1)][index])), int(self.targets[index])


KINDS = ["ImageFolder", "Subset", "Subset of a Subset", "timm", "Subset of timm", "ConcatDataset", "own class"]


@pytest.mark.parametrize("kind", KINDS)
def test_with_alpha_zero_every_item_is_the_real_one(folders: Folders, kind: str) -> None:
    real, truth = kinds_of_real(folders)[kind]
    mixed = SyntheticMixDataset(real, folders.synthetic, alpha=0)  # type: ignore[arg-type]
    assert len(mixed) == len(truth)
    assert mixed.targets == [label for label, _ in truth]
    for item, (label, number) in zip(mixed, truth, strict=True):  # type: ignore[call-overload]
        np.testing.assert_array_equal(np.asarray(item[0]), picture(label, number))
        assert item[1] == label


@pytest.mark.parametrize("kind", KINDS)
def test_with_alpha_one_every_item_is_a_synthetic_one_of_its_class(folders: Folders, kind: str) -> None:
    real, truth = kinds_of_real(folders)[kind]
    mixed = SyntheticMixDataset(real, folders.synthetic, alpha=1)  # type: ignore[arg-type]
    pools = [{picture(label, n, synthetic=True).tobytes() for n in range(5)} for label in range(3)]
    for index, (label, _) in enumerate(truth):
        item = mixed[index]
        assert pixels(item) in pools[label]
        assert item[1] == label
        assert mixed.is_synthetic(index)
        assert mixed.samples[index] == (str(mixed.synthetic.path(int(mixed._plan(0)[index]))), label)


def test_the_wrapped_files_are_named_in_samples(folders: Folders) -> None:
    for kind in ("ImageFolder", "timm", "Subset of a Subset"):
        real, truth = kinds_of_real(folders)[kind]
        samples = SyntheticMixDataset(real, folders.synthetic, alpha=0).samples  # type: ignore[arg-type]
        assert list(samples) == [(str(folders.real / CLASSES[c] / f"{n}.png"), c) for c, n in truth]
        assert samples[:2] == [samples[0], samples[1]]
    own = SyntheticMixDataset(OwnDataset(), folders.synthetic, alpha=0)
    assert own.samples[0] == (None, 2)


def test_alpha_is_the_share_of_synthetic_items(tmp_path: Path, folders: Folders) -> None:
    """Binomial with 3,000 draws: 5 standard errors are 0.046, a false alarm once in a million."""
    mixed = SyntheticMixDataset(Subset(ImageFolder(folders.real), [0, 4, 8] * 1000), folders.synthetic, alpha=0.4)
    assert abs(np.mean([mixed.is_synthetic(n) for n in range(3000)]) - 0.4) < 0.046


def test_items_replaced_at_a_small_alpha_are_replaced_at_a_larger_one(folders: Folders) -> None:
    real = Subset(ImageFolder(folders.real), [0, 4, 8] * 50)
    small, large = (SyntheticMixDataset(real, folders.synthetic, alpha=alpha) for alpha in (0.2, 0.5))
    chosen = [index for index in range(150) if small.is_synthetic(index)]
    assert chosen
    assert all(large.is_synthetic(index) and pixels(large[index]) == pixels(small[index]) for index in chosen)


def test_an_item_gets_every_image_of_its_class_before_one_comes_twice(folders: Folders) -> None:
    mixed = SyntheticMixDataset(ImageFolder(folders.real), folders.synthetic, alpha=1)
    seen = [pixels(mixed[(epoch, 6)]) for epoch in range(10)]
    assert len(set(seen[:5])) == 5
    assert seen[5:] == seen[:5]


def test_a_key_of_epoch_and_index_is_the_item_of_that_epoch(folders: Folders) -> None:
    mixed = SyntheticMixDataset(ImageFolder(folders.real), folders.synthetic, alpha=0.5, transform=RANDOM)
    by_key = {(epoch, n): pixels(mixed[(epoch, n)]) for epoch in (3, 0, 7) for n in range(12)}
    for epoch in (0, 3, 7):
        mixed.set_epoch(epoch)
        assert [pixels(mixed[n]) for n in range(12)] == [by_key[(epoch, n)] for n in range(12)]
    assert len(set(by_key.values())) > 0.9 * len(by_key)


def test_dropped_images_are_never_used_and_their_class_stays_real(tmp_path: Path) -> None:
    real, synthetic = real_folder(tmp_path / "r"), synthetic_folder(tmp_path / "s", dropped=("bee",))
    with pytest.warns(UserWarning, match="no kept synthetic image of bee: real ones are used"):
        mixed = SyntheticMixDataset(ImageFolder(real), synthetic, alpha=1)
    assert [mixed.is_synthetic(n) for n in range(12)] == [True] * 4 + [False] * 4 + [True] * 4
    np.testing.assert_array_equal(np.asarray(mixed[5][0]), picture(1, 1))
    assert mixed.shortfall == {"bee": 4}
    with pytest.warns(UserWarning, match="no kept synthetic image of bee"):
        appended = SyntheticMixDataset(ImageFolder(real), synthetic, mode="append", per_class=6)
    assert len(appended) == 12 + 3 * 6
    assert appended.shortfall == {"bee": 6}
    extra = [appended[n] for n in range(12, 30)]
    assert Counter(label for _, label in extra) == {0: 6, 1: 6, 2: 6}
    assert {pixels(item) for item in extra if item[1] == 1} == {picture(1, n).tobytes() for n in range(4)}


def test_append_adds_exactly_per_class_items_and_other_ones_each_epoch(folders: Folders) -> None:
    mixed = SyntheticMixDataset(
        Subset(ImageFolder(folders.real), range(8)), folders.synthetic, mode="append", per_class=2
    )
    assert len(mixed) == 8 + 2 * 2  # the third class is not in the subset
    assert mixed.targets == [0] * 4 + [1] * 4 + [0, 0, 1, 1]
    assert [mixed.is_synthetic(n) for n in range(12)] == [False] * 8 + [True] * 4
    first, second = ({pixels(mixed[(epoch, n)]) for n in (8, 9)} for epoch in (0, 1))
    assert len(first | second) == 4
    np.testing.assert_array_equal(np.asarray(mixed[6][0]), picture(1, 2))


def test_class_names_decide_and_not_their_order(tmp_path: Path) -> None:
    """timm sorts numbers inside names, folders are listed by character: labels differ, names do not."""
    names = ("c10", "c9")
    real = real_folder(tmp_path / "r", classes=names)
    synthetic = synthetic_folder(tmp_path / "s", classes=names)
    mixed = SyntheticMixDataset(ImageDataset(str(real)), synthetic, alpha=1)
    assert mixed.classes == ["c9", "c10"]
    assert mixed.class_to_idx == {"c9": 0, "c10": 1}
    assert pixels(mixed[0]) in {picture(1, n, synthetic=True).tobytes() for n in range(5)}


def test_transforms_of_the_wrapped_set_run_on_synthetic_images_too(folders: Folders) -> None:
    real = ImageFolder(folders.real, transform=RANDOM, target_transform=lambda label: label + 10)
    mixed = SyntheticMixDataset(Subset(real, range(12)), folders.synthetic, alpha=0.5)
    outside = SyntheticMixDataset(
        ImageFolder(folders.real),
        folders.synthetic,
        alpha=0.5,
        transform=RANDOM,
        target_transform=lambda label: label + 10,
    )
    for index in range(12):
        assert pixels(mixed[index]) == pixels(outside[index])
        assert mixed[index][1] == outside[index][1] == mixed.targets[index] + 10


def test_a_transform_may_be_set_later(folders: Folders) -> None:
    mixed = SyntheticMixDataset(ImageFolder(folders.real), folders.synthetic, alpha=0.5)
    assert isinstance(mixed[0][0], Image.Image)
    mixed.transform = TO_TENSOR
    assert isinstance(mixed[0][0], torch.Tensor)


def test_return_source_adds_the_origin(folders: Folders) -> None:
    mixed = SyntheticMixDataset(ImageFolder(folders.real), folders.synthetic, alpha=0.5, return_source=True)
    assert [item[2] for item in mixed] == [mixed.is_synthetic(n) for n in range(12)]  # type: ignore[attr-defined]
    assert {type(item[2]) for item in mixed} == {bool}  # type: ignore[attr-defined]


def batches(mixed: SyntheticMixDataset, epochs: int = 2, **options: object) -> list[bytes]:
    """Pixels and labels of every batch of these epochs, through one loader."""
    loader = DataLoader(mixed, batch_size=5, **options)  # type: ignore[arg-type]
    found = []
    for epoch in range(epochs):
        mixed.set_epoch(epoch)
        found += [images.numpy().tobytes() + labels.numpy().tobytes() for images, labels in loader]
    return found


def albumentations_transform() -> object:
    return albumentations.Compose(
        [albumentations.RandomCrop(12, 12), albumentations.HorizontalFlip(), albumentations.ToTensorV2()]
    )


@pytest.mark.parametrize("transform", [RANDOM, albumentations_transform()], ids=["torchvision", "albumentations"])
@pytest.mark.parametrize("persistent", [False, True])
def test_workers_change_nothing_under_fork(folders: Folders, transform: object, persistent: bool) -> None:
    mixed = SyntheticMixDataset(ImageFolder(folders.real), folders.synthetic, alpha=0.5, transform=transform)  # type: ignore[arg-type]
    expected = batches(mixed)
    assert len(set(expected)) == len(expected)  # the second epoch differs from the first
    options = {"num_workers": 2, "multiprocessing_context": "fork", "persistent_workers": persistent}
    assert batches(mixed, **options) == expected


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_persistent_workers_change_nothing_under_other_start_methods(folders: Folders, method: str) -> None:
    mixed = SyntheticMixDataset(ImageFolder(folders.real), folders.synthetic, alpha=0.5, transform=RANDOM)
    expected = batches(mixed)
    assert batches(mixed, num_workers=1, multiprocessing_context=method, persistent_workers=True) == expected


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_in_a_loader_worker_is_caught_as_what_it_is(
    folders: Folders, tmp_path: Path, num_workers: int
) -> None:
    mixed = SyntheticMixDataset(
        ImageFolder(folders.real), synthetic_folder(tmp_path / "gone"), alpha=1.0, transform=TO_TENSOR
    )
    for file in (tmp_path / "gone").rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"gone/.*\.png"):
        next(iter(DataLoader(mixed, num_workers=num_workers)))


def test_a_copy_through_pickle_is_the_same_data_set(folders: Folders) -> None:
    mixed = SyntheticMixDataset(ImageFolder(folders.real), folders.synthetic, alpha=0.5, transform=RANDOM)
    mixed.set_epoch(4)
    copy = pickle.loads(pickle.dumps(mixed))
    assert [pixels(copy[n]) for n in range(12)] == [pixels(mixed[n]) for n in range(12)]


def test_reading_items_leaves_the_global_generators_alone(folders: Folders) -> None:
    mixed = SyntheticMixDataset(ImageFolder(folders.real), folders.synthetic, alpha=0.5, transform=RANDOM)
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    found = []
    for index in range(4):
        found.append(torch.rand(1))
        mixed[index]
        mixed.__getitems__([0, 1])
    assert torch.equal(torch.cat(found), expected)


def test_indices_count_from_the_end_and_stop_at_it(folders: Folders) -> None:
    mixed = SyntheticMixDataset(ImageFolder(folders.real), folders.synthetic, transform=RANDOM)
    assert pixels(mixed[-1]) == pixels(mixed[11])
    assert pixels(mixed[np.int64(3)]) == pixels(mixed[3])
    for index in (12, -13):
        with pytest.raises(IndexError, match=f"index {index} is out of range for 12 items"):
            mixed[index]


def test_the_text_form_names_what_matters(folders: Folders) -> None:
    mixed = SyntheticMixDataset(ImageFolder(folders.real), folders.synthetic)
    assert repr(mixed) == (
        "SyntheticMixDataset(12 items, 12 of them in real, 3 classes; replace, alpha=0.2; 15 of 15 synthetic images "
        "kept; seed=0, epoch=0; lineage unchecked)"
    )


def test_class_names_that_differ_are_refused_with_both_lists(tmp_path: Path, folders: Folders) -> None:
    other = synthetic_folder(tmp_path / "s", classes=("ant", "bee", "dog"))
    with pytest.raises(
        DataError, match=r"same names, found \['ant', 'bee', 'cat'\] and \['ant', 'bee', 'dog'\]; name the folders"
    ):
        SyntheticMixDataset(ImageFolder(folders.real), other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, r"alpha must lie in \[0, 1\], found 1.5; choose"),
        ({"alpha": -0.1}, r"alpha must lie in \[0, 1\], found -0.1; choose"),
        ({"alpha": float("nan")}, r"alpha must lie in \[0, 1\], found nan; choose"),
        ({"mode": "add"}, "mode must be 'replace' or 'append', found 'add'; choose one of the two"),
        ({"mode": "append"}, "found None with 'append'; give per_class=100 with mode='append', or leave it out"),
        ({"per_class": 3}, "found 3 with 'replace'; give per_class=100"),
    ],
)
def test_options_out_of_range_are_refused(folders: Folders, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SyntheticMixDataset(ImageFolder(folders.real), folders.synthetic, **options)  # type: ignore[arg-type]


def test_a_wrapped_set_that_yields_tensors_is_refused_together_with_a_transform(folders: Folders) -> None:
    real = ImageFolder(folders.real, transform=TO_TENSOR)
    with pytest.raises(DataError, match=r"real must yield PIL images, .* found Image; give the transform to one"):
        SyntheticMixDataset(real, folders.synthetic, transform=RANDOM)


def test_a_set_without_labels_is_refused(folders: Folders) -> None:
    with pytest.raises(DataError, match=r"must be reachable as \.targets or \.samples, found neither in list; give it"):
        SyntheticMixDataset([(Image.new("RGB", (4, 4)), 0)], folders.synthetic)


@pytest.mark.fault("leaks: sets with a leak behind them, refused")
def test_the_firewall_stands_between_a_test_image_and_the_mix(tmp_path: Path, folders: Folders) -> None:
    synthetic = synthetic_folder(tmp_path / "s")
    manifest = data_manifest(folders.real, {"0": "test"})
    assert SyntheticMixDataset(ImageFolder(folders.real), synthetic, data_manifest=manifest).lineage_status == "unknown"
    made = Lineage({}, CLASSES, manifest.sha256, {"checkpoint_sha256": "c" * 64}, "tied", "s")
    write_lineage(synthetic, made.with_role("gan_train", [manifest.of("train")[0].sha256]))
    mixed = SyntheticMixDataset(ImageFolder(folders.real), synthetic, alpha=1, data_manifest=manifest)
    assert mixed.lineage_status == "checked"
    mixed[0]
    for number in range(5):
        (synthetic / f"ant/{number:08d}.png").write_bytes(encode(picture(0, 3)))  # a real image in disguise
    with pytest.raises(LeakError, match="is not the file that its manifest names"):
        mixed[0]
    write_lineage(synthetic, made.with_role("gan_train", [manifest.of("test")[0].sha256]))
    with pytest.raises(LeakError, match="no test image may stand behind synthetic images"):
        SyntheticMixDataset(ImageFolder(folders.real), synthetic, data_manifest=manifest)


def batch(count: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(count, 3, SIDE_PX, SIDE_PX, dtype=torch.uint8), torch.arange(count) % 3


def test_the_hook_replaces_a_share_of_the_batch_by_images_of_the_same_label(folders: Folders) -> None:
    images, labels = batch()
    mix = SyntheticMix(folders.synthetic, alpha=0.5, to_input=TO_TENSOR, seed=1)
    mixed, same = mix(images, labels)
    assert torch.equal(same, labels)
    assert not images.any()  # the batch of the loader is left as it was
    assert 15 < int(mix.is_synthetic.sum()) < 45
    for image, label, synthetic in zip(mixed, labels, mix.is_synthetic, strict=True):
        pool = {picture(int(label), n, synthetic=True).transpose(2, 0, 1).tobytes() for n in range(5)}
        assert (image.numpy().tobytes() in pool) == bool(synthetic)
        assert bool(image.any()) == bool(synthetic)


def test_the_hook_repeats_by_its_step_and_by_the_place_in_the_global_batch(folders: Folders) -> None:
    images, labels = batch(24)
    mix = SyntheticMix(folders.synthetic, alpha=0.5, to_input=v2.Compose([v2.RandomResizedCrop(SIDE_PX), TO_TENSOR]))
    first, second = mix(images, labels)[0], mix(images, labels)[0]
    assert mix.step == 2
    assert not torch.equal(first, second)
    assert torch.equal(mix(images, labels, step=0)[0], first)
    halves = [mix(images[part], labels[part], step=1, position=part.start)[0] for part in (slice(0, 12), slice(12, 24))]
    assert torch.equal(torch.cat(halves), second)


def test_the_hook_follows_given_class_names(tmp_path: Path) -> None:
    synthetic = synthetic_folder(tmp_path, classes=("c10", "c9"))
    mix = SyntheticMix(synthetic, alpha=1, to_input=TO_TENSOR, classes=["c9", "c10"])
    mixed, _ = mix(torch.zeros(1, 3, SIDE_PX, SIDE_PX, dtype=torch.uint8), torch.tensor([0]))
    assert mixed[0].numpy().tobytes() in {picture(1, n, synthetic=True).transpose(2, 0, 1).tobytes() for n in range(5)}


def test_the_hook_leaves_classes_without_images_and_alpha_zero_alone(tmp_path: Path, folders: Folders) -> None:
    images, labels = batch(9)
    synthetic = synthetic_folder(tmp_path, dropped=("bee",))
    mix = SyntheticMix(synthetic, alpha=1, to_input=TO_TENSOR)
    mix(images, labels)
    assert mix.is_synthetic.tolist() == [True, False, True] * 3
    assert SyntheticMix(synthetic, alpha=0, to_input=TO_TENSOR)(images, labels)[0] is images


def test_the_hook_refuses_what_it_cannot_mix(folders: Folders) -> None:
    images, labels = batch(6)
    mix = SyntheticMix(folders.synthetic, alpha=1, to_input=TO_TENSOR)
    for bad in (torch.zeros(6, 3), labels + 1):
        with pytest.raises(DataError, match=r"labels must be class indices below 3, found .*; call SyntheticMix"):
            mix(images, bad)
    with pytest.raises(
        DataError,
        match=r"of shape \[3, 8, 8\] and kind torch.uint8 like the batch, found \[3, 16, 16\] torch.uint8; pass the",
    ):
        mix(images[:, :, :8, :8], labels)
    with pytest.raises(ConfigError, match=r"alpha must lie in \[0, 1\], found 2; choose"):
        SyntheticMix(folders.synthetic, alpha=2, to_input=TO_TENSOR)

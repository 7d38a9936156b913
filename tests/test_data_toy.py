"""The embedded data set: deterministic, true to its masks and boxes, fine-grained in earnest, frozen."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torchvision.datasets import ImageFolder

from finegan_aug.data.toy import (
    TOY_CLASSES,
    TOY_PARENTS,
    ToyAnimals,
    ToyImage,
    draw,
    toy_child_to_parent,
    write_toy,
)
from finegan_aug.data.toy_animals import circle, ellipse, limb, polygon
from finegan_aug.data.toy_drawing import NUM_DRAWS, draw_scene
from finegan_aug.errors import ConfigError, DataError, StorageError
from finegan_aug.randomness import uniforms

Array = npt.NDArray[np.float64]


@cache
def drawn(count: int = 720, resolution: int = 32) -> list[ToyImage]:
    return [draw(index, resolution=resolution) for index in range(count)]


def test_twelve_classes_in_sorted_order_of_four_parents_with_three_plumages_each() -> None:
    assert len(TOY_CLASSES) == 12
    assert list(TOY_CLASSES) == sorted(TOY_CLASSES)
    assert list(TOY_PARENTS) == sorted(TOY_PARENTS)
    child_to_parent = toy_child_to_parent()
    assert child_to_parent.dtype == np.int64
    assert np.bincount(child_to_parent).tolist() == [3, 3, 3, 3]
    for name, parent in zip(TOY_CLASSES, child_to_parent, strict=True):
        assert name.startswith(TOY_PARENTS[parent] + "_")
    plumages = {parent: {n.split("_")[1] for n in TOY_CLASSES if n.startswith(parent + "_")} for parent in TOY_PARENTS}
    assert len({frozenset(p) for p in plumages.values()}) == 1


def test_an_image_depends_on_seed_and_index_alone() -> None:
    backwards = {index: draw(index, resolution=32) for index in (700, 13, 5)}
    again = draw(5, resolution=32)
    np.testing.assert_array_equal(backwards[5].image, again.image)
    np.testing.assert_array_equal(backwards[5].mask, again.mask)
    assert backwards[5].box == again.box
    assert not np.array_equal(draw(5, resolution=32, seed=1).image, again.image)
    assert len({toy.image.tobytes() for toy in drawn()}) == 720


def test_image_mask_box_label_and_parent_have_the_promised_form() -> None:
    toy = draw(17, resolution=48)
    assert toy.image.shape == (48, 48, 3)
    assert toy.mask.shape == (48, 48)
    assert toy.image.dtype == toy.mask.dtype == np.uint8
    assert set(np.unique(toy.mask)) == {0, 255}
    assert all(isinstance(side, float) for side in toy.box)
    assert (toy.label, toy.parent) == (5, 1)


def test_the_box_is_tight_around_the_mask_and_inside_the_image() -> None:
    for toy in drawn(count=360):
        x1, y1, x2, y2 = map(int, toy.box)
        assert 0 <= x1 < x2 <= 32
        assert 0 <= y1 < y2 <= 32
        inside = toy.mask[y1:y2, x1:x2]
        assert inside.sum() == toy.mask.sum()
        for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
            assert edge.any()


def test_the_mask_is_the_animal_the_ground_outside_does_not_know_it() -> None:
    """Same numbers, another coat: the pixels away from the mask stay, those under it change."""
    for row in uniforms(1, list(range(12)), NUM_DRAWS):
        hooded, cover = draw_scene("cat", "hooded", row, 64)
        spotted, other_cover = draw_scene("cat", "spotted", row, 64)
        np.testing.assert_array_equal(cover, other_cover)
        change = np.abs(hooded - spotted).max(axis=2)
        assert change[cover == 0].max() == 0
        assert (change[cover >= 0.5] > 0.05).mean() > 0.8


@pytest.mark.parametrize("index", range(12))
def test_the_scene_is_the_same_at_every_resolution(index: int) -> None:
    small, large = draw(index, resolution=32), draw(index, resolution=128)
    pooled = large.image.reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
    assert np.abs(pooled - small.image).mean() < 4  # of 255
    a, b = small.mask > 0, large.mask.reshape(32, 4, 32, 4).mean(axis=(1, 3)) > 127
    assert (a & b).sum() / (a | b).sum() > 0.85
    np.testing.assert_allclose(np.array(large.box) / 4, small.box, atol=1.5)
    assert (small.label, small.parent) == (large.label, large.parent)


def test_the_animal_leaves_room_for_background_patches() -> None:
    sides = [max(t.box[2] - t.box[0], t.box[3] - t.box[1]) / 32 for t in drawn()]
    assert 0.4 <= np.median(sides) <= 0.55
    assert min(sides) > 0.25
    assert max(sides) < 0.75


def test_classes_are_balanced_in_both_splits() -> None:
    assert np.bincount(ToyAnimals("train").targets).tolist() == [200] * 12
    assert np.bincount(ToyAnimals("test").targets).tolist() == [100] * 12


def colour_histogram(toy: ToyImage) -> Array:
    """Counts of the animal's own pixels in 8 x 4 x 4 cells of hue, saturation and value, as shares."""
    hsv = np.asarray(Image.fromarray(toy.image).convert("HSV"), np.int64)[toy.mask > 0]
    cells = (hsv[:, 0] // 32) * 16 + (hsv[:, 1] // 64) * 4 + hsv[:, 2] // 64
    return np.bincount(cells, minlength=128) / len(cells)


def outline(toy: ToyImage) -> Array:
    """The mask cut to its box, 16 x 16, whatever its size and place."""
    crop = Image.fromarray(toy.mask).crop(toy.box).resize((16, 16), Image.Resampling.BOX)
    return np.asarray(crop, np.float64).ravel() / 255


def accuracy(features: Array, labels: npt.NDArray[np.int64]) -> float:
    """Logistic regression on the first two thirds, judged on the rest."""
    cut = len(labels) * 2 // 3
    features = StandardScaler().fit(features[:cut]).transform(features)
    model = LogisticRegression(C=0.05, max_iter=300).fit(features[:cut], labels[:cut])
    return float(model.score(features[cut:], labels[cut:]))


def test_colour_alone_does_not_give_the_class_but_the_plumage() -> None:
    labels = np.array([t.label for t in drawn()])
    features = np.array([colour_histogram(t) for t in drawn()])
    assert accuracy(features, labels) < 0.65
    assert accuracy(features, labels % 3) > 0.8


def test_shape_alone_does_not_give_the_class_but_the_body_plan() -> None:
    labels = np.array([t.label for t in drawn()])
    features = np.array([outline(t) for t in drawn()])
    assert accuracy(features, labels) < 0.45
    assert accuracy(features, labels // 3) > 0.8


def test_colour_and_shape_together_give_the_class() -> None:
    labels = np.array([t.label for t in drawn()])
    features = np.array([np.concatenate([colour_histogram(t), outline(t)]) for t in drawn()])
    assert accuracy(features, labels) > 0.9


def test_the_ground_alone_does_not_give_the_class() -> None:
    """Chance is 1/12; 240 judged images stay below 0.16 but for one set in ten thousand."""
    labels = np.array([t.label for t in drawn()])
    features = np.array([np.where(t.mask[..., None] > 0, 0, t.image)[::4, ::4].reshape(-1) for t in drawn()])
    border = np.zeros((8, 8, 3), bool)
    border[[0, -1]] = border[:, [0, -1]] = True
    assert accuracy(features[:, border.ravel()].astype(np.float64), labels) < 0.16


# Mean colours of 4 x 4 cells at 64 px: 16 times RGB, hexadecimal. A tolerance of one level, and no hash of the pixels,
# because float32 arithmetic of another processor may round a pixel the other way.
FROZEN = {
    0: "4f3a4d4a36474734454936474c3d48725d4d676d724231404734465e4b5238505b413243453245402e40433545463c4b",
    1: "b8b29fc2b29dbbac9886a493b1ac9c826d72bba98e739b8c7d9d8d87977aab8f577599874c92865190877f998c739b89",
    2: "9990867770676b645d787370c4b9ae658a887978788b8279d2c6bbbeb0a78f7d79857c75cbc0b5c9beb3aea8a0959088",
    3: "4059513f65623c6360406560475b534a6961546c61415850425f5a7076667b6d585255474661594861584e55486a6451",
    4: "f1ad9aa475706a4e55815e61f5af9cbf796caa685e74555cc68d84a9695eb0695c715257ac7b77da9e8dcc9282886362",
    5: "eec2a1ccb49abbb09ac2b199eac7aa97998caf9e90b6a798e0c4a7b8ab95b8a390cbbca4d9b59de5ba9ce1b99acbb197",
    6: "c0ab90e3b69adcb79be2c0a3bec0a3b2a58dbf9c7ab4aa91c7caaa8da288a4a98cada891c0bfa1cbbb9edcc0a4d7bea5",
    7: "957e71997867a77f6baf836e866f688f6863b9916a9c7968987e73a08663b29068a984709c8176a87d67b38066a67d69",
    8: "e1c7cbdfc4c8ddc3c7e3c7cadac5cba4aab6c0a6acd8bbbbb79a96a28a8fb49895d4afa4e2c3c1d5b7b4d0ada3c39f93",
    9: "91a27b889679a4b1b3bbc8d784947a77918a92998dbfcbd88693897a9496a6a280a6b2aaa3afb3abb7c0a3b0af9aa69e",
    10: "99865e636d5273856892855f616a4e866d4c826f5ead95695c684e6b6c50866e53af95677375558278559d875e898661",
    11: "4f464e8d8888837b7f594f575e555b7780816659604b414c61585e6d7174554a524439456258606a6a656e656a584f56",
    3599: "a095807768589e8f7acdb18f8f8371607a6b75665bc7bb9e8e826f838775bab49cd4d1b5938673918774ceccaee3e1c2",
}


def test_the_pictures_are_frozen() -> None:
    """Figures of different days are comparable only on the same pictures: raise DRAWING if these must change."""
    for index, thumbnail in FROZEN.items():
        expected = np.frombuffer(bytes.fromhex(thumbnail), np.uint8).reshape(4, 4, 3).astype(np.float64)
        found = draw(index, resolution=64).image.reshape(4, 16, 4, 16, 3).mean(axis=(1, 3))
        np.testing.assert_allclose(found, expected, atol=1.0)


def test_toy_animals_is_a_map_data_set_of_pil_images_and_labels() -> None:
    train, test = ToyAnimals("train", resolution=32), ToyAnimals("test", resolution=32)
    assert (len(train), len(test)) == (2400, 1200)
    assert train.classes == list(TOY_CLASSES)
    assert train.class_to_idx["fish_striped"] == 11
    image, label = test[-1]
    assert image.size == (32, 32)
    assert image.mode == "RGB"
    assert label == test.targets[-1] == 11
    np.testing.assert_array_equal(np.asarray(test[0][0]), draw(2400, resolution=32).image)
    with pytest.raises(IndexError):
        train[2400]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "set", resolution=32, num_train=36, num_test=24, seed=3)


def test_the_written_folder_reads_as_an_image_folder_with_the_drawn_pixels(folder: Path) -> None:
    train, test = ImageFolder(str(folder / "train")), ImageFolder(str(folder / "test"))
    assert train.classes == test.classes == list(TOY_CLASSES)
    assert np.bincount(train.targets).tolist() == [3] * 12
    assert np.bincount(test.targets).tolist() == [2] * 12
    for data in (train, test):
        for (image, label), (path, _) in zip(data, data.samples, strict=True):
            toy = draw(int(Path(path).stem), resolution=32, seed=3)
            np.testing.assert_array_equal(np.asarray(image), toy.image)
            assert label == toy.label
    assert {Path(p).stem for p, _ in train.samples}.isdisjoint(Path(p).stem for p, _ in test.samples)


def test_written_boxes_masks_and_truth_are_those_drawn(folder: Path) -> None:
    for split, count in (("train", 36), ("test", 24)):
        with open(folder / f"{split}_boxes.csv", newline="", encoding="utf-8") as stream:
            boxes = list(csv.DictReader(stream))
        assert len(boxes) == count
        for row in boxes:
            toy = draw(int(Path(row["path"]).stem), resolution=32, seed=3)
            assert tuple(float(row[side]) for side in ("x1", "y1", "x2", "y2")) == toy.box
            np.testing.assert_array_equal(np.asarray(Image.open(folder / f"{split}_masks" / row["path"])), toy.mask)
    with open(folder / "truth.csv", newline="", encoding="utf-8") as stream:
        truth = list(csv.DictReader(stream))
    assert len(truth) == 60
    for row in truth:
        assert (folder / row["path"]).is_file()
        split, name, _ = row["path"].split("/")
        assert (row["split"], row["class"]) == (split, name)
        assert row["parent"] == name.split("_")[0]


def test_writing_again_leaves_a_complete_folder_alone(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write_toy(folder, resolution=32, num_train=36, num_test=24, seed=3) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_writing_over_something_else_is_refused_and_loses_nothing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        write_toy(folder, resolution=48, num_train=36, num_test=24, seed=3)
    assert caught.value.cause == f"{folder} holds something other than the toy set asked for"
    assert caught.value.remedy == "choose another folder or empty it"
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError):
        write_toy(tmp_path, num_train=12, num_test=12)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_write_cut_short_leaves_nothing_and_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full_disk)
        with pytest.raises(StorageError) as caught:
            write_toy(tmp_path / "set", resolution=32, num_train=12, num_test=12)
    assert caught.value.cause == f"cannot write {tmp_path / 'set'}: No space left on device"
    assert list(tmp_path.iterdir()) == []
    assert (write_toy(tmp_path / "set", resolution=32, num_train=12, num_test=12) / "truth.csv").is_file()


@pytest.mark.parametrize(
    ("call", "cause"),
    [
        (lambda: draw(0, resolution=31), "toy images need a side of at least 32 px, found 31"),
        (lambda: draw(-1), "the index of a toy image must not be negative, found -1"),
        (lambda: ToyAnimals("val"), 'split must be "train" or "test", found "val"'),
        (
            lambda: write_toy("unused", num_train=11, num_test=24),
            "each split needs at least 12 images, one per class, found 11 and 24",
        ),
    ],
)
def test_wrong_arguments_are_named(call: object, cause: str) -> None:
    with pytest.raises(ConfigError) as caught:
        call()  # type: ignore[operator]
    assert caught.value.cause == cause


def test_shapes_are_zero_on_their_outlines_negative_inside_and_distances_outside() -> None:
    def at(x: float, y: float) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        return np.full((1, 1), x, np.float32), np.full((1, 1), y, np.float32)

    assert circle(*at(3, 4), (0, 0), 2).item() == pytest.approx(3)
    assert ellipse(*at(2, 0), (0, 0), (2, 1)).item() == pytest.approx(0, abs=1e-5)
    assert ellipse(*at(0, 2), (0, 0), (2, 1), angle=np.pi / 2).item() == pytest.approx(0, abs=1e-5)
    assert ellipse(*at(0.1, 0.1), (0, 0), (2, 1)).item() < 0
    assert limb(*at(0.5, 2), (0, 0), (1, 0), (0.5, 0.25)).item() == pytest.approx(2 - 0.375)
    square = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
    for corners in (square, square[::-1]):
        assert polygon(*at(0.5, 0.25), corners).item() == pytest.approx(-0.25)
        assert polygon(*at(3.0, 0.5), corners).item() == pytest.approx(2)

"""The filter chain: known answers from stub teachers, the manifest alone edited, twice the same."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_sets import CLASSES, SIDE_PX, picture, real_folder, synthetic_folder
from torch import Tensor

from finegan_aug.data.duplicates import dhash
from finegan_aug.errors import ConfigError, DataError
from finegan_aug.filtering import REASONS, filter_synthetic
from finegan_aug.synthetic import INDEX, MANIFEST, SyntheticRow, encode, read_rows, write_manifest
from finegan_aug.synthetic_index import KEPT, open_index

torch.set_num_threads(1)


def number_of(images: Tensor) -> Tensor:
    """Which image of its class each one is, int64 [N], found by its pixels."""
    known = {picture(c, n, synthetic=True).transpose(2, 0, 1).tobytes(): n for c in range(3) for n in range(10)}
    return torch.tensor([known[image.numpy().tobytes()] for image in images])


def brightest(images: Tensor) -> Tensor:
    """Int64 [N]: the channel that is bright, which is the class."""
    return images.float().mean((2, 3)).argmax(1)


def sure(images: Tensor) -> Tensor:
    """Logits that always name the true class; image n has the logit n + 1, so 9 is the surest."""
    assert images.dtype == torch.uint8
    return torch.nn.functional.one_hot(brightest(images), 3) * (number_of(images)[:, None] + 1.0)


def test_the_surest_ninety_percent_of_each_class_are_kept(tmp_path: Path) -> None:
    root = synthetic_folder(tmp_path, per_class=10)
    report = filter_synthetic(root, teacher=sure, batch_size=7)
    assert (report.total, report.kept) == (30, 27)
    expected = {"teacher_top_k": 0, "low_confidence": 3, "high_confidence": 0, "near_duplicate": 0, "outlier": 0}
    assert report.dropped == expected
    assert [(row.image, row.dropped_by) for row in read_rows(root)[1] if not row.kept] == [(0, "low_confidence")] * 3
    assert report.settings["top_k"] == 1  # max(1, min(10, 3 // 4))
    row = read_rows(root)[1][4]
    expected = float(torch.tensor([5.0, 0.0, 0.0], dtype=torch.float64).softmax(0)[0])
    assert row.scores == {"teacher_rank": 1, "teacher_confidence": expected}


def test_an_image_that_the_teacher_takes_for_another_class_is_dropped_unless_it_is_near_the_top(tmp_path: Path) -> None:
    """The teacher puts class c second for the class before it: rank 2 for all, rank 1 only for shifted labels."""

    def shifted(images: Tensor) -> Tensor:
        truth = torch.nn.functional.one_hot(brightest(images), 3).float()
        return 2 * truth.roll(1, dims=1) + truth

    root = synthetic_folder(tmp_path)
    with pytest.warns(UserWarning, match="only 0 of 15 synthetic images survive the filter, less than 20 %"):
        report = filter_synthetic(root, teacher=shifted, drop_lowest_confidence=0)
    assert report.dropped["teacher_top_k"] == 15
    assert report.warnings[1] == "no synthetic image survives in ant, bee, cat: real images are used there"
    assert filter_synthetic(root, teacher=shifted, drop_lowest_confidence=0, top_k=2).kept == 15


def test_a_teacher_that_cannot_tell_classes_apart_drops_everything(tmp_path: Path) -> None:
    """Equal logits count against the image: a useless teacher must not wave images through."""
    root = synthetic_folder(tmp_path)
    with pytest.warns(UserWarning, match="survive"):
        report = filter_synthetic(root, teacher=lambda images: torch.zeros(len(images), 3))
    assert report.kept == 0


def test_the_upper_bound_drops_what_is_too_easy(tmp_path: Path) -> None:
    root = synthetic_folder(tmp_path, per_class=10)
    limit = float(torch.tensor([8.5, 0, 0]).softmax(0)[0])
    report = filter_synthetic(root, teacher=sure, drop_lowest_confidence=0, max_confidence=limit)
    assert [row.image for row in read_rows(root)[1] if not row.kept] == [8, 9] * 3
    assert report.dropped["high_confidence"] == 6


def test_counts_by_class_and_reason_add_up(tmp_path: Path) -> None:
    """Class 1 loses its odd images to the teacher, then every class a tenth of what is left, rounded down."""

    def partial(images: Tensor) -> Tensor:
        wrong = (brightest(images) == 1) & (number_of(images) % 2 == 1)
        return torch.where(wrong[:, None], -sure(images), sure(images))

    report = filter_synthetic(synthetic_folder(tmp_path, per_class=10), teacher=partial, drop_lowest_confidence=0.2)
    assert report.per_class["bee"] == {
        "total": 10,
        "kept": 4,
        "teacher_top_k": 5,
        "low_confidence": 1,
        "high_confidence": 0,
        "near_duplicate": 0,
        "outlier": 0,
    }
    assert report.per_class["ant"]["low_confidence"] == 2
    for counts in [*report.per_class.values(), {"total": report.total, "kept": report.kept, **report.dropped}]:
        assert counts["total"] == counts["kept"] + sum(counts[reason] for reason in REASONS)


def flat(images: Tensor) -> Tensor:
    return images.float().flatten(1)


def train_images() -> Tensor:
    whole = np.stack([picture(c, n) for c in range(3) for n in range(4)])
    return torch.from_numpy(whole).permute(0, 3, 1, 2)


def plant(root: Path, label: int, number: int, image: np.ndarray) -> None:
    (root / CLASSES[label] / f"{number:08d}.png").write_bytes(encode(image))


def test_copies_of_training_images_are_found_in_feature_space(tmp_path: Path) -> None:
    root = synthetic_folder(tmp_path)
    plant(root, 0, 3, picture(0, 2))
    nearly = picture(2, 1).copy()
    nearly[0, 0] += 3
    plant(root, 2, 4, nearly)
    report = filter_synthetic(root, features_fn=flat, train_features=flat(train_images()))
    found = [(row.class_name, row.image) for row in read_rows(root)[1] if not row.kept]
    assert found == [("ant", 3), ("cat", 4)]
    assert report.dropped["near_duplicate"] == 2
    # Reference: distance of an untouched image to the nearest of the twelve, with numpy.
    own = picture(1, 0, synthetic=True).astype(np.float64).transpose(2, 0, 1).ravel()
    expected = min(np.linalg.norm(own - other) for other in flat(train_images()).double().numpy())
    assert read_rows(root)[1][5].scores["train_distance"] == pytest.approx(expected, rel=1e-12)


def test_copies_are_found_also_where_training_images_repeat(tmp_path: Path) -> None:
    """Two equal training images make the threshold zero; an exact copy still does not pass."""
    root = synthetic_folder(tmp_path)
    plant(root, 0, 3, picture(0, 2))
    features = flat(train_images())
    report = filter_synthetic(root, features_fn=flat, train_features=torch.cat([features, features]))
    assert report.dropped["near_duplicate"] == 1


def test_copies_of_training_images_are_found_by_their_hash_upright_and_mirrored(tmp_path: Path) -> None:
    real, root = real_folder(tmp_path / "r"), synthetic_folder(tmp_path / "s")
    hashes = [dhash(Image.open(path).convert("RGB")) for path in sorted(real.rglob("*.png"))]
    plant(root, 0, 3, picture(0, 2))
    plant(root, 1, 0, picture(1, 3)[:, ::-1])
    plant(root, 1, 1, np.full((SIDE_PX, SIDE_PX, 3), 90, np.uint8))  # flat: its hash says nothing
    report = filter_synthetic(root, train_dhashes=hashes)
    assert [(row.class_name, row.image) for row in read_rows(root)[1] if not row.kept] == [("ant", 3), ("bee", 0)]
    assert report.dropped["near_duplicate"] == 2
    assert read_rows(root)[1][6].scores == {"train_dhash_bits": 64}


def test_what_is_least_like_any_photograph_is_dropped_of_each_class(tmp_path: Path) -> None:
    root = synthetic_folder(tmp_path, per_class=6)
    plant(root, 0, 3, picture(0, 2))  # a copy: gone before, so not among the five of which two are dropped
    white = np.full((SIDE_PX, SIDE_PX, 3), 255, np.uint8)
    for place in ((0, 5), (1, 0), (2, 4)):
        plant(root, *place, white)
    real = flat(train_images()).double().numpy()
    report = filter_synthetic(root, features_fn=flat, train_features=flat(train_images()), drop_outliers=0.4)
    rows = read_rows(root)[1]
    assert (report.dropped["near_duplicate"], report.dropped["outlier"]) == (1, 6)
    for label, name in enumerate(CLASSES):
        own = [row for row in rows if row.class_name == name and row.dropped_by != "near_duplicate"]
        pixels = [np.asarray(Image.open(root / row.file), np.float64).transpose(2, 0, 1).ravel() for row in own]
        distance = [min(np.linalg.norm(image - other) for other in real) for image in pixels]
        farthest = sorted(range(len(own)), key=lambda place: -distance[place])[:2]
        assert {own[place].image for place in farthest} == {row.image for row in own if row.dropped_by == "outlier"}
        assert any(row.image == (5, 0, 4)[label] for row in own if row.dropped_by == "outlier")
    assert not any(row.dropped_by == "outlier" for row in refiltered(root))


def refiltered(root: Path) -> list[SyntheticRow]:
    """The rows after a filtering that seeks no outlier."""
    filter_synthetic(root, features_fn=flat, train_features=flat(train_images()))
    return read_rows(root)[1]


def test_filtering_twice_changes_nothing_and_touches_no_image(tmp_path: Path) -> None:
    root = synthetic_folder(tmp_path, per_class=10)
    images = {path: path.read_bytes() for path in root.rglob("*.png")}
    first = filter_synthetic(root, teacher=sure, features_fn=flat, train_features=flat(train_images()))
    written = (root / MANIFEST).read_bytes(), (root / INDEX).read_bytes()
    assert filter_synthetic(root, teacher=sure, features_fn=flat, train_features=flat(train_images())) == first
    assert ((root / MANIFEST).read_bytes(), (root / INDEX).read_bytes()) == written
    assert {path: path.read_bytes() for path in root.rglob("*.png")} == images
    assert read_rows(root)[0].filter["kept"] == 27  # type: ignore[index]
    assert open_index(root).table[:, KEPT].sum() == 27


def test_another_filter_judges_anew_but_leaves_what_a_person_dropped(tmp_path: Path) -> None:
    root = synthetic_folder(tmp_path, per_class=10, dropped=("bee",))
    header, rows = read_rows(root)
    rows[0].scores["sharpness"] = 0.5
    write_manifest(root, header, rows)
    with pytest.warns(UserWarning, match="no synthetic image survives in bee"):
        assert filter_synthetic(root, teacher=sure, drop_lowest_confidence=0.5).kept == 10
    with pytest.warns(UserWarning, match="no synthetic image survives in bee"):
        report = filter_synthetic(root, teacher=sure, drop_lowest_confidence=0)
    assert (report.total, report.kept) == (20, 20)
    after = read_rows(root)[1]
    assert {row.dropped_by for row in after if row.class_name == "bee"} == {"by_hand"}
    assert after[0].scores["sharpness"] == 0.5


def test_a_folder_of_another_program_gets_a_manifest(tmp_path: Path) -> None:
    root = real_folder(tmp_path / "x")
    Image.fromarray(picture(0, 0)).resize((40, 30)).save(root / "ant" / "0.png")  # sizes may differ
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = filter_synthetic(
            root, teacher=lambda images: torch.nn.functional.one_hot(brightest(images), 3), resolution_px=8
        )
    assert (report.total, report.kept) == (12, 12)
    assert (root / MANIFEST).exists()


def test_a_teacher_of_other_classes_is_refused_and_the_manifest_left_alone(tmp_path: Path) -> None:
    root = synthetic_folder(tmp_path)
    before = (root / MANIFEST).read_bytes()
    with pytest.raises(
        DataError, match=r"the teacher must give finite logits of shape \[15, 3\], found \[15, 2\]; train"
    ):
        filter_synthetic(root, teacher=lambda images: torch.zeros(len(images), 2))
    with pytest.raises(DataError, match="the teacher must give finite logits"):
        filter_synthetic(root, teacher=lambda images: torch.full((len(images), 3), float("nan")))
    assert (root / MANIFEST).read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k must be at least 1, found 0; leave it out for the default"),
        ({"drop_outliers": -0.1}, r"drop_outliers must lie in \[0, 1\), found -0.1; give a share"),
        ({"drop_outliers": 0.5}, "drop_outliers needs features_fn and train_features, found none; give both"),
        ({"drop_lowest_confidence": 1.0}, r"drop_lowest_confidence must lie in \[0, 1\), found 1.0; give a share"),
        ({"max_confidence": 0.0}, r"max_confidence must lie in \(0, 1\], found 0.0; give a probability"),
        ({"features_fn": flat}, "features_fn and train_features must come together, found one; give both or none"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        filter_synthetic(synthetic_folder(tmp_path), teacher=sure, **options)  # type: ignore[arg-type]

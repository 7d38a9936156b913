"""Variety within classes and memorisation: references by hand, laws that give a known number, and the rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from finegan_aug.class_audit import Made
from finegan_aug.features import Extractor
from finegan_aug.judging import Photographs
from finegan_aug.nearest import copy_distance, nearest_distances
from finegan_aug.randomness import normals, seed_for
from finegan_aug.set_measures import intra_class_coverage, memorised_share, set_rows


def cloud(name: str, count: int, dimensions: int = 8) -> Tensor:
    return torch.from_numpy(normals(seed_for(0, name), range(count), dimensions)).float()


def covered_share(real: Tensor, fake: Tensor, k: int = 5) -> float:
    """Reference: Naeem et al., equation 5, written out with scipy."""
    own, other = cdist(real.numpy(), real.numpy()), cdist(real.numpy(), fake.numpy())
    return float((other.min(axis=1) <= np.sort(own, axis=1)[:, k]).mean())


# Coverage within classes


def test_coverage_of_a_class_is_that_of_its_two_halves() -> None:
    """With halves as large as the generated class nothing is left to chance but which half an image is in."""
    real, fake = cloud("real", 12), cloud("fake", 6) + 0.5
    labels = torch.zeros(12).long()
    found = intra_class_coverage(
        real=real, real_labels=labels, fake=fake, fake_labels=labels[:6], num_classes=1, seed=3
    )
    values = set()
    for chosen in range(2**12):
        first = torch.tensor([chosen >> bit & 1 for bit in range(12)], dtype=torch.bool)
        if int(first.sum()) == 6:
            halves = real[first], real[~first]
            generated = sum(covered_share(half, fake) for half in halves) / 2
            between = (covered_share(halves[0], halves[1]) + covered_share(halves[1], halves[0])) / 2
            values.add((round(generated, 9), round(between, 9)))
    assert found.generated is not None
    assert found.real is not None
    assert (round(found.generated, 9), round(found.real, 9)) in values
    assert len({generated for generated, _ in values}) > 1
    assert (found.n_real, found.n_fake, found.left_out) == (12, 6, ())


def test_images_of_the_same_law_cover_as_much_as_other_photographs_do() -> None:
    """Expected: 1 - prod (N - i) / (2 N - i) for i = 1 ... 5 (Naeem et al., appendix), here N = 200, 800 balls."""
    real, fake = cloud("real", 800), cloud("fake", 400)
    labels = torch.arange(800) % 2
    found = intra_class_coverage(
        real=real, real_labels=labels, fake=fake, fake_labels=labels[:400], num_classes=2, seed=0
    )
    expected = 1 - math.prod((200 - i) / (400 - i) for i in range(1, 6))
    assert found.generated == pytest.approx(expected, abs=0.03)
    assert found.real == pytest.approx(expected, abs=0.03)
    assert (found.n_real, found.n_fake) == (800, 400)


def test_one_image_over_and_over_covers_next_to_nothing_however_near_it_is() -> None:
    real = cloud("real", 200)
    fake = real[:1].expand(100, -1)
    labels = torch.zeros(200).long()
    found = intra_class_coverage(
        real=real, real_labels=labels, fake=fake, fake_labels=labels[:100], num_classes=1, seed=0
    )
    assert found.generated is not None
    assert 0 < found.generated < 0.15
    assert found.real is not None
    assert found.real > 0.9


def test_images_of_the_wrong_class_cover_nothing_and_classes_weigh_the_same() -> None:
    """Class 0 is covered, class 1 is drawn where class 0 lies; it has four times the images."""
    place = torch.tensor([0.0, 1000.0])
    real_labels = torch.arange(200) % 2
    fake_labels = torch.tensor([0] * 20 + [1] * 80)
    real, fake = cloud("real", 200) + place[real_labels, None], cloud("fake", 100)
    found = intra_class_coverage(
        real=real, real_labels=real_labels, fake=fake, fake_labels=fake_labels, num_classes=2, seed=0
    )
    alone = intra_class_coverage(
        real=real, real_labels=real_labels, fake=fake[:20], fake_labels=fake_labels[:20], num_classes=2, seed=0
    )
    assert alone.generated is not None
    assert alone.left_out == (1,)
    assert found.generated == pytest.approx(alone.generated / 2)
    assert found.left_out == ()


def test_photographs_without_a_label_and_surplus_images_do_not_count() -> None:
    real, fake = cloud("real", 60), cloud("fake", 30)
    labels = torch.zeros(60).long()
    plain = intra_class_coverage(
        real=real, real_labels=labels, fake=fake, fake_labels=labels[:30], num_classes=1, seed=0
    )
    more = torch.cat([real, cloud("stranger", 40)])
    hidden = torch.cat([labels, torch.full((40,), -1)])
    found = intra_class_coverage(
        real=more, real_labels=hidden, fake=fake, fake_labels=labels[:30], num_classes=1, seed=0
    )
    assert found == plain


@pytest.mark.parametrize(("real", "fake", "counts"), [(12, 6, True), (11, 6, False), (12, 5, False)])
def test_a_class_with_too_few_images_is_left_out(real: int, fake: int, counts: bool) -> None:
    found = intra_class_coverage(
        real=cloud("real", real),
        real_labels=torch.zeros(real).long(),
        fake=cloud("fake", fake),
        fake_labels=torch.zeros(fake).long(),
        num_classes=1,
        seed=0,
    )
    assert (found.generated is not None) == (found.real is not None) == counts
    assert found.left_out == (() if counts else (0,))


# Memorisation


def test_distances_and_the_distance_of_a_copy_equal_those_of_numpy() -> None:
    real, fake = cloud("real", 700), cloud("fake", 600)  # more than the rows held at once
    between = cdist(real.numpy(), real.numpy())
    np.fill_diagonal(between, np.inf)
    assert copy_distance(real.double()) == pytest.approx(np.quantile(between.min(axis=1), 0.01), rel=1e-9)
    expected = cdist(fake.numpy(), real.numpy()).min(axis=1)
    np.testing.assert_allclose(nearest_distances(fake.double(), real.double()).numpy(), expected, rtol=1e-9)
    assert copy_distance(real[:1]) == 0


def test_copies_are_memorised_images_far_away_are_not_and_unseen_photographs_are_one_in_a_hundred() -> None:
    real = cloud("real", 2000)
    assert memorised_share(real=real, fake=real[:50]) == 1
    assert memorised_share(real=real, fake=real[:50] + 100) == 0
    assert memorised_share(real=real, fake=torch.cat([real[:10], cloud("far", 30) + 100])) == 0.25
    assert memorised_share(real=real, fake=cloud("unseen", 2000)) == pytest.approx(0.01, abs=0.008)


def test_a_copy_counts_also_where_training_images_repeat() -> None:
    real = cloud("real", 60) + 1000  # far from zero, where products of matrices round most
    assert copy_distance(torch.cat([real, real]).double()) == copy_distance(real.double()) > 0
    assert memorised_share(real=torch.cat([real, real]), fake=real[:4]) == 1


def test_a_few_photographs_that_are_there_twice_hide_no_near_copy() -> None:
    """With 4 of 300 twice, the 1st percentile of the distances was 0, and only equal pixels were copies."""
    real = cloud("real", 300)
    near = real[:100] + 0.01 * cloud("noise", 100)
    assert memorised_share(real=real, fake=near) == 1
    assert memorised_share(real=torch.cat([real, real[:4]]), fake=near) == 1


@pytest.mark.parametrize(
    ("copies", "warned"),
    [(0, []), (3, []), (4, ["memorised: 6.7 % of the generated images lie as near to a training image as a copy of it "
                            "would; more than 5 % means that the generator repeats photographs"])],
)  # fmt: skip
@pytest.mark.fault("leaks: memorised images flagged above 5 %")
def test_above_5_percent_memorised_images_a_warning_stands_beside_the_number(copies: int, warned: list[str]) -> None:
    """A generator that replays training images, among 60 that are far from all of them."""
    train = Photographs(pictures("train", 60), torch.arange(60) % 2)
    far = torch.full((60 - copies, 3, 4, 4), 255, dtype=torch.uint8)
    made = Made(torch.cat([far, train.images[:copies]]), torch.arange(60) % 2, torch.arange(60) >= 60 - copies)
    rows = {row["metric"]: row for row in set_rows(made, train, JUDGE, ("ant", "bee"), seed=0)}
    assert rows["memorised_share"]["value"] == pytest.approx(copies / 60)
    assert rows["memorised_share"]["warnings"] == warned
    if copies:
        assert rows["memorised_share_after_filter"]["value"] == 1  # a filter that kept the copies alone
        assert rows["memorised_share_after_filter"]["warnings"][0].startswith("memorised: 100.0 % of the generated")


# Rows


def corners(images: Tensor) -> Tensor:
    return images[:, :, :2, :2].float().flatten(1)


JUDGE = Extractor("corners", "c" * 64, corners)


def pictures(name: str, count: int) -> Tensor:
    return (128 + 40 * cloud(name, count, 48)).clamp(0, 255).byte().view(count, 3, 4, 4)


def test_rows_stand_before_and_after_the_filter_with_judge_counts_and_split() -> None:
    labels = torch.arange(60) % 2
    train = Photographs(pictures("train", 60), torch.where(torch.arange(60) < 50, labels, -1))
    images = torch.cat([pictures("made", 36), train.images[:4]])
    made = Made(images, labels[:40], torch.arange(40) < 36)
    rows = {row["metric"]: row for row in set_rows(made, train, JUDGE, ("ant", "bee"), seed=0)}
    names = ("intra_class_coverage", "intra_class_coverage_real", "memorised_share")
    assert set(rows) == {name + after for name in names for after in ("", "_after_filter")}
    assert all((row["extractor"], row["extractor_sha256"]) == ("corners", "c" * 64) for row in rows.values())
    assert {row["split"] for row in rows.values()} == {"train"}
    counts = {name: (row["n_real"], row["n_fake"]) for name, row in rows.items()}
    assert counts["memorised_share"] == (60, 40)
    assert counts["memorised_share_after_filter"] == (60, 36)
    assert counts["intra_class_coverage"] == (48, 24)  # 25 of each class have a label, so halves of 12
    assert counts["intra_class_coverage_real"] == (48, 24)

    share = rows["memorised_share"]
    assert share["value"] == pytest.approx(rows["memorised_share_after_filter"]["value"] * 36 / 40 + 4 / 40)
    assert share["interval"][0] < share["value"] < share["interval"][1]
    expected = intra_class_coverage(
        real=corners(train.images),
        real_labels=train.labels,
        fake=corners(images[:36]),
        fake_labels=labels[:36],
        num_classes=2,
        seed=0,
    )
    after = [rows[f"{name}_after_filter"]["value"] for name in names[:2]]
    assert after == [expected.generated, expected.real]


def test_a_row_names_the_classes_it_leaves_out_and_an_empty_filter_gives_no_row() -> None:
    train = Photographs(pictures("train", 40), torch.arange(40) % 2)
    made = Made(pictures("made", 12), torch.tensor([0] * 9 + [1] * 3), torch.zeros(12, dtype=torch.bool))
    rows = {row["metric"]: row for row in set_rows(made, train, JUDGE, ("ant", "bee"), seed=0)}
    assert set(rows) == {"intra_class_coverage", "intra_class_coverage_real", "memorised_share"}
    words = "coverage without bee: fewer than 6 generated images or 12 photographs"
    assert rows["intra_class_coverage"]["warnings"] == [words]
    assert rows["memorised_share"]["warnings"] == []

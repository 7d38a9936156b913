"""Labelled budgets: nested, stratified, seeded, and blind to file names."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finegan_aug.data.budget import budget, folds, groups_of, hold_out
from finegan_aug.data.manifest import ImageRecord, Manifest
from finegan_aug.errors import ConfigError, DataError


def manifest(counts: Sequence[int], *, test: int = 3, seed: int = 0) -> Manifest:
    """Records without files; hashes are random, so no two images are near."""
    rng = random.Random(seed)
    images = []
    for label, count in enumerate(counts):
        for split, number in [("train", n) for n in range(count)] + [("test", n) for n in range(test)]:
            sha, near = f"{rng.getrandbits(256):064x}", f"{rng.getrandbits(64):016x}"
            images.append(ImageRecord(f"{label}/{split}{number}.png", sha, near, 64, 64, label, split))
    return Manifest(Path("photos"), tuple(f"class{i}" for i in range(len(counts))), tuple(images))


def with_copies(base: Manifest, every: int) -> Manifest:
    """Each `every`-th training image gets two near copies: one bit, and one bit of that."""
    images = list(base.images)
    for number, image in enumerate(base.of("train")):
        if number % every == 0:
            for bits in (1, 3):
                near = f"{int(image.dhash, 16) ^ bits:016x}"
                sha = f"{int(image.sha256, 16) ^ bits:064x}"
                images.append(replace(image, path=f"{image.path[:-4]}_{bits}.png", dhash=near, sha256=sha))
    return replace(base, images=tuple(images))


def labelled(found: Manifest) -> set[str]:
    return {image.path for image in found.of("train", "val", labelled=True)}


class Counted(list[ImageRecord]):
    """A list that counts how often an image is asked for."""

    asked = 0

    def __getitem__(self, index: Any) -> Any:
        self.asked += 1
        return super().__getitem__(index)


def test_each_image_is_looked_at_equally_often_whatever_the_number_of_classes() -> None:
    asked = []
    for counts in ([1000], [10] * 100):
        images = Counted(manifest(counts, test=0).images)
        found = hold_out(images, range(1000), [str(k) for k in range(100)], share=0.2, split="test")
        assert Counter(image.split for image in found) == {"train": 800, "test": 200}
        asked.append(images.asked)
    assert asked[0] == asked[1] <= 5000


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("pair", [0, 1, 2])
def test_ten_percent_lies_in_fifty_in_a_hundred(pair: int, copies: bool) -> None:
    base = manifest([40, 25, 11])
    base = with_copies(base, 4) if copies else base
    subsets = [labelled(budget(base, fraction, pair=pair)) for fraction in (0.1, 0.5, 1.0)]
    assert subsets[0] < subsets[1] < subsets[2]
    assert subsets[2] == {image.path for image in base.of("train")}


def test_every_class_gives_its_share_rounded() -> None:
    found = budget(manifest([40, 25, 11, 3]), 0.1, pair=0)
    assert Counter(i.label for i in found.of("train", "val")) == {0: 4, 1: 3, 2: 1, 3: 1}


def test_a_fifth_of_the_subset_validates_and_each_class_trains() -> None:
    for fraction, expected in ((1.0, {0: 8, 1: 5, 2: 2, 3: 1}), (0.1, {0: 1, 1: 1})):
        found = budget(manifest([40, 25, 11, 3]), fraction, pair=0)
        assert Counter(i.label for i in found.of("val")) == expected
        assert set(Counter(i.label for i in found.of("train"))) == {0, 1, 2, 3}


def test_the_test_split_is_never_touched() -> None:
    base = manifest([40, 25])
    for fraction in (0.1, 0.5, 1.0):
        assert budget(base, fraction, pair=0, unlabelled="keep").of("test") == base.of("test")


def test_the_rest_is_dropped_or_kept_without_its_labels() -> None:
    base = manifest([40, 25])
    dropped, kept = (budget(base, 0.1, pair=0, unlabelled=way) for way in ("drop", "keep"))
    assert dropped.of("train", labelled=False) == []
    assert labelled(kept) == labelled(dropped)
    rest = {image.path for image in kept.of("train", labelled=False)}
    assert rest == {image.path for image in base.of("train")} - labelled(kept)


def test_pairs_and_seeds_are_different_draws_and_the_same_arguments_the_same_one() -> None:
    base = manifest([40, 25])
    draws = [labelled(budget(base, 0.1, pair=pair, seed=seed)) for pair, seed in ((0, 0), (1, 0), (2, 0), (0, 1))]
    assert len({frozenset(draw) for draw in draws}) == 4
    assert budget(base, 0.1, pair=1) == budget(base, 0.1, pair=1)


def test_the_draw_follows_pixels_and_not_names_or_order() -> None:
    base = manifest([40, 25])
    images = [replace(image, path=f"{image.label}/{image.sha256[:8]}.png") for image in reversed(base.images)]
    renamed = replace(base, images=tuple(images))
    for split in ("train", "val"):
        first, second = ({i.sha256 for i in budget(m, 0.5, pair=0).of(split)} for m in (base, renamed))
        assert first == second


def test_a_fixed_number_per_class_takes_all_where_there_are_fewer() -> None:
    found = budget(manifest([40, 25, 11]), 1.0, pair=0, per_class=20)
    assert Counter(i.label for i in found.of("train", "val")) == {0: 20, 1: 20, 2: 11}


def test_near_copies_are_drawn_last_and_never_straddle() -> None:
    base = with_copies(manifest([40, 25, 11]), 2)
    group_of = dict(zip((i.path for i in base.of("train")), groups_of(base.of("train")), strict=True))
    tenth = budget(base, 0.1, pair=0)
    assert len({group_of[path] for path in labelled(tenth)}) == len(labelled(tenth))
    for pair in range(4):
        for fraction in (0.1, 0.5, 1.0):
            found = budget(base, fraction, pair=pair, unlabelled="keep")
            train, val = ({group_of[i.path] for i in found.of(split)} for split in ("train", "val"))
            assert val
            assert not train & val


def test_what_has_seen_every_photograph_finds_all_of_them_in_the_budget() -> None:
    """The firewall refuses a set behind which stands an image that the budget left out."""
    base = with_copies(manifest([40, 25, 11]), 2)
    for pair in range(4):
        kept, everything = (budget(base, 0.1, pair=pair, unlabelled=which) for which in ("keep", "all"))  # type: ignore[arg-type]
        assert len(kept.of("train", "val")) < len(base.of("train"))
        assert {i.sha256 for i in everything.of("train", "val")} == {i.sha256 for i in base.of("train")}
        assert labelled(everything) == labelled(kept)
        assert everything.of("val") == kept.of("val")


def test_copies_under_two_classes_stay_in_training() -> None:
    base = manifest([10, 10])
    first, second = base.of("train")[0], base.of("train")[10]
    images = tuple(replace(i, sha256=first.sha256) if i == second else i for i in base.images)
    for pair in range(10):
        train = {i.path for i in budget(replace(base, images=images), 1.0, pair=pair).of("train")}
        assert {first.path, second.path} <= train


def test_a_class_of_copies_alone_is_refused() -> None:
    base = manifest([10, 4])
    images = tuple(replace(i, dhash="0123456789abcdef") if i.label == 1 else i for i in base.images)
    with pytest.raises(DataError) as caught:
        budget(replace(base, images=images), 1.0, pair=0)
    assert str(caught.value) == (
        "E206 class class1: its 4 images are near-duplicates of one another or of another class, so none can become "
        "val data; add different images of this class or remove the class"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fraction": 0.0}, "the fraction must be above 0 and at most 1, found 0.0; use 0.1, 0.5 or 1"),
        ({"fraction": 1.5}, "the fraction must be above 0 and at most 1, found 1.5"),
        ({"fraction": 1.0, "validation_share": 1.0}, "the validation share must be at least 0 and below 1, found 1.0"),
        ({"fraction": 1.0, "per_class": 0}, "per_class must be at least 1, found 0"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        budget(manifest([10, 10]), pair=0, **options)  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_a_budget_of_a_budget_is_refused() -> None:
    with pytest.raises(DataError, match="drawn from the manifest of a scan, found one that is cut already; scan again"):
        budget(budget(manifest([10, 10]), 0.5, pair=0), 0.5, pair=0)


def test_no_validation_may_be_asked_for() -> None:
    assert budget(manifest([10, 10]), 0.5, pair=0, validation_share=0).of("val") == []


def test_folds_hold_each_labelled_image_out_once() -> None:
    base = with_copies(manifest([40, 25, 30]), 3)
    cut = budget(base, 0.5, pair=0, unlabelled="keep")
    group_of = dict(zip((i.path for i in base.of("train")), groups_of(base.of("train")), strict=True))
    held: Counter[str] = Counter()
    for fold in folds(cut, pair=0):
        val = fold.of("val")
        held.update(i.path for i in val)
        assert all(i.labelled for i in val)
        assert labelled(fold) == labelled(cut)
        assert not {group_of[i.path] for i in val} & {group_of[i.path] for i in fold.of("train")}
        assert fold.of("test") == base.of("test")
        assert {i.label for i in fold.of("train", labelled=True)} == {0, 1, 2}
    assert held == Counter(dict.fromkeys(labelled(cut), 1))


def test_folds_are_of_like_size_with_few_images_per_class() -> None:
    cut = budget(manifest([30] * 10), 0.1, pair=0)
    assert [len(fold.of("val")) for fold in folds(cut, pair=0)] == [6] * 5


def test_a_single_image_of_a_class_always_trains() -> None:
    for fold in folds(budget(manifest([30, 4]), 0.1, pair=0), 3, pair=0):
        assert 1 in {i.label for i in fold.of("train")}


def test_one_fold_is_refused() -> None:
    with pytest.raises(ConfigError, match="cross-validation needs at least 2 folds, found 1; use 5"):
        folds(budget(manifest([10, 10]), 1.0, pair=0), 1, pair=0)

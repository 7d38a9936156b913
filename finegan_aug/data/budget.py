"""Splits: a held-out share, nested labelled subsets of the training split, folds. All stratified and seeded.

Images that are duplicates or near-duplicates of one another form a group, and a group is never divided between two
splits. A group with two labels stays in training: nobody knows which label is right. An image's place in the draw
depends on its pixels (SHA-256), never on its file name or on the order of files.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from finegan_aug.data.duplicates import duplicate_groups
from finegan_aug.data.manifest import ImageRecord, Manifest
from finegan_aug.data.row_fields import NO_CLASS
from finegan_aug.errors import ConfigError, DataError
from finegan_aug.randomness import seed_for

Unlabelled = Literal["drop", "keep", "all"]


def groups_of(images: Sequence[ImageRecord]) -> list[int]:
    """Number of the duplicate group of each image: the index of the group's first member."""
    return duplicate_groups([image.sha256 for image in images], [image.dhash for image in images])


def hold_out(
    images: Sequence[ImageRecord],
    groups: Sequence[int],
    classes: Sequence[str],
    *,
    share: float,
    split: Literal["val", "test"],
    pair: int = 0,
    seed: int = 0,
) -> list[ImageRecord]:
    """Move a share of each class, at least one image, to `split`; a class of a single image stays as it is.

    Args:
        images: in any order.
        groups: group number of each image; a group moves whole or not at all.
        share: of each class, in (0, 1); rounded, and met as nearly as whole groups allow without exceeding it.

    Raises:
        DataError: a class of two or more images that are all near-duplicates of one another or of another class.
    """
    if not 0 < share < 1:
        raise ConfigError(f"the {split} share must lie between 0 and 1, found {share}", "use 0.2")
    moved: set[int] = set()
    pure = _pure_groups(images, groups)
    for label, members in sorted(by_label(images).items()):
        if len(members) < 2:
            continue
        ordered = sorted(
            pure[label], key=lambda group: min(seed_for(seed, split, pair, images[i].sha256) for i in group)
        )
        taken = _take(ordered, target=max(1, _rounded(share * len(members))), most=len(members) - 1)
        if not taken:
            cause = f"class {classes[label]}: its {len(members)} images are near-duplicates of one another or of "
            cause += f"another class, so none can become {split} data"
            raise DataError(f"E206 {cause}", "add different images of this class or remove the class")
        moved.update(taken)
    return [replace(image, split=split) if index in moved else image for index, image in enumerate(images)]


def budget(
    manifest: Manifest,
    fraction: float,
    *,
    pair: int,
    validation_share: float = 0.2,
    unlabelled: Unlabelled = "drop",
    per_class: int | None = None,
    seed: int = 0,
) -> Manifest:
    """The labelled budget of one experiment: a stratified share of the training split, validation data inside it.

    For one pair the subsets are nested: 10 % lies in 50 % lies in 100 %. Of near-duplicates one is drawn before any
    second. The test split is never touched.

    Args:
        manifest: of a scan, splits train and test.
        fraction: share of each class, in (0, 1]; at least one image of a class.
        pair: number of the draw; the arms of one pair share it.
        validation_share: of the subset, becomes the split val, in [0, 1).
        unlabelled: "drop" removes the other training images, also those of no known class; "keep" keeps them with
            `labelled=False`, except near-duplicates of validation images; "all" keeps these too, for what has seen
            every training image.
        per_class: this many images of each class (or all, where there are fewer) instead of a fraction.

    Raises:
        ConfigError: a number out of range.
        DataError: the manifest is already a budget, or a class cannot be divided.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"the fraction must be above 0 and at most 1, found {fraction}", "use 0.1, 0.5 or 1")
    if per_class is not None and per_class < 1:
        raise ConfigError(f"per_class must be at least 1, found {per_class}", "use 20, or leave it out")
    if not 0 <= validation_share < 1:
        cause = f"the validation share must be at least 0 and below 1, found {validation_share}"
        raise ConfigError(cause, "use 0.2")
    if is_budget(manifest):
        raise DataError("a budget is drawn from the manifest of a scan, found one that is cut already", "scan again")
    train = manifest.of("train")
    groups = groups_of(train)
    chosen: set[int] = set()
    for label, members in by_label(train).items():
        if label == NO_CLASS:
            continue
        count = per_class if per_class is not None else max(1, _rounded(fraction * len(members)))
        chosen.update(_distinct_first(train, groups, members, pair=pair, seed=seed)[:count])
    subset = sorted(chosen)
    images = [train[index] for index in subset]
    if validation_share > 0:
        own_groups = [groups[index] for index in subset]
        images = hold_out(
            images, own_groups, manifest.classes, share=validation_share, split="val", pair=pair, seed=seed
        )
    if unlabelled != "drop":
        held_out = zip(subset, images, strict=True) if unlabelled == "keep" else ()
        validation = {groups[index] for index, image in held_out if image.split == "val"}
        rest = [index for index in range(len(train)) if index not in chosen and groups[index] not in validation]
        images += [replace(train[index], labelled=False) for index in rest]
    return replace(manifest, images=sort_images([*images, *manifest.of("test")]))


def is_budget(manifest: Manifest) -> bool:
    """Whether validation images, or labels that may not be used, show that the manifest was cut already."""
    hidden = any(image.label != NO_CLASS for image in manifest.of("train", labelled=False))
    return hidden or bool(manifest.of("val"))


def folds(manifest: Manifest, count: int = 5, *, pair: int, seed: int = 0) -> list[Manifest]:
    """Cross-validation inside a budget: `count` manifests whose val splits together hold each labelled image once.

    A class that is one group of near-duplicates stays in training in every fold; a class with fewer groups than folds
    is absent from some val splits. Unlabelled near-duplicates of a fold's val images are left out of that fold.

    Raises:
        ConfigError: fewer than two folds.
    """
    if count < 2:
        raise ConfigError(f"cross-validation needs at least 2 folds, found {count}", "use 5")
    images = manifest.of("train", "val")
    groups = groups_of(images)
    fold_of: dict[int, int] = {}
    pure = _pure_groups(images, groups)
    for label in by_label([image for image in images if image.labelled]):
        own = [group for group in pure[label] if any(images[i].labelled for i in group)]
        if len(own) < 2:
            continue
        sizes = [0] * count
        for group in sorted(own, key=lambda g: min(seed_for(seed, "fold", pair, images[i].sha256) for i in g)):
            # The start rotates with the label, so that small classes fill all folds alike.
            fold = min(range(count), key=lambda f: (sizes[f], (f - label) % count))
            sizes[fold] += len(group)
            fold_of.update(dict.fromkeys(group, fold))
    result = []
    for fold in range(count):
        held = {index for index, own in fold_of.items() if own == fold}
        kept = [
            replace(image, split="val" if index in held else "train")
            for index, image in enumerate(images)
            if image.labelled or index not in held
        ]
        result.append(replace(manifest, images=sort_images([*kept, *manifest.of("test")])))
    return result


def sort_images(images: Sequence[ImageRecord]) -> tuple[ImageRecord, ...]:
    """The images in the order of a manifest: train, val, test, those without a class last, by path."""
    rank = {"train": 0, "val": 1, "test": 2}
    return tuple(sorted(images, key=lambda image: (rank[image.split], image.label == NO_CLASS, image.path)))


def _rounded(value: float) -> int:
    """Nearest integer, halves up; tolerant of the last bit of products such as 0.1 * 35."""
    return math.floor(value + 0.5 + 1e-9)


def by_label(images: Sequence[ImageRecord]) -> defaultdict[int, list[int]]:
    """Indices of the images of each label, in order."""
    members: defaultdict[int, list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        members[image.label].append(index)
    return members


def _pure_groups(images: Sequence[ImageRecord], groups: Sequence[int]) -> dict[int, list[list[int]]]:
    """Of each label the groups whose images all have it. Unlabelled images count for what they are: their label is not
    used to train, only to keep a doubtful group out of held-out data."""
    members: defaultdict[int, list[int]] = defaultdict(list)
    mixed = set()
    for index, group in enumerate(groups):
        members[group].append(index)
        if images[index].label != images[members[group][0]].label:
            mixed.add(group)
    pure: defaultdict[int, list[list[int]]] = defaultdict(list)
    for group, found in members.items():
        if group not in mixed:
            pure[images[found[0]].label].append(found)
    return pure


def _take(ordered: Sequence[list[int]], *, target: int, most: int) -> list[int]:
    """Whole groups in order while they fit into the target; if none fits, the smallest that leaves an image."""
    taken: list[int] = []
    for group in ordered:
        if len(taken) + len(group) <= min(target, most):
            taken += group
    if not taken:
        fitting = [group for group in ordered if len(group) <= most]
        taken = min(fitting, key=len) if fitting else []
    return taken


def _distinct_first(
    images: Sequence[ImageRecord], groups: Sequence[int], members: Sequence[int], *, pair: int, seed: int
) -> list[int]:
    """Members of one class in the order of the draw: one of each group, then the second ones, and so on."""
    keyed = sorted((seed_for(seed, "split", pair, images[i].sha256), images[i].path, i) for i in members)
    seen: defaultdict[int, int] = defaultdict(int)
    ranked = []
    for key, path, index in keyed:
        ranked.append((seen[groups[index]], key, path, index))
        seen[groups[index]] += 1
    return [index for *_, index in sorted(ranked)]

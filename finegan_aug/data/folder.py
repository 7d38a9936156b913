"""From a folder of class folders to a manifest: every image decoded once, hashed, described and put in a split.

A second folder may hold photographs of no known class, for the generator and for teachers.

Nothing is written into the folder. Files that cannot be used stop the scan here, never in mid-epoch later, or are
left out and listed (`on_bad_image="quarantine"`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from finegan_aug.data.budget import budget, groups_of, hold_out, sort_images
from finegan_aug.data.decode import decode
from finegan_aug.data.firewall import refuse_leaks
from finegan_aug.data.listing import Problem
from finegan_aug.data.manifest import ImageRecord, Manifest, read_manifest, write_manifest
from finegan_aug.data.survey import class_problems, overlap_problems, survey
from finegan_aug.data.unlabelled import survey_apart, without_twins
from finegan_aug.errors import DataError, LeakError

__all__ = ["ImageRecord", "Manifest", "budget", "decode", "load_data", "read_manifest", "scan", "write_manifest"]

OnBadImage = Literal["error", "quarantine"]
_MAX_NOTES = 20


def scan(
    root: str | Path,
    *,
    test_data: str | Path | None = None,
    boxes: str | Path | None = None,
    masks: str | Path | None = None,
    test_boxes: str | Path | None = None,
    test_masks: str | Path | None = None,
    unlabelled: str | Path | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    on_bad_image: OnBadImage = "error",
) -> Manifest:
    """Scan class folders into a manifest with the splits train and test.

    Args:
        root: folder with one folder per class, images at any depth below.
        test_data: the same for the test images; without it a stratified, seeded share of `root` becomes the test
            split, and near-duplicates stay together.
        boxes: CSV (`path,x1,y1,x2,y2` or `path,x,y,w,h`, paths relative to `root`) or the folder of CUB's lists.
        masks: folder that mirrors `root`; a box is derived from the mask where none is given.
        test_boxes, test_masks: the same for `test_data`.
        unlabelled: folder of more training photographs, at any depth, of no known class. A generator may see them; a
            teacher may name them. Left out, with a note: those that also have a class in `root`, and those that look
            like a test image.
        test_share: share of each class that becomes the test split, in (0, 1).
        on_bad_image: "error" stops at files that cannot be used; "quarantine" leaves them out and lists them in
            `Manifest.problems`.

    Raises:
        DataError: with the first problem; `finegan-aug doctor` lists all.
        LeakError: an image of `root` is also in `test_data`, pixel for pixel.
    """
    if test_data is None and (test_boxes is not None or test_masks is not None):
        raise DataError("test boxes and test masks belong to a test folder, none is given", "give --test-data too")
    train = survey(root, boxes=boxes, masks=masks)
    surveys = [train]
    if test_data is not None:
        surveys.append(survey(test_data, boxes=test_boxes, masks=test_masks))
    loose = None if unlabelled is None else survey_apart(unlabelled, surveys)
    everything = [*surveys, *([loose] if loose else [])]
    bad = [problem for found in everything for problem in found.problems if problem.is_error]
    if bad and on_bad_image == "error":
        files = sum(found.files for found in everything)
        cause = f"{len(bad)} of {files} images cannot be used, the first is {str(bad[0]).rsplit('; ', 1)[0]}"
        raise DataError(cause, f"{bad[0].remedy}; `finegan-aug doctor` lists all, --on-bad-image quarantine skips them")
    faults = class_problems(*surveys)
    if errors := [problem for problem in faults if problem.is_error]:
        raise DataError(f"{errors[0].code} {errors[0].cause}", errors[0].remedy)
    warnings = [problem for found in everything for problem in found.problems if not problem.is_error] + faults
    notes = [note for found in everything for note in found.notes] + [str(problem) for problem in warnings]
    manifest = Manifest(
        root=train.root,
        classes=train.classes,
        images=train.images,
        mask_root=train.mask_root,
        unlabelled_root=loose.root if loose else None,
        problems=tuple(map(str, bad)),
    )
    overlap = list[Problem]()
    if test_data is None:
        groups = groups_of(train.images)
        images = hold_out(train.images, groups, train.classes, share=test_share, split="test", seed=seed)
    else:
        test = surveys[1]
        overlap = overlap_problems(train.images, test.images)
        if leaks := [problem for problem in overlap if problem.is_error]:
            cause = f"{len(leaks)} test images are also training images, the first is {leaks[0].path}"
            raise LeakError(f"E401 {cause}", "remove them from one of the folders; `finegan-aug doctor` lists all")
        images = [*train.images, *(replace(image, split="test") for image in test.images)]
        manifest = replace(manifest, test_root=test.root, test_mask_root=test.mask_root)
    others, left_out = without_twins(loose.images if loose else (), images)
    notes += [*left_out, *map(str, overlap)]
    return replace(manifest, images=sort_images([*images, *others]), notes=_shorten(notes))


def load_data(
    data: str | Path,
    *,
    test_data: str | Path | None = None,
    boxes: str | Path | None = None,
    masks: str | Path | None = None,
    test_boxes: str | Path | None = None,
    test_masks: str | Path | None = None,
    unlabelled: str | Path | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    on_bad_image: OnBadImage = "error",
) -> Manifest:
    """`scan` a folder, or read the manifest of an earlier scan, which names its own test data, boxes, masks and so on.

    Raises:
        DataError: neither folder nor manifest, or a manifest with options that it would silently override.
        LeakError: a test image has the pixels of an image of train or val.
    """
    if os.path.isfile(data):
        given = {"test_data": test_data, "boxes": boxes, "masks": masks}
        given |= {"test_boxes": test_boxes, "test_masks": test_masks, "unlabelled": unlabelled}
        if named := [name for name, value in given.items() if value is not None]:
            cause = f"a manifest names all its own folders, found {', '.join(named)} beside {data}"
            raise DataError(cause, "give the image folder, or the manifest alone")
        return refuse_leaks(read_manifest(data))
    manifest = scan(
        data,
        test_data=test_data,
        boxes=boxes,
        masks=masks,
        test_boxes=test_boxes,
        test_masks=test_masks,
        unlabelled=unlabelled,
        test_share=test_share,
        seed=seed,
        on_bad_image=on_bad_image,
    )
    return refuse_leaks(manifest)


def _shorten(notes: Sequence[str]) -> tuple[str, ...]:
    """The first notes and how many more there are: a manifest's header is one line."""
    if len(notes) <= _MAX_NOTES:
        return tuple(notes)
    return (*notes[:_MAX_NOTES], f"{len(notes) - _MAX_NOTES} more notes; `finegan-aug doctor` lists all")

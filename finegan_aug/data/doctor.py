"""What is wrong with this data, before any training: all of it at once, each with code, path and remedy."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from finegan_aug.data.background import BackgroundShare, check_background
from finegan_aug.data.budget import by_label, groups_of, hold_out, sort_images
from finegan_aug.data.decode import ImageError, decode_with_notes
from finegan_aug.data.duplicates import pixel_sha256
from finegan_aug.data.listing import Problem
from finegan_aug.data.manifest import ImageRecord, Manifest, read_manifest
from finegan_aug.data.row_fields import NO_CLASS
from finegan_aug.data.survey import Survey, class_problems, overlap_problems, survey
from finegan_aug.data.unlabelled import survey_apart, without_twins
from finegan_aug.errors import DataError

MIN_IMAGES_PER_CODE = 10  # a code with fewer images abstains in the audit
_FLAT_HASH = "f0" * 8  # the difference hash of an image in which no two neighbouring cells differ


@dataclass(frozen=True)
class ClassRow:
    """One class: images of each split, the range of shorter sides in pixels, how many have a box and a mask."""

    name: str
    train: int
    test: int
    shortest_px: int
    longest_px: int
    boxes: int
    masks: int


@dataclass(frozen=True)
class DoctorReport:
    """Everything `finegan-aug doctor` says.

    Args:
        data: the folder or manifest.
        images: usable images that have a class. files: all that were found.
        unlabelled: usable training photographs of no known class.
        rows: one for each class.
        kinds: how images are stored, such as {"JPEG RGB": 2934}; empty for a manifest.
        problems: errors (codes E...) first, then warnings (W...).
        duplicates: paths of images that are duplicates or near-duplicates of one another, within the folder.
        background: valid background patches of each choice of boxes.
        codes: whether the number of codes fits, one line.
    """

    data: str
    files: int
    images: int
    rows: tuple[ClassRow, ...]
    kinds: dict[str, int]
    problems: tuple[Problem, ...]
    duplicates: tuple[tuple[str, ...], ...]
    background: tuple[BackgroundShare, ...]
    codes: str
    notes: tuple[str, ...]
    unlabelled: int

    @property
    def errors(self) -> int:
        """Number of errors."""
        return sum(problem.is_error for problem in self.problems)

    def exit_code(self, *, warnings_as_errors: bool = False) -> int:
        """3 with an error (or, if asked, a warning), else 0."""
        return DataError.exit_code if self.errors or (warnings_as_errors and self.problems) else 0


@dataclass(frozen=True)
class _Found:
    """What was read, from a folder or a manifest."""

    classes: tuple[str, ...]
    images: tuple[ImageRecord, ...]  # with a class
    loose: tuple[ImageRecord, ...]  # of no known class
    masks: dict[str, Path]  # by path of a training image
    files: int
    kinds: dict[str, int]
    problems: list[Problem]
    notes: list[str]


def run_doctor(
    data: str | Path,
    *,
    test_data: str | Path | None = None,
    boxes: str | Path | None = None,
    masks: str | Path | None = None,
    test_boxes: str | Path | None = None,
    test_masks: str | Path | None = None,
    unlabelled: str | Path | None = None,
    resolution: int = 64,
    modes_per_class: int = 2,
    test_share: float = 0.2,
    seed: int = 0,
) -> DoctorReport:
    """Look at a folder or a manifest and report; bad data never raises, it is listed.

    Args:
        data: folder of class folders, or the manifest of a scan (then only its files are verified).
        test_data, boxes, masks, test_boxes, test_masks, unlabelled, test_share, seed: as in `folder.scan`.
        resolution: side in pixels at which the generator is to be trained, 32, 64, 128 or 256.
        modes_per_class: codes for each class that are planned.
    """
    try:
        if os.path.isfile(data):
            found = _from_manifest(read_manifest(data))
        else:
            surveys = [survey(data, boxes=boxes, masks=masks)]
            if test_data is not None:
                surveys.append(survey(test_data, boxes=test_boxes, masks=test_masks))
            loose = None if unlabelled is None else survey_apart(unlabelled, surveys)
            found = _from_surveys(surveys, loose, test_share, seed)
    except DataError as error:
        found = _Found((), (), (), {}, 0, {}, [Problem("E200", str(data), error.cause, error.remedy)], [])
    train = [image for image in found.images if image.split != "test"]
    duplicates, doubled = _duplicates(train, found.classes)
    background = check_background(train, [found.masks.get(image.path) for image in train], seed=seed) if train else []
    smallest = min(Counter(image.label for image in train).values(), default=0)
    problems = [*found.problems, *doubled, *_flat([*found.images, *found.loose])]
    problems += _small([*train, *found.loose], resolution)
    problems += _scarce_background(background, resolution) + _scarce_codes(smallest, modes_per_class)
    members, num_codes = by_label(found.images), len(found.classes) * modes_per_class
    return DoctorReport(
        data=str(data),
        files=found.files,
        images=len(found.images),
        rows=tuple(_row(name, [found.images[i] for i in members[label]]) for label, name in enumerate(found.classes)),
        kinds=found.kinds,
        problems=tuple(sorted(problems, key=lambda problem: (not problem.is_error, problem.code, problem.path))),
        duplicates=duplicates,
        background=tuple(background),
        codes=f"{num_codes} codes, {modes_per_class} for each class; the smallest class gives "
        f"{smallest / modes_per_class:.1f} training images to each, at 10 % of the labels "
        f"{smallest / modes_per_class / 10:.1f}",
        notes=tuple(found.notes),
        unlabelled=len(found.loose),
    )


def _from_surveys(surveys: Sequence[Survey], unlabelled: Survey | None, test_share: float, seed: int) -> _Found:
    train, everything = surveys[0], [*surveys, *([unlabelled] if unlabelled else [])]
    problems = [problem for found in everything for problem in found.problems] + class_problems(*surveys)
    if len(surveys) == 2:
        problems += overlap_problems(train.images, surveys[1].images)
        images = sort_images([*train.images, *(replace(image, split="test") for image in surveys[1].images)])
    else:
        images = train.images
        try:
            groups = groups_of(images)
            images = sort_images(hold_out(images, groups, train.classes, share=test_share, split="test", seed=seed))
        except DataError as error:
            code, cause = error.cause.split(" ", 1)
            problems.append(Problem(code, ".", cause, error.remedy))
    kept, left_out = without_twins(unlabelled.images if unlabelled else (), images)
    return _Found(
        classes=train.classes,
        images=images,
        loose=tuple(kept),
        masks={i.path: train.mask_root / i.mask for i in train.images if train.mask_root and i.mask},
        files=sum(found.files for found in everything),
        kinds=dict(sum((Counter(found.kinds) for found in everything), Counter())),
        problems=problems,
        notes=[note for found in everything for note in found.notes] + left_out,
    )


def _from_manifest(manifest: Manifest) -> _Found:
    def changed(record: ImageRecord) -> Problem | None:
        file = manifest.file(record)
        try:
            image = decode_with_notes(file)[0]
        except ImageError as error:
            return Problem(error.code, record.path, error.cause.removeprefix(f"{error.code} {file}: "), error.remedy)
        if pixel_sha256(image) != record.sha256:
            return Problem("E109", record.path, "the pixels changed since the scan", "restore the file or scan again")
        return None

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        problems = [problem for problem in pool.map(changed, manifest.images) if problem is not None]
    train, test = manifest.of("train", "val"), manifest.of("test")
    masks = {image.path: manifest.mask_file(image) for image in train}
    return _Found(
        classes=manifest.classes,
        images=tuple(image for image in manifest.images if image.label != NO_CLASS),
        loose=tuple(image for image in manifest.images if image.label == NO_CLASS),
        masks={path: file for path, file in masks.items() if file is not None},
        files=len(manifest.images),
        kinds={},
        problems=problems + overlap_problems(train, test),
        notes=[*manifest.problems, *manifest.notes],
    )


def _row(name: str, own: Sequence[ImageRecord]) -> ClassRow:
    sides = [min(image.width, image.height) for image in own]
    return ClassRow(
        name=name,
        train=sum(image.split != "test" for image in own),
        test=sum(image.split == "test" for image in own),
        shortest_px=min(sides, default=0),
        longest_px=max(sides, default=0),
        boxes=sum(image.box is not None for image in own),
        masks=sum(image.mask is not None for image in own),
    )


def _duplicates(
    images: Sequence[ImageRecord], classes: Sequence[str]
) -> tuple[tuple[tuple[str, ...], ...], list[Problem]]:
    """Groups of duplicates among the training images, and a warning for each."""
    members: defaultdict[int, list[ImageRecord]] = defaultdict(list)
    for image, number in zip(images, groups_of(images), strict=True):
        members[number].append(image)
    groups = [group for group in members.values() if len(group) > 1]
    problems = []
    for group in groups:
        shown = ", ".join(image.path for image in group[1:4]) + (", ..." if len(group) > 4 else "")
        same = len({image.sha256 for image in group}) == 1
        how = "is the same picture as" if same else "looks like"
        if len({image.label for image in group}) > 1:
            names = ", ".join(sorted({classes[image.label] for image in group}))
            cause = f"{how} {shown}, under different classes: {names}"
            problems.append(Problem("W403", group[0].path, cause, "keep it in the right class alone"))
        else:
            remedy = "remove the copies, if they are copies; a split never divides them"
            problems.append(Problem("W401", group[0].path, f"{how} {shown}", remedy))
    return tuple(tuple(image.path for image in group) for group in groups), problems


def _flat(images: Sequence[ImageRecord]) -> list[Problem]:
    return [
        Problem("W105", image.path, "the image is nearly of one colour", "remove it if it shows nothing")
        for image in images
        if image.dhash == _FLAT_HASH
    ]


def _small(images: Sequence[ImageRecord], resolution: int) -> list[Problem]:
    small = [image for image in images if min(image.width, image.height) < resolution]
    if not small:
        return []
    cause = f"{len(small)} of {len(images)} training images are smaller than {resolution} px and would be enlarged"
    return [Problem("W502", small[0].path, cause, "choose a smaller resolution, or add larger images")]


def _scarce_background(shares: Sequence[BackgroundShare], resolution: int) -> list[Problem]:
    problems = []
    for share in shares:
        if share.resolution_px == resolution and share.without > 0.5:
            cause = f"boxes {share.choice} leave no background patch in {share.without:.0%} of crops at {resolution} px"
            remedy = "train with masks, with the border or without a background discriminator"
            problems.append(Problem("W501", ".", cause, remedy))
    return problems


def _scarce_codes(smallest: int, modes_per_class: int) -> list[Problem]:
    if smallest >= MIN_IMAGES_PER_CODE * modes_per_class or smallest == 0:
        return []
    cause = f"{modes_per_class} codes for each class leave {smallest / modes_per_class:.1f} images to a code of the "
    cause += f"smallest class, {MIN_IMAGES_PER_CODE} should"
    return [Problem("W503", ".", cause, "use fewer modes per class, or add images")]

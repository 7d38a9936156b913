"""What a folder holds, good and bad: every image decoded once, hashed and described.

A survey never stops at a bad image. `folder.scan` turns it into a manifest or an error, `doctor` into a report.

| code | meaning                                                                                        |
|------|------------------------------------------------------------------------------------------------|
| E1.. | a file that cannot be used: see `decode`; E107 its name, E108 a link that leaves the folder, E109 changed |
| E20. | 0 unreadable, 1 no image, 2 one class, 3 one image, 4 class lists differ, 5 empty class, 6 copies only |
| E3.. | E301 box wrong, E302 box missing, E303 mask missing, E304 mask of another size, E305 mask empty |
| E401 | an image of the test data is also among the training data                                      |
| W1.. | W101 several frames, W102 damaged EXIF, W103 wrong suffix, W104 format not read, W105 one colour |
| W2.. | W205 class names that differ in case alone, W206 one class name spelt in two ways               |
| W4.. | W401 copies, W402 a test image like a training image, W403 copies under two classes            |
| W5.. | W501 no background left, W502 small images, W503 too many codes                                |
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from finegan_aug.data.annotations import find_masks, fit_box, mask_box, read_boxes
from finegan_aug.data.budget import sort_images
from finegan_aug.data.decode import ImageError, decode_with_notes
from finegan_aug.data.duplicates import dhash, near_pairs, pixel_sha256
from finegan_aug.data.listing import Listing, Problem, list_images, list_loose
from finegan_aug.data.manifest import Box, ImageRecord
from finegan_aug.data.outside import shown
from finegan_aug.data.row_fields import NO_CLASS


@dataclass(frozen=True)
class Survey:
    """What one folder holds, good and bad. `files` counts images found, `images` are the usable ones."""

    root: Path
    classes: tuple[str, ...]
    images: tuple[ImageRecord, ...]
    files: int
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    kinds: dict[str, int]  # such as {"JPEG RGB": 2934}
    mask_root: Path | None


@dataclass(frozen=True)
class _Annotations:
    boxes: Mapping[str, Box] | None
    masks: Mapping[str, str] | None
    mask_root: Path | None


def survey(root: str | Path, *, boxes: str | Path | None = None, masks: str | Path | None = None) -> Survey:
    """Look at every image of a class folder tree once and list what is wrong, without stopping at it.

    Raises:
        DataError: the folder, the file of boxes or the folder of masks cannot be read at all.
    """
    annotations = _Annotations(
        boxes=None if boxes is None else read_boxes(boxes),
        masks=None if masks is None else find_masks(masks),
        mask_root=None if masks is None else Path(os.path.realpath(masks)),
    )
    return _survey(list_images(root), annotations)


def survey_loose(root: str | Path) -> Survey:
    """The same for photographs of no known class, at any depth of a folder.

    Raises:
        DataError: the folder cannot be read at all.
    """
    found = _survey(list_loose(root), _Annotations(None, None, None))
    return replace(found, images=tuple(replace(image, labelled=False) for image in found.images))


def _survey(listing: Listing, annotations: _Annotations) -> Survey:
    tasks = [(path, label) for label, files in enumerate(listing.files.values()) for path in files]
    tasks += [(path, NO_CLASS) for path in listing.loose]
    images: list[ImageRecord] = []
    problems = list(listing.problems)
    kinds: Counter[str] = Counter()
    # Pillow and hashlib release the interpreter lock, so threads use all cores without copies between processes.
    # What Pillow warns about (damaged EXIF, large headers) is listed as a problem with a code and a path instead.
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        warnings.simplefilter("ignore")
        look = pool.map(lambda task: _inspect(listing.root, task[0], task[1], annotations), tasks)
        for image, found, kind in tqdm(look, total=len(tasks), desc="scan", unit="image", leave=False, disable=None):
            problems.extend(found)
            if image is not None:
                images.append(image)
                kinds[kind] += 1
    notes = (*listing.notes, *_unmatched(listing, annotations))
    return Survey(
        root=listing.root,
        classes=tuple(listing.files),
        images=sort_images(images),
        files=len(tasks) + sum(problem.is_error for problem in listing.problems),
        problems=tuple(problems),
        notes=notes,
        kinds=dict(kinds.most_common()),
        mask_root=annotations.mask_root,
    )


def _inspect(
    root: Path, path: str, label: int, annotations: _Annotations
) -> tuple[ImageRecord | None, list[Problem], str]:
    """One image: its record, or None where a problem forbids its use."""
    try:
        image, notes, kind = decode_with_notes(root / path)
    except ImageError as error:
        return None, [_problem(path, error, root / path)], ""
    problems = [_note_problem(path, note, root / path) for note in notes]
    box: Box | None = None
    if annotations.boxes is not None and path in annotations.boxes:
        fitted = fit_box(annotations.boxes[path], image.width, image.height)
        if isinstance(fitted, str):
            return None, [*problems, Problem("E301", path, fitted, "correct its box")], kind
        box = fitted
    mask = None
    if annotations.masks is not None:
        mask, derived = _inspect_mask(path, image.size, annotations)
        if isinstance(derived, Problem):
            return None, [*problems, derived], kind
        box = box or derived
    elif annotations.boxes is not None and box is None:
        problem = Problem("E302", path, "the image has no box, boxes are given", "add its row to the boxes")
        return None, [*problems, problem], kind
    record = ImageRecord(
        path=path,
        sha256=pixel_sha256(image),
        dhash=dhash(image),
        width=image.width,
        height=image.height,
        label=label,
        split="train",
        box=box,
        mask=mask,
    )
    return record, problems, kind


def _inspect_mask(path: str, size: tuple[int, int], annotations: _Annotations) -> tuple[str | None, Box | Problem]:
    """The mask of an image and the box round its object, or what is wrong with it."""
    assert annotations.masks is not None
    assert annotations.mask_root is not None
    name = annotations.masks.get(os.path.splitext(path)[0])
    if name is None:
        return None, Problem("E303", path, "the image has no mask, masks are given", "add its mask")
    try:
        mask, _, _ = decode_with_notes(annotations.mask_root / name)
    except ImageError as error:
        cause = f"its mask cannot be used: {error.cause.split(' ', 1)[1]}"
        return None, Problem(error.code, path, cause, error.remedy)
    if mask.size != size:
        cause = f"image and mask must have one size, found {size[0]} x {size[1]} and {mask.width} x {mask.height}"
        return None, Problem("E304", path, cause, "make the mask anew for this image")
    box = mask_box(mask)
    if box is None:
        return None, Problem(
            "E305", path, "its mask has no pixel above 127", "write object pixels as 255, or remove it"
        )
    return name, box


def _problem(path: str, error: ImageError, file: Path) -> Problem:
    return Problem(error.code, path, error.cause.removeprefix(f"{error.code} {file}: "), error.remedy)


def _note_problem(path: str, note: str, file: Path) -> Problem:
    code = note.split(" ", 1)[0]
    return Problem(code, path, note.removeprefix(f"{code} {file}: "), "look at the image, if that is not expected")


def _unmatched(listing: Listing, annotations: _Annotations) -> list[str]:
    """Annotations that belong to no image: a note, because one file of boxes may serve several folders."""
    files = {path for paths in listing.files.values() for path in paths}
    stems = {os.path.splitext(path)[0] for path in files}
    notes = []
    for name, keys, known in (("boxes", annotations.boxes, files), ("masks", annotations.masks, stems)):
        extra = [key for key in keys or () if key not in known]
        if extra:
            notes.append(f"{len(extra)} {name} belong to no image of the folder, the first is {shown(extra[0])[1:-1]}")
    return notes


def class_problems(*surveys: Survey) -> list[Problem]:
    """What is wrong with the classes of the training folder, and of the test folder where there is one."""
    train = surveys[0]
    total = sum(len(found.images) for found in surveys)
    if total == 0 or not train.images:
        cause = (
            f"{train.root} must hold class folders with images, found no usable image in {len(train.classes)} folders"
        )
        return [Problem("E201", ".", cause, "give the folder that holds one folder per class")]
    problems = []
    if len(train.classes) == 1:
        cause = f"{train.root} must hold at least two class folders, found {train.classes[0]} alone"
        problems.append(Problem("E202", ".", cause, "give the folder that holds one folder per class"))
    if len(surveys) == 2 and surveys[1].classes != train.classes:
        cause = "training and test folder must hold the same classes, found "
        cause += f"[{_names(train.classes)}] and [{_names(surveys[1].classes)}]"
        problems.append(Problem("E204", ".", cause, "rename, add or remove class folders"))
    for found, least in zip(surveys, (2, 1), strict=False):
        counts = Counter(image.label for image in found.images)
        for label, name in enumerate(found.classes):
            if counts[label] == 0:
                cause = f"class {name} of {found.root} holds no usable image"
                problems.append(Problem("E205", name, cause, "add images or remove the class folder"))
            elif counts[label] < least:
                cause = f"class {name} of {found.root} must hold at least {least} images, found {counts[label]}"
                problems.append(Problem("E203", name, cause, "add images or remove the class folder"))
    return problems


def _names(classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:20])
    return shown if len(classes) <= 20 else f"{shown}, ... {len(classes)} in all"


def overlap_problems(train: Sequence[ImageRecord], test: Sequence[ImageRecord]) -> list[Problem]:
    """Test images that are also training images: E401 pixel for pixel, W402 near-duplicates."""
    problems = []
    by_pixels = {image.sha256: image.path for image in train}
    for image in test:
        if image.sha256 in by_pixels:
            cause = f"the test image is also the training image {by_pixels[image.sha256]}"
            problems.append(Problem("E401", image.path, cause, "remove it from one of the folders"))
    both = [*train, *test]
    for first, second in near_pairs([image.dhash for image in both]).tolist():
        crosses = first < len(train) <= second
        if crosses and both[first].sha256 != both[second].sha256:
            cause = f"the test image looks like the training image {both[first].path}"
            problems.append(Problem("W402", both[second].path, cause, "look at both, remove one if they are one"))
    return problems

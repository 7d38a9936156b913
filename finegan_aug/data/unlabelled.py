"""Training photographs of no known class: a folder of their own, apart from those with classes and from the test."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from finegan_aug.data.budget import groups_of
from finegan_aug.data.manifest import ImageRecord
from finegan_aug.data.survey import Survey, survey_loose
from finegan_aug.errors import DataError


def survey_apart(unlabelled: str | Path, surveys: Sequence[Survey]) -> Survey:
    """The unlabelled photographs, from a folder that neither holds the other folders nor lies in one of them."""
    top = Path(os.path.realpath(unlabelled))
    for found in surveys:
        if top.is_relative_to(found.root) or found.root.is_relative_to(top):
            cause = f"the unlabelled photographs must lie apart from those with classes, found {top} and {found.root}"
            raise DataError(cause, "move them into a folder of their own")
    return survey_loose(unlabelled)


def without_twins(loose: Sequence[ImageRecord], classed: Sequence[ImageRecord]) -> tuple[list[ImageRecord], list[str]]:
    """Unlabelled photographs less those that have a class, and less those that look like a test image; with notes."""
    if not loose:
        return [], []
    known = {image.sha256 for image in classed if image.split != "test"}
    groups = groups_of([*loose, *classed])
    tested = {group for group, image in zip(groups[len(loose) :], classed, strict=True) if image.split == "test"}
    new = [(image, group) for image, group in zip(loose, groups, strict=False) if image.sha256 not in known]
    kept = [image for image, group in new if group not in tested]
    notes = []
    if same := len(loose) - len(new):
        notes.append(f"{same} unlabelled photographs left out, they also have a class")
    if alike := len(new) - len(kept):
        notes.append(f"{alike} unlabelled photographs left out, they look like test images")
    return kept, notes

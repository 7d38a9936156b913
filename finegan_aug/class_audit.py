"""Whether generated images show the class they were made for, and which child code stands for which class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from finegan_aug.codes import audit_codes, child_to_class
from finegan_aug.config import FineGANConfig
from finegan_aug.evaluation import class_consistency
from finegan_aug.files import JSON
from finegan_aug.judging import Judge


class CodeMap(NamedTuple):
    """Which child code may serve as which label."""

    code_to_class: Tensor  # int64 [num_children], -1 where the audit abstains
    uncovered_classes: list[int]
    rows: list[JSON]  # one for each code, as the report shows them


def map_codes(
    config: FineGANConfig,
    classes: Sequence[str],
    *,
    codes: Tensor | None,
    labels: Tensor,
    child: Tensor,
    answers: Tensor,
) -> CodeMap:
    """Which code is which class: as trained (tied), or where labelled photographs and the judge agree (discovered).

    Args:
        config: resolved.
        classes: names.
        codes: int64 [n], child code predicted for each labelled photograph; None: not asked.
        labels: int64 [n], its class.
        child: int64 [N], code of each generated image, every code at least once.
        answers: int64 [N], the class that a judge trained on photographs takes it for.
    """
    tied = config.labels == "tied"
    count = len(config.child_to_parent or ())
    codes, labels = (labels[:0], labels[:0]) if codes is None else (codes, labels)
    first = audit_codes(codes, labels, num_children=count, num_classes=len(classes))
    named = [-1 if row.first_class is None else row.first_class for row in first.rows]
    expected = child_to_class(len(classes), config.modes_per_class) if tied else torch.tensor(named)
    drawn = torch.bincount(child, minlength=count)
    agreement = torch.bincount(child[answers == expected[child]], minlength=count) / drawn
    audit = audit_codes(codes, labels, num_children=count, num_classes=len(classes), agreement=agreement)
    code_to_class = expected if tied else audit.code_to_class
    rows: list[JSON] = [
        {
            "code": row.code,
            "class": classes[label] if label >= 0 else None,
            "purity": row.purity if row.size else None,
            "margin": row.margin if row.size else None,
            "n": row.size,
            "most_frequent": None if row.first_class is None else classes[row.first_class],
            "second": None if row.second_class is None else classes[row.second_class],
            "agreement": row.agreement,
            "abstained": not tied and not row.kept,  # a tied code is its class by construction
            "reason": "" if tied else row.reason,
        }
        for row, label in zip(audit.rows, expected.tolist(), strict=True)
    ]
    uncovered = [label for label in range(len(classes)) if not bool((code_to_class == label).any())]
    return CodeMap(code_to_class, uncovered, rows)


class Made(NamedTuple):
    """Generated images and what they were made for."""

    images: Tensor  # uint8 [N, 3, S, S], crop view
    intended: Tensor  # int64 [N], class
    kept: Tensor | None  # bool [N], by the filter


def consistency(made: Made, judge: Judge, classes: Sequence[str]) -> tuple[list[JSON], list[JSON]]:
    """Rows for all images together, before and after the filter, and one row for each class for the audit.

    Each row for all says how many photographs the judge learned from (`n_real`), and its own accuracy on others.
    """
    if len(made.images) == 0:
        return [], []
    sight = judge.extractor
    right = sight.logits(made.images).argmax(dim=1) == made.intended
    rows = [class_consistency(images=made.images, labels=made.intended, judge=sight, split="train")]
    if made.kept is not None and bool(made.kept.any()):
        row = class_consistency(
            images=made.images[made.kept], labels=made.intended[made.kept], judge=sight, split="train"
        )
        rows.append({**row, "metric": "class_consistency_after_filter"})
    rows = [{**row, "n_real": judge.learned, "judge_accuracy": judge.accuracy} for row in rows]
    by_class: list[JSON] = []
    for label, name in enumerate(classes):
        before = made.intended == label
        entry: JSON = {"class": name, "before": _share(right[before]), "n_before": int(before.sum())}
        if made.kept is not None:
            after = before & made.kept
            entry |= {"after": _share(right[after]), "n_after": int(after.sum())}
        by_class.append(entry)
    return rows, by_class


def _share(right: Tensor) -> float | None:
    return float(right.double().mean()) if len(right) else None

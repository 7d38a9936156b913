"""Judges of generated images: classifiers of photographs that no generator has learned from.

A generator must not be measured with what made it. A judge from packaged features therefore has EfficientNet-Lite2,
never Lite0, which may have trained or filtered the generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from finegan_aug.config import Knowledge
from finegan_aug.errors import DataError
from finegan_aug.evaluation import class_consistency
from finegan_aug.features import Extractor, small_cnn_extractor
from finegan_aug.files import JSON
from finegan_aug.packaged import LITE2
from finegan_aug.probe import Probe, probe_extractor
from finegan_aug.randomness import permutation, seed_for
from finegan_aug.teaching import fit_teacher

JudgeLabels = Literal["budget", "all"]
HELD_OUT_SHARE = 0.2  # of the images with labels, to measure the judge where there are no others


class Photographs(NamedTuple):
    """Real images and their classes."""

    images: Tensor  # uint8 [N, 3, S, S]
    labels: Tensor  # int64 [N], -1 where the label may not be used


@dataclass(frozen=True)
class Judge:
    """A classifier of photographs, and how far to trust it."""

    extractor: Extractor  # its features and logits
    learned: int  # photographs it learned from with their labels
    rows: tuple[JSON, ...]  # its accuracy on other photographs, as from `evaluate_images`; empty where there are none

    @property
    def accuracy(self) -> float | None:
        """Share of other photographs that it names right."""
        return self.rows[0]["value"] if self.rows else None


def fit_judge(
    kind: Knowledge, train: Photographs, val: Photographs | None, *, num_classes: int, kimg: float, seed: int
) -> Judge:
    """A classifier trained on labelled photographs, and its accuracy on others of them.

    Args:
        kind: "own", a small network trained from scratch; "packaged", a probe on features of an ImageNet network.
        train: to learn from. The small network also learns from those without a label, by its own sure answers.
        val: to measure on; None: a fifth of each class of `train`, which is then not learned from.
        num_classes: C.
        kimg: length of the training of the small network, thousands of images.
        seed: of the small network and of what is held out.

    Raises:
        ConfigError: the package is not installed.
        DataError: no photograph has a label.
    """
    known = train.labels >= 0
    if not bool(known.any()):
        raise DataError(
            "a judge needs labelled training images, found none", "train the generator on data with some labels"
        )
    held_out = _held_out(train.labels, seed) if val is None else torch.zeros_like(known)
    # The small network also learns from photographs without a label, but from none that measures it.
    used = train.images[~held_out], train.labels[~held_out]
    fitted = fit_teacher(
        kind, *used, num_classes=num_classes, seed=seed_for(seed, "evaluate/judge"), kimg=kimg, model=LITE2
    )
    judge = probe_extractor(fitted) if isinstance(fitted, Probe) else small_cnn_extractor(fitted)
    learned = int((known & ~held_out).sum())
    tested = Photographs(train.images[held_out], train.labels[held_out]) if val is None else val
    seen = tested.labels >= 0
    if not bool(seen.any()):
        return Judge(judge, learned, ())
    split = "train" if val is None else "val"
    row = class_consistency(images=tested.images[seen], labels=tested.labels[seen], judge=judge, split=split)
    row |= {"metric": "judge_accuracy", "n_real": row["n_fake"], "n_fake": 0}
    return Judge(judge, learned, (row,))


def _held_out(labels: Tensor, seed: int) -> Tensor:
    """bool [N]: a share of the images of each class; none of a class with fewer than five."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in set(labels[labels >= 0].tolist()):
        found = (labels == label).nonzero()[:, 0]
        order = permutation(seed_for(seed, "evaluate/held-out", label), len(found))
        chosen[found[torch.from_numpy(order)[: int(HELD_OUT_SHARE * len(found))]]] = True
    return chosen

"""A classifier that learned from labelled photographs alone: it names others, filters generated images, judges them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from finegan_aug.config import Knowledge
from finegan_aug.fitting import fit_classifier
from finegan_aug.packaged import LITE0, PackagedModel
from finegan_aug.probe import Probe, packaged_probe
from finegan_aug.randomness import permutation
from finegan_aug.small_cnn import SmallClassifier

FOLDS = 5


def fit_teacher(
    knowledge: Knowledge,
    images: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    seed: int,
    kimg: float,
    model: PackagedModel = LITE0,
) -> Probe | SmallClassifier:
    """Both kinds answer with `logits` and `features` of images uint8 [N, 3, H, W] and have a hash.

    Args:
        knowledge: "own", a small network trained from scratch, also in rounds on its own sure answers for the images
            without a label (`fit_classifier`); "packaged", a probe on features of an ImageNet network (`fit_probe`).
        images: uint8 [N, 3, S, S].
        labels: int64 [N], -1 where there is none.
        num_classes: C.
        seed: of the small network.
        kimg: length of the training of the small network, thousands of images.
        model: network behind the probe.

    Raises:
        ConfigError: the package is not installed.
        DataError: see `fit_classifier` and `fit_probe`.
    """
    known = labels >= 0
    if knowledge == "packaged":
        return packaged_probe(images[known], labels[known], num_classes=num_classes, model=model)
    return fit_classifier(
        images[known],
        labels[known],
        num_classes=num_classes,
        seed=seed,
        kimg=kimg,
        unlabelled=None if bool(known.all()) else images[~known],
    )


def half_own(labels: Tensor, answers: Tensor) -> Tensor:
    """Soft labels, float32 [N, C]: half the label, int64 [N], half an answer, float32 [N, C]."""
    return 0.5 * F.one_hot(labels, answers.shape[1]).float() + 0.5 * answers


def answers_of_others(
    knowledge: Knowledge, images: Tensor, labels: Tensor, *, num_classes: int, seed: int, kimg: float
) -> Tensor:
    """What teachers say of the very images whose labels are known: shares of the classes, float32 [N, C].

    A teacher that judges the images it learned from is sure of them all. So each fifth is judged by a teacher of the
    other four. Where these hold no image of a class, or of one class alone, its own label is all that can be said.

    Args:
        knowledge, kimg: see `fit_teacher`.
        images: uint8 [N, 3, S, S].
        labels: int64 [N] in 0 .. num_classes - 1.
        seed: of the fifths, and of the small networks.

    Raises:
        ConfigError: the package is not installed.
        DataError: see `fit_classifier` and `fit_probe`.
    """
    fold = torch.empty(len(labels), dtype=torch.int64)
    fold[torch.from_numpy(permutation(seed, len(labels)))] = torch.arange(len(labels)) % FOLDS
    shares = F.one_hot(labels, num_classes).float()
    for number in range(FOLDS):
        others = torch.unique(labels[fold != number])
        asked = (fold == number) & torch.isin(labels, others)
        if len(others) < 2 or not bool(asked.any()):
            continue
        known = torch.where(fold == number, -1, labels)
        taught = fit_teacher(knowledge, images, known, num_classes=num_classes, seed=seed, kimg=kimg)
        shares[asked] = taught.logits(images[asked]).softmax(1).cpu()
    return shares

"""Training of the small network, with pseudo-labels for images that have none.

Pseudo-labels come in rounds, as in noisy student training (Xie et al., CVPR 2020,
https://arxiv.org/abs/1911.04252, algorithm 1) but within one training: the averaged network is the teacher, and
only images it is sure of get a label.
"""

from __future__ import annotations

import copy
import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from finegan_aug.errors import DataError
from finegan_aug.randomness import Integers, permutation, seed_for, uniforms
from finegan_aug.small_cnn import SmallClassifier, SmallCNN, SmallCNNConfig, build, to_float

_BATCH_IMAGES = 32  # at equal kimg better than 64: steps are what a small data set lacks
_LR = 3e-3
_ROUNDS = (0.5, 0.6, 0.7, 0.8, 0.9)  # shares of training at which pseudo-labels are given anew
_CONFIDENCE = 0.95


def fit_classifier(
    images: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    seed: int,
    kimg: float = 20.0,
    width: int = 32,
    unlabelled: Tensor | None = None,
) -> SmallClassifier:
    """Train a small network from scratch; the same arguments give the same network on the same machine.

    AdamW with a cosine schedule, `augmented` images, and the average of the weights over about
    the last tenth of training. With `unlabelled`, half of each batch after half of the training are images that
    the averaged network is sure of, with its answer as label.

    Args:
        images: uint8 [N, 3, S, S], S >= 16.
        labels: int64 [N] in 0 .. num_classes - 1.
        kimg: length of training, thousands of images shown to the network, whether labelled or not.
        width: see `SmallCNNConfig`.
        unlabelled: uint8 [M, 3, S, S], images of the same classes for pseudo-labels.

    Raises:
        DataError: shapes, types or labels are not as above.
    """
    _check(images, labels, num_classes, unlabelled)
    config = SmallCNNConfig(num_classes, images.shape[-1], width)
    network = build(config, seed=seed).to(images.device)
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LR, weight_decay=0.02, fused=True)
    steps = max(1, round(kimg * 1000 / _BATCH_IMAGES))
    rounds = () if unlabelled is None else tuple(round(share * steps) for share in _ROUNDS)
    guessed_images, guessed_labels = images[:0], labels[:0]
    for step in range(steps):
        if step in rounds and unlabelled is not None:
            guessed_images, guessed_labels = confident_labels(SmallClassifier(config, average), unlabelled)
        guesses = _BATCH_IMAGES // 2 if len(guessed_images) > 0 else 0
        chosen = shuffled(len(images), step, _BATCH_IMAGES - guesses, key=seed_for(seed, "small-cnn/order"))
        others = shuffled(len(guessed_images), step, guesses, key=seed_for(seed, "small-cnn/unlabelled"))
        batch = torch.cat([images[chosen], guessed_images[others]])
        targets = torch.cat([labels[chosen], guessed_labels[others]])
        for group in optimizer.param_groups:
            group["lr"] = _LR * min(1.0, (step + 1) / (0.05 * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))
        logits = network(augmented(batch, key=seed_for(seed, "small-cnn/augment", step)))[1]
        loss = F.cross_entropy(logits, targets)  # unsmoothed: confidence must mean something to filters
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        _follow(average, network, decay=min(1 - 10 / max(steps, 10), (1 + step) / (10 + step)))
    return SmallClassifier(config, average)


def confident_labels(
    classifier: SmallClassifier, images: Tensor, *, confidence: float = _CONFIDENCE
) -> tuple[Tensor, Tensor]:
    """The images [K, 3, S, S] the classifier is sure of, and its answers, int64 [K]; K may be 0.

    Args:
        images: uint8 [N, 3, S, S].
        confidence: least probability of the answer.
    """
    answers = sure_answers(classifier.logits(images), confidence=confidence).to(images.device)
    return images[answers >= 0], answers[answers >= 0]


def sure_answers(logits: Tensor, *, confidence: float) -> Tensor:
    """A classifier's answer for each row of its logits [N, C], int64 [N]; -1 where it is less sure than that."""
    probability, answer = logits.softmax(dim=1).max(dim=1)
    return torch.where(probability >= confidence, answer, -1)


@torch.no_grad()
def _follow(average: SmallCNN, network: SmallCNN, *, decay: float) -> None:
    """Move every float of the average, buffers included, by 1 - decay towards the network."""
    for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def augmented(images: Tensor, *, key: int) -> Tensor:
    """Changed copies of images uint8 [N, 3, S, S], as float32 in [-1, 1], all in one gather.

    Flip, shift by up to 1/8, zoom by up to 10 %, turn by up to 8 degrees; light, contrast and saturation by up to
    15 %.

    Args:
        key: from `seed_for`; image i of the call draws row i.
    """
    count, side = len(images), images.shape[-1]
    u = torch.from_numpy(uniforms(key, range(count), 8)).float().to(images.device)
    signed = 2 * u - 1
    angle = signed[:, 0] * math.radians(8)
    zoom = torch.exp(signed[:, 1] * 0.1)
    flip = torch.where(u[:, 2] < 0.5, -1.0, 1.0)
    shift = signed[:, 3:5] * 0.25  # of a half side: 1/8 of the side
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    theta = torch.stack([cos * flip, -sin, shift[:, 0], sin * flip, cos, shift[:, 1]], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, [count, 3, side, side], align_corners=False)
    x = F.grid_sample(to_float(images), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    light, contrast, saturation = (signed[:, i].view(-1, 1, 1, 1) * 0.15 for i in (5, 6, 7))
    grey, middle = x.mean(dim=1, keepdim=True), x.mean(dim=(1, 2, 3), keepdim=True)
    x = (x + saturation * (x - grey) + contrast * (x - middle) + light).clamp(-1, 1)
    return x.contiguous(memory_format=torch.channels_last)


def shuffled(count: int, step: int, size: int, *, key: int) -> Tensor:
    """Indices of one step, int64 [size]: batches of `size` laid end to end over endless shuffled rounds."""
    positions = np.arange(step * size, (step + 1) * size)
    return torch.from_numpy(
        np.array([_round(key, int(p) // count, count)[int(p) % count] for p in positions], dtype=np.int64)
    )


@lru_cache(maxsize=4)
def _round(key: int, number: int, count: int) -> Integers:
    return permutation(seed_for(key, "round", number), count)


def _check(images: Tensor, labels: Tensor, num_classes: int, unlabelled: Tensor | None) -> None:
    for name, batch in (("images", images), ("unlabelled", images if unlabelled is None else unlabelled)):
        good = batch.dtype == torch.uint8 and batch.dim() == 4 and batch.shape[1:] == (3, *images.shape[-1:] * 2)
        if not good or len(batch) == 0 or batch.shape[-1] < 16:
            raise DataError(
                f"{name} must be uint8 [N, 3, S, S] with N >= 1 and S >= 16, found {batch.dtype} {list(batch.shape)}",
                "pass square crops of one size",
            )
    check_labels(images, labels, num_classes)


def check_labels(images: Tensor, labels: Tensor, num_classes: int) -> None:
    """Refuse labels that are not int64 [N] in 0 .. num_classes - 1, one for each of N images.

    Raises:
        DataError: see above.
    """
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise DataError(
            f"labels must be int64 [{len(images)}], found {labels.dtype} {list(labels.shape)}",
            "pass one label for each image",
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise DataError(
            f"labels must lie in 0..{num_classes - 1}, found {low}..{high}",
            "count the classes again, or drop such images",
        )

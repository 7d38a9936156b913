"""Whether generated images vary within their class as photographs do, and whether they repeat training images.

Both are measured in the features of one judge. Coverage: Naeem et al., ICML 2020, https://arxiv.org/abs/2002.09797,
equation 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from finegan_aug.class_audit import Made
from finegan_aug.evaluation import metric_row, wilson_interval
from finegan_aug.features import Extractor
from finegan_aug.files import JSON
from finegan_aug.judging import Photographs
from finegan_aug.metrics import prdc
from finegan_aug.nearest import copy_distance, nearest_distances
from finegan_aug.randomness import permutation, seed_for

NEIGHBOUR = 5  # the ball of an image reaches this neighbour
MOST_MEMORISED = 0.05  # share of generated images above which a warning stands beside the number


class ClassCoverage(NamedTuple):
    """Means over classes, each class weighing the same; None where every class was left out."""

    generated: float | None  # share of photographs with a generated image of their class in their ball
    real: float | None  # the same with as many other photographs of the class in place of the generated images
    n_real: int  # photographs, of all classes together
    n_fake: int  # generated images
    left_out: tuple[int, ...]  # labels of classes with too few images


def intra_class_coverage(
    *, real: Tensor, real_labels: Tensor, fake: Tensor, fake_labels: Tensor, num_classes: int, seed: int
) -> ClassCoverage:
    """How much of the variety of each class the generated images of that class reach.

    The photographs of a class are cut into two halves, and each half is covered once by generated images and once by
    the other half, the same number on both sides: coverage depends on numbers, so `real` is what to compare with.

    Args:
        real, fake: float [N, D] and [M, D], features from one extractor.
        real_labels: int64 [N], -1 where no label may be used.
        fake_labels: int64 [M], the class an image was made for.
        num_classes: C; a class with fewer than 6 generated images or 12 photographs is left out.
        seed: chooses halves, and who stays where one side has more.
    """
    generated, between, count, left_out = [], [], 0, []
    for label in range(num_classes):
        photographs = _shuffled(real[real_labels == label], seed_for(seed, "coverage/real", label))
        images = _shuffled(fake[fake_labels == label], seed_for(seed, "coverage/fake", label))
        half = len(photographs) // 2
        size = min(half, len(images))
        if size <= NEIGHBOUR:
            left_out.append(label)
            continue
        halves = photographs[:size], photographs[half : half + size]
        count += size
        generated += [prdc(real=one, fake=images[:size], k=NEIGHBOUR).coverage for one in halves]
        between += [prdc(real=one, fake=other, k=NEIGHBOUR).coverage for one, other in (halves, halves[::-1])]
    return ClassCoverage(_mean(generated), _mean(between), 2 * count, count, tuple(left_out))


def memorised_share(*, real: Tensor, fake: Tensor) -> float:
    """Share of generated images as near to a training image as a copy would be (see `nearest.copy_distance`).

    Of photographs that the generator has never seen it would be about one in a hundred.

    Args:
        real, fake: float [N, D] and [M, D], features from one extractor; `real` of the training images.
    """
    real, fake = real.double(), fake.double()
    return float((nearest_distances(fake, real) <= copy_distance(real)).double().mean())


def memorised_warnings(share: float) -> list[str]:
    """What to say about a share in [0, 1]: nothing up to 5 %."""
    if share <= MOST_MEMORISED:
        return []
    text = f"{100 * share:.1f} % of the generated images lie as near to a training image as a copy of it would"
    return [f"memorised: {text}; more than {100 * MOST_MEMORISED:.0f} % means that the generator repeats photographs"]


def set_rows(made: Made, train: Photographs, judge: Extractor, classes: Sequence[str], *, seed: int) -> list[JSON]:
    """Both measures as rows, of all images and, where a filter has chosen, of those it kept (`_after_filter`).

    Args:
        made: generated images.
        train: training photographs; those without a label count for memorisation only.
        judge: gives the features.
        classes: names.
        seed: see `intra_class_coverage`.
    """
    rows: list[JSON] = []
    if len(made.images) == 0:
        return rows
    real, generated = judge.features(train.images).cpu(), judge.features(made.images).cpu()
    everything = torch.ones(len(made.images), dtype=torch.bool)
    for suffix, shown in (("", everything), ("_after_filter", made.kept)):
        if shown is None or not bool(shown.any()):
            continue
        fake = generated[shown]
        base: JSON = {"extractor": judge.name, "extractor_sha256": judge.sha256, "split": "train"}
        found = intra_class_coverage(
            real=real,
            real_labels=train.labels,
            fake=fake,
            fake_labels=made.intended[shown],
            num_classes=len(classes),
            seed=seed,
        )
        names = ", ".join(classes[label] for label in found.left_out)
        warnings = [f"coverage without {names}: fewer than 6 generated images or 12 photographs"] if names else []
        counts = base | {"n_real": found.n_real, "n_fake": found.n_fake}
        for name, value in (("intra_class_coverage", found.generated), ("intra_class_coverage_real", found.real)):
            if value is not None:
                rows.append(metric_row(name + suffix, value, counts, warnings=warnings))
        share = memorised_share(real=real, fake=fake)
        counts = base | {"n_real": len(real), "n_fake": len(fake)}
        bounds, warnings = wilson_interval(share, len(fake)), memorised_warnings(share)
        rows.append(metric_row(f"memorised_share{suffix}", share, counts, interval=bounds, warnings=warnings))
    return rows


def _shuffled(rows: Tensor, key: int) -> Tensor:
    return rows[torch.from_numpy(permutation(key, len(rows)))]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None

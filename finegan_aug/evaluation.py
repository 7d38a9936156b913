"""Evaluation of a generator from its images: rows for `evaluation.json`, each with extractor, counts and split.

Arrays and functions come in, rows go out; run folders and generators stay with the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor

from finegan_aug.errors import DataError
from finegan_aug.features import Extractor, fit_classifier
from finegan_aug.files import JSON
from finegan_aug.metrics import ari, clustering_accuracy, fid, inception_score, kid, nmi, prdc
from finegan_aug.randomness import seed_for
from finegan_aug.reference import Reference, reference

SampleFn = Callable[[int, int], tuple[Tensor, Tensor, Tensor]]


def evaluate_images(
    *,
    real: Tensor,
    fake: Tensor,
    extractors: Sequence[Extractor],
    seed: int,
    split: str = "test",
    cache_dir: Path | None = None,
) -> list[JSON]:
    """FID, KID, precision, recall, density, coverage and, where the extractor classifies, the inception score.

    Args:
        real: uint8 [N, 3, H, W], the reference images.
        fake: uint8 [M, 3, H, W].
        extractors: each gives its own rows; rows of different extractors are never comparable.
        seed: chooses the subsets of KID and the order of the inception score.
        split: where the real images come from.
        cache_dir: folder in which what is known of the real images is kept for the next time; None: nowhere.

    Returns:
        Rows {"metric", "value", "interval", "std", "extractor", "extractor_sha256", "n_real", "n_fake", "split",
        "warnings"}; interval and std are None where there is none.
    """
    rows: list[JSON] = []
    for extractor in extractors:
        known = reference(extractor, real, cache_dir=cache_dir)
        rows += _rows_of(extractor, known, fake, seed=seed, split=split)
    return rows


def _rows_of(extractor: Extractor, real: Reference, fake: Tensor, *, seed: int, split: str) -> list[JSON]:
    real_features, fake_features = real.features, extractor.features(fake)
    base = {
        "extractor": extractor.name,
        "extractor_sha256": extractor.sha256,
        "n_real": len(real_features),
        "n_fake": len(fake),
        "split": split,
    }
    warnings = []
    dimensions = real_features.shape[1]
    if min(len(real_features), len(fake)) <= dimensions:
        warnings.append(f"fewer images than features ({dimensions}): biased upwards, compare at equal n only")
    distance = kid(real=real_features, fake=fake_features, seed=seed)
    scores = prdc(real=real_features, fake=fake_features, k=min(5, len(real_features) - 1, len(fake) - 1))
    rows = [metric_row("fid", fid(real=real.gaussian, fake=fake_features), base, warnings=warnings)]
    rows.append(metric_row("kid", distance.mean, base, interval=distance.interval, std=distance.std))
    rows += [metric_row(name, value, base) for name, value in scores._asdict().items()]
    if real.logits is not None:
        for name, logits in (("inception_score", extractor.logits(fake)), ("inception_score_real", real.logits)):
            score = inception_score(logits, splits=min(10, len(logits)), seed=seed)
            rows.append(metric_row(name, score.mean, base, std=score.std))
    return rows


def metric_row(
    metric: str,
    value: float,
    base: JSON,
    *,
    interval: tuple[float, float] | None = None,
    std: float | None = None,
    warnings: Sequence[str] = (),
) -> JSON:
    """One row as from `evaluate_images`; `base` holds extractor, counts and split."""
    bounds = None if interval is None else list(interval)
    return {"metric": metric, "value": value, "interval": bounds, "std": std, **base, "warnings": list(warnings)}


def class_consistency(*, images: Tensor, labels: Tensor, judge: Extractor, split: str = "none") -> JSON:
    """Share of generated images that the judge puts in the class they were made for, as one row.

    The interval is Wilson's 95 % for a share. The row counts only beside the judge's own accuracy on real images.

    Args:
        images: uint8 [N, 3, H, W], generated.
        labels: int64 [N], intended class, in the order of the judge's logits.
        judge: a classifier that the generator was not trained or filtered with.
        split: real images the judge was trained on, for the record.
    """
    if len(images) != len(labels):
        raise DataError(f"each image needs one label, found {len(images)} and {len(labels)}", "pass both together")
    share = float((judge.logits(images).argmax(dim=1).cpu() == labels.cpu()).double().mean())
    base = {
        "extractor": judge.name,
        "extractor_sha256": judge.sha256,
        "n_real": 0,
        "n_fake": len(images),
        "split": split,
    }
    return metric_row("class_consistency", share, base, interval=wilson_interval(share, len(images)))


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of `count` trials (Wilson, 1927)."""
    z2 = 1.959964**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = np.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


class RealClusters(NamedTuple):
    """Clusters of real images found by networks that learnt from generated images alone."""

    clusters: npt.NDArray[np.int64]  # [N], by k-means
    child: npt.NDArray[np.int64]  # [N], the child code that phi_c predicts
    parent: npt.NDArray[np.int64]  # [N], the parent code that phi_p predicts
    rows: list[JSON]  # of the k-means clusters, as from `evaluate_images`
    child_rows: list[JSON]  # of the child codes


def cluster_with_generated(
    sample_fn: SampleFn,
    real_images: Tensor,
    labels: Tensor,
    *,
    num_children: int,
    num_parents: int,
    seed: int,
    num_generated: int = 4000,
    kimg: float = 20.0,
    adapt: bool = False,
    split: str = "test",
) -> RealClusters:
    """Cluster real images by the protocol of FineGAN (https://arxiv.org/abs/1811.11155, section 4.4).

    phi_p and phi_c learn to predict the parent and the child code of generated images; k-means, with as many
    clusters as classes, runs on both networks' features of the real images, each scaled to unit length.

    Args:
        sample_fn: (n, seed) -> images uint8 [n, 3, S, S], child codes and parent codes int64 [n].
        real_images: uint8 [N, 3, S, S], object crops.
        labels: int64 [N], used for scoring only.
        num_children, num_parents: how many codes there are.
        seed: decides samples, networks and k-means.
        num_generated: images to train on.
        kimg: length of training of each network.
        adapt: also lower the entropy of the predictions on the real images, by pseudo-labels (`fit_classifier`).
        split: where the real images come from.
    """
    images, child, parent = sample_fn(num_generated, seed_for(seed, "clustering/samples"))
    unlabelled = real_images if adapt else None
    phi_c = fit_classifier(
        images, child, num_classes=num_children, seed=seed_for(seed, "phi_c"), kimg=kimg, unlabelled=unlabelled
    )
    phi_p = fit_classifier(
        images, parent, num_classes=num_parents, seed=seed_for(seed, "phi_p"), kimg=kimg, unlabelled=unlabelled
    )
    features = torch.cat([F.normalize(phi.features(real_images), dim=1) for phi in (phi_p, phi_c)], dim=1)
    clusters = k_means(features.double().numpy(), len(torch.unique(labels)), seed=seed)
    predicted = phi_c.logits(real_images).argmax(dim=1).numpy()
    network = f"small-cnn@{phi_c.config.resolution_px}" + (", adapted" if adapt else "")
    base = {"extractor_sha256": phi_c.sha256, "n_real": len(real_images), "n_fake": num_generated, "split": split}
    truth = labels.cpu().numpy()
    return RealClusters(
        clusters=clusters,
        child=predicted,
        parent=phi_p.logits(real_images).argmax(dim=1).numpy(),
        rows=clustering_rows(labels=truth, clusters=clusters, base={"extractor": f"phi_p+phi_c, {network}", **base}),
        child_rows=clustering_rows(labels=truth, clusters=predicted, base={"extractor": f"phi_c, {network}", **base}),
    )


def k_means(features: npt.NDArray[np.float64], count: int, *, seed: int) -> npt.NDArray[np.int64]:
    """Cluster of each row of [N, D], int64 [N] from 0 to count - 1: the best of ten k-means++ starts."""
    state = seed_for(seed, "k-means") % 2**31
    clusters: npt.NDArray[np.int64] = (
        KMeans(count, n_init=10, random_state=state).fit_predict(features).astype(np.int64)
    )
    return clusters


def clustering_rows(*, labels: npt.NDArray[np.int64], clusters: npt.NDArray[np.int64], base: JSON) -> list[JSON]:
    """Rows for NMI with each average, accuracy after the best match, and the adjusted Rand index."""
    rows = [
        metric_row("nmi_geometric", nmi(labels=labels, clusters=clusters, average="geometric"), base),
        metric_row("nmi_arithmetic", nmi(labels=labels, clusters=clusters, average="arithmetic"), base),
        metric_row("nmi_max", nmi(labels=labels, clusters=clusters, average="max"), base),
    ]
    accuracy = clustering_accuracy(labels=labels, clusters=clusters)
    rows.append(metric_row("clustering_accuracy", accuracy, base, interval=wilson_interval(accuracy, len(labels))))
    rows.append(metric_row("ari", ari(labels=labels, clusters=clusters), base))
    return rows

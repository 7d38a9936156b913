"""Groups found without a label against the true classes: the generator's codes beside k-means on other features.

The clustering of FineGAN (Singh, Ojha, Lee, CVPR 2019, arXiv 1811.11155, section 4.4) beside two yardsticks: what the
pixels alone give away, and what a network already knows that was trained on other photographs with labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from sklearn.decomposition import PCA
from torch import Tensor

from finegan_aug.errors import DataError
from finegan_aug.evaluation import SampleFn, cluster_with_generated, clustering_rows, k_means
from finegan_aug.features import Extractor
from finegan_aug.files import JSON
from finegan_aug.randomness import seed_for

PIXEL_COMPONENTS = 50  # at most


class Codes(NamedTuple):
    """What to ask of a generator."""

    sample_fn: SampleFn
    num_children: int
    num_parents: int


def compare_groups(
    images: Tensor,
    truth: Tensor,
    *,
    codes: Codes,
    extractors: Sequence[Extractor],
    seeds: Sequence[int],
    num_generated: int = 4000,
    kimg: float = 20.0,
    adapt: bool = False,
    split: str = "train",
) -> list[JSON]:
    """Mutual information, accuracy and Rand index of several ways to group the same images.

    The methods are `codes` (the child code that phi_c predicts), `phi` (k-means on features of phi_p and phi_c, both as
    in `cluster_with_generated`), `pixels` (k-means on the first principal components of the pixels) and `frozen`
    (k-means on an extractor's features, each scaled to unit length). k is the number of classes in `truth`; child codes
    are as many as the generator has.

    Args:
        images: uint8 [N, 3, S, S], object crops.
        truth: int64 [N], true classes; only the scores read them, and k-means their number.
        codes: of the generator.
        extractors: each gives its own rows `frozen`.
        seeds: each a repetition with other samples, networks and starts of k-means.
        num_generated, kimg, adapt: as of `cluster_with_generated`.
        split: where the images come from.

    Returns:
        Rows {"method", "seed", ...} with the keys of `evaluation.clustering_rows`, method by method within each seed.

    Raises:
        DataError: not one true class for each image.
    """
    if truth.shape != (len(images),) or bool((truth < 0).any()):
        raise DataError(
            f"every image needs a true class, found {list(truth.shape)} for {len(images)} images, "
            f"the least {int(truth.min()) if len(truth) else 'absent'}",
            "take the classes of the folders",
        )
    labels = truth.cpu().numpy()
    count = len(np.unique(labels))
    fixed = [(extractor, _frozen_features(extractor, images)) for extractor in extractors]
    rows: list[JSON] = []
    for seed in seeds:
        found = cluster_with_generated(
            codes.sample_fn,
            images,
            truth,
            num_children=codes.num_children,
            num_parents=codes.num_parents,
            seed=seed,
            num_generated=num_generated,
            kimg=kimg,
            adapt=adapt,
            split=split,
        )
        groups = [("codes", found.child_rows), ("phi", found.rows)]
        pixels = pixel_components(images, seed=seed)
        base: JSON = {"n_real": len(images), "n_fake": 0, "split": split}
        named = f"pixels@{images.shape[-1]}, {pixels.shape[1]} principal components"
        others = [("pixels", pixels, {"extractor": named, "extractor_sha256": None, **base})]
        for extractor, features in fixed:
            hashed: JSON = {"extractor": extractor.name, "extractor_sha256": extractor.sha256, **base}
            others.append(("frozen", features, hashed))
        for method, features, header in others:
            clusters = k_means(features, count, seed=seed)
            groups.append((method, clustering_rows(labels=labels, clusters=clusters, base=header)))
        rows += [{"method": method, "seed": seed, **row} for method, group in groups for row in group]
    return rows


def pixel_components(images: Tensor, *, seed: int) -> npt.NDArray[np.float64]:
    """The images' scores on their first principal components, [N, at most 50]; of uint8 [N, 3, S, S], not whitened.

    Args:
        seed: of the randomised decomposition (Halko, Martinsson, Tropp, 2011), which is near the exact one.
    """
    flat = images.flatten(1).double().numpy() / 255
    components = min(PIXEL_COMPONENTS, *flat.shape)
    state = seed_for(seed, "discovery/pixels") % 2**31
    scores: npt.NDArray[np.float64] = PCA(components, svd_solver="randomized", random_state=state).fit_transform(flat)
    return scores


def _frozen_features(extractor: Extractor, images: Tensor) -> npt.NDArray[np.float64]:
    features: npt.NDArray[np.float64] = F.normalize(extractor.features(images).double(), dim=1).cpu().numpy()
    return features


def over_seeds(rows: Sequence[JSON]) -> list[JSON]:
    """One row for each method, extractor and metric: the mean over the seeds, the lowest and the highest value."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        found.setdefault((row["method"], row["extractor"], row["metric"]), []).append(row["value"])
    return [
        {
            "method": method,
            "extractor": extractor,
            "metric": metric,
            "mean": sum(values) / len(values),
            "lowest": min(values),
            "highest": max(values),
            "seeds": len(values),
        }
        for (method, extractor, metric), values in found.items()
    ]

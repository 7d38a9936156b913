"""Codes that begin as groups of like photographs, found without a label in features of an ImageNet network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.cluster.hierarchy import leaves_list, linkage
from torch import Tensor

from finegan_aug.config import FineGANConfig
from finegan_aug.data.views import Crops
from finegan_aug.errors import DataError
from finegan_aug.evaluation import k_means
from finegan_aug.files import read_json, write_json
from finegan_aug.packaged import enlarged_px, packaged_extractor
from finegan_aug.typed import read_field

CLUSTERS = "clusters.json"


def cluster_codes(config: FineGANConfig, crops: Crops, run_dir: Path) -> Tensor:
    """The child code that each training image shows, int64 [len(crops)]; kept in run_dir/clusters.json.

    k-means on features of unit length, as many clusters as child codes. They are numbered along the leaves of a tree of
    their centres (average linkage, neighbours as near as the tree allows: Bar-Joseph et al., Bioinformatics 2001), so
    that neighbouring codes, which share a parent, are alike.

    Raises:
        ConfigError: the packaged network is not installed.
        DataError: clusters.json does not fit the photographs.
    """
    path = run_dir / CLUSTERS
    if not path.exists():
        images = crops.objects_center_uint8(torch.arange(len(crops), device=crops.device))
        extractor = packaged_extractor(input_px=enlarged_px(config.resolution, 3))
        features = F.normalize(extractor.features(images).double().cpu(), dim=1)
        groups = k_means(features.numpy(), config.num_children or 0, seed=config.seed)
        codes = like_neighbours(features, torch.from_numpy(groups)).tolist()
        write_json(path, {"codes": codes, "extractor": extractor.name, "sha256": extractor.sha256})
    return kept_codes(config, run_dir, len(crops))


def kept_codes(config: FineGANConfig, run_dir: Path, num_images: int) -> Tensor:
    """The codes of a run's training images, int64 [num_images], as its clusters.json holds them.

    Raises:
        DataError: the file is missing or does not fit the photographs.
    """
    path, count = run_dir / CLUSTERS, config.num_children or 0
    codes = torch.tensor(read_field(read_json(path), path, "codes", list[int]), dtype=torch.int64)
    if len(codes) != num_images or not bool(((codes >= 0) & (codes < count)).all()):
        raise DataError(
            f"{path} must hold a code from 0 to {count - 1} for each of the {num_images} training photographs",
            "restore the file, or train again with another --out",
        )
    return codes


def like_neighbours(features: Tensor, clusters: Tensor) -> Tensor:
    """The same clusters, int64 [N], under other numbers: neighbouring numbers have like centres.

    Args:
        features: float64 [N, D].
        clusters: int64 [N], each number from 0 up at least once.
    """
    centres = torch.stack([features[clusters == number].mean(dim=0) for number in range(int(clusters.max()) + 1)])
    if len(centres) < 3:
        return clusters
    order = leaves_list(linkage(centres.numpy(), method="average", optimal_ordering=True))
    return torch.from_numpy(np.argsort(order))[clusters]

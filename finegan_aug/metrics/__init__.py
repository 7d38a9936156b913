"""Measures of generated images and of clusterings: pure functions of arrays, float64 inside.

The modules are named differently from their functions, so that neither hides the other.
"""

from __future__ import annotations

from finegan_aug.metrics.clustering import ari, clustering_accuracy, nmi
from finegan_aug.metrics.frechet import fid
from finegan_aug.metrics.inception import InceptionScore, inception_score
from finegan_aug.metrics.kernel import KernelDistance, kid
from finegan_aug.metrics.manifold import ManifoldScores, prdc

__all__ = [
    "InceptionScore",
    "KernelDistance",
    "ManifoldScores",
    "ari",
    "clustering_accuracy",
    "fid",
    "inception_score",
    "kid",
    "nmi",
    "prdc",
]

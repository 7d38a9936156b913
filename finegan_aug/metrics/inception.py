"""Inception score: confident and varied predictions.

Salimans et al., NIPS 2016, https://arxiv.org/abs/1606.03498: exp(E_x KL(p(y|x) || p(y))).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax

from finegan_aug.errors import DataError
from finegan_aug.metrics.arrays import Array, Floats, features64
from finegan_aug.randomness import permutation, seed_for


class InceptionScore(NamedTuple):
    """Mean and standard deviation over the splits."""

    mean: float
    std: float


def inception_score(logits: Array, splits: int = 10, *, seed: int = 0) -> InceptionScore:
    """Inception score from classifier logits, between 1 and the number of classes.

    The images are shuffled by `seed` before they are split, since synthetic sets come sorted by class.

    Args:
        logits: float [N, C], N >= splits.
        splits: parts, each scored on its own.

    Raises:
        DataError: unusable logits, or more splits than images.
    """
    values = features64(logits, name="logits", at_least=1)
    if not 1 <= splits <= len(values):
        raise DataError(f"splits must lie in 1..{len(values)}, found {splits}", "use fewer splits or more images")
    order = permutation(seed_for(seed, "inception-score"), len(values))
    log_p: Floats = log_softmax(values[order], axis=1)
    scores = [_score(part) for part in np.array_split(log_p, splits)]
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)))


def _score(log_p: Floats) -> float:
    p = np.exp(log_p)
    marginal = np.log(np.maximum(p.mean(axis=0), np.finfo(np.float64).tiny))  # p = 0 everywhere contributes 0
    return float(np.exp((p * (log_p - marginal)).sum(axis=1).mean()))

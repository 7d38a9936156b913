"""Every random draw as a function of (seed, purpose, counters): nothing to save, nothing to restore.

The same arguments give the same numbers in any process, worker, order or batch size. Rows of one call
belong to one counter each (an image, a sample), so image 17 draws the same alone or in a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def seed_for(seed: int, purpose: str, *counters: int | str) -> int:
    """63-bit seed for one draw."""
    key = "|".join(map(str, (seed, purpose, *counters)))
    digest = hashlib.blake2b(key.encode(), digest_size=8, person=b"finegan-aug").digest()
    return int.from_bytes(digest, "little") >> 1


def splitmix64(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Output of the SplitMix64 generator for each state (Steele, Lea, Flood, OOPSLA 2014, figure 15)."""
    z = state + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniforms(key: int, counters: Sequence[int] | Integers, draws: int) -> Floats:
    """Uniform numbers in [0, 1), float64 [len(counters), draws]; row i depends on (key, counters[i]) alone.

    Args:
        key: from `seed_for`: seed, purpose, and what the whole call shares (epoch or step).
        counters: int64 [N], one per sample.
        draws: numbers per sample; a shorter row is a prefix of a longer one.
    """
    rows = _bits(key, counters)
    columns = np.arange(draws, dtype=np.uint64) * _GOLDEN
    bits = splitmix64(rows[:, None] + columns[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def seeds(key: int, counters: Sequence[int] | Integers) -> Integers:
    """A 63-bit seed for each counter, int64 [N]: many at the price of one `seed_for`."""
    return (_bits(key, counters) >> np.uint64(1)).astype(np.int64)


def _bits(key: int, counters: Sequence[int] | Integers) -> npt.NDArray[np.uint64]:
    """64 raw bits for each counter."""
    return splitmix64(np.asarray(counters, dtype=np.int64).astype(np.uint64) ^ splitmix64(np.array([key], np.uint64)))


def normals(key: int, counters: Sequence[int] | Integers, draws: int) -> Floats:
    """Standard normal numbers, float64 [len(counters), draws], by Box-Muller on `uniforms`."""
    pairs = (draws + 1) // 2
    u = uniforms(key, counters, 2 * pairs)
    radius = np.sqrt(-2.0 * np.log1p(-u[:, 0::2]))
    angle = 2.0 * np.pi * u[:, 1::2]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2).reshape(len(u), 2 * pairs)[:, :draws]


def permutation(key: int, count: int) -> Integers:
    """A permutation of range(count), int64 [count]: the stable order of `count` raw 64-bit draws."""
    bits = splitmix64(np.arange(count, dtype=np.uint64) * _GOLDEN + splitmix64(np.array([key], np.uint64)))
    return np.argsort(bits, kind="stable").astype(np.int64)

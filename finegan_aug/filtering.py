"""Which synthetic images are kept, and why. Edits the manifest only; no image is deleted or changed.

The chain, in this order, each step working on what the one before has left:
1. `teacher_top_k`: the intended class is among the k likeliest of a teacher trained on real images only;
2. `low_confidence`, `high_confidence`: the teacher's probability of the intended class lies in a window;
3. `near_duplicate`: the image is not a copy of a training image;
4. `outlier`: nor is it, among those of its class, least like any training image.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from finegan_aug.arrays import Shares, write_array
from finegan_aug.data.duplicates import MAX_DISTANCE, MIN_EVIDENCE, dhash, mirrored, to_integers
from finegan_aug.errors import ConfigError
from finegan_aug.nearest import copy_distance, nearest_distances
from finegan_aug.set_reader import Entries, SetReader, TensorFunction, answers
from finegan_aug.synthetic import Header, SyntheticRow, read_rows, write_manifest
from finegan_aug.synthetic_index import SOFT_LABELS, SyntheticIndex, open_index

REASONS = ("teacher_top_k", "low_confidence", "high_confidence", "near_duplicate", "outlier")
SCORES = ("teacher_rank", "teacher_confidence", "train_distance", "train_dhash_bits")
ENOUGH = 0.2  # share that must survive (evidence: below it a filter mends nothing, the generator must)

_FLAT = to_integers([dhash(Image.new("RGB", (9, 8)))])  # nothing but ties

Settings = dict[str, float | int | None]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FilterReport:
    """What a filtering did: counts of images."""

    total: int  # images offered to the chain; those that another hand had dropped are left out
    kept: int
    dropped: dict[str, int]  # reason -> images, in the order of the chain
    per_class: dict[str, dict[str, int]]  # class -> {"total", "kept", each reason}
    settings: Settings
    warnings: tuple[str, ...]


def filter_synthetic(
    out_dir: str | Path,
    *,
    teacher: TensorFunction | None = None,
    top_k: int | None = None,
    drop_lowest_confidence: float = 0.1,
    max_confidence: float | None = None,
    drop_outliers: float = 0.0,
    features_fn: TensorFunction | None = None,
    train_features: Tensor | None = None,
    train_dhashes: Sequence[str] | None = None,
    resolution_px: int | None = None,
    batch_size: int = 128,
) -> FilterReport:
    """Mark every image of a synthetic set as kept or dropped, with its scores. Running it twice changes nothing.

    Args:
        out_dir: folder of the synthetic set; one without a manifest gets one.
        teacher: uint8 [N, 3, S, S] -> logits [N, C] in the order of the set's classes; its probabilities become the
            set's soft labels. None: no steps 1 and 2.
        top_k: of step 1; None: max(1, min(10, C // 4)).
        drop_lowest_confidence: share of each class that step 2 drops from below, in [0, 1).
        max_confidence: probability above which step 2 drops; None: none.
        drop_outliers: share of what is left of each class that step 4 drops, those farthest from their nearest training
            image in the features of step 3, in [0, 1).
        features_fn: uint8 [N, 3, S, S] -> features [N, D]. Step 3 drops what lies within the 1st percentile of the
            distances from a training image to its nearest other.
        train_features: float [M, D], the same features of the training images.
        train_dhashes: of the training images (data manifest); step 3 then also drops what lies within 4 bits.
        resolution_px: side S to which images are scaled; None: that of the set.
        batch_size: images in one call of `teacher` and `features_fn`.

    Raises:
        ConfigError: an option outside its range, or one of features_fn and train_features without the other.
        DataError: an image cannot be read, or the teacher's logits have another shape or are not finite.
    """
    root = Path(out_dir)
    header, rows = read_rows(root)
    top_k = max(1, min(10, len(header.classes) // 4)) if top_k is None else top_k
    shares = (drop_lowest_confidence, drop_outliers)
    options = _Options(top_k, *shares, max_confidence, features_fn, train_features, train_dhashes)
    index = open_index(root)
    size_px = resolution_px or index.side_px()
    read, chain = SetReader(index, size_px, batch_size), _Chain(rows)
    if teacher is None:
        (root / SOFT_LABELS).unlink(missing_ok=True)  # those of another filtering
    else:
        write_array(root / SOFT_LABELS, _filter_by_teacher(teacher, read, chain, len(header.classes), options))
    _filter_by_distance(read, chain, options)
    report = _report(header, chain, options.record(teacher is not None, size_px))
    write_manifest(root, replace(header, filter=asdict(report)), chain.edited())
    for text in report.warnings:
        warnings.warn(text, stacklevel=2)
    return report


@dataclass(frozen=True)
class _Options:
    """Those of `filter_synthetic`, checked."""

    top_k: int
    drop_lowest_confidence: float
    drop_outliers: float
    max_confidence: float | None
    features_fn: TensorFunction | None
    train_features: Tensor | None
    train_dhashes: Sequence[str] | None

    def __post_init__(self) -> None:
        high = self.max_confidence
        if self.top_k < 1:
            raise ConfigError(f"top_k must be at least 1, found {self.top_k}", "leave it out for the default")
        for name in ("drop_lowest_confidence", "drop_outliers"):
            if not 0 <= (share := getattr(self, name)) < 1:
                raise ConfigError(f"{name} must lie in [0, 1), found {share}", "give a share such as 0.1")
        if high is not None and not 0 < high <= 1:
            raise ConfigError(f"max_confidence must lie in (0, 1], found {high}", "give a probability such as 0.99")
        if (self.features_fn is None) != (self.train_features is None):
            raise ConfigError("features_fn and train_features must come together, found one", "give both or none")
        if self.drop_outliers and self.features_fn is None:
            raise ConfigError("drop_outliers needs features_fn and train_features, found none", "give both")

    def record(self, with_teacher: bool, size_px: int) -> Settings:
        """What the manifest says about how the set was filtered."""
        return {
            "top_k": self.top_k if with_teacher else None,
            "drop_lowest_confidence": self.drop_lowest_confidence if with_teacher else None,
            "max_confidence": self.max_confidence if with_teacher else None,
            "drop_outliers": self.drop_outliers,
            "train_features": None if self.train_features is None else len(self.train_features),
            "train_dhashes": None if self.train_dhashes is None else len(self.train_dhashes),
            "resolution_px": size_px,
        }


class _Chain:
    """Who is still in, who was dropped for what, and the scores behind it. An entry is the place of a row."""

    def __init__(self, rows: list[SyntheticRow]) -> None:
        self.rows = rows
        self.labels: Entries = np.array([row.label for row in rows], dtype=np.int64)
        # What another hand has dropped stays dropped; what an earlier filtering dropped is judged anew.
        self.offered: Mask = np.array([row.kept or row.dropped_by in REASONS for row in rows], dtype=bool)
        self.reasons: list[str | None] = [None] * len(rows)
        self.scores: list[dict[str, float]] = [{} for _ in rows]

    def alive(self) -> Entries:
        """Entries that no step has dropped, int64 [K]."""
        kept = [reason is None for reason in self.reasons]
        return np.flatnonzero(self.offered & np.array(kept, dtype=bool))

    def drop(self, wrong: Mask, reason: str) -> None:
        """Drop those of the entries still in for which `wrong` [N] is true."""
        for entry in self.alive():
            if wrong[entry]:
                self.reasons[entry] = reason

    def edited(self) -> Iterator[SyntheticRow]:
        """The rows with their verdict; scores of others' making stay."""
        for row, offered, reason, scores in zip(self.rows, self.offered, self.reasons, self.scores, strict=True):
            others = {name: value for name, value in row.scores.items() if name not in SCORES}
            edited = replace(row, kept=reason is None, dropped_by=reason, scores=others | scores)
            yield edited if offered else row


def _filter_by_teacher(
    teacher: TensorFunction, read: SetReader, chain: _Chain, classes: int, options: _Options
) -> Shares:
    """Steps 1 and 2; returns the teacher's probabilities, float32 [N, C], not a number where it was not asked."""
    shares, rank = _judge(teacher, read, chain, classes)
    confidence = shares[np.arange(len(shares)), chain.labels]
    chain.drop(rank > options.top_k, "teacher_top_k")
    chain.drop(_lowest(confidence, chain, options.drop_lowest_confidence), "low_confidence")
    if options.max_confidence is not None:
        chain.drop(confidence > options.max_confidence, "high_confidence")
    return shares.astype(np.float32)


def _filter_by_distance(read: SetReader, chain: _Chain, options: _Options) -> None:
    """Steps 3 and 4."""
    distance: Floats | None = None
    if options.features_fn is not None and options.train_features is not None:
        distance, threshold = _feature_distances(options.features_fn, options.train_features, read, chain)
        chain.drop(distance <= threshold, "near_duplicate")
    if options.train_dhashes:
        chain.drop(_hash_distances(options.train_dhashes, read.index, chain) <= MAX_DISTANCE, "near_duplicate")
    if distance is not None:
        chain.drop(_lowest(-distance, chain, options.drop_outliers), "outlier")


def _judge(teacher: TensorFunction, read: SetReader, chain: _Chain, classes: int) -> tuple[Floats, Floats]:
    """Probabilities [N, C] and rank (1 is the likeliest) of the intended class, by entry; ties count against it."""
    shares, rank = np.full((len(chain.rows), classes), np.nan), np.zeros(len(chain.rows))
    for chosen, logits in answers(teacher, read, chain.alive(), classes):
        intended = torch.from_numpy(chain.labels[chosen])[:, None]
        rank[chosen] = (logits >= logits.gather(1, intended)).sum(1).numpy()
        shares[chosen] = logits.softmax(1).numpy()
    for entry in chain.alive():
        confidence = float(shares[entry, chain.labels[entry]])
        chain.scores[entry] |= {"teacher_rank": int(rank[entry]), "teacher_confidence": confidence}
    return shares, rank


def _lowest(values: Floats, chain: _Chain, share: float) -> Mask:
    """The `share` of what is left of each class with the lowest values, rounded down; of equals the earlier."""
    lowest, alive = np.zeros(len(chain.rows), dtype=bool), chain.alive()
    for label in np.unique(chain.labels):
        entries = alive[chain.labels[alive] == label]
        order = np.argsort(values[entries], kind="stable")
        lowest[entries[order[: math.floor(share * len(entries))]]] = True
    return lowest


@torch.no_grad()
def _feature_distances(
    features_fn: TensorFunction, train_features: Tensor, read: SetReader, chain: _Chain
) -> tuple[Floats, float]:
    """Distance of each image to its nearest training image, by entry, and the distance below which it is a copy."""
    real = train_features.detach().double().cpu()
    distance = np.full(len(chain.rows), np.inf)
    for chosen, images in read.batches(chain.alive()):
        distance[chosen] = nearest_distances(features_fn(images).detach().double().cpu(), real).numpy()
    for entry in chain.alive():
        chain.scores[entry]["train_distance"] = float(distance[entry])
    return distance, copy_distance(real)


def _hash_distances(train_dhashes: Sequence[str], index: SyntheticIndex, chain: _Chain) -> Entries:
    """Bits between each image's difference hash and the nearest of the training images, upright or mirrored.

    64 where the image, or every training image, is too flat for its hash to mean anything.
    """
    upright = to_integers(train_dhashes)
    real = np.concatenate([upright, mirrored(upright)])
    real = real[np.bitwise_count(real ^ _FLAT) >= MIN_EVIDENCE]
    bits = np.full(len(chain.rows), 64, dtype=np.int64)
    for entry in chain.alive():
        own = to_integers([dhash(index.image(int(entry)))])
        if np.bitwise_count(own ^ _FLAT) >= MIN_EVIDENCE:
            bits[entry] = np.bitwise_count(real ^ own).min(initial=64)
        chain.scores[entry]["train_dhash_bits"] = int(bits[entry])
    return bits


def _report(header: Header, chain: _Chain, settings: Settings) -> FilterReport:
    per_class: dict[str, dict[str, int]] = {
        name: {"total": 0, "kept": 0, **dict.fromkeys(REASONS, 0)} for name in header.classes
    }
    for row, asked, reason in zip(chain.rows, chain.offered, chain.reasons, strict=True):
        if asked:
            per_class[row.class_name]["total"] += 1
            per_class[row.class_name]["kept" if reason is None else reason] += 1
    total, kept = (sum(counts[key] for counts in per_class.values()) for key in ("total", "kept"))
    dropped = {reason: sum(counts[reason] for counts in per_class.values()) for reason in REASONS}
    notes = []
    if kept < ENOUGH * total:
        notes.append(f"only {kept} of {total} synthetic images survive the filter, less than 20 %")
    if empty := [name for name, counts in per_class.items() if not counts["kept"]]:
        notes.append(f"no synthetic image survives in {', '.join(empty)}: real images are used there")
    return FilterReport(total, kept, dropped, per_class, settings, tuple(notes))

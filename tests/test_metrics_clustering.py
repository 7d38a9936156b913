"""Clustering measures: against all permutations, against their definitions, known answers."""

from __future__ import annotations

from itertools import permutations
from math import comb

import numpy as np
import numpy.typing as npt
import pytest
import torch

import finegan_aug.metrics
from finegan_aug.errors import DataError
from finegan_aug.metrics import ari, clustering_accuracy, nmi
from finegan_aug.metrics.clustering import Average, contingency
from finegan_aug.randomness import seed_for, uniforms

Integers = npt.NDArray[np.int64]


def random_partition(name: str, count: int, groups: int) -> Integers:
    return (uniforms(seed_for(0, name), range(count), 1)[:, 0] * groups).astype(np.int64)


def accuracy_by_trying_all(labels: Integers, clusters: Integers, classes: int, groups: int) -> float:
    """Best share over every one-to-one map of clusters to classes (padded to a square)."""
    side = max(classes, groups)
    best = 0
    table = np.zeros((side, side), dtype=np.int64)
    np.add.at(table, (labels, clusters), 1)
    for order in permutations(range(side)):
        best = max(best, int(table[list(order), range(side)].sum()))
    return best / len(labels)


@pytest.mark.parametrize(
    ("classes", "groups", "cases"), [(2, 2, 100), (3, 5, 100), (5, 3, 100), (5, 5, 100), (6, 6, 90), (7, 7, 10)]
)
def test_accuracy_equals_the_best_of_all_permutations(classes: int, groups: int, cases: int) -> None:
    for case in range(cases):
        labels = random_partition(f"labels-{classes}-{case}", 30, classes)
        clusters = random_partition(f"clusters-{groups}-{case}", 30, groups)
        expected = accuracy_by_trying_all(labels, clusters, classes, groups)
        assert clustering_accuracy(labels=labels, clusters=clusters) == expected


def entropy(counts: Integers) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


@pytest.mark.parametrize("average", ["geometric", "arithmetic", "max"])
def test_nmi_equals_its_definition_for_each_average(average: Average) -> None:
    for case in range(20):
        labels = random_partition(f"nmi-labels-{case}", 80, 4)
        clusters = (labels + random_partition(f"nmi-noise-{case}", 80, 3)) % 6
        table = contingency(labels=labels, clusters=clusters)
        h_labels, h_clusters = entropy(table.sum(1)), entropy(table.sum(0))
        mutual = h_labels + h_clusters - entropy(table.ravel())
        means = {
            "geometric": (h_labels * h_clusters) ** 0.5,
            "arithmetic": (h_labels + h_clusters) / 2,
            "max": max(h_labels, h_clusters),
        }
        ours = nmi(labels=labels, clusters=clusters, average=average)
        assert ours == pytest.approx(mutual / means[average], abs=1e-12)


def test_ari_equals_its_definition_by_pairs() -> None:
    for case in range(20):
        labels = random_partition(f"ari-labels-{case}", 60, 4)
        clusters = (labels + random_partition(f"ari-noise-{case}", 60, 2)) % 5
        table = contingency(labels=labels, clusters=clusters)
        both, rows, columns = (sum(comb(int(n), 2) for n in x) for x in (table.ravel(), table.sum(1), table.sum(0)))
        chance = rows * columns / comb(60, 2)
        expected = (both - chance) / ((rows + columns) / 2 - chance)
        assert ari(labels=labels, clusters=clusters) == pytest.approx(expected, abs=1e-12)


def test_a_renamed_partition_scores_one_everywhere() -> None:
    labels = random_partition("renamed", 50, 5)
    for clusters in ((labels * 3 + 7) % 5, torch.from_numpy(labels), np.array(list("cabed"))[labels]):
        assert clustering_accuracy(labels=labels, clusters=clusters) == 1
        assert nmi(labels=labels, clusters=clusters) == pytest.approx(1, abs=1e-12)
        assert ari(labels=labels, clusters=clusters) == 1


def test_one_cluster_for_all_has_no_information_and_the_accuracy_of_the_largest_class() -> None:
    labels = ["a"] * 5 + ["b"] * 3
    assert clustering_accuracy(labels=labels, clusters=[0] * 8) == 5 / 8
    assert nmi(labels=labels, clusters=[0] * 8) == 0
    assert ari(labels=labels, clusters=[0] * 8) == 0


def test_the_three_averages_are_three_numbers_in_their_known_order() -> None:
    labels, clusters = random_partition("order", 100, 2), random_partition("order", 100, 9)
    values = [nmi(labels=labels, clusters=clusters, average=a) for a in ("max", "arithmetic", "geometric")]
    assert values[0] < values[1] < values[2]


def test_splitting_a_class_into_two_clusters_loses_the_smaller_part() -> None:
    assert clustering_accuracy(labels=[0] * 6 + [1] * 4, clusters=[0] * 4 + [2] * 2 + [1] * 4) == 0.8


def test_empty_and_unequal_inputs_are_refused() -> None:
    for measure in (clustering_accuracy, nmi, ari):
        with pytest.raises(DataError, match="must have the same length above 0, found 0 and 0; pass one label and"):
            measure(labels=[], clusters=[])
        with pytest.raises(DataError, match="must have the same length above 0, found 3 and 2; pass one label and"):
            measure(labels=[0, 1, 2], clusters=[0, 1])


def test_an_unknown_average_is_refused() -> None:
    with pytest.raises(DataError, match="average must be geometric, arithmetic or max, found 'min'; choose one"):
        nmi(labels=[0], clusters=[0], average="min")  # type: ignore[arg-type]


def test_every_exported_name_is_a_function_or_class_and_hides_no_module() -> None:
    from importlib import import_module
    from pkgutil import iter_modules

    modules = {module.name for module in iter_modules(finegan_aug.metrics.__path__)}
    assert modules.isdisjoint(finegan_aug.metrics.__all__)
    assert all(import_module(f"finegan_aug.metrics.{name}").__name__.endswith(name) for name in modules)

"""FID, KID, inception score, precision and recall: independent references, known answers, invariants."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.linalg import eigh
from torch import Tensor, nn

from finegan_aug.errors import DataError
from finegan_aug.metrics import fid, inception_score, kid, prdc
from finegan_aug.metrics.frechet import gaussian, root_trace
from finegan_aug.randomness import normals, permutation, seed_for

torch.set_num_threads(1)
Floats = npt.NDArray[np.float64]


def draws(name: str, count: int, dimensions: int, *, shift: float = 0.0, scale: float = 1.0) -> Floats:
    """Correlated normal features, the same on every machine."""
    mixing = normals(seed_for(0, "mixing"), range(dimensions), dimensions) / np.sqrt(dimensions)
    values: Floats = normals(seed_for(0, name), range(count), dimensions) @ (mixing + np.eye(dimensions))
    return shift + scale * values


class Identity(nn.Module):
    """A feature extractor for images that are features already."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.num_features = dimensions

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def fid_by_eigenvalues(real: Floats, fake: Floats) -> float:
    """The textbook form: tr (S1^1/2 S2 S1^1/2)^1/2 by two symmetric eigendecompositions."""
    S1, S2 = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    values, vectors = eigh(S1)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(eigh(root @ S2 @ root, eigvals_only=True).clip(0)).sum()
    return float(((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(S1) + np.trace(S2) - 2 * cross)


# Fréchet distance


@pytest.mark.parametrize("dimensions", [8, 64])
def test_fid_equals_the_closed_form_of_two_gaussians_whose_moments_are_exact(dimensions: int) -> None:
    """Whitened samples have covariance I exactly; scaled by 3 and moved by 1: |m|^2 + D (3 - 1)^2."""
    x = draws("white", 4 * dimensions, dimensions)
    x = x - x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    assert fid(real=x, fake=3 * x + 1) == pytest.approx(dimensions * (1 + 4), rel=1e-9)


@pytest.mark.parametrize(("n", "m", "dimensions"), [(400, 300, 16), (20, 30, 64), (50, 400, 100), (400, 50, 100)])
def test_fid_equals_the_eigenvalue_form_and_torch_fidelity_for_few_and_many_images(
    n: int, m: int, dimensions: int
) -> None:
    metric_fid = pytest.importorskip("torch_fidelity.metric_fid")
    real, fake = draws("real", n, dimensions), draws("fake", m, dimensions, shift=0.3, scale=1.2)
    statistics = [metric_fid.fid_features_to_statistics(torch.from_numpy(x)) for x in (real, fake)]
    theirs = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    ours = fid(real=real, fake=fake)
    assert ours == pytest.approx(fid_by_eigenvalues(real, fake), rel=1e-6)
    assert ours == pytest.approx(theirs, rel=1e-5)  # theirs takes roots of rounding noise when n < D


@pytest.mark.parametrize(("n", "m"), [(20, 30), (30, 20), (400, 20), (20, 400), (48, 48), (49, 400), (400, 48)])
def test_fid_equals_the_sum_of_singular_values_to_rounding_for_few_and_many_images(n: int, m: int) -> None:
    real, fake = draws("real", n, 48), draws("fake", m, 48, shift=0.3, scale=1.2)
    a, b = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (real, fake))
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    expected = ((real.mean(0) - fake.mean(0)) ** 2).sum() + (a * a).sum() + (b * b).sum() - 2 * cross
    assert fid(real=real, fake=fake) == pytest.approx(expected, rel=1e-11)


def test_fid_equals_torchmetrics_on_the_same_features() -> None:
    fid_module = pytest.importorskip("torchmetrics.image.fid")
    real, fake = draws("real", 300, 12), draws("fake", 250, 12, shift=0.3)
    metric = fid_module.FrechetInceptionDistance(feature=Identity(12))
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(fake), real=False)
    assert fid(real=real, fake=fake) == pytest.approx(float(metric.compute()), rel=1e-6)


@pytest.mark.parametrize("n", [10, 200])
def test_fid_of_equal_sets_is_zero_whatever_the_order(n: int) -> None:
    x = draws("real", n, 32)
    assert fid(real=x, fake=x[permutation(seed_for(0, "order"), n)]) <= 1e-6


def test_fid_is_symmetric_and_ignores_rotation_shift_and_the_kind_of_array() -> None:
    real, fake = draws("real", 40, 24), draws("fake", 60, 24, scale=2)
    expected = fid(real=real, fake=fake)
    rotation = np.linalg.qr(normals(seed_for(0, "rotation"), range(24), 24))[0]
    assert fid(real=fake, fake=real) == pytest.approx(expected, rel=1e-9)
    assert fid(real=real @ rotation + 5, fake=fake @ rotation + 5) == pytest.approx(expected, rel=1e-9)
    assert fid(real=torch.from_numpy(real), fake=torch.from_numpy(fake)) == expected


def test_fid_grows_as_the_fakes_move_away() -> None:
    real = draws("real", 100, 8)
    distances = [fid(real=real, fake=draws("fake", 100, 8, shift=shift)) for shift in (0.0, 1.0, 2.0, 4.0)]
    assert distances == sorted(distances)
    assert distances[-1] > 100


@pytest.mark.parametrize(
    ("real", "fake", "words"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "real must hold at least 2 rows, found 1; use more images"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "real and fake must have equally many features, found 3 and 4"),
        (np.zeros((5, 3)), np.full((5, 3), np.nan), "fake must be finite, found 5 rows that are not; check the"),
        (np.zeros((5, 3, 2)), np.zeros((5, 3)), r"real must be an array \[N, D\], found shape \[5, 3, 2\]; pass one"),
    ],
)
def test_features_that_cannot_be_used_are_refused_with_the_reason(real: Floats, fake: Floats, words: str) -> None:
    for measure in (fid, kid, prdc):
        if measure is prdc and len(real) == 1:
            continue
        with pytest.raises(DataError, match=words):
            measure(real=real, fake=fake)


# Kernel distance


def test_kid_of_the_whole_sets_equals_torch_fidelity_and_torchmetrics() -> None:
    metric_kid = pytest.importorskip("torch_fidelity.metric_kid")
    kid_module = pytest.importorskip("torchmetrics.image.kid")
    real, fake = draws("real", 60, 10), draws("fake", 60, 10, shift=0.4)
    ours = kid(real=real, fake=fake, subset_size=60, subsets=3)
    theirs = metric_kid.kid_features_to_metric(
        torch.from_numpy(real), torch.from_numpy(fake), kid_subsets=2, kid_subset_size=60, verbose=False
    )
    assert ours.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-10)
    other = kid_module.poly_mmd(torch.from_numpy(real), torch.from_numpy(fake))
    assert ours.mean == pytest.approx(float(other), rel=1e-10)
    assert ours.std == pytest.approx(0, abs=1e-12)
    assert ours.interval is None


def test_kid_of_subsets_equals_torch_fidelity_on_each_of_the_same_subsets() -> None:
    metric_kid = pytest.importorskip("torch_fidelity.metric_kid")
    real, fake = draws("real", 50, 6), draws("fake", 70, 6, shift=0.4)
    values = []
    for row in range(7):
        chosen = {
            name: permutation(seed_for(seed_for(3, f"kid/{name}"), "subset", row), n)[:20]
            for name, n in (("real", 50), ("fake", 70))
        }
        values.append(metric_kid.kernel_mmd(real[chosen["real"]], fake[chosen["fake"]]))
    ours = kid(real=real, fake=fake, seed=3, subset_size=20, subsets=7)
    assert ours.mean == pytest.approx(np.mean(values), rel=1e-10)
    assert ours.std == pytest.approx(np.std(values), rel=1e-10)


def test_kid_of_two_draws_of_one_law_is_zero_on_average_and_its_interval_covers_zero() -> None:
    """200 draws: mean within 2 standard errors (false alarm 5 %, fixed seeds); at least 93 % of intervals cover."""
    results = [
        kid(real=draws(f"null-real-{i}", 60, 4), fake=draws(f"null-fake-{i}", 60, 4), seed=i, subsets=20)
        for i in range(200)
    ]
    means = np.array([result.mean for result in results])
    assert abs(means.mean()) <= 2 * means.std() / np.sqrt(200)
    covered = [low <= 0 <= high for low, high in (r.interval for r in results if r.interval is not None)]
    assert len(covered) == 200
    assert np.mean(covered) >= 0.93


def test_the_interval_of_kid_covers_the_true_distance_of_two_laws() -> None:
    """Truth from 4,000 images; 100 draws of 120, coverage of a 95 % interval at least 88 % (false alarm < 1 %)."""
    truth = kid(real=draws("t-real", 4000, 4), fake=draws("t-fake", 4000, 4, shift=0.5), subsets=1, subset_size=4000)
    covered = 0
    for i in range(100):
        real, fake = draws(f"alt-real-{i}", 120, 4), draws(f"alt-fake-{i}", 120, 4, shift=0.5)
        interval = kid(real=real, fake=fake, seed=i).interval
        assert interval is not None
        covered += interval[0] <= truth.mean <= interval[1]
    assert covered >= 88


def test_kid_depends_on_the_seed_alone_and_separates_different_laws() -> None:
    real, fake = draws("real", 2500, 4), draws("fake", 1200, 4, shift=1)
    first = kid(real=real, fake=fake, seed=1)
    assert first == kid(real=real, fake=fake, seed=1)
    assert first != kid(real=real, fake=fake, seed=2)
    assert first.interval is not None
    assert first.interval[0] > 0


def test_a_subset_larger_than_the_set_is_refused() -> None:
    with pytest.raises(DataError, match=r"subset_size must lie in 2\.\.30, found 31; lower it or use more images"):
        kid(real=draws("real", 30, 4), fake=draws("fake", 40, 4), subset_size=31)


# Inception score


def test_inception_score_equals_torch_fidelity_and_torchmetrics_on_one_split() -> None:
    metric_isc = pytest.importorskip("torch_fidelity.metric_isc")
    inception = pytest.importorskip("torchmetrics.image.inception")
    logits = draws("logits", 500, 10, scale=3)
    theirs = metric_isc.isc_features_to_metric(torch.from_numpy(logits), splits=1)
    assert inception_score(logits, splits=1).mean == pytest.approx(theirs["inception_score_mean"], rel=1e-12)
    metric = inception.InceptionScore(feature=Identity(10), splits=1)
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(logits))
    assert inception_score(logits, splits=1).mean == pytest.approx(float(metric.compute()[0]), rel=1e-5)


def test_inception_score_of_splits_equals_torch_fidelity_on_the_same_order() -> None:
    metric_isc = pytest.importorskip("torch_fidelity.metric_isc")
    logits = draws("logits", 500, 10, scale=3)
    order = permutation(seed_for(4, "inception-score"), 500)
    theirs = metric_isc.isc_features_to_metric(torch.from_numpy(logits[order]), splits=5, shuffle=False)
    ours = inception_score(logits, splits=5, seed=4)
    assert ours.mean == pytest.approx(theirs["inception_score_mean"], rel=1e-12)
    assert ours.std == pytest.approx(theirs["inception_score_std"], rel=1e-9)


def test_inception_score_is_the_number_of_classes_for_sure_balanced_predictions_and_one_for_equal_ones() -> None:
    sure = 1e4 * np.eye(7)[np.arange(70) % 7]
    assert inception_score(sure, splits=1).mean == pytest.approx(7, abs=1e-12)
    assert inception_score(np.zeros((70, 7))).mean == pytest.approx(1, abs=1e-12)
    assert inception_score(np.tile(sure[:1], (70, 1))).mean == pytest.approx(1, abs=1e-12)


def test_inception_score_lies_between_one_and_the_number_of_classes_also_for_images_sorted_by_class() -> None:
    sure = 1e4 * np.eye(7)[np.arange(700) // 100]  # unshuffled splits would each hold one or two classes
    assert 6.5 < inception_score(sure).mean <= 7
    for scale in (0.1, 1, 10):
        assert 1 <= inception_score(draws("logits", 100, 7, scale=scale)).mean <= 7


def test_more_splits_than_images_are_refused() -> None:
    with pytest.raises(DataError, match=r"splits must lie in 1\.\.5, found 10; use fewer splits or more images"):
        inception_score(np.zeros((5, 3)))


# Precision, recall, density, coverage


def test_precision_and_recall_equal_torch_fidelity_in_the_same_roles() -> None:
    metric_prc = pytest.importorskip("torch_fidelity.metric_prc")
    real, fake = draws("real", 700, 5), draws("fake", 600, 5, shift=0.5, scale=0.6)
    theirs = metric_prc.calculate_precision_recall_full(torch.from_numpy(fake), torch.from_numpy(real), 3)
    ours = prdc(real=real, fake=fake, k=3)
    assert (ours.precision, ours.recall) == pytest.approx(theirs, abs=1e-6)
    assert ours.precision > ours.recall


def test_density_and_coverage_equal_their_definition_written_as_loops() -> None:
    real, fake, k = draws("real", 40, 3), draws("fake", 30, 3, shift=0.3), 4
    radius = [sorted(np.linalg.norm(real - x, axis=1))[k] for x in real]
    inside = [[np.linalg.norm(x - y) <= r for x, r in zip(real, radius, strict=True)] for y in fake]
    ours = prdc(real=real, fake=fake, k=k)
    assert ours.density == pytest.approx(np.sum(inside) / (k * len(fake)))
    assert ours.coverage == pytest.approx(np.any(inside, axis=0).mean())
    assert ours.precision == pytest.approx(np.any(inside, axis=1).mean())


def test_fakes_equal_to_the_reals_have_precision_recall_and_coverage_one() -> None:
    x = draws("real", 1100, 6)
    scores = prdc(real=x, fake=x[permutation(seed_for(0, "order"), 1100)])
    assert (scores.precision, scores.recall, scores.coverage) == (1, 1, 1)
    assert scores.density == pytest.approx(1.2, abs=0.01)  # k neighbours and the point itself, over k = 5


def test_tight_fakes_in_wide_reals_have_high_precision_and_low_recall_and_the_roles_do_not_swap() -> None:
    wide, tight = draws("wide", 300, 3, scale=5), draws("tight", 300, 3, scale=0.05)
    scores = prdc(real=wide, fake=tight)
    assert scores.precision == 1
    assert scores.recall < 0.05
    assert scores.coverage < 0.1
    swapped = prdc(real=tight, fake=wide)
    assert (swapped.precision, swapped.recall) == (scores.recall, scores.precision)


def test_disjoint_sets_score_zero_and_duplicates_do_not_break_the_balls() -> None:
    assert prdc(real=draws("real", 50, 3), fake=draws("fake", 50, 3, shift=1e4)) == (0, 0, 0, 0)
    same = np.ones((20, 3))
    assert prdc(real=same, fake=same)[:2] == (1, 1)


def test_a_neighbour_that_does_not_exist_is_refused() -> None:
    with pytest.raises(DataError, match=r"k must lie in 1\.\.4, found 5; lower k or use more images"):
        prdc(real=draws("real", 9, 3), fake=draws("fake", 5, 3))


@pytest.mark.parametrize(("count", "width"), [(300, 40), (30, 40)])
def test_fid_stays_exact_where_features_are_dead_or_repeated(count: int, width: int) -> None:
    """Against the singular values of the product of both roots, with a spectrum over ten orders of magnitude."""
    draw = np.random.default_rng(0)
    scale = np.logspace(0, -10, width)
    real, fake = (draw.standard_normal((count, width)) * scale for _ in range(2))
    real[:, 5:9] = fake[:, 5:9] = 0.0
    real[:, 9] = real[:, 10]
    a, b = ((x - x.mean(0)) / np.sqrt(count - 1) for x in (real, fake))
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    expected = ((real.mean(0) - fake.mean(0)) ** 2).sum() + (a * a).sum() + (b * b).sum() - 2 * cross
    assert fid(real=real, fake=fake) == pytest.approx(expected, rel=1e-6)
    assert fid(real=real, fake=real) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("n", "m"), [(60, 90), (20, 90), (60, 20), (20, 30), (24, 24), (25, 25)])
def test_fid_from_a_known_gaussian_is_the_same_bit_for_bit(n: int, m: int) -> None:
    real, fake = draws("real", n, 24), draws("fake", m, 24, shift=0.3)
    known = gaussian(real)
    assert fid(real=known, fake=fake) == fid(real=real, fake=fake)
    assert known.factor.flags.c_contiguous  # so that what comes from a file takes the same way through BLAS
    np.testing.assert_allclose(known.factor.T @ known.factor, np.cov(real, rowvar=False), atol=1e-12)
    if n >= 24:
        assert np.array_equal(known.factor, np.triu(known.factor))


def test_neither_features_nor_a_known_gaussian_are_changed() -> None:
    real, fake = draws("real", 60, 24), draws("fake", 60, 24)
    known = gaussian(real)
    before = [array.copy() for array in (real, fake, *known)]
    fid(real=known, fake=fake)
    assert all(map(np.array_equal, before, (real, fake, *known)))


@pytest.mark.parametrize(("n", "m"), [(60, 90), (20, 90), (60, 20), (20, 30), (30, 20)])
def test_the_root_trace_is_as_near_to_the_singular_values_as_it_says(n: int, m: int) -> None:
    """A spectrum over six orders of magnitude, so that the smallest eigenvalues drown."""
    scale = np.logspace(0, -6, 24)
    real, fake = draws("real", n, 24) * scale, draws("fake", m, 24) * scale
    centred = (fake - fake.mean(0)) / np.sqrt(m - 1)
    factor = gaussian(real).factor
    exact = np.linalg.svd(factor @ centred.T, compute_uv=False).sum()
    trace, doubt = root_trace(factor, centred)
    assert abs(trace - exact) <= doubt + 1e-13 * exact
    assert 0 < doubt < 1e-5 * exact
    assert root_trace(factor, centred, centred.T @ centred) == (trace, doubt)

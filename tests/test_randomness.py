"""Draws as a function of seed, purpose and counter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from finegan_aug.randomness import Floats, normals, permutation, seed_for, seeds, splitmix64, uniforms

GOLDEN = 0x9E3779B97F4A7C15


def test_splitmix64_gives_the_published_outputs_for_seed_1234567() -> None:
    """The sequential generator adds the golden gamma to its state before each output."""
    states = np.array([(1234567 + i * GOLDEN) % 2**64 for i in range(5)], dtype=np.uint64)
    assert splitmix64(states).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_seeds_are_frozen() -> None:
    """A change of these numbers changes every run."""
    assert seed_for(0, "init") == 2576333791170486189
    assert uniforms(seed_for(0, "latent"), [17], 3)[0].tolist() == [
        0.8047387733370118,
        0.12240371672823747,
        0.9752085580867037,
    ]
    assert permutation(seed_for(0, "order", 0), 8).tolist() == [4, 2, 1, 0, 5, 7, 3, 6]


def test_seeds_differ_by_seed_purpose_and_counter_and_fit_63_bits() -> None:
    counters = ((), (0,), (1,), (0, 1), ("real",))
    found = {seed_for(seed, purpose, *c) for seed in (0, 1) for purpose in ("order", "init") for c in counters}
    assert len(found) == 20
    assert all(0 <= value < 2**63 for value in found)


def test_a_row_depends_on_its_own_counter_alone() -> None:
    key = seed_for(0, "test")
    whole = uniforms(key, range(1000), 7)
    assert whole.shape == (1000, 7)
    assert whole.dtype == np.float64
    np.testing.assert_array_equal(whole[[17]], uniforms(key, [17], 7))
    np.testing.assert_array_equal(whole[::-3], uniforms(key, np.arange(1000)[::-3], 7))
    assert len(np.unique(whole)) == whole.size


@pytest.mark.parametrize("draw", [uniforms, normals])
@pytest.mark.parametrize("draws", [1, 2, 5, 6])
def test_a_shorter_row_is_a_prefix_of_a_longer_one(draw: Callable[[int, range, int], Floats], draws: int) -> None:
    key = seed_for(3, "test")
    np.testing.assert_array_equal(draw(key, range(10), 7)[:, :draws], draw(key, range(10), draws))


def test_uniforms_lie_in_the_half_open_interval_and_are_even() -> None:
    """Fixed seed; for a random one: mean, variance and correlation at 5 sigma, chi-square at 1e-6: below 1e-5."""
    u = uniforms(seed_for(0, "even"), range(50_000), 4)
    assert 0 <= u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    n = len(u)
    assert np.abs(u.mean(axis=0) - 0.5).max() < 5 * np.sqrt(1 / 12 / n)
    assert np.abs(u.var(axis=0) - 1 / 12).max() < 5 * np.sqrt(1 / 180 / n)
    correlation = np.corrcoef(np.concatenate([u[:-1], u[1:]], axis=1).T) - np.eye(8)  # columns and neighbouring rows
    assert np.abs(correlation[:4]).max() < 5 / np.sqrt(n)
    bins = np.histogram(u[:, 0], 100, (0, 1))[0]
    assert ((bins - n / 100) ** 2 / (n / 100)).sum() < 180  # 99 degrees of freedom: p = 1e-6 at 181


def test_normals_have_the_moments_of_the_standard_normal() -> None:
    """Fixed seed; for a random one five 5-sigma checks of 3 columns: false alarm below 1e-5."""
    x = normals(seed_for(0, "normal"), range(50_000), 3)
    assert x.shape == (50_000, 3)
    n = len(x)
    assert np.abs(x.mean(axis=0)).max() < 5 * np.sqrt(1 / n)
    assert np.abs((x**2).mean(axis=0) - 1).max() < 5 * np.sqrt(2 / n)
    assert np.abs((x**3).mean(axis=0)).max() < 5 * np.sqrt(15 / n)
    assert np.abs((x**4).mean(axis=0) - 3).max() < 5 * np.sqrt(96 / n)
    assert np.abs(np.corrcoef(x.T) - np.eye(3)).max() < 5 / np.sqrt(n)
    np.testing.assert_array_equal(x[[9]], normals(seed_for(0, "normal"), [9], 3))


def test_a_permutation_holds_everything_once_and_differs_by_key() -> None:
    for count in (0, 1, 2, 1000):
        found = permutation(seed_for(0, "order", 0), count)
        assert found.dtype == np.int64
        assert sorted(found.tolist()) == list(range(count))
    assert permutation(1, 1000).tolist() == permutation(1, 1000).tolist()
    same_place = (permutation(1, 1000) == permutation(2, 1000)).sum()
    assert same_place < 10  # mean 1; above 9 once in 9 million
    assert (permutation(1, 1000) == np.arange(1000)).sum() < 10


def test_every_order_of_three_comes_equally_often() -> None:
    """6,000 keys, 6 orders; chi-square with 5 degrees of freedom passes 35 once in 600,000."""
    found = np.array([permutation(seed_for(0, "order", k), 3) @ [9, 3, 1] for k in range(6000)])
    counts = np.unique(found, return_counts=True)[1]
    assert len(counts) == 6
    assert ((counts - 1000) ** 2 / 1000).sum() < 35


def test_no_draw_touches_numpys_global_generator() -> None:
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    normals(seed_for(0, "x"), [1, 2], 3)
    permutation(seed_for(0, "x"), 5)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_the_seed_of_a_counter_is_the_same_alone_and_among_others_and_no_two_are_alike() -> None:
    many = seeds(5, np.arange(10_000))
    assert many.dtype == np.int64
    assert many.min() >= 0
    assert len(np.unique(many)) == len(many)
    assert seeds(5, [17]).tolist() == [many[17]]
    assert seeds(6, [17]).tolist() != [many[17]]
    # SplitMix64 of the counter mixed with the key, without the last bit: its first word as published.
    assert splitmix64(np.zeros(1, np.uint64)).tolist() == [0xE220A8397B1DCDAF]
    state = np.array([17], np.uint64) ^ splitmix64(np.array([5], np.uint64))
    assert int(splitmix64(state)[0]) >> 1 == many[17]

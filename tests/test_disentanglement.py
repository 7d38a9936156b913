"""Disentanglement: generators whose factors are known to be separate or mixed get the numbers that follow from that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from finegan_aug.disentanglement import (
    CODES,
    Code,
    Codes,
    Meaning,
    Pairs,
    draw_pairs,
    measure_pairs,
    overlap,
    summary,
)
from finegan_aug.errors import ConfigError
from finegan_aug.evaluation import wilson_interval
from finegan_aug.models.finegan import Stages
from finegan_aug.randomness import uniforms

SIDE_PX = 12
# Two shapes with three coats each, two child codes a class; parent 0 is shape 1, so that mixing them up would show.
MEANING = Meaning(
    child_to_parent=torch.tensor([1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]),
    child_to_class=torch.arange(6).repeat_interleave(2),
    class_to_shape=torch.tensor([0, 0, 0, 1, 1, 1]),
    class_to_appearance=torch.tensor([0, 1, 2, 0, 1, 2]),
)
ALL_TRUE = ("shape_as_intended", "appearance_as_intended", "class_as_intended")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def separate(z: Tensor, child: Tensor, parent: Tensor, background: Tensor, *, shift: Tensor | int = 0) -> Stages:
    """A square of 4 px at the place of its shape, grey value of its coat, on a background of its own value."""
    row = torch.arange(SIDE_PX)
    top = MEANING.parent_to_shape[parent] * 6 + 1
    left = torch.zeros_like(parent) + 1 + shift
    inside = (row >= top[:, None]) & (row < top[:, None] + 4)
    across = (row >= left[:, None]) & (row < left[:, None] + 4)
    mask = (inside[:, None, :, None] & across[:, None, None, :]).float()
    coat = MEANING.class_to_appearance[MEANING.child_to_class[child]]
    backdrop = plane(-1 + background / 24)
    foreground = plane(0.25 + coat / 4)
    return Stages(
        backdrop,
        torch.lerp(backdrop, foreground, mask),
        torch.lerp(backdrop, foreground, mask),
        foreground,
        foreground,
        mask,
        mask,
    )


def plane(values: Tensor) -> Tensor:
    return values.float()[:, None, None, None].expand(-1, 3, SIDE_PX, SIDE_PX)


def judge(images: Tensor) -> Tensor:
    """Names what `separate` drew: the brightest pixel tells the coat, its row the shape."""
    grey = images[:, 0].flatten(1)
    coat = ((grey.max(dim=1).values / 127.5 - 1.25) * 4).round().long()
    shape = (grey.argmax(dim=1) // SIDE_PX >= 6).long()
    return torch.nn.functional.one_hot(shape * 3 + coat, 6).float()


def measured(changed: Code, draw: Callable[[Tensor, Tensor, Tensor, Tensor], Stages]) -> dict[str, Tensor]:
    return measure_pairs(draw, draw_pairs(changed, 200, MEANING, z_dim=4, seed=1), judge, MEANING)


def means(changed: Code, draw: Callable[[Tensor, Tensor, Tensor, Tensor], Stages] = separate) -> dict[str, float]:
    return {row["measure"]: row["mean"] for row in summary(changed, measured(changed, draw))}


def test_separate_factors_get_the_best_numbers_whatever_code_changes() -> None:
    child, parent, background = (means(code) for code in CODES)
    assert all(found[name] == 1 for found in (child, parent, background) for name in ALL_TRUE)
    assert (child["child_mask_iou"], child["object_mask_iou"], child["difference_outside"]) == (1, 1, 0)
    assert (child["shape_changed"], child["appearance_changed"], child["class_changed"]) == (0, 1, 1)
    assert (parent["child_mask_iou"], parent["object_mask_iou"], parent["difference_outside"]) == (0, 0, 0)
    assert (parent["shape_changed"], parent["appearance_changed"], parent["class_changed"]) == (1, 0, 1)
    assert parent["difference_inside"] is None  # the squares never meet
    assert (background["child_mask_iou"], background["difference_inside"], background["class_changed"]) == (1, 0, 0)
    assert background["difference_outside"] > 0.02


def test_a_child_code_that_moves_the_object_is_found_out() -> None:
    """Squares of 4 px moved by 2 px share 8 of 24 pixels."""

    def moving(z: Tensor, child: Tensor, parent: Tensor, background: Tensor) -> Stages:
        return separate(z, child, parent, background, shift=2 * (child != background).long())

    assert means("child", moving)["object_mask_iou"] == pytest.approx(1 / 3)
    assert means("parent", moving) == means("parent")


def test_a_child_code_that_decides_the_shape_is_found_out() -> None:
    def child_decides(z: Tensor, child: Tensor, parent: Tensor, background: Tensor) -> Stages:
        return separate(z, child, MEANING.child_to_parent[child], background)

    found = means("parent", child_decides)
    assert (found["shape_changed"], found["shape_as_intended"], found["appearance_as_intended"]) == (0, 0, 1)
    assert means("child", child_decides)["class_as_intended"] == 1


def test_a_parent_code_that_changes_the_appearance_is_found_out() -> None:
    def other_coat(z: Tensor, child: Tensor, parent: Tensor, background: Tensor) -> Stages:
        untied = parent != MEANING.child_to_parent[child]
        return separate(z, torch.where(untied, (child + 2) % 6, child), parent, background)

    found = means("parent", other_coat)
    assert (found["appearance_changed"], found["appearance_as_intended"], found["class_as_intended"]) == (1, 0, 0)
    assert found["shape_as_intended"] == 1


def test_a_parent_code_that_tints_the_background_is_measured_in_units_of_full_brightness() -> None:
    def tinted(z: Tensor, child: Tensor, parent: Tensor, background: Tensor) -> Stages:
        stages = separate(z, child, parent, background)
        return stages._replace(child=stages.child + plane(parent * 0.2) * (1 - stages.child_mask))

    assert means("parent", tinted)["difference_outside"] == pytest.approx(0.1, abs=1e-6)  # 0.2 of [-1, 1]


def test_a_judge_that_fails_on_the_first_image_does_not_count_as_intended() -> None:
    pairs = draw_pairs("background", 50, MEANING, z_dim=4, seed=1)
    wrong_by = iter((1, 0))
    values = measure_pairs(separate, pairs, lambda images: judge(images).roll(next(wrong_by), dims=1), MEANING)
    assert not bool(values["class_as_intended"].any())
    assert bool(values["class_changed"].all())


def random_stages(key: int) -> Stages:
    u = torch.from_numpy(uniforms(key, range(6), 5 * SIDE_PX**2)).float().view(6, 5, SIDE_PX, SIDE_PX)
    parent_mask, child_mask = u[:, 3:4] * (torch.arange(6) > 0).view(-1, 1, 1, 1), u[:, 4:5]
    image = 2 * u[:, :3] - 1
    return Stages(image, image, image, image, image, parent_mask, child_mask)


def test_masks_and_differences_agree_with_a_loop_over_pixels() -> None:
    first, second = random_stages(1), random_stages(2)
    codes = Codes(*(torch.zeros(6, dtype=torch.int64) for _ in range(3)))
    drawn = iter((first, second))
    values = measure_pairs(
        lambda *_: next(drawn), Pairs(torch.zeros(6, 1), codes, codes), lambda x: torch.zeros(len(x), 6), MEANING
    )
    for i in range(6):
        child = [stages.child_mask[i, 0].numpy() > 0.5 for stages in (first, second)]
        covered = [
            1 - (1 - stages.parent_mask[i, 0].numpy()) * (1 - stages.child_mask[i, 0].numpy()) > 0.5
            for stages in (first, second)
        ]
        images = [(stages.child[i].double().numpy() + 1) / 2 for stages in (first, second)]
        cells = [(y, x) for y in range(SIDE_PX) for x in range(SIDE_PX)]
        apart = {(y, x): np.mean([abs(images[0][c, y, x] - images[1][c, y, x]) for c in range(3)]) for y, x in cells}
        for name, (a, b) in (("child_mask_iou", child), ("object_mask_iou", covered)):
            expected = sum(a[p] and b[p] for p in cells) / sum(a[p] or b[p] for p in cells)
            assert float(values[name][i]) == pytest.approx(expected)
        outside = [apart[p] for p in cells if not covered[0][p] and not covered[1][p]]
        inside = [apart[p] for p in cells if covered[0][p] and covered[1][p]]
        assert float(values["difference_outside"][i]) == pytest.approx(np.mean(outside))
        assert float(values["difference_inside"][i]) == pytest.approx(np.mean(inside))


@pytest.mark.parametrize("changed", CODES)
def test_the_order_within_a_pair_matters_to_no_measure(changed: Code) -> None:
    pairs = draw_pairs(changed, 100, MEANING, z_dim=4, seed=3)
    there = measure_pairs(separate, pairs, judge, MEANING)
    back = measure_pairs(separate, replace(pairs, first=pairs.second, second=pairs.first), judge, MEANING)
    assert all(torch.equal(there[name].nan_to_num(), back[name].nan_to_num()) for name in there)


def test_overlap_of_equal_masks_is_one_and_of_empty_masks_none() -> None:
    full, empty = torch.ones(1, 1, 2, 2, dtype=torch.bool), torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    assert [float(overlap(*masks)) for masks in ((full, full), (full, empty), (empty, empty))] == [1, 0, 0]


@pytest.mark.parametrize("changed", get_args(Code))
def test_a_pair_differs_in_the_one_code_alone(changed: Code) -> None:
    pairs = draw_pairs(changed, 500, MEANING, z_dim=4, seed=0)
    assert torch.equal(pairs.first.parent, MEANING.child_to_parent[pairs.first.child])
    assert torch.equal(pairs.first.background, pairs.first.child)
    for name in CODES:
        same = getattr(pairs.first, name) == getattr(pairs.second, name)
        assert bool(same.any()) == bool(same.all()) == (name != changed)


def test_another_child_has_the_same_parent_and_another_class_each_equally_often() -> None:
    pairs = draw_pairs("child", 4800, MEANING, z_dim=4, seed=0)
    first, second = pairs.first.child, pairs.second.child
    assert torch.equal(MEANING.child_to_parent[first], MEANING.child_to_parent[second])
    assert bool((MEANING.child_to_class[first] != MEANING.child_to_class[second]).all())
    counts = torch.bincount(first * 12 + second)
    counts = counts[counts > 0]
    assert len(counts) == 12 * 4
    assert 60 < int(counts.min()) <= int(counts.max()) < 145  # 100 on average, four deviations either way


def test_pair_number_seven_is_the_same_among_few_or_many_and_for_each_code_begins_alike() -> None:
    few, many = (draw_pairs("child", count, MEANING, z_dim=4, seed=5) for count in (10, 100))
    assert torch.equal(few.z, many.z[:10])
    assert all(torch.equal(a, b[:10]) for a, b in zip(few.second, many.second, strict=True))
    other = draw_pairs("background", 10, MEANING, z_dim=4, seed=5)
    assert torch.equal(few.first.child, other.first.child)
    assert not torch.equal(few.first.child, draw_pairs("child", 10, MEANING, z_dim=4, seed=6).first.child)


def test_rows_hold_mean_interval_and_number_of_pairs() -> None:
    share = torch.tensor([True, True, False, True])
    number = torch.tensor([0.5, float("nan"), 1.0, 0.0], dtype=torch.float64)
    nothing = torch.tensor([float("nan")], dtype=torch.float64)
    rows = summary("child", {"a": share, "b": number, "c": nothing})
    assert [(row["changed"], row["measure"], row["pairs"]) for row in rows] == [
        ("child", "a", 4),
        ("child", "b", 3),
        ("child", "c", 0),
    ]
    assert (rows[0]["mean"], rows[0]["interval"]) == (0.75, list(wilson_interval(0.75, 4)))
    half = 1.96 * np.std([0.5, 1.0, 0.0]) / np.sqrt(3)
    assert rows[1]["mean"] == 0.5
    assert rows[1]["interval"] == pytest.approx([0.5 - half, 0.5 + half])
    assert (rows[2]["mean"], rows[2]["interval"]) == (None, None)


def test_a_parent_of_several_shapes_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        replace(MEANING, child_to_parent=torch.tensor([0, 1] * 6))
    assert caught.value.cause.startswith("all children of a parent must be of one shape, found parents [0, 1, 0, 1,")


def test_a_parent_with_children_of_one_class_leaves_no_child_to_change_to() -> None:
    meaning = replace(MEANING, child_to_parent=MEANING.child_to_class)
    with pytest.raises(ConfigError) as caught:
        draw_pairs("child", 10, meaning, z_dim=4, seed=0)
    assert caught.value.cause == "every image needs another child code to change to, found none for some"

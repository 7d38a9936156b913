"""Augmentation of discriminator inputs against loops over pixels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from finegan_aug.augment import DRAWS_PER_IMAGE, POLICIES, diff_augment
from finegan_aug.randomness import seed_for, uniforms

torch.set_num_threads(1)


def images(count: int = 3, side: int = 16) -> Tensor:
    """No pixel is zero, so that what an augmentation blanks shows."""
    return torch.rand((count, 3, side, side), dtype=torch.float64, generator=torch.Generator().manual_seed(1)) / 2 + 0.1


def random_draws(count: int) -> Tensor:
    return torch.from_numpy(uniforms(seed_for(0, "diffaug"), range(count), DRAWS_PER_IMAGE))


def draws(**chosen: float) -> Tensor:
    """One row, 0.5 where nothing is chosen."""
    names = ("brightness", "saturation", "contrast", "up", "left", "hole_top", "hole_left")
    assert set(chosen) <= set(names)
    return torch.tensor([[chosen.get(name, 0.5) for name in names]], dtype=torch.float64)


def test_an_empty_policy_is_the_identity() -> None:
    x = images()
    assert diff_augment(x, random_draws(3), ()) is x


@pytest.mark.parametrize("policy", [*((name,) for name in POLICIES), POLICIES])
def test_an_image_is_augmented_alike_in_any_batch(policy: tuple[str, ...]) -> None:
    x, u = images(4), random_draws(4)
    whole = diff_augment(x, u, policy)
    assert whole.shape == x.shape
    assert not torch.allclose(whole, x)
    torch.testing.assert_close(whole[2:3], diff_augment(x[2:3], u[2:3], policy), rtol=0, atol=0)
    order = torch.tensor([3, 0, 2, 1])
    torch.testing.assert_close(whole[order], diff_augment(x[order], u[order], policy), rtol=0, atol=0)


@pytest.mark.parametrize("side", [16, 32])
def test_translation_moves_every_pixel_by_the_drawn_shift_and_fills_with_zero(side: int) -> None:
    x, u, reach = images(9, side), random_draws(9), side // 8
    found = diff_augment(x, u, ("translation",))
    shifts = set()
    for n in range(9):
        down, right = (int(u[n, k].item() * (2 * reach + 1)) - reach for k in (3, 4))
        shifts.add((down, right))
        expected = torch.zeros_like(x[n])
        for i in range(side):
            for j in range(side):
                if 0 <= i + down < side and 0 <= j + right < side:
                    expected[:, i, j] = x[n, :, i + down, j + right]
        torch.testing.assert_close(found[n], expected, rtol=0, atol=0)
    assert len(shifts) > 4


def test_translation_reaches_an_eighth_of_the_side_both_ways_and_draws_every_shift_alike() -> None:
    x = images(1, 32)
    rows = torch.arange(900, dtype=torch.float64).add(0.5).div(900)  # every shift of 9 gets 100 of 900 even draws
    u = torch.full((900, DRAWS_PER_IMAGE), 0.5, dtype=torch.float64)
    u[:, 3] = rows
    found = diff_augment(x.expand(900, -1, -1, -1), u, ("translation",))[:, 0, :, 16]
    empty_above, empty_below = (found[:, :4] == 0).sum(dim=1), (found[:, -4:] == 0).sum(dim=1)
    assert torch.bincount(empty_above - empty_below + 4).tolist() == [100] * 9


@pytest.mark.parametrize("side", [16, 32, 64])
def test_cutout_blanks_a_square_of_half_the_side(side: int) -> None:
    x = images(1, side)
    found = diff_augment(x, draws(hole_top=0.5, hole_left=0.5), ("cutout",))
    hole = (found == 0).all(dim=1)[0]
    assert hole.sum() == (side // 2) ** 2
    quarter = side // 4
    assert hole[quarter : 3 * quarter, quarter : 3 * quarter].all()  # a centre in the middle
    torch.testing.assert_close(found[:, :, ~hole], x[:, :, ~hole], rtol=0, atol=0)


def test_cutout_may_reach_over_every_border_and_no_border_is_favoured() -> None:
    """Brute force over all places, for a row of even draws: centre c from 0 to 16 blanks rows c - 4 to c + 3."""
    u = torch.full((17, DRAWS_PER_IMAGE), 0.5, dtype=torch.float64)
    u[:, 5] = (torch.arange(17) + 0.5) / 17
    found = diff_augment(images(1).expand(17, -1, -1, -1), u, ("cutout",))
    blank = (found[:, 0, :, 8] == 0).int()
    expected = [[int(c - 4 <= row <= c + 3) for row in range(16)] for c in range(17)]
    assert blank.tolist() == expected
    assert blank.sum(dim=0).tolist() == blank.sum(dim=0).flip(0).tolist()


def test_brightness_adds_up_to_a_half() -> None:
    x = images(1)
    for u, shift in ((0.0, -0.5), (0.5, 0.0), (0.75, 0.25)):
        torch.testing.assert_close(diff_augment(x, draws(brightness=u), ("color",)), x + shift)


def test_saturation_scales_colours_about_the_grey_of_the_pixel() -> None:
    x = images(1)
    grey = x.mean(dim=1, keepdim=True)
    torch.testing.assert_close(diff_augment(x, draws(saturation=0.0), ("color",)), grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(diff_augment(x, draws(saturation=1.0), ("color",)), 2 * x - grey)


def test_contrast_scales_about_the_mean_of_the_image() -> None:
    x = images(1)
    torch.testing.assert_close(diff_augment(x, draws(contrast=0.0), ("color",)), (x + x.mean()) / 2)
    torch.testing.assert_close(diff_augment(x, draws(contrast=1.0), ("color",)), 1.5 * x - x.mean() / 2)


@pytest.mark.parametrize("policy", [*((name,) for name in POLICIES), POLICIES])
def test_gradients_flow_through_every_policy(policy: tuple[str, ...]) -> None:
    """Numerical differences agree, so what reaches the generator is the true gradient."""
    x, u = images(2, 8).requires_grad_(), random_draws(2)
    assert torch.autograd.gradcheck(lambda pictures: diff_augment(pictures, u, policy), (x,), fast_mode=True)
    diff_augment(x, u, policy).sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).float().mean() > 0.3


@pytest.mark.parametrize("policy", [("translation",), ("cutout",), ("translation", "cutout")])
def test_half_precision_images_keep_their_type_and_move_as_full_ones_do(policy: tuple[str, ...]) -> None:
    x, u = images(16, 64).float(), random_draws(16).float()
    half = diff_augment(x.bfloat16(), u, policy)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half == 0, diff_augment(x, u, policy) == 0)

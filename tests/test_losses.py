"""Losses against probabilities written out by hand, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finegan_aug import losses
from finegan_aug.patches import PatchGeometry

torch.set_num_threads(1)


def logits(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_mask(*shape: int) -> Tensor:
    return (torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) < 0.4).double()


def test_real_and_fake_loss_are_cross_entropies_on_probabilities() -> None:
    x = logits(4, 1, 5, 5)
    p = 1 / (1 + (-x).exp())
    torch.testing.assert_close(losses.real_loss(x), -p.log().mean())
    torch.testing.assert_close(losses.fake_loss(x), -(1 - p).log().mean())
    torch.testing.assert_close(losses.real_loss(x), F.binary_cross_entropy_with_logits(x, torch.ones_like(x)))
    torch.testing.assert_close(losses.fake_loss(x), F.binary_cross_entropy_with_logits(x, torch.zeros_like(x)))


def test_hinge_losses_are_those_of_a_loop_over_the_logits() -> None:
    x = logits(3, 4, 4, 4)
    numbers = x.flatten().tolist()
    expected = {
        losses.hinge_real_loss: sum(max(0.0, 1 - n) for n in numbers) / len(numbers),
        losses.hinge_fake_loss: sum(max(0.0, 1 + n) for n in numbers) / len(numbers),
        losses.hinge_generator_loss: -sum(numbers) / len(numbers),
    }
    for loss, value in expected.items():
        assert loss(x).item() == pytest.approx(value, rel=1e-12)


def test_a_hinge_costs_nothing_beyond_its_margin_and_2_at_the_wrong_one() -> None:
    margin = torch.tensor([1.0, 1.0])
    assert [losses.hinge_real_loss(s * margin).item() for s in (1, 3, 0, -1)] == [0, 0, 1, 2]
    assert [losses.hinge_fake_loss(s * margin).item() for s in (-1, -3, 0, 1)] == [0, 0, 1, 2]
    assert losses.hinge_generator_loss(3 * margin) == -3
    for loss in (losses.hinge_real_loss, losses.hinge_fake_loss, losses.hinge_generator_loss):
        assert loss(margin.bfloat16()).dtype == torch.float32


def test_an_undecided_discriminator_costs_log_2() -> None:
    nothing = torch.zeros(3)
    assert losses.real_loss(nothing).item() == pytest.approx(0.693147, abs=1e-6)
    assert losses.fake_loss(nothing).item() == pytest.approx(0.693147, abs=1e-6)
    torch.testing.assert_close(losses.real_loss(logits(9)), losses.fake_loss(-logits(9)))


def test_the_masked_mean_is_the_mean_of_what_is_kept() -> None:
    values, mask = torch.tensor([1.0, 2.0, 30.0]), torch.tensor([1.0, 1.0, 0.0])
    assert losses.masked_mean(values, mask) == 1.5
    assert losses.masked_mean(values, torch.zeros(3)) == 0


def test_the_background_loss_is_the_mean_over_the_kept_patches_of_the_batch() -> None:
    x, outside = logits(3, 1, 6, 6), random_mask(3, 1, 6, 6)
    kept = x[outside == 1]
    expected = F.binary_cross_entropy(kept.sigmoid(), torch.ones_like(kept))
    torch.testing.assert_close(losses.background_real_loss(x, outside), expected)
    # Patches at the object have no say.
    torch.testing.assert_close(losses.background_real_loss(torch.where(outside == 1, x, 77.0), outside), expected)


def test_no_background_patch_at_all_gives_zero_loss_and_zero_gradient() -> None:
    x = logits(2, 1, 4, 4).requires_grad_()
    loss = losses.background_real_loss(x, torch.zeros(2, 1, 4, 4, dtype=torch.float64))
    loss.backward()
    assert loss == 0
    assert x.grad is not None
    assert x.grad.abs().max() == 0


def test_the_auxiliary_loss_calls_background_one_and_object_zero_on_every_patch() -> None:
    x, outside = logits(3, 1, 6, 6), random_mask(3, 1, 6, 6)
    p = x.sigmoid()
    expected = -(outside * p.log() + (1 - outside) * (1 - p).log()).mean()
    torch.testing.assert_close(losses.background_aux_loss(x, outside), expected)
    assert losses.background_aux_loss(20 * (2 * outside - 1), outside) < 1e-8


def test_the_auxiliary_loss_pulls_background_up_and_object_down() -> None:
    """The sign of the official code: background is 1. A box in the middle, its units found one by one."""
    geometry = PatchGeometry(12, ((4, 2), (2, 1)))  # units of 6 pixels, every 2
    outside = geometry.outside_boxes(torch.tensor([[7.0, 7, 9, 9], [5, 5, 5, 9]]))
    x = torch.zeros(2, 1, 4, 4, requires_grad=True)
    losses.background_aux_loss(x, outside).backward()
    assert x.grad is not None
    for i in range(4):
        for j in range(4):
            is_object = 2 * i + 6 >= 7 and 2 * i <= 9 and 2 * j + 6 >= 7 and 2 * j <= 9
            assert x.grad[0, 0, i, j].item() == pytest.approx((0.5 if is_object else -0.5) / 32), (i, j)
    assert (x.grad[0] > 0).sum() == 9
    assert (x.grad[1] < 0).all()  # a box without width hides nothing


def test_the_background_loss_is_normalised_over_the_batch_not_over_each_image() -> None:
    """Official: the mean over all patches of weight times loss, times patches, over the sum of all weights."""
    x = logits(3, 1, 5, 5) + torch.tensor([0.0, 4, 0], dtype=torch.float64).view(3, 1, 1, 1)
    outside = torch.zeros(3, 1, 5, 5, dtype=torch.float64)
    outside[0] = 1
    outside[1, 0, 0, :2] = 1  # the third image shows no background at all
    each = -x.sigmoid().log()
    expected = (outside * each).mean() * outside.numel() / outside.sum()
    torch.testing.assert_close(losses.background_real_loss(x, outside), expected)
    per_image = torch.stack([each[0].mean(), each[1, 0, 0, :2].mean()]).mean()
    assert (expected - per_image).abs() > 0.1


def test_the_code_loss_is_minus_the_log_of_the_true_code() -> None:
    x, codes = logits(5, 7), torch.tensor([0, 6, 3, 3, 1])
    p = x.exp() / x.exp().sum(dim=1, keepdim=True)
    expected = -torch.stack([p[n, c].log() for n, c in enumerate(codes.tolist())]).mean()
    torch.testing.assert_close(losses.code_loss(x, codes), expected)
    assert losses.code_loss(torch.zeros(2, 8), torch.tensor([0, 5])).item() == pytest.approx(2.0794415, abs=1e-6)


@pytest.mark.parametrize("modes", [1, 2, 3])
def test_the_class_loss_equals_brute_force_over_the_modes(modes: int) -> None:
    x, labels = logits(6, 4 * modes), torch.tensor([0, 3, -1, 1, -1, 2])
    expected = []
    for n, label in enumerate(labels.tolist()):
        if label >= 0:
            p = x[n].softmax(dim=0)
            expected.append(-sum(p[label * modes + mode] for mode in range(modes)).log())
    torch.testing.assert_close(losses.class_loss(x, labels, modes), torch.stack(expected).mean())
    scores = losses.class_scores(x, modes)
    assert scores.shape == (6, 4)
    torch.testing.assert_close(scores.softmax(1), x.softmax(1).view(6, 4, modes).sum(dim=2))


def test_the_gradient_of_the_class_loss_is_the_formula_of_the_design() -> None:
    """On class y: p(mode | y) (P(y) - 1); on any other code: its probability."""
    modes, label = 3, 1
    x = logits(1, 4 * modes).requires_grad_()
    losses.class_loss(x, torch.tensor([label]), modes).backward()
    p = x.detach()[0].softmax(dim=0)
    own = slice(label * modes, (label + 1) * modes)
    expected = p.clone()
    expected[own] = p[own] / p[own].sum() * (p[own].sum() - 1)
    assert x.grad is not None
    torch.testing.assert_close(x.grad[0], expected)


def test_images_without_label_add_nothing_to_the_class_loss() -> None:
    x = logits(4, 6).requires_grad_()
    labels = torch.tensor([2, -1, 0, -1])
    loss = losses.class_loss(x, labels, 2)
    torch.testing.assert_close(loss, losses.class_loss(x[[0, 2]], labels[[0, 2]], 2))
    loss.backward()
    assert x.grad is not None
    assert x.grad[[1, 3]].abs().max() == 0
    assert x.grad[[0, 2]].abs().min() > 0


def test_a_batch_without_any_label_has_zero_class_loss_and_zero_gradient() -> None:
    x = logits(3, 6).requires_grad_()
    loss = losses.class_loss(x, torch.full((3,), -1), 2)
    loss.backward()
    assert loss == 0
    assert x.grad is not None
    assert x.grad.abs().max() == 0


def test_the_entropy_of_flat_masks_is_known() -> None:
    def flat(share: float) -> float:
        return losses.mask_entropy_loss(torch.full((2, 1, 4, 4), share)).item()

    assert flat(0.5) == pytest.approx(1.0)  # grey: one bit
    assert flat(0.0) == pytest.approx(0.0, abs=1e-4)
    assert flat(1.0) == pytest.approx(0.0, abs=1e-4)
    assert flat(0.05) == pytest.approx(0.286397, abs=1e-5)


def test_the_size_of_a_mask_costs_what_it_is_beyond_its_limits() -> None:
    def flat(share: float) -> float:
        return losses.mask_size_loss(torch.full((2, 1, 4, 4), share), 0.1, 0.6).item()

    assert [flat(share) for share in (0.1, 0.3, 0.6)] == [0, 0, 0]
    assert flat(0.0) == pytest.approx(0.1)
    assert flat(1.0) == pytest.approx(0.4)


def test_the_size_is_that_of_each_mask_alone() -> None:
    """An empty and a full mask do not cancel."""
    pair = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
    assert losses.mask_size_loss(pair, 0.1, 0.9).item() == pytest.approx(0.1)
    masks = torch.rand(3, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    each = [losses.mask_size_loss(mask[None], 0.6, 0.7) for mask in masks]
    torch.testing.assert_close(losses.mask_size_loss(masks, 0.6, 0.7), torch.stack(each).mean())


def test_the_loss_of_a_parent_is_the_cross_entropy_of_the_sum_over_its_children() -> None:
    mapping, parent = torch.tensor([0, 2, 1, 0, 2]), torch.tensor([0, 1, 2, 2])
    scores = logits(4, 5, seed=0)
    summed = scores.softmax(dim=1) @ F.one_hot(mapping).to(scores)
    torch.testing.assert_close(losses.parent_loss(scores, parent, mapping), F.nll_loss(summed.log(), parent))
    # Each parent with one child is a code, all children under one parent are certain, and no order of codes matters.
    one_each = torch.arange(5)
    torch.testing.assert_close(losses.parent_loss(scores, parent, one_each), F.cross_entropy(scores, parent))
    assert losses.parent_loss(scores, torch.zeros(4, dtype=torch.int64), torch.zeros(5, dtype=torch.int64)) == 0
    order = torch.tensor([3, 0, 4, 2, 1])
    shuffled = losses.parent_loss(scores[:, order], parent, mapping[order])
    torch.testing.assert_close(shuffled, losses.parent_loss(scores, parent, mapping))


def masks(*shape: int, seed: int) -> Tensor:
    return logits(*shape, seed=seed).sigmoid()


def square(top: int, left: int) -> Tensor:
    """A mask of 8 x 8 that is 1 on 4 x 4 pixels."""
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    mask[..., top : top + 4, left : left + 4] = 1
    return mask


def test_the_tie_of_masks_is_that_of_a_loop_over_their_pixels() -> None:
    parent, child = masks(3, 1, 6, 6, seed=0), masks(3, 1, 6, 6, seed=1)
    each = []
    for p, c in zip(parent.flatten(1).tolist(), child.flatten(1).tolist(), strict=True):
        both = sum(a * b for a, b in zip(p, c, strict=True))
        each.append(1 - both / sum(a + b - a * b for a, b in zip(p, c, strict=True)))
    assert losses.mask_tie_loss(parent, child).item() == pytest.approx(sum(each) / 3, rel=1e-12)


def test_decided_masks_overlap_as_sets_and_empty_ones_not_at_all() -> None:
    """Squares of 16 pixels moved by 2 share 8 of 24."""
    own, moved, empty = square(2, 2), square(2, 4), torch.zeros(1, 1, 8, 8)
    assert losses.mask_tie_loss(own, own) == 0
    assert losses.mask_tie_loss(own, moved).item() == pytest.approx(1 - 8 / 24)
    assert [losses.mask_tie_loss(*pair).item() for pair in ((own, empty), (empty, own), (empty, empty))] == [1, 1, 1]


@pytest.mark.parametrize("grey", [0.1, 0.5, 0.9])
def test_grey_masks_do_not_satisfy_the_tie_not_even_equal_ones(grey: float) -> None:
    """a / (2 - a) of overlap for two of them; under a child on a quarter of the image (a / 4) / (1/4 + 3 a / 4)."""
    flat = torch.full((1, 1, 8, 8), grey, dtype=torch.float64)
    assert losses.mask_tie_loss(flat, flat).item() == pytest.approx(1 - grey / (2 - grey))
    assert losses.mask_tie_loss(flat, square(2, 2)).item() == pytest.approx(1 - grey / (1 + 3 * grey))


def test_the_tie_knows_no_place_no_order_and_not_which_mask_is_whose() -> None:
    parent, child = masks(4, 1, 6, 6, seed=0), masks(4, 1, 6, 6, seed=1)
    tie = losses.mask_tie_loss(parent, child)
    torch.testing.assert_close(losses.mask_tie_loss(child, parent), tie)
    moved = [mask.roll((2, 3), dims=(2, 3)).flip(0, 3) for mask in (parent, child)]
    torch.testing.assert_close(losses.mask_tie_loss(*moved), tie)
    assert losses.mask_tie_loss(parent.bfloat16(), child.bfloat16()).dtype == torch.float32


def slopes(parent: Tensor, child: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the tie on both masks."""
    pair = parent.clone().requires_grad_(), child.clone().requires_grad_()
    on_parent, on_child = torch.autograd.grad(losses.mask_tie_loss(*pair), pair)
    return on_parent, on_child


def test_a_faint_parent_grows_where_the_child_draws_and_shrinks_elsewhere_and_the_child_shrinks_nowhere() -> None:
    faint, child = torch.full((1, 1, 8, 8), 0.1, dtype=torch.float64), square(2, 2)
    on_parent, on_child = slopes(faint, child)
    assert torch.equal(on_parent < 0, child == 1)
    assert torch.equal(on_parent > 0, child == 0)
    assert bool((on_child <= 0).all())
    # The parent moves to the child, not the child to the parent.
    assert on_parent.abs().max() > 10 * on_child.abs().max()


def test_a_child_beside_its_parent_leaves_the_outside_and_fills_the_inside() -> None:
    parent = square(2, 2)
    _, on_child = slopes(parent, 0.02 + 0.96 * square(3, 3))
    assert torch.equal(on_child < 0, parent == 1)
    assert torch.equal(on_child > 0, parent == 0)


def outlines_after_training(tie_weight: float) -> tuple[Tensor, Tensor]:
    """Parent and child masks as free pixels; the parent begins faint, the image asks the child for a square."""
    parent, child = torch.full((1, 1, 8, 8), -2.2), torch.zeros(1, 1, 8, 8)
    optimizer = torch.optim.Adam([parent.requires_grad_(), child.requires_grad_()], lr=0.1)
    for _ in range(150):
        p, c = parent.sigmoid(), child.sigmoid()
        loss = F.binary_cross_entropy_with_logits(child, square(2, 2).float())
        loss = loss + 10 * losses.mask_size_loss(p, 0.1, 0.5) + 0.4 * losses.mask_entropy_loss(p)
        loss = loss + tie_weight * losses.mask_tie_loss(p, c)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return parent.detach().sigmoid(), child.detach().sigmoid()


def test_a_faint_parent_that_the_floor_on_its_area_leaves_empty_is_filled_by_the_tie() -> None:
    parent, child = outlines_after_training(tie_weight=0)
    assert parent.mean() > 0.09  # the floor is satisfied
    assert not bool((parent > 0.5).any())
    parent, tied_child = outlines_after_training(tie_weight=2)
    assert torch.equal(parent > 0.5, square(2, 2) == 1)
    assert torch.equal(tied_child > 0.5, child > 0.5)


@pytest.mark.parametrize(
    "loss",
    [
        losses.real_loss,
        losses.fake_loss,
        lambda x: losses.background_real_loss(x, torch.tensor([[1.0, 0, 1, 1], [0, 0, 1, 0]])),
        lambda x: losses.background_aux_loss(x, torch.tensor([[1.0, 0, 1, 1], [0, 0, 1, 0]])),
        lambda x: losses.code_loss(x, torch.tensor([1, 0])),
        lambda x: losses.class_loss(x, torch.tensor([1, 0]), 2),
        lambda x: losses.parent_loss(x, torch.tensor([1, 0]), torch.tensor([0, 1, 0, 1])),
    ],
)
def test_extreme_logits_stay_finite_under_bfloat16_autocast(loss: Callable[[Tensor], Tensor]) -> None:
    x = torch.tensor([[1e4, -1e4, 0, -1e4], [-1e4, -1e4, 1e4, 1e4]], dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(x)
    value.backward()
    assert value.isfinite()
    assert value > 100  # these are badly wrong answers, not clamped ones
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.abs().max() > 0


def test_the_gradient_penalty_is_the_squared_slope_of_each_image_and_teaches_the_weights() -> None:
    x, w = logits(5, 3, 2, 2).requires_grad_(), logits(3, 2, 2, seed=1).requires_grad_()
    linear = losses.gradient_penalty((x * w).sum(dim=(1, 2, 3)), x)
    torch.testing.assert_close(linear, w.square().sum())
    (slope,) = torch.autograd.grad(linear, w)
    torch.testing.assert_close(slope, 2 * w.detach())
    square = losses.gradient_penalty((x.square() / 2).sum(dim=(1, 2, 3)), x)
    torch.testing.assert_close(square, x.detach().square().sum(dim=(1, 2, 3)).mean())


def test_the_gradient_norm_is_over_all_parameters_and_skips_those_without() -> None:
    first, second, idle = (nn.Parameter(torch.zeros(shape)) for shape in ((2, 2), (3,), (1,)))
    first.grad, second.grad = torch.tensor([[1.0, 2], [0, 4]]), torch.tensor([2.0, 0, 0])
    optimizer = torch.optim.Adam([{"params": [first]}, {"params": [second, idle]}])
    assert losses.gradient_norm(optimizer).item() == pytest.approx(5.0)


def test_spread_is_the_mean_difference_of_neighbours_at_eight_by_eight() -> None:
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = []
    for first in (0, 2):  # the fifth has no neighbour
        one, other = (images[i].reshape(3, 8, 4, 8, 4).mean(dim=(2, 4)) for i in (first, first + 1))
        expected.append((one - other).abs().mean())
    torch.testing.assert_close(losses.spread(images), torch.stack(expected))
    swapped = losses.spread(images[[1, 0, 3, 2]])
    torch.testing.assert_close(swapped, torch.stack(expected))
    assert losses.spread(torch.zeros(2, 3, 16, 16).bfloat16()).tolist() == [0.0]
    assert losses.spread(torch.zeros(2, 3, 16, 16).bfloat16()).dtype == torch.float32


def test_the_spread_loss_is_what_pairs_of_one_code_lack_of_the_distance_of_photographs() -> None:
    real = torch.tensor([0.2, 0.6], requires_grad=True)  # mean 0.4
    fake = torch.tensor([0.0, 0.1, 0.4, 3.0, 0.0], requires_grad=True)
    alike = torch.tensor([True, True, True, True, False])
    loss = losses.spread_loss(fake, alike, real)
    torch.testing.assert_close(loss, torch.tensor((1 + 0.75 + 0 + 0) / 4))  # far apart earns nothing more
    loss.backward()
    assert real.grad is None
    torch.testing.assert_close(fake.grad, torch.tensor([-0.625, -0.625, 0.0, 0.0, 0.0]))
    assert losses.spread_loss(fake, torch.zeros(5, dtype=torch.bool), real) == 0


def test_the_spread_loss_draws_images_of_one_code_apart_until_they_are_as_far_as_photographs() -> None:
    draw = torch.Generator().manual_seed(0)
    real = losses.spread(torch.rand(8, 3, 8, 8, generator=draw))
    images = (0.01 * torch.rand(8, 3, 8, 8, generator=draw)).requires_grad_()
    optimizer, alike = torch.optim.SGD([images], lr=30.0), torch.ones(4, dtype=torch.bool)
    for _ in range(200):
        optimizer.zero_grad()
        losses.spread_loss(losses.spread(images), alike, real).backward()
        optimizer.step()
    reached = losses.spread(images) / real.mean()
    assert reached.min() > 0.95
    assert reached.max() < 1.5

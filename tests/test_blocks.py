"""The cheap forms of the blocks against the plain layers, in float64, all borders included."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finegan_aug.models.blocks import CodeTrunk, JointBlock, ResidualBlock, SameBlock, UpBlock, glu
from finegan_aug.models.norm_glu import NormGlu

torch.set_num_threads(1)

EXACT = {"rtol": 1e-11, "atol": 1e-11}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def filled(block: nn.Module) -> nn.Module:
    """Float64, every parameter random: norms too, so that nothing hides behind a weight of one."""
    with torch.no_grad():
        for seed, parameter in enumerate(block.double().parameters()):
            parameter.copy_(noise(*parameter.shape, seed=seed))
    return block


def gradients(out: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad((out * noise(*out.shape, seed=99)).sum(), inputs)


def norm_glu(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """The two layers one after the other, as torch has them, without touching what `norm` has counted."""
    means = (norm.running_mean.clone(), norm.running_var.clone())
    return F.glu(F.batch_norm(x, *means, norm.weight, norm.bias, norm.training, norm.momentum, norm.eps), dim=1)


def one_hot(code: Tensor, count: int) -> Tensor:
    return F.one_hot(code, count).double()


def test_glu_is_the_first_half_gated_by_the_second() -> None:
    x = noise(2, 6, 3, 3)
    torch.testing.assert_close(glu(x), x[:, :3] / (1 + (-x[:, 3:]).exp()))
    torch.testing.assert_close(glu(x), F.glu(x, dim=1))


def test_norm_and_glu_in_one_give_what_batch_norm_then_glu_give_and_count_alike() -> None:
    one, two = filled(NormGlu(6)), filled(nn.BatchNorm2d(6))
    for seed in (1, 2):
        x = noise(4, 6, 5, 3, seed=seed).requires_grad_()
        found, plain = one(x), F.glu(two(x), dim=1)
        torch.testing.assert_close(found, plain, **EXACT)
        ours, expected = gradients(found, x, *one.parameters()), gradients(plain, x, *two.parameters())
        torch.testing.assert_close(ours, expected, **EXACT)
    torch.testing.assert_close(one.state_dict(), two.state_dict(), **EXACT)
    assert int(one.num_batches_tracked) == 2
    torch.testing.assert_close(one.eval()(x), F.glu(two.eval()(x), dim=1), **EXACT)
    assert torch.autograd.gradcheck(one.train(), (noise(3, 6, 2, 2).requires_grad_(),))


def test_norm_and_glu_in_one_keep_their_input_only() -> None:
    kept = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    x = torch.randn(4, 8, 16, 16).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        NormGlu(8)(x)
    assert sum(kept) < x.numel() + 64


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_norm_and_glu_in_one_keep_the_layout_and_stay_within_bf16_rounding(memory_format: torch.memory_format) -> None:
    block = NormGlu(16)
    x = noise(4, 16, 8, 8).bfloat16().to(memory_format=memory_format).requires_grad_()
    out = block(x)
    assert out.dtype == torch.bfloat16
    assert out.is_contiguous(memory_format=memory_format)
    (found,) = torch.autograd.grad(out.float().square().sum(), x)
    exact = x.detach().double().requires_grad_()
    plain = norm_glu(block.double(), exact)
    (expected,) = torch.autograd.grad(plain.square().sum(), exact)
    torch.testing.assert_close(out.double(), plain, rtol=0.02, atol=0.02)
    torch.testing.assert_close(found.double(), expected, rtol=0.1, atol=0.05)


@pytest.mark.parametrize(("height", "width"), [(5, 7), (1, 1), (2, 16), (17, 18)])  # small ones take the plain form
def test_the_up_block_equals_enlarging_then_convolving(height: int, width: int) -> None:
    block = filled(UpBlock(3, 4))
    x = noise(2, 3, height, width).requires_grad_()
    enlarged = F.interpolate(x, scale_factor=2, mode="nearest")
    plain = norm_glu(block.norm, F.conv2d(enlarged, block.conv.weight, padding=1))
    found = block(x)
    assert found.shape == (2, 4, 2 * height, 2 * width)
    torch.testing.assert_close(found, plain, **EXACT)
    leaves = (x, *block.parameters())
    for ours, expected in zip(gradients(found, *leaves), gradients(plain, *leaves), strict=True):
        torch.testing.assert_close(ours, expected, **EXACT)


def test_the_up_block_stays_within_float32_rounding() -> None:
    block = UpBlock(8, 8)
    x = noise(2, 8, 16, 16).float()
    plain = norm_glu(block.norm, F.conv2d(F.interpolate(x, scale_factor=2), block.conv.weight, padding=1))
    torch.testing.assert_close(block(x), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(5, 4), (2, 2), (3, 16)])
def test_the_joint_block_equals_a_convolution_over_one_hot_planes(height: int, width: int) -> None:
    """The planes come before the features, as in the official weights."""
    block = filled(JointBlock(6, 3, 4))
    code = torch.tensor([5, 0, 3, 3])
    x = noise(4, 3, height, width).requires_grad_()
    planes = one_hot(code, 6)[:, :, None, None].expand(-1, -1, height, width)
    plain = norm_glu(block.norm, F.conv2d(torch.cat([planes, x], dim=1), block.conv.weight, padding=1))
    found = block(x, code)
    torch.testing.assert_close(found, plain, **EXACT)
    leaves = (x, *block.parameters())
    for ours, expected in zip(gradients(found, *leaves), gradients(plain, *leaves), strict=True):
        torch.testing.assert_close(ours, expected, **EXACT)


def test_no_plane_for_each_code_is_made_in_the_joint_block() -> None:
    """No tensor saved for the backward pass has the size of [N, num_codes, H, W]."""
    block, sizes = JointBlock(200, 4, 4), []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        block(torch.zeros(2, 4, 16, 16), torch.tensor([0, 199]))
    assert 0 < max(sizes) < 2 * 200 * 16 * 16


def test_the_code_trunk_equals_a_linear_layer_over_a_one_hot_code_then_noise() -> None:
    trunk = filled(CodeTrunk(5, 3, (8, 4, 2)))
    z, code = noise(4, 3, seed=7).requires_grad_(), torch.tensor([4, 0, 2, 2])
    x = F.linear(torch.cat([one_hot(code, 5), z], dim=1), trunk.linear.weight)
    x = F.glu(trunk.norm(x), dim=1).view(4, 8, 4, 4)
    for up in trunk.ups:
        x = norm_glu(up.norm, F.conv2d(F.interpolate(x, scale_factor=2), up.conv.weight, padding=1))
    found = trunk(z, code)
    assert found.shape == (4, 2, 16, 16)
    torch.testing.assert_close(found, x, **EXACT)
    leaves = (z, *trunk.parameters())
    for ours, expected in zip(gradients(found, *leaves), gradients(x, *leaves), strict=True):
        torch.testing.assert_close(ours, expected, **EXACT)


def test_the_residual_block_adds_its_input_and_nothing_follows_the_sum() -> None:
    block = filled(ResidualBlock(3)).eval()
    x = noise(2, 3, 5, 5)
    inner = norm_glu(block.first.norm, F.conv2d(x, block.first.conv.weight, padding=1))
    torch.testing.assert_close(block(x), x + block.norm(F.conv2d(inner, block.conv.weight, padding=1)), **EXACT)
    with torch.no_grad():
        block.norm.weight.zero_()
        block.norm.bias.zero_()
    torch.testing.assert_close(block(x), x, rtol=0, atol=0)


@pytest.mark.parametrize(("i", "o"), [(3, 4), (16, 8)])
def test_blocks_have_the_parameters_of_the_design(i: int, o: int) -> None:
    def count(block: nn.Module) -> int:
        return sum(parameter.numel() for parameter in block.parameters())

    assert count(UpBlock(i, o)) == 18 * i * o + 4 * o
    assert count(SameBlock(i, o)) == 18 * i * o + 4 * o
    assert count(ResidualBlock(o)) == 27 * o * o + 6 * o


def test_the_helper_tables_of_the_cheap_forms_are_no_part_of_the_weights() -> None:
    """Otherwise no file with official names could be loaded strictly."""
    for block in (UpBlock(2, 2), JointBlock(3, 2, 2)):
        assert not {"taps", "border_taps"} & set(block.state_dict())

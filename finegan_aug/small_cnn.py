"""A small residual network: teacher, judge and feature extractor trained on the data at hand."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from finegan_aug.randomness import seed_for

_BATCH_IMAGES = 256


@dataclass(frozen=True)
class SmallCNNConfig:
    """Everything that decides the shape of the network."""

    num_classes: int
    resolution_px: int  # side of the square input
    width: int = 32  # channels where the map is 16 px wide; the features are four times as many


class SmallCNN(nn.Module):
    """Stem, then one residual block per resolution from half the input down to about 4 px.

    Channels double as the side halves, so each resolution costs the same and a 64 px network is only a third
    slower than one of 32 px.
    """

    def __init__(self, config: SmallCNNConfig) -> None:
        super().__init__()
        stages = max(2, round(math.log2(config.resolution_px / 4)))
        channels = [max(8, config.width * 4 >> stages - 1 - stage) for stage in range(stages)]
        layers: list[nn.Module] = [nn.Conv2d(3, channels[0], 4, stride=2, padding=1, bias=False)]
        for previous, current in zip([channels[0], *channels], channels, strict=False):
            if len(layers) > 1:
                layers += [_normed(previous), nn.Conv2d(previous, current, 3, stride=2, padding=1, bias=False)]
            layers.append(_Residual(current))
        self.body = nn.Sequential(*layers, _normed(channels[-1]))
        self.head = nn.Linear(channels[-1], config.num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, 4 width] and logits [N, C] of images [N, 3, S, S] in [-1, 1]."""
        features = self.body(x).mean(dim=(2, 3))
        return features, self.head(features)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            _normed(channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            _normed(channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = x + self.convs(x)
        return total


def _normed(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def build(config: SmallCNNConfig, *, seed: int) -> SmallCNN:
    """A network with the initial weights of `seed`; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "small-cnn/weights"))
        network = SmallCNN(config)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network.to(memory_format=torch.channels_last)


@dataclass(frozen=True, eq=False)
class SmallClassifier:
    """A trained `SmallCNN` with its weights frozen."""

    config: SmallCNNConfig
    network: SmallCNN

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(False)

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features, float32 [N, 4 width], of images uint8 [N, 3, H, W]."""
        return self._run(images)[0]

    def logits(self, images: Tensor) -> Tensor:
        """Logits, float32 [N, C], of images uint8 [N, 3, H, W]."""
        return self._run(images)[1]

    @torch.no_grad()
    def _run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        device = self.network.head.weight.device
        batches = [self.network(self._input(batch.to(device))) for batch in torch.split(images, _BATCH_IMAGES)]
        return torch.cat([f for f, _ in batches]).cpu(), torch.cat([x for _, x in batches]).cpu()

    def _input(self, images: Tensor) -> Tensor:
        side = self.config.resolution_px
        x = to_float(images)
        if x.shape[-2:] != (side, side):
            x = F.interpolate(x, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
        return x.contiguous(memory_format=torch.channels_last)

    @property
    def sha256(self) -> str:
        """Hash of the weights."""
        tensors = {name: value.cpu().contiguous() for name, value in self.network.state_dict().items()}
        return hashlib.sha256(save(tensors)).hexdigest()


def to_float(images: Tensor) -> Tensor:
    """Images uint8 [N, 3, H, W] as float32 in [-1, 1]."""
    assert images.dtype == torch.uint8, images.dtype
    assert images.dim() == 4, images.shape
    assert images.shape[1] == 3, images.shape
    return images.float().div_(127.5).sub_(1.0)

"""Real or fake by frozen features of an ImageNet network: the projected discriminator.

Projected GANs (Sauer, Chitta, Mueller, Geiger, NeurIPS 2021, arXiv 2111.01007), section 3: a pretrained network, random
mixing across channels and scales that is never trained, and one light discriminator for each scale. Only those are
trained, saved and shared among processes; the rest follows from an installed package and the seed of the run.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrizations import spectral_norm

from finegan_aug.config import FineGANConfig
from finegan_aug.models.blocks import conv3
from finegan_aug.models.finegan import initialise, judged_classes
from finegan_aug.packaged import packaged_network

STRIDES = (4, 8, 16, 32)  # of the four feature maps
STAGE_CHANNELS = (24, 40, 112, 320)  # EfficientNet-Lite0 at these strides
MIXED_CHANNELS = (64, 128, 256, 512)  # after mixing across channels
FEATURE_CHANNELS = (64, 64, 128, 256)  # after mixing across scales: what is added one scale up
LOGITS_PX = 4  # side of every logit map


class FrozenFeatures(nn.Module):
    """Images [N, 3, S, S] in [-1, 1] to maps [N, C, P / 4, P / 4] ... [N, C, P / 32, P / 32], C of `FEATURE_CHANNELS`.

    Section 3.2 of the paper: 1x1 convolutions mix the channels of each map, then from the coarsest map to the finest
    each is convolved 3x3 and added, enlarged, to the one above. Both draw their weights once, from the seed. Nothing
    here has a gradient or takes part in training; gradients pass through to the images.

    Deviates from the published code, which enlarges before it convolves (1x1) and so hands on maps of twice the side:
    as in the text of the paper the convolution is 3x3, and before the enlargement it costs a quarter.

    Args:
        stages: four networks, each on the output of the one before, with `STAGE_CHANNELS` at `STRIDES`; in eval mode.
        input_px: P, side that images of another size are scaled to, bilinearly.
        seed: of the random convolutions.
    """

    def __init__(self, stages: nn.ModuleList, input_px: int, seed: int) -> None:
        super().__init__()
        self.stages, self.input_px = stages, input_px
        mixes = zip(STAGE_CHANNELS, MIXED_CHANNELS, strict=True)
        self.across_channels = nn.ModuleList(nn.Conv2d(i, o, 1, bias=False) for i, o in mixes)
        mixes = zip(MIXED_CHANNELS, FEATURE_CHANNELS, strict=True)
        self.across_scales = nn.ModuleList(conv3(i, o) for i, o in mixes)
        draw = torch.Generator().manual_seed(seed)
        for mix in (*self.across_channels, *self.across_scales):
            assert isinstance(mix, nn.Conv2d)
            nn.init.kaiming_normal_(mix.weight, nonlinearity="linear", generator=draw)
        self.requires_grad_(False).eval().to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> list[Tensor]:
        device, dtype = images.device.type, torch.get_autocast_dtype(images.device.type)
        # On processors the gradient of grouped convolutions takes longer in bf16 than in float32.
        half = torch.is_autocast_enabled(device) and not (images.requires_grad and device == "cpu")
        with torch.autocast(device, dtype, enabled=half):
            return self._maps(images if half else images.float())

    def _maps(self, x: Tensor) -> list[Tensor]:
        if x.shape[-1] != self.input_px:
            x = F.interpolate(x, self.input_px, mode="bilinear", align_corners=False)
        mixed = []
        for stage, mix in zip(self.stages, self.across_channels, strict=True):
            x = stage(x)
            mixed.append(mix(x))
        found: list[Tensor] = []
        for features, mix in reversed(list(zip(mixed, self.across_scales, strict=True))):
            if found:
                features = features + F.interpolate(found[-1], scale_factor=2, mode="bilinear", align_corners=False)
            found.append(mix(features))
        return found[::-1]


def packaged_stages() -> nn.ModuleList:
    """EfficientNet-Lite0 with the packaged ImageNet weights, cut at `STRIDES`; frozen, in eval mode.

    Raises:
        ConfigError: the package is not installed.
        CheckpointError: its file does not fit.
    """
    network = packaged_network()
    trained_on = network.pretrained_cfg
    assert tuple(trained_on["mean"]) == tuple(trained_on["std"]) == (0.5, 0.5, 0.5), "it takes images in [-1, 1]"
    fold_batch_norm(network)
    blocks = list(network.blocks)
    parts = ([network.conv_stem, network.bn1, *blocks[:2]], blocks[2:3], blocks[3:5], blocks[5:])
    return nn.ModuleList(nn.Sequential(*part) for part in parts)


def fold_batch_norm(module: nn.Module) -> None:
    """Batch norms of timm that follow a convolution become part of its weights, and what remains is the activation.

    For frozen networks in eval mode; spares a pass over every map, forward and backward.
    """
    before: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, BatchNormAct2d) and before is not None and isinstance(before[1], nn.Conv2d):
            setattr(module, before[0], fuse_conv_bn_eval(before[1], child))
            setattr(module, name, child.act)
        else:
            fold_batch_norm(child)
        before = name, child


class ScaleJudge(nn.Module):
    """Features [N, C, s, s] and classes int64 [N] to logits [N, 1, 4, 4], one for each part of the image.

    Convolutions of stride 2 down to 4x4, one that keeps the size, one logit; spectral norm in all. With classes the
    logit gains the inner product of the last features with an embedding of the class, whose spectral norm is 1 as well
    (Miyato and Koyama, ICLR 2018, equation 4); a class of -1 leaves it as it is.

    Group instead of the paper's batch norm: an image is judged the same beside any other, so that real and generated
    ones need not pass apart. A map of 2x2, the coarsest at 64 pixels, is judged as it is, each logit standing four
    times so that all scales weigh the same.
    """

    def __init__(self, channels: int, side_px: int, width: int, num_classes: int | None) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(side_px.bit_length() - LOGITS_PX.bit_length()):
            layers += _normed(nn.Conv2d(channels, width, 4, 2, 1, bias=False))
            channels = width
        self.body = nn.Sequential(*layers, *_normed(conv3(channels, width)))
        self.logits = nn.Conv2d(width, 1, 1)
        self.embedding = None if num_classes is None else nn.Embedding(num_classes, width)
        self.apply(initialise)
        for module in [m for m in self.modules() if isinstance(m, nn.Conv2d | nn.Embedding)]:
            spectral_norm(module)

    def forward(self, features: Tensor, classes: Tensor) -> Tensor:
        x = self.body(features)
        logits: Tensor = self.logits(x)
        if self.embedding is not None:
            chosen = self.embedding(classes.clamp(min=0)) * (classes >= 0)[:, None]
            logits = logits + (x * chosen[:, :, None, None]).sum(dim=1, keepdim=True)
        return F.interpolate(logits, LOGITS_PX) if logits.shape[-1] < LOGITS_PX else logits


class ProjectedJudge(nn.Module):
    """The maps of `FrozenFeatures` and classes int64 [N], -1 where unknown, to real/fake logits [N, 4, 4, 4].

    Four scales, finest first, each with 4x4 logits; for hinge losses, whose mean weighs all alike.
    """

    def __init__(self, config: FineGANConfig) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            ScaleJudge(channels, config.judged_px // stride, 4 * config.ndf, judged_classes(config))
            for channels, stride in zip(FEATURE_CHANNELS, STRIDES, strict=True)
        )

    def forward(self, maps: list[Tensor], classes: Tensor) -> Tensor:
        return torch.cat([judge(features, classes) for judge, features in zip(self.scales, maps, strict=True)], dim=1)


def _normed(convolution: nn.Conv2d) -> list[nn.Module]:
    width = convolution.out_channels
    return [convolution, nn.GroupNorm(math.gcd(width, 8), width), nn.LeakyReLU(0.2, inplace=True)]

"""The three stages of FineGAN and its discriminators: background, parent (shape), child (appearance).

FineGAN (Singh, Ojha, Lee, CVPR 2019, arXiv 1811.11155); layers after kkanshul/finegan code/model.py. `classic` is the
official network, `slim` the same stages with the codes entering at low resolution.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finegan_aug.config import FineGANConfig, Norm
from finegan_aug.models.blocks import CodeTrunk, JointBlock, ResidualBlock, SameBlock, UpBlock, conv3
from finegan_aug.patches import patch_geometry
from finegan_aug.presets import WIDTHS


class Stages(NamedTuple):
    """One image, stage by stage: pictures [N, 3, S, S] in [-1, 1], masks [N, 1, S, S] in (0, 1).

    `parent` = mask * foreground + (1 - mask) * background, `child` the same on top of `parent`; the two
    foregrounds are unmasked. `background_126` exists in preset classic only.
    """

    background: Tensor
    parent: Tensor
    child: Tensor
    parent_foreground: Tensor
    child_foreground: Tensor
    parent_mask: Tensor
    child_mask: Tensor
    background_126: Tensor | None = None


class ObjectStage(nn.Module):
    """Features and a code to a foreground and its mask; also the features for the next stage.

    A stage that is not `masked` draws no mask: it is given that of another.
    """

    def __init__(
        self,
        num_codes: int,
        channels: tuple[int, int],
        tail: tuple[int, ...],
        squeeze: bool,
        finish: bool,
        masked: bool = True,
    ) -> None:
        super().__init__()
        into, out = channels
        self.joint = JointBlock(num_codes, into, out)
        self.residual = nn.Sequential(ResidualBlock(out), ResidualBlock(out))
        handed_on = out // 2 if squeeze else out
        self.squeeze = SameBlock(out, handed_on) if squeeze else nn.Identity()
        last = tail[-1] if tail else handed_on
        ends = [UpBlock(i, o) for i, o in zip((handed_on, *tail), tail, strict=False)]
        self.tail = nn.Sequential(*ends, *([SameBlock(last, last)] if finish else []))
        self.image = conv3(last, 3)
        self.mask = nn.Conv2d(last, 1, 3, padding=1, bias=False) if masked else nn.Identity()

    def forward(self, features: Tensor, code: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        handed_on = self.squeeze(self.residual(self.joint(features, code)))
        x = self.tail(handed_on)
        return handed_on, torch.tanh(self.image(x)), torch.sigmoid(self.mask(x)) if mask is None else mask


class Generator(nn.Module):
    """(z, child, parent, background) to `Stages`; sizes and codes come from a resolved configuration."""

    child_to_parent: Tensor

    def __init__(self, config: FineGANConfig) -> None:
        super().__init__()
        children, parents = _code_counts(config)
        table = WIDTHS[config.network]
        backdrop, trunk, tail = (_scaled(w, config.width) for w in (table.background, table.object, table.tail))
        self.classic = config.network == "classic"
        self.z_parts = [config.z_dim // 2, config.z_dim - config.z_dim // 2] if config.split_noise else None
        z_background, z_object = self.z_parts or [config.z_dim, config.z_dim]
        self.background_trunk = CodeTrunk(children, z_background, backdrop)
        self.background_image = conv3(backdrop[-1], 3)
        self.object_trunk = CodeTrunk(parents, z_object, trunk)
        width = trunk[-1]
        child_in = width // 2 if table.squeeze else width
        self.parent = ObjectStage(parents, (width, width), tail, table.squeeze, finish=False)
        self.one_mask = config.one_mask
        self.child = ObjectStage(
            children, (child_in, child_in), tail, table.squeeze, table.finish, masked=not config.one_mask
        )
        self.register_buffer("child_to_parent", torch.tensor(config.child_to_parent, dtype=torch.int64))
        self.apply(initialise)

    def forward(
        self,
        z: Tensor,
        child: Tensor,
        parent: Tensor | None = None,
        background: Tensor | None = None,
        grid: Tensor | None = None,
    ) -> Stages:
        """Draws images.

        Args:
            z: float [N, z_dim], standard normal; with `split_noise` its first half is the background's alone.
            child: int64 [N] in [0, num_children).
            parent: int64 [N]; default `child_to_parent[child]`.
            background: int64 [N] in [0, num_children); default `child`.
            grid: [N, R, R, 2] for `grid_sample`: moves foregrounds and masks before they are put on the background,
                which is enlarged to R pixels; the stages then have side R.
        """
        parent = self.child_to_parent[child] if parent is None else parent
        background = child if background is None else background
        z_background, z_object = torch.split(z, self.z_parts, dim=1) if self.z_parts else (z, z)
        backdrop = torch.tanh(self.background_image(self.background_trunk(z_background, background)))
        features, parent_fg, parent_mask = self.parent(self.object_trunk(z_object, parent), parent)
        _, child_fg, child_mask = self.child(features, child, parent_mask if self.one_mask else None)
        if grid is not None:
            layers = torch.cat([parent_fg, parent_mask, child_fg, child_mask], dim=1)
            moved = F.grid_sample(layers, grid, padding_mode="zeros", align_corners=True).to(backdrop.dtype)
            if backdrop.shape[-1] != grid.shape[1]:
                backdrop = F.interpolate(backdrop, grid.shape[1], mode="bilinear", align_corners=False)
            parent_fg, parent_mask, child_fg, child_mask = torch.split(moved, [3, 1, 3, 1], dim=1)
        whole_parent = torch.lerp(backdrop, parent_fg, parent_mask)
        whole_child = torch.lerp(whole_parent, child_fg, child_mask)
        small = F.interpolate(backdrop, 126, mode="bilinear", align_corners=True) if self.classic else None
        return Stages(backdrop, whole_parent, whole_child, parent_fg, child_fg, parent_mask, child_mask, small)


class BackgroundDiscriminator(nn.Module):
    """Patch network without normalisation: image [N, 3, I, I] to two logit maps [N, 1, U, U].

    `rf` says real or fake, `aux` background or object; no `aux` where boxes are not known.
    """

    def __init__(self, config: FineGANConfig) -> None:
        super().__init__()
        geometry = patch_geometry(config.resolution)
        *trunk, (head_kernel, _) = geometry.layers
        layers: list[nn.Module] = []
        channels = 3
        for index, (kernel, stride) in enumerate(trunk):
            out = min(config.ndf << index, 4 * config.ndf)
            layers += [nn.Conv2d(channels, out, kernel, stride, bias=False), _leaky()]
            channels = out
        self.trunk = nn.Sequential(*layers)
        self.aux = nn.Conv2d(channels, 1, head_kernel) if config.boxes != "none" else None
        self.rf = nn.Conv2d(channels, 1, head_kernel)
        self.apply(initialise)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        features = self.trunk(images)
        return self.rf(features), None if self.aux is None else self.aux(features)


class ObjectTrunk(nn.Sequential):
    """Image [N, 3, S, S] to features [N, C, 4, 4]: stride-2 convolutions, then one that keeps the size."""

    def __init__(self, config: FineGANConfig) -> None:
        downs = config.resolution.bit_length() - 3
        widths = [min(config.ndf << i, 16 * config.ndf) for i in range(downs)]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 2, 1, bias=False), _leaky()]
        for i, o in itertools.pairwise(widths):
            layers += [nn.Conv2d(i, o, 4, 2, 1, bias=False), *_norm(config.d_norm, o), _leaky()]
        self.channels = min(8 * config.ndf, widths[-1])
        layers += [conv3(widths[-1], self.channels), *_norm(config.d_norm, self.channels), _leaky()]
        super().__init__(*layers)


class InformationHead(nn.Module):
    """Features [N, C, 4, 4] to code logits [N, num_codes]."""

    def __init__(self, channels: int, num_codes: int, norm: Norm) -> None:
        super().__init__()
        self.body = nn.Sequential(conv3(channels, channels), *_norm(norm, channels), _leaky())
        self.logits = nn.Conv2d(channels, num_codes, 4, 4)
        self.apply(initialise)

    def forward(self, features: Tensor) -> Tensor:
        return _whole_map(self.logits, self.body(features))


class ParentDiscriminator(nn.Module):
    """Masked parent foreground [N, 3, S, S] to parent code logits: it learns through the information loss only.

    The official network also holds a real/fake head that nothing reads or trains; `classic` keeps it, so that official
    files pass through whole.
    """

    def __init__(self, config: FineGANConfig) -> None:
        super().__init__()
        self.trunk = ObjectTrunk(config)
        self.info = InformationHead(self.trunk.channels, _code_counts(config)[1], config.d_norm)
        self.rf = nn.Conv2d(self.trunk.channels, 1, 4, 4).requires_grad_(False) if config.network == "classic" else None
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.info(self.trunk(images))
        return out


def judged_classes(config: FineGANConfig) -> int | None:
    """How many classes, or clusters, a judge with `projection` knows; None where it judges images alone."""
    return (config.num_children or 0) // config.modes if config.projection and config.modes else None


class ChildDiscriminator(nn.Module):
    """Image [N, 3, S, S] to trunk features [N, C, 4, 4] and real/fake logits [N]; None where another judge says those.

    With `projection` the logit gains the inner product of the mean features with an embedding of the class
    (Miyato and Koyama, ICLR 2018, equation 4); a class of -1 leaves it as it is.
    """

    def __init__(self, config: FineGANConfig) -> None:
        super().__init__()
        self.trunk = ObjectTrunk(config)
        self.batch_deviation = config.batch_deviation
        judges = config.judge == "trunk"
        self.rf = nn.Conv2d(self.trunk.channels + (config.batch_deviation > 0), 1, 4, 4) if judges else None
        count = judged_classes(config) if judges else None
        self.embedding = None if count is None else nn.Embedding(count, self.trunk.channels)
        self.apply(initialise)

    def forward(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor | None]:
        features = self.trunk(images)
        if self.rf is None:
            return features, None
        judged = with_deviation(features, self.batch_deviation) if self.batch_deviation else features
        logits = _whole_map(self.rf, judged).flatten()
        if self.embedding is not None:
            match = (self.embedding(classes.clamp(min=0)) * features.mean(dim=(2, 3))).sum(dim=1)
            logits = logits + match * (classes >= 0)
        return features, logits


def with_deviation(features: Tensor, group: int) -> Tensor:
    """Features [N, C, H, W] with one more channel: the mean deviation within each `group` of neighbours.

    Karras et al., ICLR 2018 (Progressive GAN), section 3; N must be a multiple of `group`.
    """
    grouped = features.float().reshape(-1, group, *features.shape[1:])
    spread = (grouped.var(dim=1, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    plane = spread.repeat_interleave(group)[:, None, None, None].expand(-1, 1, *features.shape[2:])
    return torch.cat([features, plane.to(features.dtype)], dim=1)


def initialise(module: nn.Module) -> None:
    """Official initialisation: orthogonal weights, batch norm weight N(1, 0.02); layers without weights untouched."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.orthogonal_(module.weight)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, 0.0, 0.02)


def _whole_map(head: nn.Conv2d, features: Tensor) -> Tensor:
    """A convolution as large as its input, [N, C, 4, 4] to [N, K], as the matrix product that it is.

    torch 2.14's bf16 convolution on CPUs with matrix units gives wrong numbers for this shape at 16 or 24 channels.
    """
    return F.linear(features.flatten(1), head.weight.flatten(1), head.bias)


def _norm(kind: Norm, channels: int) -> list[nn.Module]:
    if kind == "batch":
        return [nn.BatchNorm2d(channels)]
    if kind == "group":
        return [nn.GroupNorm(max(1, channels // 16), channels)]
    return []


def _leaky() -> nn.LeakyReLU:
    """In place: neither a convolution nor a norm needs its own output for the backward pass."""
    return nn.LeakyReLU(0.2, inplace=True)


def _scaled(widths: tuple[int, ...], factor: float) -> tuple[int, ...]:
    return tuple(max(8, 4 * round(w * factor / 4)) for w in widths)


def _code_counts(config: FineGANConfig) -> tuple[int, int]:
    if config.num_children is None or config.num_parents is None or config.child_to_parent is None:
        raise ValueError("the configuration must be resolved; call config.resolve(num_classes) first")
    return config.num_children, config.num_parents

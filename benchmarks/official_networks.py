"""The official networks in plain layers, for comparison: codes as one-hot planes, enlarge then convolve, sigmoids.

Layers and names of kkanshul/finegan code/model.py, written anew; torch's defaults everywhere. Weights of a `classic`
game load by name (`interop.official_views`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Glu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        half = x.size(1) // 2
        return x[:, :half] * torch.sigmoid(x[:, half:])


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = nn.Conv2d(channels, 2 * channels, 3, 1, 1, bias=False)
        narrow = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.block = nn.Sequential(wide, nn.BatchNorm2d(2 * channels), Glu(), narrow, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x) + x
        return out


class Initial(nn.Module):
    """Code and noise to features at 128 px."""

    def __init__(self, num_codes: int, z_dim: int, ngf: int) -> None:
        super().__init__()
        wide = 16 * ngf
        self.fc = nn.Sequential(nn.Linear(num_codes + z_dim, wide * 32, bias=False), nn.BatchNorm1d(wide * 32), Glu())
        widths = [wide, wide // 2, wide // 4, wide // 8, wide // 16, wide // 16]
        for i in range(5):
            setattr(self, f"upsample{i + 1}", enlarge(widths[i], widths[i + 1]))

    def forward(self, z: Tensor, code: Tensor) -> Tensor:
        x = self.fc(torch.cat((code, z), 1))
        x = x.view(len(z), -1, 4, 4)
        for i in range(5):
            x = getattr(self, f"upsample{i + 1}")(x)
        return x


class Next(nn.Module):
    """Features and code planes to half as many features."""

    def __init__(self, channels: int, num_codes: int) -> None:
        super().__init__()
        self.jointConv = same(channels + num_codes, channels)
        self.residual = nn.Sequential(Residual(channels), Residual(channels))
        self.samesample = same(channels, channels // 2)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        planes = code.view(*code.shape, 1, 1).repeat(1, 1, *x.shape[2:])
        out: Tensor = self.samesample(self.residual(self.jointConv(torch.cat((planes, x), 1))))
        return out


class Picture(nn.Module):
    def __init__(self, channels: int, out: int, last: nn.Module) -> None:
        super().__init__()
        self.img = nn.Sequential(nn.Conv2d(channels, out, 3, 1, 1, bias=False), last)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.img(x)
        return out


class Drawn(NamedTuple):
    background_126: Tensor
    parent: Tensor
    child: Tensor
    parent_masked: Tensor
    child_masked: Tensor


class OfficialGenerator(nn.Module):
    def __init__(self, ngf: int, z_dim: int, num_parents: int, num_children: int) -> None:
        super().__init__()
        self.h_net1_bg = Initial(num_children, z_dim, ngf)
        self.img_net1_bg = Picture(ngf, 3, nn.Tanh())
        self.h_net1 = Initial(num_parents, z_dim, ngf)
        self.h_net2 = Next(ngf, num_parents)
        self.img_net2, self.img_net2_mask = Picture(ngf // 2, 3, nn.Tanh()), Picture(ngf // 2, 1, nn.Sigmoid())
        self.h_net3 = Next(ngf // 2, num_children)
        self.img_net3, self.img_net3_mask = Picture(ngf // 4, 3, nn.Tanh()), Picture(ngf // 4, 1, nn.Sigmoid())

    def forward(self, z: Tensor, child: Tensor, parent: Tensor) -> Drawn:
        """Noise and one-hot codes; the background code is the child code."""
        background = self.img_net1_bg(self.h_net1_bg(z, child))
        small = F.interpolate(background, size=(126, 126), mode="bilinear", align_corners=True)
        features = self.h_net2(self.h_net1(z, parent), parent)
        mask = self.img_net2_mask(features)
        masked = self.img_net2(features) * mask
        whole = masked + background * (1 - mask)
        features = self.h_net3(features, child)
        child_mask = self.img_net3_mask(features)
        child_masked = self.img_net3(features) * child_mask
        return Drawn(small, whole, child_masked + whole * (1 - child_mask), masked, child_masked)


class OfficialBackgroundDiscriminator(nn.Module):
    def __init__(self, ndf: int) -> None:
        super().__init__()
        self.patchgan_img_code_s16 = nn.Sequential(
            nn.Conv2d(3, ndf, 4, 2, 0, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(ndf, 2 * ndf, 4, 2, 0, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(2 * ndf, 4 * ndf, 4, 1, 0, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
        )
        self.uncond_logits1 = nn.Sequential(nn.Conv2d(4 * ndf, 1, 4, 1), nn.Sigmoid())
        self.uncond_logits2 = nn.Sequential(nn.Conv2d(4 * ndf, 1, 4, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities of background and of real, a map each."""
        features = self.patchgan_img_code_s16(x)
        return self.uncond_logits1(features), self.uncond_logits2(features)


class OfficialObjectDiscriminator(nn.Module):
    def __init__(self, ndf: int, num_codes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, ndf, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
        for i in (1, 2, 4):
            layers += _down(i * ndf, 2 * i * ndf)
        self.img_code_s16 = nn.Sequential(*layers)
        self.img_code_s32 = nn.Sequential(*_down(8 * ndf, 16 * ndf))
        self.img_code_s32_1 = _keep(16 * ndf, 8 * ndf)
        self.logits = nn.Sequential(nn.Conv2d(8 * ndf, num_codes, 4, 4))
        self.jointConv = _keep(8 * ndf, 8 * ndf)
        self.uncond_logits = nn.Sequential(nn.Conv2d(8 * ndf, 1, 4, 4), nn.Sigmoid())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Code logits [N, codes] and the probability of real [N]."""
        features = self.img_code_s32_1(self.img_code_s32(self.img_code_s16(x)))
        codes = self.logits(self.jointConv(features)).flatten(1)
        return codes, self.uncond_logits(features).view(-1)


def same(into: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(into, 2 * out, 3, 1, 1, bias=False), nn.BatchNorm2d(2 * out), Glu())


def enlarge(into: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), *same(into, out))


def _down(into: int, out: int) -> list[nn.Module]:
    conv = nn.Conv2d(into, out, 4, 2, 1, bias=False)
    return [conv, nn.BatchNorm2d(out), nn.LeakyReLU(0.2, inplace=True)]


def _keep(into: int, out: int) -> nn.Sequential:
    conv = nn.Conv2d(into, out, 3, 1, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.LeakyReLU(0.2, inplace=True))

"""One training iteration as the official code makes it, for comparison: what it computes and in which order.

kkanshul/finegan code/trainer.py, written anew: contiguous float32, codes one-hot, a loop over the samples for the
box mask, sigmoids with BCELoss, a pass of the parent discriminator that is thrown away, both heads in every pass,
weight gradients of all discriminators in the generator's step, an optimiser for each network, the average tensor by
tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from benchmarks.official_networks import (
    Drawn,
    OfficialBackgroundDiscriminator,
    OfficialGenerator,
    OfficialObjectDiscriminator,
)
from finegan_aug.config import FineGANConfig

RECEPTIVE_FIELD, STRIDE, UNITS = 34, 4, 24  # of the background discriminator on 126 pixels
EMA_DECAY = 0.999


class OfficialIteration:
    """Networks and optimisers of one configuration of preset classic."""

    def __init__(self, config: FineGANConfig) -> None:
        children, parents = config.num_children or 0, config.num_parents or 0
        self.children, self.parents = children, parents
        self.generator = OfficialGenerator(round(64 * config.width), config.z_dim, parents, children)
        self.background_d = OfficialBackgroundDiscriminator(config.ndf)
        self.parent_d = OfficialObjectDiscriminator(config.ndf, parents)
        self.child_d = OfficialObjectDiscriminator(config.ndf, children)

    def networks(self) -> list[nn.Module]:
        """In the order of the official files: generator, background, parent, child."""
        return [self.generator, self.background_d, self.parent_d, self.child_d]

    def begin(self) -> None:
        """Optimisers and the average, of the weights as they are now."""
        read_code = [*self.child_d.jointConv.parameters(), *self.child_d.logits.parameters()]
        self.d_optimizers = [_adam(self.background_d.parameters()), _adam(self.child_d.parameters())]
        self.g_optimizers = [_adam(self.generator.parameters()), _adam(self.parent_d.parameters()), _adam(read_code)]
        self.average = [parameter.detach().clone() for parameter in self.generator.parameters()]
        self.bce, self.bce_each = nn.BCELoss(), nn.BCELoss(reduction="none")
        self.cross_entropy = nn.CrossEntropyLoss()

    def step(self, frames: Tensor, objects: Tensor, boxes: Tensor, z: Tensor, child: Tensor) -> dict[str, float]:
        """One iteration.

        Args:
            frames: float32 [N, 3, 126, 126], full photographs in [-1, 1].
            objects: float32 [N, 3, 128, 128], crops around the object.
            boxes: [N, 4], x1, y1, x2, y2 in pixels of `frames`.
            z, child: noise and codes int64 [N].
        """
        child_planes = torch.zeros(len(child), self.children).scatter_(1, child[:, None], 1)
        parent_planes = planes_of_parents(child_planes, self.parents)
        drawn: Drawn = self.generator(z, child_planes, parent_planes)
        found = self._background_step(frames, boxes, drawn)
        found |= self._child_step(objects, drawn)
        found |= self._generator_step(drawn, child_planes.nonzero()[:, 1], parent_planes.nonzero()[:, 1])
        average_one_by_one(self.average, self.generator.parameters())
        return found

    def _background_step(self, frames: Tensor, boxes: Tensor, drawn: Drawn) -> dict[str, float]:
        self.background_d.zero_grad()
        aux, real = self.background_d(frames)
        _, fake = self.background_d(drawn.background_126.detach())
        weights = weights_outside(boxes)
        real_loss = (self.bce_each(real, torch.ones_like(real)) * weights).mean()
        share = weights.sum() / weights.numel()
        if share > 0:
            real_loss = real_loss / share
        loss = 10 * (real_loss + self.bce(fake, torch.zeros_like(fake))) + self.bce_each(aux, weights).mean()
        loss.backward()
        self.d_optimizers[0].step()
        return {"background_d": loss.item()}

    def _child_step(self, objects: Tensor, drawn: Drawn) -> dict[str, float]:
        self.child_d.zero_grad()
        _, real = self.child_d(objects)
        _, fake = self.child_d(drawn.child.detach())
        loss = self.bce(real, torch.ones_like(real)) + self.bce(fake, torch.zeros_like(fake))
        loss.backward()
        self.d_optimizers[1].step()
        return {"child_d": loss.item()}

    def _generator_step(self, drawn: Drawn, child: Tensor, parent: Tensor) -> dict[str, float]:
        for network in self.networks():
            network.zero_grad()
        aux, real = self.background_d(drawn.background_126)
        loss = 10 * self.bce(real, torch.ones_like(real)) + self.bce(aux, torch.ones_like(aux))
        self.parent_d(drawn.parent)  # thrown away
        codes, _ = self.parent_d(drawn.parent_masked)
        loss = loss + self.cross_entropy(codes, parent)
        _, real = self.child_d(drawn.child)
        codes, _ = self.child_d(drawn.child_masked)
        loss = loss + self.bce(real, torch.ones_like(real)) + self.cross_entropy(codes, child)
        loss.backward()
        for optimizer in self.g_optimizers:
            optimizer.step()
        return {"generator": loss.item()}


def planes_of_parents(child_planes: Tensor, parents: int) -> Tensor:
    """One-hot parents [N, parents] of one-hot children [N, children], one by one."""
    found = torch.zeros(len(child_planes), parents)
    for i in range(len(child_planes)):
        found[i, int(child_planes[i].nonzero()) // (child_planes.shape[1] // parents)] = 1
    return found


def weights_outside(boxes: Tensor) -> Tensor:
    """1 for each unit [N, 1, 24, 24] of the background discriminator that sees no object, 0 for the others."""
    weights = torch.ones(len(boxes), 1, UNITS, UNITS)
    for i in range(len(boxes)):
        x1, y1, x2, y2 = (boxes[i, k] for k in range(4))
        if x1 != x2 and y1 != y2:
            rows, columns = _touched(float(y1), float(y2)), _touched(float(x1), float(x2))
            weights[i, :, rows[0] : rows[1], columns[0] : columns[1]] = 0
    return weights


def average_one_by_one(means: Iterable[Tensor], parameters: Iterable[nn.Parameter]) -> None:
    """Moves the average of the generator towards its weights, tensor by tensor."""
    for mean, parameter in zip(means, parameters, strict=True):
        mean.mul_(EMA_DECAY).add_(parameter.detach(), alpha=1 - EMA_DECAY)


def _touched(low: float, high: float) -> tuple[int, int]:
    """First and one past the last unit whose field overlaps or touches low ... high."""
    first = max(0, math.ceil((low - RECEPTIVE_FIELD) / STRIDE))
    return first, max(first, min(UNITS, math.floor(high / STRIDE) + 1))


def _adam(parameters: object) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=2e-4, betas=(0.5, 0.999))  # type: ignore[arg-type]

"""Real batches by position in one endless stream: epoch, order, crop and flip follow from (seed, position)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from finegan_aug.augment import DRAWS_PER_IMAGE
from finegan_aug.config import FineGANConfig
from finegan_aug.data.views import Crops
from finegan_aug.patches import patch_geometry
from finegan_aug.randomness import permutation, seed_for, uniforms


class RealBatch(NamedTuple):
    """Real images of one update.

    `objects` [N, 3, S, S] and `frames` [N, 3, I, I] in [-1, 1]; `outside` [N, 1, U, U], 1 where a background unit
    misses the object; `labels` int64 [N], -1 where unknown; `draws` float [N, 7] for the augmentation. `frames` and
    `outside` are None where nothing judges backgrounds.
    """

    objects: Tensor
    frames: Tensor | None
    outside: Tensor | None
    labels: Tensor
    draws: Tensor


class RealStream:
    """Cuts the batches of a run from the crop cache, one gather for each view.

    Args:
        config: resolved.
        crops: on the device of the run.
        labels: int64 [len(crops)], -1 where no label may be used.
    """

    def __init__(self, config: FineGANConfig, crops: Crops, labels: Tensor) -> None:
        self.config, self.crops, self.labels = config, crops, labels
        self.geometry = patch_geometry(config.resolution)
        self.order: tuple[int, Tensor] = (-1, labels)

    def indices(self, positions: range) -> Tensor:
        """Image at each position, int64 [N]: all images in shuffled order, epoch after epoch, nothing left out."""
        count = len(self.crops)
        found = []
        for epoch in range(positions.start // count, (positions.stop - 1) // count + 1):
            if self.order[0] != epoch:
                order = permutation(seed_for(self.config.seed, "order", epoch), count)
                self.order = (epoch, torch.from_numpy(order))
            first = max(positions.start - epoch * count, 0)
            found.append(self.order[1][first : positions.stop - epoch * count])
        return torch.cat(found)

    def batch(self, positions: range) -> RealBatch:
        """The real images at these positions."""
        seed, where = self.config.seed, list(positions)
        chosen = self.indices(positions)
        u = torch.from_numpy(uniforms(seed_for(seed, "augment"), where, 6))
        draws = torch.from_numpy(uniforms(seed_for(seed, "diffaug", "real"), where, DRAWS_PER_IMAGE)).float()
        frames, outside = None, None
        if self.config.judges_background:
            frames, boxes, masks = self.crops.frames(chosen, u[:, 3:])
            if self.config.boxes == "none":
                outside = self.geometry.border(1).expand(len(chosen), -1, -1, -1).to(frames.device)
            elif masks is not None:
                outside = self.geometry.outside_masks(masks)
            else:
                outside = self.geometry.outside_boxes(boxes)
        objects = self.crops.objects(chosen, u[:, :3])
        return RealBatch(objects, frames, outside, self.labels[chosen.to(self.labels.device)], draws.to(objects.device))

"""The stream of training samples: which sample at which position, and the same pixels whoever loads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision.transforms import functional

from finegan_aug.data.decode import decode
from finegan_aug.data.manifest import ImageRecord, Manifest
from finegan_aug.data.transforms import (
    Transform,
    apply_transform,
    parts_with_seed,
    preserved_generators,
    seed_generators,
)
from finegan_aug.data.wrapped import MapDataset
from finegan_aug.mixing import SyntheticMixDataset
from finegan_aug.randomness import permutation, seed_for

from .config import ClassifierConfig
from .transforms import to_tensor

Key = tuple[int, int, bool]  # epoch, index, whether synthetic images are over
Sample = tuple[Tensor, int, bool]


class TrainStream(Sampler[list[Key]]):
    """Keys of the batches of one process.

    Position p of the whole stream is item order(epoch)[p % N] of epoch p // N; step s takes the positions
    s * B .. s * B + B - 1, of which process r of W takes the r-th part. Nothing is dropped or repeated.
    """

    def __init__(self, config: ClassifierConfig, count: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.config, self.count, self.rank, self.world_size = config, count, rank, world_size

    def __len__(self) -> int:
        return self.config.steps

    def __iter__(self) -> Iterator[list[Key]]:
        config, orders = self.config, dict[int, npt.NDArray[np.int64]]()
        share = config.batch_size // self.world_size
        for step in range(config.steps):
            first = step * config.batch_size + self.rank * share
            batch = []
            for position in range(first, first + share):
                epoch, place = divmod(position, self.count)
                if epoch not in orders:
                    orders = {epoch: permutation(seed_for(config.seed, "order", epoch), self.count)}
                batch.append((epoch, int(orders[epoch][place]), step >= config.real_only_from))
            yield batch


class TrainSamples(Dataset[Sample]):
    """Items of a data set of (PIL image, label[, is_synthetic]), transformed with draws seeded by (epoch, index).

    Args:
        train_set: any map data set; a `SyntheticMixDataset` is asked for the epoch of the key.
        final_set: takes its place once synthetic images are over; of the same length.
        transform: of one PIL image.
    """

    def __init__(self, train_set: MapDataset, final_set: MapDataset, transform: Transform, seed: int) -> None:
        self.train_set, self.final_set, self.transform, self.seed = train_set, final_set, transform, seed
        self._parts = parts_with_seed(transform)

    def __len__(self) -> int:
        return len(self.train_set)

    def __getitem__(self, key: Key) -> Sample:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: list[Key]) -> list[Sample]:
        """What a loader asks for: a batch at once, so that the global generators are put aside once."""
        items = [self._item(*key) for key in keys]
        samples = []
        with preserved_generators():
            for (epoch, index, _), item in zip(keys, items, strict=True):
                seed_generators(seed_for(self.seed, "augment", epoch, index), self._parts)
                image = to_tensor(apply_transform(self.transform, item[0]))
                samples.append((image, int(item[1]), len(item) > 2 and bool(item[2])))
        return samples

    def _item(self, epoch: int, index: int, final: bool) -> Any:
        chosen = self.final_set if final else self.train_set
        return chosen[(epoch, index)] if isinstance(chosen, SyntheticMixDataset) else chosen[index]


def collate(samples: list[Sample]) -> tuple[Tensor, Tensor, Tensor]:
    """Images [N, 3, H, W], labels int64 [N], is_synthetic bool [N]."""
    images, labels, synthetic = zip(*samples, strict=True)
    return torch.stack(images), torch.tensor(labels), torch.tensor(synthetic)


def square(image: Image.Image, side_px: int) -> Image.Image:
    """The shorter side to `side_px`, then the central square."""
    small = functional.resize(cast(Any, image), [side_px], antialias=True)
    return cast(Image.Image, functional.center_crop(small, [side_px]))


class SquareImages(Dataset[tuple[Image.Image, int]]):
    """Images of a manifest, decoded once and kept as uint8 squares in memory: (PIL image, label).

    Args:
        manifest: where the files lie.
        records: which images, in this order.
        side_px: the shorter side becomes this, then the central square is cut out. 3 * side_px^2 bytes each.
    """

    def __init__(self, manifest: Manifest, records: list[ImageRecord], side_px: int) -> None:
        self.classes, self.targets = list(manifest.classes), [record.label for record in records]
        self.image_ids = [record.sha256 for record in records]
        self.pixels = np.empty((len(records), side_px, side_px, 3), dtype=np.uint8)
        for row, record in zip(self.pixels, records, strict=True):
            row[:] = np.asarray(square(decode(manifest.file(record)), side_px))

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index]), self.targets[index]

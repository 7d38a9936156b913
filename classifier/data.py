"""The stream of training samples: which sample at which position, and the same pixels whoever loads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
from finegan_aug.data.wrapped import MapDataset, chain_of, is_shares, path_of, transforms_of
from finegan_aug.mixing import SyntheticMixDataset
from finegan_aug.randomness import permutation, seed_for

from .config import ClassifierConfig
from .transforms import to_tensor

Key = tuple[int, int, bool]  # epoch, index, whether synthetic images are over
Label = int | Tensor  # of an image, or its shares of the classes, float32 [C]
Sample = tuple[Tensor, Label, bool]
Batch = tuple[Tensor, Tensor, Tensor]


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

    What the data set itself draws is seeded so too: a transform of its own gives the same pixels in any worker.

    Args:
        train_set: any map data set; a `SyntheticMixDataset` is asked for the epoch of the key.
        final_set: takes its place once synthetic images are over; of the same length.
        transform: of one PIL image.
    """

    def __init__(self, train_set: MapDataset, final_set: MapDataset, transform: Transform, seed: int) -> None:
        self.train_set, self.final_set, self.transform, self.seed = train_set, final_set, transform, seed
        inner = [step for data in (train_set, final_set) for step in transforms_of(chain_of(data))]
        self._parts = [part for step in (*inner, transform) for part in parts_with_seed(step)]

    def __len__(self) -> int:
        return len(self.train_set)

    def __getitem__(self, key: Key) -> Sample:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Iterable[Key]) -> list[Sample]:
        """What a loader asks for: a batch at once, so that the global generators are put aside once.

        Each key is taken when its sample begins.
        """
        samples = []
        with preserved_generators():
            for key in keys:
                image, label, synthetic = self._seeded_item(*key)
                image = to_tensor(apply_transform(self.transform, image))
                samples.append((image, label, synthetic))
        return samples

    def _seeded_item(self, epoch: int, index: int, final: bool) -> tuple[Any, Label, bool]:
        """The item, and the generators seeded for what comes after it."""
        chosen, seed = self.final_set if final else self.train_set, seed_for(self.seed, "augment", epoch, index)
        if isinstance(chosen, SyntheticMixDataset):  # seeds its own draws
            item = chosen[(epoch, index)]
            seed_generators(seed, self._parts)
        else:
            seed_generators(seed, self._parts)
            item = chosen[index]
        label = item[1] if is_shares(item[1]) else int(item[1])
        return item[0], label, len(item) > 2 and bool(item[2])

    def name(self, key: Key) -> str:
        """A sample in words: `sample 3 of epoch 0 (robin/17.png)`, with its file where the data set names one."""
        epoch, index, final = key
        chosen = self.final_set if final else self.train_set
        mixed = isinstance(chosen, SyntheticMixDataset)
        file = cast(Any, chosen).samples[(epoch, index)][0] if mixed else path_of(chosen, index)
        return f"sample {index} of epoch {epoch}" + (f" ({file})" if file else "")


def collate(samples: list[Sample]) -> Batch:
    """Images [N, 3, H, W], labels int64 [N] or shares float32 [N, C], is_synthetic bool [N]."""
    images, labels, synthetic = zip(*samples, strict=True)
    targets = torch.stack(labels) if isinstance(labels[0], Tensor) else torch.tensor(labels)
    return torch.stack(images), targets, torch.tensor(synthetic)


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
        self.samples = [(str(manifest.file(record)), record.label) for record in records]
        self.image_ids = [record.sha256 for record in records]
        self.pixels = np.empty((len(records), side_px, side_px, 3), dtype=np.uint8)
        for row, (path, _) in zip(self.pixels, self.samples, strict=True):
            row[:] = np.asarray(square(decode(path), side_px))

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index]), self.targets[index]

"""The images of a synthetic set batch by batch, and what a teacher says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from finegan_aug.arrays import Shares
from finegan_aug.errors import DataError
from finegan_aug.synthetic_index import SyntheticIndex, open_index

TensorFunction = Callable[[Tensor], Tensor]
Entries = npt.NDArray[np.int64]


class SetReader:
    """Images of a set as uint8 [N, 3, S, S], batch by batch."""

    def __init__(self, index: SyntheticIndex, size_px: int, batch_size: int) -> None:
        self.index, self._size_px, self._batch_size = index, size_px, batch_size

    def batches(self, entries: Entries) -> Iterator[tuple[Entries, Tensor]]:
        """The entries of a batch and its images."""
        for start in range(0, len(entries), self._batch_size):
            chosen = entries[start : start + self._batch_size]
            pixels = np.stack([self._pixels(int(entry)) for entry in chosen])
            yield chosen, torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    def _pixels(self, entry: int) -> npt.NDArray[np.uint8]:
        image, size = self.index.image(entry), (self._size_px, self._size_px)
        return np.asarray(image if image.size == size else image.resize(size, Image.Resampling.BICUBIC))


@torch.no_grad()
def answers(
    teacher: TensorFunction, read: SetReader, entries: Entries, classes: int
) -> Iterator[tuple[Entries, Tensor]]:
    """Entries of a batch and the teacher's logits, float64 [n, C], checked."""
    for chosen, images in read.batches(entries):
        logits = teacher(images).detach().double().cpu()
        if logits.shape != (len(images), classes) or not bool(logits.isfinite().all()):
            raise DataError(
                f"the teacher must give finite logits of shape {[len(images), classes]}, found {list(logits.shape)}",
                "train the teacher on the classes of the synthetic set",
            )
        yield chosen, logits


def teacher_shares(out_dir: Path, teacher: TensorFunction, num_classes: int) -> Shares:
    """A teacher's probabilities for every image of a set, float32 [N, C] in the order of its manifest.

    Raises:
        DataError: as in `filter_synthetic`.
    """
    index = open_index(out_dir)
    read = SetReader(index, index.side_px(), 128)
    logits = [found for _, found in answers(teacher, read, np.arange(len(index)), num_classes)]
    return torch.cat(logits).softmax(1).float().numpy()

"""What a map data set of (image, label) says about itself, through any number of wrappers.

Understood: torchvision's data sets, `Subset` (also of a Subset), `ConcatDataset`, timm's `ImageDataset`, and any
object with the same attributes: `.targets` or `.samples`, `.classes` or `.class_to_idx`, `.transform`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from finegan_aug.errors import DataError

Labels = npt.NDArray[np.int64]


class MapDataset(Protocol):
    """A data set with a length whose items are (image, label, ...)."""

    def __len__(self) -> int:
        """Number of items."""

    def __getitem__(self, index: int, /) -> Any:
        """(image, label, ...)."""


def labels_of(dataset: Any) -> Labels:
    """Label of every item, int64 [N], before any target transform, without reading an image.

    Raises:
        DataError: neither labels nor samples can be found.
    """
    for name in ("targets", "labels", "_labels"):
        found = getattr(dataset, name, None)
        if found is not None and not callable(found):
            with contextlib.suppress(TypeError, ValueError):  # names of the classes, say
                return np.asarray(found, dtype=np.int64)
    for name in ("samples", "_samples"):
        found = getattr(dataset, name, None)
        if found is not None:
            return np.array([sample[1] for sample in found], dtype=np.int64)
    if hasattr(dataset, "datasets"):
        return np.concatenate([labels_of(part) for part in dataset.datasets])
    for name in ("dataset", "reader"):
        inner = getattr(dataset, name, None)
        if inner is not None:
            indices = getattr(dataset, "indices", None)
            return labels_of(inner) if indices is None else labels_of(inner)[np.asarray(indices, dtype=np.int64)]
    raise DataError(
        f"the labels of a data set must be reachable as .targets or .samples, found neither in {_kind(dataset)}",
        "give it an attribute `targets` with the class index of every item",
    )


def classes_of(dataset: Any) -> tuple[str, ...] | None:
    """Class names in the order of their labels, or None where nothing names them.

    Raises:
        DataError: the parts of a `ConcatDataset` name other classes, so that one label means two of them, or have other
            target transforms.
    """
    found = getattr(dataset, "classes", None)
    if isinstance(found, list | tuple):
        return tuple(map(str, found))
    numbers = getattr(dataset, "class_to_idx", None)
    if isinstance(numbers, dict):
        return tuple(sorted(numbers, key=numbers.__getitem__))
    if parts := getattr(dataset, "datasets", None):
        named = [names for names in map(classes_of, parts) if names is not None]
        if odd := [names for names in named if names != named[0]]:
            raise DataError(
                f"all parts of a {_kind(dataset)} must have the same classes, found {list(named[0])} and "
                f"{list(odd[0])}",
                "give every part a folder for each class, an empty one where it has no image",
            )
        if len({transforms_of(chain_of(part), "target_transform") for part in parts}) > 1:
            raise DataError(
                f"all parts of a {_kind(dataset)} must have one target_transform, found several",
                "give it to the mix as target_transform=",
            )
        return named[0] if named else None
    inner = _inner(dataset)
    return None if inner is None else classes_of(inner)


def is_shares(label: Any) -> bool:
    """Whether a label is a tensor of shares of the classes, float [C], rather than the number of one."""
    return isinstance(label, Tensor) and label.is_floating_point() and label.ndim == 1


def is_number(label: Any) -> bool:
    """Whether a label is a whole number in a tensor of no dimension."""
    return isinstance(label, Tensor) and label.ndim == 0 and not label.is_floating_point()


def path_of(dataset: Any, index: int) -> str | None:
    """File of an item, or None where the data set does not say."""
    samples = getattr(dataset, "samples", None)
    if samples is not None:
        return str(samples[index][0])
    if hasattr(dataset, "datasets"):
        part = int(np.searchsorted(dataset.cumulative_sizes, index, side="right"))
        return path_of(dataset.datasets[part], index - (dataset.cumulative_sizes[part - 1] if part else 0))
    inner, indices = _inner(dataset), getattr(dataset, "indices", None)
    return None if inner is None else path_of(inner, index if indices is None else int(indices[index]))


def chain_of(dataset: Any) -> tuple[Any, ...]:
    """The data set and those inside it that yield its items, innermost first."""
    inner = _inner(dataset)
    return (dataset,) if inner is None else (*chain_of(inner), dataset)


def all_inside(dataset: Any) -> tuple[Any, ...]:
    """The data set and every one inside it, all parts of a `ConcatDataset` among them."""
    inner = _inner(dataset)
    parts = getattr(dataset, "datasets", None) or ([] if inner is None else [inner])
    return (*(found for part in parts for found in all_inside(part)), dataset)


def transforms_of(chain: tuple[Any, ...], name: str = "transform") -> tuple[Callable[..., object], ...]:
    """What these data sets do to an image, in this order; `name` may be "target_transform"."""
    found = [getattr(dataset, name, None) for dataset in chain]
    return tuple(step for step in found if step is not None)


def is_library_made(dataset: Any) -> bool:
    """Whether the data set and all inside it are classes of torchvision, timm or torch: their loading draws nothing."""
    return all(type(part).__module__.split(".")[0] in ("torchvision", "timm", "torch") for part in all_inside(dataset))


def _inner(dataset: Any) -> Any:
    if getattr(dataset, "datasets", None):
        return dataset.datasets[0]
    inner = getattr(dataset, "dataset", None)
    return getattr(dataset, "reader", None) if inner is None else inner


def _kind(dataset: object) -> str:
    return type(dataset).__name__

"""The same random transform for the same sample: torchvision, timm and albumentations, seeded one sample at a time.

torchvision and timm draw from the global generators of Python, numpy and torch; these are seeded before the sample
and put back after it. Albumentations owns its generators, which repeat themselves in workers: its
`set_random_seed` is called for every sample.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.random import mtrand
from PIL import Image

# No `Callable[[Image.Image], object]` alone: albumentations is called by keyword and answers with a dictionary.
Transform = Callable[..., object]


@runtime_checkable
class HasSeed(Protocol):
    """A transform that keeps its own generators, as those of albumentations do."""

    def set_random_seed(self, seed: int) -> None:
        """Start its draws anew."""


class preserved_generators:  # noqa: N801  (a context manager, used like a function)
    """Within it, `seed_generators` may be called any number of times; after it, the global generators are as before.

    numpy's generator is swapped for one of our own, because copying its state takes as long as cropping a small
    image. This loses one thing: the spare number that a call of `numpy.random.normal` may have put aside.

    Args:
        torch_alone: leave Python's and numpy's generators out, because nothing inside will read them.
    """

    __slots__ = ("_numpy", "_python", "_torch", "_torch_alone")

    def __init__(self, *, torch_alone: bool = False) -> None:
        self._torch_alone = torch_alone

    def __enter__(self) -> None:
        self._torch = torch.default_generator.get_state()
        if not self._torch_alone:
            self._python = random.getstate()
            self._numpy = mtrand.get_bit_generator()
            mtrand.set_bit_generator(_OWN)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        torch.default_generator.set_state(self._torch)
        if not self._torch_alone:
            mtrand.set_bit_generator(self._numpy)
            random.setstate(self._python)


_OWN = np.random.MT19937(0)


def seed_generators(seed: int, parts: Iterable[HasSeed] = (), *, torch_alone: bool = False) -> None:
    """Let every draw from a global CPU generator of Python, numpy and torch, and from `parts`, follow from `seed`.

    Args:
        seed: 63 bits, from `randomness.seed_for`.
        parts: from `parts_with_seed`.
        torch_alone: as in `preserved_generators`, and only where that has it.
    """
    torch.default_generator.manual_seed(seed)  # torch.manual_seed also looks for devices: 200 times slower
    if not torch_alone:
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002  (the generator that transforms read)
    for part in parts:
        part.set_random_seed(seed & 0xFFFFFFFF)


def draws_from_torch_alone(transform: object) -> bool:
    """Whether a transform consists of those of torchvision.transforms.v2, which read no generator but torch's.

    Four fifths of the cost of seeding go into Python's and numpy's generators.
    """
    kind = type(transform)
    own = kind.__module__.startswith("torchvision.transforms.v2.") and kind.__name__ != "Lambda"
    return own and all(draws_from_torch_alone(member) for member in getattr(transform, "transforms", ()))


def parts_with_seed(transform: Transform | None) -> tuple[HasSeed, ...]:
    """The parts of a transform that must be seeded by `set_random_seed`: itself, or members of its `.transforms`."""
    if isinstance(transform, HasSeed):
        return (transform,)
    members = getattr(transform, "transforms", None)
    if not isinstance(members, list | tuple):
        return ()
    return tuple(part for member in members for part in parts_with_seed(member))


def apply_transform(transform: Transform, image: Image.Image) -> object:
    """The transformed image, whatever kind of transform it is: see `of_image`."""
    return of_image(transform)(image)


def of_image(transform: Transform) -> Transform:
    """The transform as a function of a PIL image; one of albumentations gets uint8 [H, W, 3] by keyword."""
    if not any(kind.__module__.split(".")[0] == "albumentations" for kind in type(transform).__mro__):
        return transform

    def from_array(image: Image.Image) -> object:
        answer = transform(image=np.asarray(image))
        assert isinstance(answer, dict)
        return answer["image"]

    return from_array

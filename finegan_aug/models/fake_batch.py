"""One forward of the generator, as both players see it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from finegan_aug.models.finegan import Stages


class Freed(NamedTuple):
    """Images [M, 3, S, S] of child codes under any parent, int64 [M]."""

    images: Tensor
    parent: Tensor


class FakeBatch(NamedTuple):
    """The stages, the codes and the augmentation draws.

    `freed`: some of the images once more, each with any parent; nothing says real or fake of them.
    """

    stages: Stages
    child: Tensor
    parent: Tensor
    draws: Tensor
    freed: Freed | None = None

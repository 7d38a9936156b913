"""Images of a generator, drawn to be measured."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from torch import Tensor

from finegan_aug.codes import deal_codes
from finegan_aug.config import FineGANConfig
from finegan_aug.data.outside import shown
from finegan_aug.errors import DataError
from finegan_aug.figures import BLOCK, draw
from finegan_aug.grids import to_uint8
from finegan_aug.models.finegan import Generator
from finegan_aug.randomness import normals, seed_for
from finegan_aug.synthetic import SyntheticRow

IMAGE_OF_CODE = "image_of_code"  # among the scores of a row: number of a named image in the set of codes


def sample(generator: Generator, config: FineGANConfig, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """At least `count` images uint8 [N, 3, S, S] with child and parent codes int64 [N]; every child code equally often.

    Codes are tied as in training. Blocks are always full, so that image n does not depend on `count`.
    """
    children = generator.child.joint.num_codes
    wanted = -(-count // children) * children
    drawn = -(-wanted // BLOCK) * BLOCK
    z = torch.from_numpy(normals(seed_for(seed, "z"), range(drawn), config.z_dim)).float()
    child = deal_codes(seed, 0, drawn, children)
    images = to_uint8(draw(generator, z, child).child)
    return images[:wanted], child[:wanted], generator.child_to_parent[child[:wanted]]


def redraw(generator: Generator, config: FineGANConfig, rows: Sequence[SyntheticRow]) -> Tensor:
    """The images of a set in the crop view, uint8 [N, 3, S, S], from the noise and codes that its rows name.

    A set may show objects as they lie in photographs; a judge of crops needs them as they were drawn.

    Raises:
        DataError: a row names no code, or one that the generator does not have.
    """
    drawn = [_drawn_as(row) for row in rows]
    noise = [
        normals(seed_for(row.seed or 0, "sample", label), [number], config.z_dim)
        for row, (label, number) in zip(rows, drawn, strict=True)
    ]
    z = torch.cat([torch.from_numpy(n) for n in noise]).float()
    children, parents = generator.child.joint.num_codes, generator.parent.joint.num_codes
    kinds = {"child": children, "parent": parents, "background": children}
    codes = (torch.tensor([_code(row, name, count) for row in rows]) for name, count in kinds.items())
    return to_uint8(draw(generator, z, *codes).child)


def _drawn_as(row: SyntheticRow) -> tuple[int, int]:
    """Label and number that an image was drawn under; where a teacher named it, those in the set of codes."""
    number = row.scores.get(IMAGE_OF_CODE)
    if number is None or row.child is None:
        return row.label, row.image
    if number != int(number) or not 0 <= number < 2**53:
        cause = f"{IMAGE_OF_CODE} of {shown(row.file)} in the set's manifest must be a whole number from 0"
        raise DataError(f"{cause}, found {number}", "name the set anew")
    return row.child, int(number)


def _code(row: SyntheticRow, name: str, count: int) -> int:
    code: int | None = getattr(row, name)
    if code is None or not 0 <= code < count:
        cause = f"{name} of {shown(row.file)} in the set's manifest must be a code from 0 to {count - 1}"
        raise DataError(f"{cause}, found {json.dumps(code)}", "synthesize the set anew")
    return code

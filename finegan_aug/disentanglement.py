"""Does a code change what it is meant to change, and nothing else? Measured on pairs that differ in one code.

FineGAN (Singh, Ojha, Lee, CVPR 2019, arXiv 1811.11155) means the parent code to be the shape, the child code the
appearance and the background code what lies outside; the paper shows pictures. Here the generator's own masks say where
a pair differs, and a judge names what is seen. That takes a data set each of whose classes is one shape with one
appearance, and no two the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from finegan_aug.errors import ConfigError
from finegan_aug.evaluation import wilson_interval
from finegan_aug.files import JSON
from finegan_aug.grids import to_uint8
from finegan_aug.models.finegan import Stages
from finegan_aug.randomness import normals, seed_for, uniforms

Code = Literal["child", "parent", "background"]
CODES: tuple[Code, ...] = ("child", "parent", "background")
Draw = Callable[[Tensor, Tensor, Tensor, Tensor], Stages]  # z, child, parent, background, as of the generator
Judge = Callable[[Tensor], Tensor]  # images uint8 [N, 3, S, S] to logits [N, num_classes]


@dataclass(frozen=True, eq=False)
class Meaning:
    """What the codes stand for; all int64.

    Raises:
        ConfigError: the children of one parent are of several shapes.
    """

    child_to_parent: Tensor  # [num_children]
    child_to_class: Tensor  # [num_children], every child has one
    class_to_shape: Tensor  # [num_classes]
    class_to_appearance: Tensor  # [num_classes]

    def __post_init__(self) -> None:
        shapes = self.class_to_shape[self.child_to_class]
        if not torch.equal(self.parent_to_shape[self.child_to_parent], shapes):
            raise ConfigError(
                f"all children of a parent must be of one shape, found parents {self.child_to_parent.tolist()} of "
                f"shapes {shapes.tolist()}",
                "train with one parent code for each shape",
            )

    @cached_property
    def parent_to_shape(self) -> Tensor:
        """int64 [num_parents], -1 for a parent without children."""
        shape = torch.full((int(self.child_to_parent.max()) + 1,), -1)
        shape[self.child_to_parent] = self.class_to_shape[self.child_to_class]
        return shape


class Codes(NamedTuple):
    """Codes of N images, int64 [N] each."""

    child: Tensor
    parent: Tensor
    background: Tensor


@dataclass(frozen=True, eq=False)
class Pairs:
    """N pairs of images of the same noise whose codes differ in one place."""

    z: Tensor  # float32 [N, z_dim]
    first: Codes  # tied as in training
    second: Codes


def draw_pairs(changed: Code, count: int, meaning: Meaning, *, z_dim: int, seed: int) -> Pairs:
    """Pairs that differ in the code `changed`; pair i depends on (seed, i) alone, its first image not on `changed`.

    The first image has a uniformly drawn child code, its parent, and the same code as background. The second has
    another child code of the same parent but another class, or another parent, or any other background code.

    Raises:
        ConfigError: for some child there is no such other code.
    """
    z = torch.from_numpy(normals(seed_for(seed, "disentanglement/noise"), range(count), z_dim)).float()
    u = torch.from_numpy(uniforms(seed_for(seed, "disentanglement/codes"), range(count), 2))
    to_parent, to_class = meaning.child_to_parent, meaning.child_to_class
    child = (u[:, 0] * len(to_parent)).long()
    first = Codes(child, to_parent[child], child)
    if changed == "child":
        allowed = (to_parent == first.parent[:, None]) & (to_class != to_class[child][:, None])
        second = first._replace(child=_choose(changed, allowed, u[:, 1]))
    elif changed == "parent":
        parents = torch.arange(len(meaning.parent_to_shape))
        allowed = (parents != first.parent[:, None]) & (meaning.parent_to_shape >= 0)
        second = first._replace(parent=_choose(changed, allowed, u[:, 1]))
    else:
        allowed = torch.arange(len(to_parent)) != child[:, None]
        second = first._replace(background=_choose(changed, allowed, u[:, 1]))
    return Pairs(z, first, second)


def _choose(changed: Code, allowed: Tensor, u: Tensor) -> Tensor:
    """One of the codes allowed in each row of bool [N, K], each equally likely; u in [0, 1), float [N]."""
    counts = allowed.sum(dim=1)
    if not bool((counts > 0).all()):
        raise ConfigError(
            f"every image needs another {changed} code to change to, found none for some",
            "train with more classes for each parent, and more than one parent",
        )
    number = (u * counts).long() + 1
    return ((allowed.cumsum(dim=1) == number[:, None]) & allowed).long().argmax(dim=1)


@torch.no_grad()
def measure_pairs(draw: Draw, pairs: Pairs, judge: Judge, meaning: Meaning) -> dict[str, Tensor]:
    """What differs within each pair, one value for each; a mask is where it exceeds 0.5.

    Returns:
        - child_mask_iou, object_mask_iou: intersection over union of the two images' masks, float64 [N]; the object is
          where the parent or the child stage covers the background. 0 if neither image has a mask.
        - difference_outside, difference_inside: mean absolute difference of the images in [0, 1] over the pixels
          outside both objects, and inside both, float64 [N]; NaN where there are none.
        - shape_changed, appearance_changed, class_changed: the judge sees another one in the second image, bool [N].
        - shape_as_intended, appearance_as_intended, class_as_intended: it sees in both images what their codes stand
          for, the parent for the shape and the child for the appearance, bool [N].
    """
    images = [draw(pairs.z, *codes) for codes in (pairs.first, pairs.second)]
    child_masks = [stages.child_mask > 0.5 for stages in images]
    objects = [1 - (1 - stages.parent_mask) * (1 - stages.child_mask) > 0.5 for stages in images]
    difference = (images[0].child.double() - images[1].child.double()).abs().mean(dim=1, keepdim=True) / 2
    values = {
        "child_mask_iou": overlap(*child_masks),
        "object_mask_iou": overlap(*objects),
        "difference_outside": _mean_within(difference, ~(objects[0] | objects[1])),
        "difference_inside": _mean_within(difference, objects[0] & objects[1]),
    }
    named = [judge(to_uint8(stages.child)).argmax(dim=1) for stages in images]
    shapes = [meaning.class_to_shape[label] for label in named]
    appearances = [meaning.class_to_appearance[label] for label in named]
    intended_shapes = [meaning.parent_to_shape[codes.parent] for codes in (pairs.first, pairs.second)]
    intended_appearances = [
        meaning.class_to_appearance[meaning.child_to_class[codes.child]] for codes in (pairs.first, pairs.second)
    ]
    for name, seen, intended in (
        ("shape", shapes, intended_shapes),
        ("appearance", appearances, intended_appearances),
    ):
        values[f"{name}_changed"] = seen[0] != seen[1]
        values[f"{name}_as_intended"] = (seen[0] == intended[0]) & (seen[1] == intended[1])
    values["class_changed"] = values["shape_changed"] | values["appearance_changed"]
    values["class_as_intended"] = values["shape_as_intended"] & values["appearance_as_intended"]
    return values


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of masks bool [N, 1, S, S], float64 [N]; 0 where both are empty."""
    both, either = (first & second).sum(dim=(1, 2, 3)), (first | second).sum(dim=(1, 2, 3))
    return both.double() / either.clamp(min=1)


def _mean_within(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values [N, 1, S, S] where the mask is set, float64 [N]; NaN where it is empty."""
    return (values * mask).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3))


def summary(changed: Code, values: dict[str, Tensor]) -> list[JSON]:
    """A row for each measure: its mean over the pairs and a 95 % interval of that mean.

    The interval is Wilson's for shares, otherwise the mean plus and minus 1.96 standard errors. `pairs` counts the
    pairs that have a value; without any, mean and interval are None.
    """
    rows: list[JSON] = []
    for measure, found in values.items():
        known = found.double()[~found.double().isnan()]
        mean, interval = None, None
        if len(known) > 0:
            mean = float(known.mean())
            error = float(known.std(correction=0)) / len(known) ** 0.5
            is_share = found.dtype == torch.bool
            bounds = wilson_interval(mean, len(known)) if is_share else (mean - 1.96 * error, mean + 1.96 * error)
            interval = list(bounds)
        rows.append({"changed": changed, "measure": measure, "mean": mean, "interval": interval, "pairs": len(known)})
    return rows

"""The figures of the paper from a trained run: stages, code tables and swaps, each one PNG; and a walk as GIF.

FineGAN (Singh, Ojha, Lee, CVPR 2019, arXiv 1811.11155). All pictures come from the averaged generator in eval mode;
codes that training ties together are chosen freely where the figure says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from finegan_aug.grids import mask_picture, save_grid, to_uint8
from finegan_aug.models.finegan import Generator, Stages
from finegan_aug.randomness import normals, seed_for
from finegan_aug.trained import open_run
from finegan_aug.traversal import closed_walk, save_gif, side_by_side

BLOCK = 32  # images drawn at once
ROWS = 8
MOST_CODES = 12  # of the codes, when there are more, this many are shown, evenly spread
PAIRS = 24
FAILURES = 8  # of each class
GROUPS = 4  # parents shown, each with several of its children
CHILDREN_OF_GROUP = 3
STOPS = 3  # noises that the walk leads through
TURNS = 4  # children that each object shows there


def write_figures(run_dir: str | Path, out_dir: str | Path | None = None, *, seed: int = 0) -> list[Path]:
    """Draws the figures of a run; the same run and seed give the same files.

    - stages.png: a row for each image; columns background, parent mask, parent, child mask, child.
    - p_c_z.png: rows are child codes, three of each of four parents; columns are noises; one background code.
    - c_by_p.png: appearance stays along a row (child code), shape along a column (parent code); one noise, one
      background.
    - foreground_swap.png: a row for each background; the first column shows it as trained, in the others parent and
      child code are those of other objects.
    - background_swap.png, shape_swap.png, appearance_swap.png: a row for each object; the first column shows it as
      trained, in the others only the background, the parent or the child code changes.
    - traversal.gif: objects side by side, one of each parent; at each of three noises they go through their parent's
      children, then all move to the next noise.

    Args:
        run_dir: a training run with a checkpoint.
        out_dir: default run_dir/figures.
        seed: another seed gives other noise.

    Raises:
        CheckpointError: the run has no checkpoint, or none that verifies.
    """
    run_dir = Path(run_dir)
    out_dir = run_dir / "figures" if out_dir is None else Path(out_dir)
    run = open_run(run_dir)
    config, generator = run.config, run.generator
    noise = torch.from_numpy(normals(seed_for(seed, "figures"), range(MOST_CODES), config.z_dim)).float()
    children, parents = evenly_spread(config.num_children or 1), evenly_spread(config.num_parents or 1)
    # One object a row: codes spread over all children, each with its own noise.
    objects = evenly_spread(config.num_children or 1, ROWS)
    own_noise = noise[: len(objects)]

    others = children[: MOST_CODES - 1]
    parents_of_others = generator.child_to_parent[others]
    sheets = {
        "stages": (_stages(draw(generator, own_noise, objects)), 5),
        "p_c_z": _by_noise(generator, noise[:ROWS]),
        "c_by_p": _children_by_parents(generator, noise[0], children, parents),
        "foreground_swap": _swap(generator, own_noise, objects, {"child": others, "parent": parents_of_others}),
        "background_swap": _swap(generator, own_noise, objects, {"background": others}),
        "shape_swap": _swap(generator, own_noise, objects, {"parent": parents[: MOST_CODES - 1]}),
        "appearance_swap": _swap(generator, own_noise, objects, {"child": others}),
    }
    for name, (images, columns) in sheets.items():
        save_grid(out_dir / f"{name}.png", images, columns)
    _write_traversal(out_dir / "traversal.gif", generator, noise[:STOPS])
    return [*(out_dir / f"{name}.png" for name in sheets), out_dir / "traversal.gif"]


def write_nearest(path: Path, *, real: Tensor, fake: Tensor, features_fn: Callable[[Tensor], Tensor]) -> None:
    """The generated images that come closest to a photograph, each with that photograph to its right, closest first.

    Args:
        path: named nearest*, since it shows photographs.
        real, fake: uint8 [N, 3, S, S] and [M, 3, S, S].
        features_fn: images to float [N, D]; distances are Euclidean in them.
    """
    distance, nearest = torch.cdist(features_fn(fake).double(), features_fn(real).double()).min(dim=1)
    closest = distance.argsort(stable=True)[:PAIRS]
    save_grid(path, torch.stack([fake[closest], real[nearest[closest]]], dim=1).flatten(0, 1), columns=8)


def write_failures(path: Path, *, images: Tensor, intended: Tensor, answers: Tensor, num_classes: int) -> None:
    """A row for each class: the first generated images that a judge takes for another class; white where it is right.

    Args:
        images: uint8 [N, 3, S, S].
        intended, answers: int64 [N], the class each was made for, and the one that the judge sees.
    """
    sheet = images.new_full((num_classes, FAILURES, *images.shape[1:]), 255)
    for label in range(num_classes):
        wrong = images[(intended == label) & (answers != label)][:FAILURES]
        sheet[label, : len(wrong)] = wrong
    save_grid(path, sheet.flatten(0, 1), FAILURES)


def evenly_spread(count: int, most: int = MOST_CODES) -> Tensor:
    """At most `most` of the codes 0 ... count - 1, int64, first and last among them."""
    return torch.linspace(0, count - 1, min(count, most)).round().long()


@torch.no_grad()
def draw(
    generator: Generator, z: Tensor, child: Tensor, parent: Tensor | None = None, background: Tensor | None = None
) -> Stages:
    """All stages of N images, drawn in blocks; arguments as of the generator."""
    parent = generator.child_to_parent[child] if parent is None else parent
    background = child if background is None else background
    blocks = zip(*(torch.split(t, BLOCK) for t in (z, child, parent, background)), strict=True)
    drawn = [generator(*block) for block in blocks]
    # background_126 of preset classic is no figure
    return Stages(*(torch.cat(parts) for parts in zip(*(stages[:7] for stages in drawn), strict=True)))


def _stages(stages: Stages) -> Tensor:
    columns = (
        stages.background,
        mask_picture(stages.parent_mask),
        stages.parent,
        mask_picture(stages.child_mask),
        stages.child,
    )
    return to_uint8(torch.stack(columns, dim=1).flatten(0, 1))


def _by_noise(generator: Generator, noise: Tensor) -> tuple[Tensor, int]:
    columns = len(noise)
    families = _families(generator)
    child = torch.cat([family[evenly_spread(len(family), CHILDREN_OF_GROUP)] for family in families])
    child = child.repeat_interleave(columns)
    backdrop = torch.zeros_like(child)
    return to_uint8(draw(generator, noise.repeat(len(child) // columns, 1), child, background=backdrop).child), columns


def _families(generator: Generator) -> list[Tensor]:
    """The child codes, int64, of each of the parents shown together."""
    to_parent = generator.child_to_parent
    with_children = torch.unique(to_parent)
    return [(to_parent == p).nonzero()[:, 0] for p in with_children[evenly_spread(len(with_children), GROUPS)]]


def _children_by_parents(generator: Generator, z: Tensor, children: Tensor, parents: Tensor) -> tuple[Tensor, int]:
    rows, columns = len(children), len(parents)
    child, parent = children.repeat_interleave(columns), parents.repeat(rows)
    backdrop = children[:1].expand(rows * columns)
    return to_uint8(draw(generator, z.expand(rows * columns, -1), child, parent, backdrop).child), columns


def _swap(generator: Generator, noise: Tensor, objects: Tensor, varied: Mapping[str, Tensor]) -> tuple[Tensor, int]:
    """A row for each object: as trained, then with each of the given child, parent or background codes."""
    rows, columns = len(objects), len(next(iter(varied.values()))) + 1
    codes = {"child": objects, "parent": generator.child_to_parent[objects], "background": objects}
    table = {name: code[:, None].repeat(1, columns) for name, code in codes.items()}
    for name, values in varied.items():
        table[name][:, 1:] = values
    flat = (table[name].flatten() for name in ("child", "parent", "background"))
    images = draw(generator, noise.repeat_interleave(columns, dim=0), *flat).child
    assert len(images) == rows * columns, images.shape
    return to_uint8(images), columns


def _write_traversal(path: Path, generator: Generator, noise: Tensor) -> None:
    families = _families(generator)
    turns = min(TURNS, max(len(family) for family in families))
    shown = [family[evenly_spread(len(family), turns)] for family in families]
    # [turns, objects]; an object with fewer children shows them again
    worn = torch.stack([codes[torch.arange(turns) % len(codes)] for codes in shown], dim=1)
    walk = closed_walk(noise, turns)
    child = worn[walk.turn]
    backdrop = worn[:1].expand_as(child)
    z = walk.z.repeat_interleave(child.shape[1], dim=0)
    images = to_uint8(draw(generator, z, child.flatten(), background=backdrop.flatten()).child)
    save_gif(path, side_by_side(images.reshape(*child.shape, *images.shape[1:])), walk.milliseconds)

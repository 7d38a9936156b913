"""Where each arm takes its other images from: the synthetic sets, or a pool made of them once for each budget.

A pool is a folder in the format of a synthetic set, pools/ARM-BUDGET of the experiment; its manifest is written last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

from classifier.config import ClassifierConfig
from classifier.data import SquareImages, square
from finegan_aug.arrays import read_shares, write_array
from finegan_aug.config import FineGANConfig
from finegan_aug.data.manifest import Manifest, read_manifest
from finegan_aug.data.objects import read_mask
from finegan_aug.errors import ConfigError, DataError
from finegan_aug.files import link_file, read_json, write_bytes
from finegan_aug.grids import to_uint8
from finegan_aug.lineage import LINEAGE
from finegan_aug.models.finegan import Generator
from finegan_aug.randomness import normals, permutation, seed_for, uniforms
from finegan_aug.synthesis import load_generator
from finegan_aug.synthetic import MANIFEST, Header, read_rows, write_images, write_manifest
from finegan_aug.synthetic_index import SOFT_LABELS, ClassPools, open_index
from finegan_aug.trained import read_run_config
from finegan_aug.typed import read_field
from recipes.arms import Cell, budget_images, square_px
from recipes.distilled import ANSWERS, Distilled, write_answers
from recipes.sets import PHOTOGRAPHS, generator_folder, read_generator
from recipes.workers import each

if TYPE_CHECKING:
    from recipes.ablation import AblationOptions
    from recipes.sets import Prepare

OF_A_GENERATOR = ("D2", "R5", "D5", "S1", "S3", "S4", "C0", "P0")  # arms that need one
KIND = {"S1": "all", "S3": "filtered", "C0": "filtered"}  # arms that take a synthetic set as it is
BLOCK = 32  # backgrounds drawn at once; the number of the image alone decides its pixels

Pixels = npt.NDArray[np.uint8]


def with_pools(
    options: AblationOptions, config: ClassifierConfig, cells: Sequence[Cell], prepare: Prepare
) -> list[Cell]:
    """The cells with their pools: generators and their sets first, `options.jobs` at once, then what is made of them.

    Raises:
        FineGANAugError: of `prepare` and `pool_of`.
    """
    if options.sets_from is None:
        needed = {cell.budget: cell for cell in cells if cell.arm in OF_A_GENERATOR}
        tasks = [
            (_budget(options, cell), cell.fraction, cell.draw, options.out / "synthetic" / name)
            for name, cell in needed.items()
        ]
        for _ in each(prepare, tasks, options.jobs):
            pass
    pools: dict[tuple[str, str], Path | None] = {}
    for cell in cells:
        if (cell.budget, cell.arm) not in pools:
            pools[cell.budget, cell.arm] = pool_of(options, config, cell, _budget(options, cell))
    return [replace(cell, pool=pools[cell.budget, cell.arm]) for cell in cells]


def _budget(options: AblationOptions, cell: Cell) -> Manifest:
    return read_manifest(options.out / "budgets" / f"{cell.budget}.jsonl")


def pool_of(options: AblationOptions, config: ClassifierConfig, cell: Cell, manifest: Manifest) -> Path | None:
    """Folder that the arm takes images from, made if it is not there; None where there is nothing to take.

    Raises:
        ConfigError: R5 without the labels of a teacher.
        DataError: C0 with a class that has no synthetic image, or labels that do not fit the budget.
    """
    sets, folder = options.sets / "synthetic" / cell.budget, options.out / "pools" / f"{cell.arm}-{cell.budget}"
    if cell.arm in KIND:
        if cell.arm == "C0":
            _check_every_class(sets / KIND["C0"], manifest)
        return sets / KIND[cell.arm]
    if cell.arm in ("R1", "R2"):
        return None
    if (folder / (ANSWERS if cell.arm == "D2" else MANIFEST)).exists():
        return folder
    run_dir, side_px = generator_folder(options.sets, cell.budget), square_px(config.resolution)
    if cell.arm == "D2":
        seed, kimg = seed_for(config.seed, "fold", cell.draw), options.teacher_kimg
        generator = read_generator(options.generator)
        return write_answers(folder, sets / "all", manifest, generator, teacher_kimg=kimg, seed=seed)
    if cell.arm == "D5":
        halves = pool_of(options, config, replace(cell, arm="D2"), manifest)
        assert halves is not None
        _, known = budget_images(options.out, cell, ("train", "val"), config.resolution)
        return _all_photographs(folder, Distilled(known, halves), sets / PHOTOGRAPHS, manifest, side_px)
    if cell.arm == "R5":
        return _named_by_teacher(options, folder, run_dir / "labels.json", sets / PHOTOGRAPHS, manifest, side_px)
    if cell.arm == "P0":
        return _poisoned(folder, sets / "all", seed_for(config.seed, "poison", cell.draw))
    _, real = budget_images(options.out, cell, ("train", "val"), config.resolution)
    if cell.arm == "N0":
        return write_pool(folder, manifest.classes, real.pixels, real.targets)
    if (sets / "all" / LINEAGE).exists():  # what it adds are photographs of this very budget
        write_bytes(folder / LINEAGE, (sets / "all" / LINEAGE).read_bytes())
    seed = seed_for(config.seed, "pasted", cell.draw)
    return write_pool(folder, manifest.classes, *_pasted(run_dir, manifest, real, options.per_class, seed))


def write_pool(folder: Path, classes: Sequence[str], pixels: Iterable[Pixels], labels: Iterable[int]) -> Path:
    """A set in the format of synthetic ones, of images uint8 [S, S, 3] and their labels; the manifest comes last."""
    rows = write_images(folder, classes, pixels, map(int, labels))
    write_manifest(folder, Header(tuple(classes)), rows)
    return folder


def check_masks(options: AblationOptions, manifest: Manifest) -> None:
    """Refuse S4 where a training photograph has no mask.

    Raises:
        ConfigError: how many have none.
    """
    train = manifest.of("train")
    bare = sum(record.mask is None for record in train)
    if "S4" in options.arms and bare:
        raise ConfigError(
            f"S4 cuts objects out by their masks, {bare} of {len(train)} training photographs have none",
            "give --mask-folder, or leave S4 out of --arms",
        )


def _check_every_class(synthetic: Path, manifest: Manifest) -> None:
    sizes = ClassPools(open_index(synthetic), manifest.classes).sizes
    labels = {record.label for record in manifest.of("train", "val", labelled=True)}
    if empty := [manifest.classes[label] for label in sorted(labels) if not sizes[label]]:
        raise DataError(
            f"C0 trains on synthetic images alone, {synthetic} holds none of {', '.join(empty)} that was kept",
            "leave C0 out of --arms, or train the generator longer in another --out",
        )


def _named_by_teacher(
    options: AblationOptions, folder: Path, noted: Path, answers: Path, manifest: Manifest, side_px: int
) -> Path | None:
    """The photographs outside the budget under the labels of a teacher: where the generator had one, as that `noted`
    them; otherwise, and for soft labels, as the teacher of the sets `answers`.
    """
    records = manifest.of("train")
    if all(record.labelled for record in records):
        return None
    if not noted.exists() and not answers.exists():
        raise ConfigError(
            f"R5 takes its labels from the generator's teacher, found no {noted}",
            "train the generator with tied labels and a pseudo_labels confidence, or leave R5 out of --arms",
        )
    shares = None
    if options.soft_labels or not noted.exists():
        shape, everyone = (len(records), len(manifest.classes)), np.ones(len(records), dtype=bool)
        remedy = "make the sets with this version, or leave R5 out of --arms"
        shares = read_shares(answers, shape, everyone, remedy)
        least = 0.0 if options.soft_labels else read_generator(options.generator).pseudo_labels or 0.0
        labels = np.where(shares.max(axis=1) >= least, shares.argmax(axis=1), -1).tolist()
    else:
        labels = _noted_labels(noted, len(records), len(manifest.classes))
    # The photographs' own labels are not looked at.
    named = [place for place, record in enumerate(records) if not record.labelled and labels[place] >= 0]
    if not named:
        return None
    if shares is not None:
        write_array(folder / SOFT_LABELS, shares[named])
    photographs = SquareImages(manifest, [records[place] for place in named], side_px)
    return write_pool(folder, manifest.classes, photographs.pixels, [labels[place] for place in named])


def _all_photographs(folder: Path, known: Distilled, answers: Path, manifest: Manifest, side_px: int) -> Path:
    """Every photograph of the training part: those with a label as in D2, then the others under what the teacher of the
    sets says, `answers`.
    """
    records = manifest.of("train")
    shape, everyone = (len(records), len(manifest.classes)), np.ones(len(records), dtype=bool)
    shares = read_shares(answers, shape, everyone, "make the sets with this version, or leave D5 out of --arms")
    unknown = np.array([not record.labelled for record in records])
    rest = SquareImages(manifest, [record for record in records if not record.labelled], side_px)
    write_array(folder / SOFT_LABELS, np.concatenate([known.shares.numpy(), shares[unknown]]))
    labels = [*known.targets, *shares[unknown].argmax(axis=1).tolist()]
    return write_pool(folder, manifest.classes, chain(known.real.pixels, rest.pixels), labels)


def _noted_labels(path: Path, count: int, num_classes: int) -> list[int]:
    """The labels that the teacher of a generator gave the training photographs, -1 for none."""
    labels: list[int] = read_field(read_json(path), path, "labels", list[int])
    if len(labels) != count:
        raise DataError(
            f"{path} must hold a label for each of the {count} training photographs, found {len(labels)}",
            "restore the file, or train the generator anew",
        )
    if wrong := [label for label in labels if not -1 <= label < num_classes]:
        raise DataError(
            f"{path}: labels must lie from -1 to {num_classes - 1}, found {wrong[0]}",
            "restore the file, or train the generator anew",
        )
    return labels


def _poisoned(folder: Path, source: Path, seed: int) -> Path:
    """The synthetic set with its labels dealt anew over all images: as many of each class, the right one by chance."""
    header, rows = read_rows(source)
    for row in rows:
        link_file(source / row.file, folder / row.file)
    if (source / LINEAGE).exists():
        link_file(source / LINEAGE, folder / LINEAGE)
    labels = [rows[place].label for place in permutation(seed, len(rows))]
    shuffled = [
        replace(row, label=label, class_name=header.classes[label], image=number)
        for number, (row, label) in enumerate(zip(rows, labels, strict=True))
    ]
    write_manifest(folder, header, shuffled)
    return folder


def _pasted(
    run_dir: Path, manifest: Manifest, real: SquareImages, per_class: int, seed: int
) -> tuple[Iterator[Pixels], list[int]]:
    """The objects of real photographs on generated backgrounds, `per_class` of each class, and their labels.

    Image n of a class shows the object of its photograph n modulo their number. Photographs without an object in the
    square that the classifier sees are left out.
    """
    side_px, generator = real.pixels.shape[1], load_generator(run_dir)
    config = read_run_config(run_dir)
    records = manifest.of("train", "val", labelled=True)
    masks = np.stack([_square_mask(read_mask(manifest, record), side_px) for record in records])
    shown = masks.reshape(len(masks), -1).max(axis=1) > 127
    of_class = [np.flatnonzero(shown & (np.asarray(real.targets) == label)) for label in range(len(manifest.classes))]
    labels = [label for label, photographs in enumerate(of_class) if len(photographs) for _ in range(per_class)]

    def images() -> Iterator[Pixels]:
        for label, photographs in enumerate(of_class):
            if not len(photographs):
                continue
            key = seed_for(seed, "background", label)
            for number, backdrop in enumerate(_backgrounds(generator, config, side_px, per_class, key)):
                place = photographs[number % len(photographs)]
                cover = masks[place, :, :, None] / np.float32(255)
                yield np.rint(cover * real.pixels[place] + (1 - cover) * backdrop).astype(np.uint8)

    return images(), labels


def _square_mask(mask: Pixels, side_px: int) -> Pixels:
    """The square of a mask uint8 [H, W] that `SquareImages` cuts out of its photograph, uint8 [S, S]."""
    return cast(Pixels, np.asarray(square(Image.fromarray(mask), side_px)))


@torch.no_grad()
def _backgrounds(generator: Generator, config: FineGANConfig, side_px: int, count: int, seed: int) -> Iterator[Pixels]:
    """Pictures of the background stage with random code and noise, uint8 [side_px, side_px, 3]."""
    for first in range(0, count, BLOCK):
        numbers = list(range(first, first + BLOCK))
        z = torch.from_numpy(normals(seed_for(seed, "noise"), numbers, config.z_dim)).float()
        u = torch.from_numpy(uniforms(seed_for(seed, "code"), numbers, 1))[:, 0]
        code = (u * (config.num_children or 1)).long()
        backdrops = generator(z, code, background=code).background
        backdrops = F.interpolate(backdrops, side_px, mode="bilinear", align_corners=False, antialias=True)
        yield from to_uint8(backdrops).permute(0, 2, 3, 1).numpy()[: count - first]

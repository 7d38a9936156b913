"""The labelled budgets of an ablation and their synthetic sets: a generator for each, its images, those a filter keeps.

Another ablation of the same budgets may share its generators and sets (`sets_from`); they are read where they lie.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

from finegan_aug.arrays import write_array
from finegan_aug.config import FineGANConfig
from finegan_aug.data.manifest import Manifest
from finegan_aug.errors import ConfigError
from finegan_aug.files import JSON, link_file, read_json, write_json
from finegan_aug.options import Values, parse_options
from finegan_aug.typed import read_field
from finegan_aug.verbs import TrainOptions, generator_config

if TYPE_CHECKING:
    from recipes.ablation import AblationOptions
    from recipes.arms import Cell

VALIDATION_SHARE = 0.2  # of the budget, where something is chosen on it
PHOTOGRAPHS = "photographs.npy"  # of a set: what its teacher says of the training photographs, float32 [M, C]
WITHOUT_LABELS = "unlabelled"  # name of the generator that serves all budgets
# Options that older ablations do not name, and what they did.
LATER: Values = {"drop_lowest_confidence": 0.1, "drop_outliers": 0.0}
# Options that decide the sets.
OF_THE_SETS = ("generator", "generator_per_pair", "gan_data", "per_class", "teacher_kimg", *LATER)

Prepare = Callable[[Manifest, float, int, Path], Path]  # budget, fraction, draw, folder -> folder


def draw_budgets(options: AblationOptions, manifest: Manifest, cells: Sequence[Cell], seed: int) -> dict[str, Manifest]:
    """One manifest for each (fraction, draw) not yet in out/budgets: labelled images, and the others of the training
    part without labels. Where sets are shared, a validation share kept from their generators is kept here too.

    Raises:
        ConfigError: shared sets belong to another budget.
    """
    from finegan_aug.data.budget import Unlabelled, budget
    from finegan_aug.data.manifest import read_manifest

    source = options.sets_from
    there = {} if source is None else _options_of(source)
    validates = options.validates or bool(there.get("alpha_grid") or there.get("augment_grid"))
    share, drawn = VALIDATION_SHARE if validates else 0.0, dict[str, Manifest]()
    # One generator for all budgets has seen every photograph, also those like the ones that a budget holds out.
    shared = one_for_all(options) if source is None else (source / "gan" / WITHOUT_LABELS).exists()
    others: Unlabelled = "all" if shared else "keep"
    for cell in cells:
        name = f"{cell.budget}.jsonl"
        if cell.budget in drawn or (options.out / "budgets" / name).exists():
            continue
        found = budget(manifest, cell.fraction, pair=cell.draw, validation_share=share, unlabelled=others, seed=seed)
        if source is not None and _decided(found) != _decided(read_manifest(source / "budgets" / name)):
            raise ConfigError(
                f"budget {cell.budget} must hold the same photographs, labels and splits as in {source}, found others",
                "use the data and --seed of that ablation, and a grid only if it had one",
            )
        drawn[cell.budget] = found
    return drawn


def inherited(sets_from: Path | None) -> Values:
    """The options of another ablation that decided its synthetic sets, to stand in for what was not written."""
    return {} if sets_from is None else {name: _options_of(sets_from)[name] for name in OF_THE_SETS}


def check_shared(options: AblationOptions, cells: Sequence[Cell]) -> None:
    """Refuse the sets of another ablation where they are not finished, or were made with other options.

    Raises:
        ConfigError: naming the option or the budget.
    """
    source = options.sets_from
    if source is None:
        return
    there = _options_of(source)
    if there.get("sets_from"):
        raise ConfigError(
            f"sets_from must name the ablation that made the sets, found {source}, which has them from another",
            f"use --sets-from {there['sets_from']}",
        )
    for name in OF_THE_SETS:
        if there[name] != getattr(options, name):
            raise ConfigError(
                f"{name} must be {there[name]} as in {source}, whose sets are used, found {getattr(options, name)}",
                f"leave --{name.replace('_', '-')} out",
            )
    for name in dict.fromkeys(cell.budget for cell in cells):
        if not (source / "synthetic" / name / "filter.json").exists():
            raise ConfigError(
                f"{source} must hold the finished synthetic sets of budget {name}, found none",
                "finish that ablation first, or leave the fraction out",
            )


def _decided(budget: Manifest) -> tuple[object, ...]:
    """What a budget decides; boxes and masks may come later."""
    images = ((image.path, image.sha256, image.label, image.split, image.labelled) for image in budget.images)
    return budget.classes, *images


def _options_of(out: Path) -> JSON:
    """Options of an ablation, those that others read checked for their types."""
    from recipes.ablation import AblationOptions

    path, kinds = out / "ablation.json", get_type_hints(AblationOptions)
    content = read_json(path)
    for name in OF_THE_SETS:
        if name not in LATER or name in content["options"]:
            read_field(content, path, f"options.{name}", kinds[name])
    options: JSON = LATER | content["options"]
    return options


def prepare_synthetic(
    options: AblationOptions, canvas_px: int, budget: Manifest, fraction: float, draw: int, out_dir: Path
) -> Path:
    """Train the generator of a budget in out/gan, and write its images to `out_dir`: `all`, and `filtered`.

    Goes on where it stopped; a finished set is left as it is. `canvas_px` is the side of images that show an object
    in its surroundings (see `synthesize`). Images of discovered codes are named one by one by the teacher that then
    filters them.
    """
    from finegan_aug.naming import name_synthetic
    from finegan_aug.synthesis import synthesize
    from finegan_aug.teacher import filter_taught, teach
    from finegan_aug.training import train

    if (out_dir / "filter.json").exists():
        return out_dir
    config = read_generator(options.generator)
    seen = budget if options.gan_data == "u" else labelled_only(budget)
    teacher = partial(teach, boxes=config.boxes, teacher=config.teacher, teacher_kimg=options.teacher_kimg)
    if config.labels == "discovered":
        codes = options.out / "codes" / WITHOUT_LABELS
        if not one_for_all(options):
            codes = draw_codes(options, canvas_px, seen, out_dir.name, draw)
        taught = teacher(codes, seen, seed=config.seed + draw)
        name_synthetic(codes, out_dir / "all", taught, fraction=fraction, pair=draw)
    else:
        config = replace(config, seed=config.seed + draw)
        run_dir = train(config, seen, options.out / "gan" / out_dir.name)
        synthesize(
            run_dir,
            out_dir / "all",
            options.per_class,
            config.seed,
            canvas_px=canvas_px,
            fraction=fraction,
            pair=draw,
        )
        taught = teacher(out_dir / "all", seen, seed=config.seed)
    shutil.rmtree(out_dir / "filtered", ignore_errors=True)
    # Links where there are any: a filter replaces the manifest and the lineage, and leaves the images alone.
    shutil.copytree(out_dir / "all", out_dir / "filtered", copy_function=link_file)
    low, far = options.drop_lowest_confidence, options.drop_outliers
    report = filter_taught(out_dir / "filtered", taught, drop_lowest_confidence=low, drop_outliers=far)
    write_array(out_dir / PHOTOGRAPHS, taught.fitted.logits(taught.images).softmax(1).numpy())
    rows = [
        {"class": name, "generated": counts["total"], "kept": counts["kept"], "gan": out_dir.name}
        | {"dropped": {reason: count for reason, count in counts.items() if reason not in ("total", "kept")}}
        for name, counts in report.per_class.items()
    ]
    write_json(out_dir / "filter.json", {"rows": rows, "warnings": list(report.warnings), "fraction": fraction})
    return out_dir


def draw_codes(options: AblationOptions, canvas_px: int, seen: Manifest, name: str, draw: int) -> Path:
    """Train a generator of discovered codes in out/gan/NAME and write images of every code to out/codes/NAME.

    As many images as `per_class` of each class would be, the same number of each code.

    Returns:
        The folder of the images.
    """
    from finegan_aug.synthesis import synthesize
    from finegan_aug.training import train

    config = read_generator(options.generator).resolve(len(seen.classes))
    config, codes = replace(config, seed=config.seed + draw), config.num_children or 1
    run_dir = train(config, seen, options.out / "gan" / name)
    each_code = -(-options.per_class * len(seen.classes) // codes)
    out_dir = options.out / "codes" / name
    return synthesize(run_dir, out_dir, each_code, config.seed, canvas_px=canvas_px, by_code=True)


def one_for_all(options: AblationOptions) -> bool:
    """Whether one generator, which knows no label and may see all training photographs, serves all budgets."""
    return options.gan_data == "u" and read_generator(options.generator).labels == "discovered"


def generator_folder(sets: Path, budget: str) -> Path:
    """Run folder of the generator behind the sets of a budget."""
    own = sets / "gan" / budget
    return own if own.exists() else sets / "gan" / WITHOUT_LABELS


def read_generator(name: str) -> FineGANConfig:
    """Settings of the generator: the `train` section of a configuration file, by path or by name.

    Raises:
        ConfigError: there is none, or it is wrong.
    """
    line = ["--config", name]
    try:
        run, written = parse_options("finegan-aug train", line, TrainOptions, FineGANConfig, section="train")
        return generator_config(run.get("preset"), written)
    except ConfigError as error:
        raise ConfigError(error.cause.replace("--config", "--generator"), error.remedy) from error


def labelled_only(budget: Manifest) -> Manifest:
    """The budget without the images that it has no labels for."""
    return replace(budget, images=tuple(image for image in budget.images if image.labelled))


def without_labels(manifest: Manifest) -> Manifest:
    """The same photographs, none of the training part with a label."""
    images = (image if image.split == "test" else replace(image, labelled=False) for image in manifest.images)
    return replace(manifest, images=tuple(images))


def filter_rows(synthetic: Path) -> list[JSON]:
    """Rows of every filter.json below a folder of sets, for the report."""
    files = sorted(synthetic.glob("*/filter.json"))
    return [row for path in files for row in read_field(read_json(path), path, "rows", list[JSON])]

"""The synthetic sets of an ablation: one generator for each labelled budget, its images, and those a filter keeps."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from finegan_aug.config import FineGANConfig
from finegan_aug.data.manifest import Manifest
from finegan_aug.files import JSON, write_json
from finegan_aug.options import parse_options
from finegan_aug.verbs import TrainOptions, generator_config

if TYPE_CHECKING:
    from recipes.ablation import AblationOptions

Prepare = Callable[[Manifest, float, int, Path], Path]  # budget, fraction, draw, folder -> folder


def prepare_synthetic(
    options: AblationOptions, canvas_px: int, budget: Manifest, fraction: float, draw: int, out_dir: Path
) -> Path:
    """Train the generator of a budget in out/gan, and write its images to `out_dir`: `all`, and `filtered`.

    Goes on where it stopped; a finished set is left as it is. `canvas_px` is the side of images that show an object
    in its surroundings (see `synthesize`).
    """
    from finegan_aug.synthesis import synthesize
    from finegan_aug.teacher import filter_with_teacher
    from finegan_aug.training import train

    if (out_dir / "filter.json").exists():
        return out_dir
    config = read_generator(options.generator)
    config = replace(config, seed=config.seed + draw)
    seen = budget if options.gan_data == "u" else labelled_only(budget)
    run_dir = train(config, seen, options.out / "gan" / out_dir.name)
    synthesize(
        run_dir,
        out_dir / "all",
        per_class=options.per_class,
        seed=config.seed,
        canvas_px=canvas_px,
        fraction=fraction,
        pair=draw,
    )
    shutil.rmtree(out_dir / "filtered", ignore_errors=True)
    # Hard links: a filter replaces the manifest and the lineage, and leaves the images alone.
    shutil.copytree(out_dir / "all", out_dir / "filtered", copy_function=os.link)
    report = filter_with_teacher(
        out_dir / "filtered",
        seen,
        boxes=config.boxes,
        teacher=config.teacher,
        teacher_kimg=options.teacher_kimg,
        seed=config.seed,
    )
    rows = [
        {"class": name, "generated": counts["total"], "kept": counts["kept"], "gan": out_dir.name}
        | {"dropped": {reason: count for reason, count in counts.items() if reason not in ("total", "kept")}}
        for name, counts in report.per_class.items()
    ]
    write_json(out_dir / "filter.json", {"rows": rows, "warnings": list(report.warnings), "fraction": fraction})
    return out_dir


def read_generator(name: str) -> FineGANConfig:
    """Settings of the generator: the `train` section of a configuration file, by path or by name."""
    run, written = parse_options("finegan-aug train", ["--config", name], TrainOptions, FineGANConfig, section="train")
    return generator_config(run.get("preset"), written)


def labelled_only(budget: Manifest) -> Manifest:
    """The budget without the images that it has no labels for."""
    return replace(budget, images=tuple(image for image in budget.images if image.labelled))


def filter_rows(synthetic: Path) -> list[JSON]:
    """Rows of every filter.json below a folder of sets, for the report."""
    from finegan_aug.files import read_json

    return [row for path in sorted(synthetic.glob("*/filter.json")) for row in read_json(path).get("rows", [])]

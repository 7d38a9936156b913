"""Compare training with and without synthetic images: arms x data fractions x pairs x models, one opening of the test.

    python recipes/ablation.py --config flowers --data DIR --out runs/ablation
    finegan-aug report runs/ablation

Every arm of a pair shares its labelled budget, initial weights, order and draws, and takes equal steps. What is chosen
on validation images is chosen and written down, all classifiers are trained and their weights hashed into frozen.json;
then the test images are opened, once, for all of them, and opening.json counts it. The same command again goes on where
it stopped. `--help` lists every option.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from finegan_aug.errors import ConfigError
from finegan_aug.files import read_json, write_json
from finegan_aug.options import Values, build, parse_options
from finegan_aug.verbs import DataOptions, load
from recipes.common import run_recipe

if TYPE_CHECKING:
    from classifier.config import ClassifierConfig
    from finegan_aug.data.manifest import Manifest
    from recipes.arms import Cell
    from recipes.sets import Prepare


MAX_PAIRS = 1000


@dataclass(frozen=True)
class AblationOptions:
    """What to compare."""

    out: Path  # experiment folder; if it holds the same experiment, that goes on
    fractions: tuple[float, ...] = (0.1, 0.5, 1.0)  # shares of the training images whose labels may be used
    pairs: int = 3  # repetitions; the verdict needs at least 3
    arms: tuple[str, ...] = ("R1", "R2", "S1", "S3")  # of R1, R2, D2, R5, D5, S1, S3, S4, C0, N0, P0
    models: tuple[str, ...] = ("mobilenetv3_small_100",)  # timm names
    alpha: float | None = None  # share of the real images replaced (default: 0.5, 0.4, 0.2 by fraction)
    alpha_grid: tuple[float, ...] = ()  # choose alpha among these on a validation share of the budget, against 0
    augment_grid: tuple[str, ...] = ()  # choose R2's augmentation among these on the same validation share
    generator: str = "flowers"  # configuration whose `train` section makes the generators
    generator_per_pair: bool = False  # a generator and a budget for each pair, not one for all pairs of a fraction
    gan_data: Literal["s", "u"] = "s"  # the generator sees the budget (s), or also the other images, unlabelled (u)
    per_class: int = 500  # synthetic images of each class
    soft_labels: bool = False  # mixed images have the teacher's probabilities for labels, not one class
    teacher_kimg: float = 20.0  # training of the filter's teacher, thousands of images
    drop_lowest_confidence: float = 0.1  # share of each class that the filter drops: where its teacher is least sure
    drop_outliers: float = 0.0  # share of each class that the filter drops: what is farthest from every photograph
    sets_from: Path | None = None  # another ablation of the same data, whose generators and synthetic sets are used
    jobs: int = 1  # generators, then classifiers trained at once, each in a process of its own with one thread

    def __post_init__(self) -> None:
        from recipes.arms import ARMS

        for name in ("pairs", "per_class", "jobs"):
            if getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise ConfigError(f"{name} must be at least 1, found {getattr(self, name)}", f"correct --{option}")
        if self.pairs > MAX_PAIRS:
            raise ConfigError(f"pairs must be at most {MAX_PAIRS}, found {self.pairs}", "correct --pairs")
        if not self.fractions or not self.models or not self.arms:
            raise ConfigError("fractions, models and arms must not be empty", "leave them out for the defaults")
        if wrong := sorted(set(self.arms) - set(ARMS)):
            raise ConfigError(f"arms must be among {', '.join(ARMS)}, found {', '.join(wrong)}", "correct --arms")
        if self.gan_data == "s" and (arm := next((arm for arm in ("R5", "D5") if arm in self.arms), None)):
            raise ConfigError(
                f"{arm} is the control of a generator that also saw unlabelled images, found gan_data s",
                f"use --gan-data u, or leave {arm} out of --arms",
            )
        if "D5" in self.arms and not self.soft_labels:
            raise ConfigError("D5 needs soft labels, found none", "add --soft-labels, or leave D5 out of --arms")
        if bad := [a for a in (*self.alpha_grid, self.alpha or 0.0) if not 0 <= a <= 1]:
            raise ConfigError(f"alpha must lie in [0, 1], found {bad[0]:g}", "use a share such as 0.4")
        for name in ("drop_lowest_confidence", "drop_outliers"):
            if not 0 <= (share := getattr(self, name)) < 1:
                raise ConfigError(f"{name} must lie in [0, 1), found {share:g}", "give a share such as 0.1")
        self._check_grids()

    def _check_grids(self) -> None:
        from classifier.config import Augment

        if self.alpha is not None and self.alpha_grid:
            raise ConfigError("alpha is given or chosen from a grid, found both", "leave out --alpha or --alpha-grid")
        if self.alpha_grid and (self.mixing_arm is None or not any(self.alpha_grid)):
            raise ConfigError(
                f"alpha_grid needs a share above 0 and S1 or S3 to try it with, found {list(self.alpha_grid)} and "
                f"{', '.join(self.arms)}",
                "add 0.2 to --alpha-grid and S3 to --arms, or give --alpha",
            )
        if wrong := sorted(set(self.augment_grid) - set(get_args(Augment))):
            known = ", ".join(get_args(Augment))
            raise ConfigError(f"augment_grid must be among {known}, found {', '.join(wrong)}", "correct --augment-grid")

    @property
    def mixing_arm(self) -> str | None:
        """The arm whose trials choose alpha, and to which the guard rail applies; None without a synthetic arm."""
        return next((arm for arm in ("S3", "S1") if arm in self.arms), None)

    @property
    def validates(self) -> bool:
        """Whether a share of each budget is held out to choose on."""
        return bool(self.alpha_grid or self.augment_grid)

    @property
    def sets(self) -> Path:
        """Experiment folder with the generators (gan/) and the synthetic sets (synthetic/)."""
        return self.sets_from or self.out


def main(argv: Sequence[str]) -> None:
    """Parse the options and run the ablation."""
    from classifier.config import ClassifierConfig
    from recipes.sets import inherited

    run, data, written = parse_options(
        "ablation.py", argv, AblationOptions, DataOptions, ClassifierConfig, section="ablation"
    )
    options = build(AblationOptions, {**inherited(run.get("sets_from")), **run})
    config = build(ClassifierConfig, written)
    saved = options.out / "manifest.jsonl"
    # Without a word about the photographs those of the folder are meant; others are refused with all else that differs.
    manifest = load(data if "data" in data or not saved.exists() else {"data": saved})
    print(f"{run_ablation(options, config, manifest)}; now: finegan-aug report {options.out}")


def run_ablation(
    options: AblationOptions, config: ClassifierConfig, manifest: Manifest, prepare: Prepare | None = None
) -> Path:
    """Train all classifiers, then evaluate them on the test images.

    Args:
        options: what to compare.
        config: of every classifier; model and seed are set by cell and pair, R1 has plain augmentation.
        manifest: of a scan.
        prepare: makes the synthetic set of a budget: (budget manifest, fraction, draw, folder) -> the folder, holding
            `all` and `filtered`; called again for a finished one. By default `sets.prepare_synthetic`; not called with
            `options.sets_from`.

    Returns:
        The rows.json it wrote.

    Raises:
        FineGANAugError: wrong options, another experiment in the folder, or a part that failed.
    """
    from classifier.config import FREE, ClassifierConfig
    from finegan_aug.data.manifest import write_manifest
    from finegan_aug.output_folder import ensure_apart
    from finegan_aug.run_folder import ensure_same_config, run_lock
    from recipes.arms import run_cells, train_cell
    from recipes.choosing import settle
    from recipes.opening import open_test
    from recipes.pools import OF_A_GENERATOR, check_masks, with_pools
    from recipes.sets import (
        WITHOUT_LABELS,
        check_shared,
        draw_budgets,
        draw_codes,
        one_for_all,
        prepare_synthetic,
        read_generator,
        without_labels,
    )
    from recipes.workers import wait_for_orphans

    out = options.out
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()}
    content: Values = {"options": plain, "classifier": config.to_json(), "data": manifest.sha256}
    grows = [f"options.{name}" for name in ("out", "fractions", "pairs", "arms", "models", "jobs")]
    ensure_apart(out, manifest)
    with run_lock(out):
        wait_for_orphans(out)
        if (out / "ablation.json").exists():
            free = [*grows, *(f"classifier.{name}" for name in FREE)]
            optional = {f.name: f.default for f in fields(options) if f.default is not MISSING}
            defaults = {"options": optional, "classifier": ClassifierConfig().to_json()}
            remedy = "give the options of the experiment that is there, or choose another --out"
            ensure_same_config(read_json(out / "ablation.json"), content, free, defaults, remedy)
        cells = plan(options)
        makes_sets = prepare is None and options.sets_from is None and any(c.arm in OF_A_GENERATOR for c in cells)
        if makes_sets:
            read_generator(options.generator).resolve(len(manifest.classes))
        check_masks(options, manifest)
        check_shared(options, cells)
        budgets = draw_budgets(options, manifest, cells, config.seed)
        # Nothing is refused from here on for its options alone, so that a corrected command finds a folder of its own.
        write_json(out / "ablation.json", content)
        write_manifest(manifest, out / "manifest.jsonl")
        for name, drawn in budgets.items():
            write_manifest(drawn, out / "budgets" / f"{name}.jsonl")
        if makes_sets and one_for_all(options):
            draw_codes(options, config.resolution, without_labels(manifest), WITHOUT_LABELS, 0)
        cells = with_pools(options, config, cells, prepare or partial(prepare_synthetic, options, config.resolution))
        cells = settle(options, config, cells)
        run_cells(train_cell, out, cells, config, options.jobs)
        return open_test(options, config, manifest, cells)


def plan(options: AblationOptions) -> list[Cell]:
    """All cells; pool, augmentation and alpha are set later."""
    from recipes.arms import Cell

    return [
        Cell(fraction, arm, model, pair, pair if options.generator_per_pair else 0, soft_labels=options.soft_labels)
        for fraction in options.fractions
        for model in options.models
        for pair in range(options.pairs)
        for arm in options.arms
    ]


if __name__ == "__main__":
    sys.exit(run_recipe(main))

"""Compare training with and without synthetic images: arms x data fractions x pairs x models, one opening of the test.

    python recipes/ablation.py --config flowers --data DIR --out runs/ablation
    finegan-aug report runs/ablation

Every arm of a pair shares its labelled budget, initial weights, order and draws, and takes equal steps. All classifiers
are trained first and their weights hashed into frozen.json; then the test images are opened, once, for all of them, and
opening.json counts it. The same command again goes on where it stopped. `--help` lists every option.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

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

VALIDATION_SHARE = 0.2  # of the budget, where alpha is chosen on it
DEFAULT_ALPHA = {0.1: 0.5, 0.5: 0.4, 1.0: 0.2}  # by fraction; a fraction between takes that of the next larger


@dataclass(frozen=True)
class AblationOptions:
    """What to compare."""

    out: Path  # experiment folder; if it holds the same experiment, that goes on
    fractions: tuple[float, ...] = (0.1, 0.5, 1.0)  # shares of the training images whose labels may be used
    pairs: int = 3  # repetitions; the verdict needs at least 3
    arms: tuple[str, ...] = ("R1", "R2", "R5", "S1", "S3")  # of R1, R2, R5, S1, S3, N0
    models: tuple[str, ...] = ("mobilenetv3_small_100",)  # timm names
    alpha: float | None = None  # share of the real images replaced (default: 0.5, 0.4, 0.2 by fraction)
    alpha_grid: tuple[float, ...] = ()  # choose alpha among these and 0 on a validation share of the budget
    generator: str = "flowers"  # configuration whose `train` section makes the generators
    generator_per_pair: bool = False  # a generator and a budget for each pair, not one for all pairs of a fraction
    gan_data: Literal["s", "u"] = "s"  # the generator sees the budget (s), or also the other images, unlabelled (u)
    per_class: int = 500  # synthetic images of each class
    teacher_kimg: float = 20.0  # training of the filter's teacher, thousands of images
    jobs: int = 1  # classifiers trained at once, each in a process of its own with one thread

    def __post_init__(self) -> None:
        for name in ("pairs", "per_class", "jobs"):
            if getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise ConfigError(f"{name} must be at least 1, found {getattr(self, name)}", f"correct --{option}")
        if not self.fractions or not self.models or not self.arms:
            raise ConfigError("fractions, models and arms must not be empty", "leave them out for the defaults")
        known = ("R1", "R2", "R5", "S1", "S3", "N0")
        if wrong := sorted(set(self.arms) - set(known)):
            raise ConfigError(f"arms must be among {', '.join(known)}, found {', '.join(wrong)}", "correct --arms")
        if "R5" in self.arms and "R2" not in self.arms:
            raise ConfigError("R5 takes its pseudo-labels from R2, which is not among the arms", "add R2 to --arms")
        if bad := [a for a in (*self.alpha_grid, self.alpha or 0.0) if not 0 <= a <= 1]:
            raise ConfigError(f"alpha must lie in [0, 1], found {bad[0]:g}", "use a share such as 0.4")


def main(argv: Sequence[str]) -> None:
    """Parse the options and run the ablation."""
    from classifier.config import ClassifierConfig

    run, data, written = parse_options(
        "ablation.py", argv, AblationOptions, DataOptions, ClassifierConfig, section="ablation"
    )
    options, config = build(AblationOptions, run), build(ClassifierConfig, written)
    saved = options.out / "manifest.jsonl"
    manifest = load(data if not saved.exists() else {"data": saved})
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
            `all` and `filtered`; called again for a finished one. By default `sets.prepare_synthetic`.

    Returns:
        The rows.json it wrote.

    Raises:
        FineGANAugError: wrong options, another experiment in the folder, or a part that failed.
    """
    from classifier.config import FREE
    from finegan_aug.data.manifest import read_manifest, write_manifest
    from finegan_aug.run_folder import ensure_same_config, run_lock
    from recipes.arms import REPLACING, train_cell
    from recipes.opening import open_test
    from recipes.sets import prepare_synthetic

    out = options.out
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()}
    content: Values = {"options": plain, "classifier": config.to_json(), "data": manifest.sha256}
    grows = [f"options.{name}" for name in ("out", "fractions", "pairs", "arms", "models", "jobs")]
    with run_lock(out):
        if (out / "ablation.json").exists():
            ensure_same_config(
                read_json(out / "ablation.json"), content, [*grows, *(f"classifier.{name}" for name in FREE)]
            )
        write_json(out / "ablation.json", content)
        write_manifest(manifest, out / "manifest.jsonl")
        cells = plan(options)
        write_budgets(options, manifest, cells, config.seed)
        sets = {cell.budget: cell for cell in cells if cell.arm in ("S1", "S3")}
        make = prepare or partial(prepare_synthetic, options, config.resolution)
        for name, cell in sets.items():
            drawn = read_manifest(out / "budgets" / f"{name}.jsonl")
            make(drawn, cell.fraction, cell.draw, out / "synthetic" / name)
        alphas = choose_alphas(options, config, cells)
        cells = [
            replace(cell, alpha=alphas[cell.fraction, cell.model] if cell.arm in REPLACING else 0.0) for cell in cells
        ]
        first = [cell for cell in cells if cell.arm != "R5"]
        run_cells(train_cell, first, options, config)
        run_cells(train_cell, [cell for cell in cells if cell.arm == "R5"], options, config)
        return open_test(options, config, manifest, cells)


def plan(options: AblationOptions) -> list[Cell]:
    """All cells, alpha not yet set."""
    from recipes.arms import Cell

    return [
        Cell(fraction, arm, model, pair, pair if options.generator_per_pair else 0)
        for fraction in options.fractions
        for model in options.models
        for pair in range(options.pairs)
        for arm in options.arms
    ]


def run_cells(
    train: Callable[[Path, Cell, ClassifierConfig], Path],
    cells: Sequence[Cell],
    options: AblationOptions,
    config: ClassifierConfig,
) -> list[Path]:
    """Train these cells, `options.jobs` at once; returns their folders in order."""
    started, done = time.monotonic(), dict[int, Path]()

    def tell(index: int, folder: Path) -> None:
        done[index] = folder
        print(f"[{len(done)}/{len(cells)}] {folder.name} after {time.monotonic() - started:.0f} s", flush=True)

    if options.jobs == 1:
        for index, cell in enumerate(cells):
            tell(index, train(options.out, cell, config))
    elif cells:
        single = replace(config, threads=1)
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(options.jobs, len(cells)), mp_context=spawn) as pool:
            futures = {pool.submit(train, options.out, cell, single): index for index, cell in enumerate(cells)}
            try:
                for future in as_completed(futures):
                    tell(futures[future], future.result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return [done[index] for index in range(len(cells))]


def choose_alphas(
    options: AblationOptions, config: ClassifierConfig, cells: Sequence[Cell]
) -> dict[tuple[float, str], float]:
    """Alpha of each (fraction, model): as asked, by default of the fraction, or the best of the grid on validation.

    The guard rail: 0 is always in the grid, and another value is chosen only if it gains on validation.
    """
    from recipes.arms import train_candidate, validation_accuracy

    settings = sorted({(cell.fraction, cell.model) for cell in cells})
    arm = "S3" if "S3" in options.arms else "S1"
    if not options.alpha_grid or arm not in options.arms:
        return {key: default_alpha(key[0]) if options.alpha is None else options.alpha for key in settings}
    grid = sorted({0.0, *options.alpha_grid})
    trials = [replace(cell, alpha=alpha) for cell in cells if cell.arm == arm for alpha in grid]
    folders = run_cells(train_candidate, trials, options, config)
    chosen, record = {}, []
    for fraction, model in settings:
        scores = dict.fromkeys(grid, 0.0)
        for cell, folder in zip(trials, folders, strict=True):
            if (cell.fraction, cell.model) == (fraction, model):
                scores[cell.alpha] += validation_accuracy(folder) / options.pairs
        chosen[fraction, model] = max(grid, key=lambda alpha: (scores[alpha], -alpha))
        entry = {"fraction": fraction, "model": model, "alpha": chosen[fraction, model]}
        record.append({**entry, "validation_accuracy": {f"{alpha:g}": scores[alpha] for alpha in grid}})
    write_json(options.out / "alpha.json", {"chosen": record})
    return chosen


def default_alpha(fraction: float) -> float:
    """Alpha by data fraction: the scarcer the real images, the more synthetic ones."""
    return next(alpha for limit, alpha in sorted(DEFAULT_ALPHA.items()) if fraction <= limit)


def write_budgets(options: AblationOptions, manifest: Manifest, cells: Sequence[Cell], seed: int) -> None:
    """One manifest for each (fraction, draw): labelled images, and the others of the training part without labels."""
    from finegan_aug.data.budget import budget
    from finegan_aug.data.manifest import write_manifest

    share = VALIDATION_SHARE if options.alpha_grid else 0.0
    for cell in cells:
        path = options.out / "budgets" / f"{cell.budget}.jsonl"
        if not path.exists():
            drawn = budget(
                manifest, cell.fraction, pair=cell.draw, validation_share=share, unlabelled="keep", seed=seed
            )
            write_manifest(drawn, path)


if __name__ == "__main__":
    sys.exit(run_recipe(main))

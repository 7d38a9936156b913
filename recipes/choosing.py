"""What an ablation chooses on validation images before it trains a cell: augmentation, alpha, the classical control.

Everything is chosen by fraction and model, on the validation share of pair 0's budget alone: R2's augmentation first,
then the better of R1 and R2 as the control of the synthetic arm, then alpha with that augmentation; the guard
rail compares with the control. Each choice stands with all accuracies in augment.json, classical.json and alpha.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from classifier.config import Augment, ClassifierConfig
from finegan_aug.files import JSON, read_json, write_json
from recipes.arms import REAL_ONLY, REPLACED, Cell, run_cells, train_candidate, validation_accuracy

if TYPE_CHECKING:
    from recipes.ablation import AblationOptions

DEFAULT_ALPHA = {0.1: 0.5, 0.5: 0.4, 1.0: 0.2}  # by fraction; a fraction between takes that of the next larger

Setting = tuple[float, str]  # fraction and model


def settle(options: AblationOptions, config: ClassifierConfig, cells: Sequence[Cell]) -> list[Cell]:
    """The cells with augmentation and alpha, as configured or as chosen."""
    augments = choose_augment(options, config, cells)
    cells = [replace(cell, augment=augments.get(cell.setting)) for cell in cells]
    alphas = choose_alpha(options, config, cells, choose_control(options, config, cells))
    return [replace(cell, alpha=arm_alpha(cell.arm, alphas[cell.setting])) for cell in cells]


def arm_alpha(arm: str, alpha: float) -> float:
    """The share that an arm replaces where the others replace `alpha`."""
    if arm in REPLACED:
        return 1.0
    return 0.0 if arm in REAL_ONLY else alpha


def choose_augment(options: AblationOptions, config: ClassifierConfig, cells: Sequence[Cell]) -> dict[Setting, Augment]:
    """The augmentation with which R2 is best, the first of equals; empty without a grid. Writes augment.json."""
    grid, controls = [cast(Augment, name) for name in dict.fromkeys(options.augment_grid)], _first(cells, "R2")
    if not grid:
        return {}
    trials = [replace(control, augment=name) for control in controls.values() for name in grid]
    scores = _accuracies(options, config, trials)
    chosen, record = {}, []
    for setting, control in controls.items():
        found = {name: scores[replace(control, augment=name)] for name in grid}
        chosen[setting] = max(grid, key=lambda name: found[name])
        record.append(_entry(setting, found, {"augment": chosen[setting]}))
    write_json(options.out / "augment.json", {"chosen": record})
    return chosen


def choose_alpha(
    options: AblationOptions,
    config: ClassifierConfig,
    cells: Sequence[Cell],
    classical: Mapping[Setting, tuple[str, float]],
) -> dict[Setting, float]:
    """Alpha as asked, by default of the fraction, or the best above 0 of the grid, the smallest of equals.

    alpha.json also records the guard rail: `guarded` is that alpha where it is better than the `control`, the better of
    R1 and R2 where that was chosen (`classical`, with its accuracy), else R2, which is alpha 0; otherwise 0. Who leaves
    synthetic images out need not keep R2's augmentation either.
    """
    controls = _first(cells, "R2")
    if not options.alpha_grid or options.mixing_arm is None:
        return {key: default_alpha(key[0]) if options.alpha is None else options.alpha for key in controls}
    grid, mixing = sorted({*options.alpha_grid} - {0.0}), _first(cells, options.mixing_arm)
    trials = [replace(cell, alpha=alpha) for cell in mixing.values() for alpha in grid]
    scores = _accuracies(options, config, [*controls.values(), *trials])
    chosen, record = {}, []
    for setting, control in controls.items():
        found = {0.0: scores[control], **{alpha: scores[replace(mixing[setting], alpha=alpha)] for alpha in grid}}
        best = max(grid, key=lambda alpha: (found[alpha], -alpha))
        rival, without = classical.get(setting, ("R2", found[0.0]))
        guarded = best if found[best] > without else 0.0
        chosen[setting] = best
        guard = {"guarded": guarded, "control": rival, "control_accuracy": without}
        record.append(_entry(setting, found, {"arm": options.mixing_arm, "alpha": best, **guard}))
    write_json(options.out / "alpha.json", {"chosen": record})
    return chosen


def choose_control(
    options: AblationOptions, config: ClassifierConfig, cells: Sequence[Cell]
) -> dict[Setting, tuple[str, float]]:
    """R1 or R2, whichever is better, R2 of equals, and its accuracy; empty without both. Writes classical.json."""
    if not chooses_control(options):
        return {}
    arms = ("R2", "R1")
    firsts = {arm: _first(cells, arm) for arm in arms}
    scores = _accuracies(options, config, [cell for arm in arms for cell in firsts[arm].values()])
    chosen, record = {}, []
    for setting in firsts["R2"]:
        found = {arm: scores[firsts[arm][setting]] for arm in arms}
        best = max(arms, key=lambda arm: found[arm])
        chosen[setting] = best, found[best]
        record.append(_entry(setting, found, {"control": best}))
    write_json(options.out / "classical.json", {"chosen": record})
    return chosen


def chooses_control(options: AblationOptions) -> bool:
    """Whether the control of the primary contrast is chosen on validation."""
    return options.validates and {"R1", "R2"} <= set(options.arms) and options.mixing_arm is not None


def primary(options: AblationOptions) -> JSON | list[JSON]:
    """The contrast that the verdict rests on, fixed before the test images are opened; a list, by fraction and model,
    where its control was chosen on validation.
    """
    arm = next((arm for arm in ("S3", "S1", "S4", "N0", "P0", "R5", "C0") if arm in options.arms), "R2")
    if chooses_control(options):
        chosen = read_json(options.out / "classical.json")["chosen"]
        return [{"arm": arm, **{name: entry[name] for name in ("control", "fraction", "model")}} for entry in chosen]
    return {"arm": arm, "control": "R2" if arm != "R2" else "R1"}


def default_alpha(fraction: float) -> float:
    """Alpha by data fraction: the scarcer the real images, the more synthetic ones."""
    return next(alpha for limit, alpha in sorted(DEFAULT_ALPHA.items()) if fraction <= limit)


def _first(cells: Sequence[Cell], arm: str) -> dict[Setting, Cell]:
    """A cell of pair 0 for each setting; a real-only one even where the ablation does not train that arm."""
    fitting = [cell for cell in cells if cell.pair == 0 and (arm in REAL_ONLY or cell.arm == arm)]
    return {cell.setting: replace(cell, arm=arm, pool=None if arm in REAL_ONLY else cell.pool) for cell in fitting}


def _accuracies(options: AblationOptions, config: ClassifierConfig, trials: Sequence[Cell]) -> dict[Cell, float]:
    """Accuracy of each trial on the validation images; a trial that was made for another choice counts again."""
    folders = run_cells(train_candidate, options.out, trials, config, options.jobs)
    return {trial: validation_accuracy(folder) for trial, folder in zip(trials, folders, strict=True)}


def _entry(setting: Setting, found: Mapping[Any, float], chosen: JSON) -> JSON:
    accuracies = {name if isinstance(name, str) else f"{name:g}": value for name, value in found.items()}
    return {"fraction": setting[0], "model": setting[1], **chosen, "validation_accuracy": accuracies}

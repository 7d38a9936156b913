"""What the page says in words: the verdict of every setting, warnings, notes, and what was run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from finegan_aug.report.guard import Guard
from finegan_aug.report.rows import ARMS, Row, percent
from finegan_aug.report.sources import Experiment, is_number
from finegan_aug.report.tables import Contrast, primary_contrast, settings

JSON = dict[str, Any]
ALPHA = "\N{GREEK SMALL LETTER ALPHA}"
FAIR = {  # controls that know what the synthetic images rest on
    "D2": "Against the same teacher without a synthetic image",
    "R5": "Against the unlabelled photographs themselves",
    "D5": "Against all photographs under the same teacher's answers",
}


def signed(share: float) -> str:
    """0.0412 -> "+4.1": percentage points with their sign."""
    text = f"{100 * share:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def number(value: object) -> str:
    """Four significant digits, narrow spaces between thousands, a true minus; text as it is; a dash for None."""
    if value is None:
        return "\N{EN DASH}"
    if not is_number(value):
        return str(value)
    whole = isinstance(value, int) or abs(value) >= 1e4
    text = f"{value:,.0f}" if whole else f"{value:.4g}"
    return text.replace(",", "\N{NARROW NO-BREAK SPACE}").replace("-", "\N{MINUS SIGN}")


def headlines(rows: Sequence[Row], found: Sequence[Contrast], header: JSON, chosen: Sequence[Guard] = ()) -> list[JSON]:
    """For each fraction and model: the word of the primary contrast, one sentence, what the guard rail ships, and how
    the arm stands against the controls that know what its images rest on.
    """
    unusable = header.get("no_usable_codes")
    lines = []
    for fraction, model in sorted(settings(rows), key=lambda setting: (setting[1], setting[0])):
        arms = {row.arm for row in rows if (row.fraction, row.model) == (fraction, model)}
        arm, control = primary_contrast(header, fraction, model, arms)
        contrast = next((c for c in found if c.primary and (c.fraction, c.model) == (fraction, model)), None)
        line = {"fraction": fraction, "model": model, "arm": arm, "control": control}
        if unusable is True or (isinstance(unusable, list) and fraction in unusable):
            line |= {"word": "no usable codes", "text": "No code agrees with a class well enough to be used."}
        elif contrast is None:
            line |= {"word": "not run", "text": f"{arm} and {control} have no pair in common."}
        elif contrast.barred:
            line |= {"word": contrast.verdict, "text": f"Barred from a verdict: {contrast.barred}."}
        else:
            line |= {"word": contrast.verdict, "text": _sentence(contrast)}
        guard = next((guard for guard in chosen if (guard.fraction, guard.model) == (fraction, model)), None)
        fair = [
            f"{FAIR[c.control]}: {c.verdict}. {_sentence(c)}"
            for c in found
            if (c.fraction, c.model, c.arm) == (fraction, model, arm) and c.control in FAIR and not c.barred
        ]
        lines.append(line | {"guard": "" if guard is None else guard_sentence(guard), "fair": fair})
    return lines


def _sentence(contrast: Contrast) -> str:
    points = 100 * contrast.comparison.mean
    pairs = len(contrast.pairs)
    place = "equals" if round(points, 1) == 0 else f"is {abs(points):.1f} points {'above' if points > 0 else 'below'}"
    text = f"{contrast.arm} {place} {contrast.control}"
    if contrast.comparison.interval is None:
        text += " in a single pair, which carries no claim."
    else:
        low, high = contrast.comparison.interval
        text += f" (95 % interval {signed(low)} to {signed(high)}, {pairs} pairs)."
        text += " Fewer than 3 pairs carry no claim." if pairs < 3 else ""
    if (
        contrast.verdict != "inconclusive"
        and contrast.bootstrap
        and contrast.bootstrap[0] <= 0 <= contrast.bootstrap[1]
    ):
        text += " The interval over test images includes 0: another test set could read otherwise."
    if contrast.off:
        text += f" {ALPHA} = 0: no synthetic image was mixed in."
    return text


def guard_sentence(guard: Guard) -> str:
    """What the guard rail decided, and what that means for the result."""
    known = dict(guard.accuracies)
    best, without = known.get(f"{guard.alpha:g}"), guard.control_accuracy
    beside = "" if best is None or without is None else f" ({100 * best:.1f} % against {100 * without:.1f} %)"
    if guard.shipped > 0:
        gained = f"{ALPHA} = {guard.alpha:g} gained over {guard.control}{beside}"
        return f"Guard rail: on validation {gained}, so {guard.arm} is shipped."
    return (
        f"Guard rail: on validation {ALPHA} = {guard.alpha:g}, the best above 0, gained nothing over "
        f"{guard.control}{beside}, so synthetic images are turned off: {guard.control} is shipped, difference 0."
    )


def lead(lines: Sequence[JSON]) -> str:
    """One sentence over all settings, the first of the page; empty without any."""
    if not lines:
        return ""
    words = [line["word"] for line in lines]
    counts = ", ".join(f"{word} in {words.count(word)}" for word in dict.fromkeys(sorted(words, key=_word_order)))
    contrast = {(line["arm"], line["control"]) for line in lines}
    arms = " and ".join(f"{_named(arm)} against {_named(control)}" for arm, control in sorted(contrast))
    settings_text = f"{len(lines)} setting" + ("s" if len(lines) > 1 else "")
    return f"{arms}: {counts} of {settings_text} (share of the data and classifier)."


def _named(arm: str) -> str:
    return f"{arm} ({ARMS[arm]})" if arm in ARMS else arm


def _word_order(word: str) -> int:
    order = ["helps", "hurts", "inconclusive"]
    return order.index(word) if word in order else len(order)


def warnings(experiment: Experiment, rows: Sequence[Row], found: Sequence[Contrast]) -> list[str]:
    """What a reader must know before believing a number."""
    header = experiment.ablation
    texts = []
    if header.get("leak_override"):
        texts.append("The firewall between training and test data was overridden: no number here is evidence.")
    for reason in dict.fromkeys(contrast.barred for contrast in found if contrast.barred):
        texts.append(f"No verdict for the synthetic images: {reason}. Test images may have been trained on.")
    if header.get("imagenet_features") is True or any(knows_imagenet(gan.config) for gan in experiment.gans):
        text = "The generator was trained against frozen ImageNet features"
        teachers = [_settings(gan.config).get("teacher") for gan in experiment.gans]
        if teachers and set(teachers) == {"packaged"} and any(row.arm == "D2" for row in rows):
            texts.append(f"{text}; its control D2 has a teacher on such features.")
        else:
            texts.append(f"{text}; compare with a control that uses them.")
    openings = header.get("test_openings", 1)
    if is_number(openings) and openings > 1:
        texts.append(f"The test set was opened {openings} times.")
    steps = {row.steps for row in rows if row.arm != "R0" and row.steps is not None}
    uneven = [
        f"{percent(fraction)}, {model}"
        for fraction, model in settings(rows)
        if len({r.steps for r in rows if (r.fraction, r.model) == (fraction, model) and r.arm != "R0" and r.steps}) > 1
    ]
    if len(steps) > 1 and uneven:
        texts.append(f"The arms did not train for equal steps at {'; '.join(uneven)}.")
    few = sorted({len(contrast.pairs) for contrast in found if contrast.primary and len(contrast.pairs) < 3})
    if few:
        texts.append("Fewer than 3 pairs: such a contrast is inconclusive whatever its size.")
    texts += _memorised(experiment.evaluation)
    listed = experiment.header.get("warnings")
    texts += [str(text) for text in listed] if isinstance(listed, list) else []
    return texts + experiment.warnings


def _memorised(evaluation: Sequence[JSON]) -> list[str]:
    """What the measure of memorised images warns of, with the generator's name."""
    found = []
    for line in evaluation:
        said = line.get("warnings") if str(line.get("metric")).startswith("memorised_share") else None
        about = f" ({line['gan']})" if line.get("gan") else ""
        found += [f"{text}{about}." for text in (said if isinstance(said, list) else [])]
    return list(dict.fromkeys(found))


def knows_imagenet(config: JSON) -> bool:
    """Whether the config.json of a generator says that it was trained against frozen ImageNet features."""
    found = _settings(config)
    return found.get("judge") == "projected" or found.get("teacher") == "packaged"


def _settings(config: JSON) -> JSON:
    """Those in the config.json of a generator; none where it holds something else."""
    found = config.get("config", config)
    return found if isinstance(found, dict) else {}


def notes(rows: Sequence[Row], header: JSON, data: JSON) -> list[str]:
    """How the comparison was made, as far as it limits what it shows; `data` says on which photographs."""
    texts = [str(text) for text in header["notes"]] if isinstance(header.get("notes"), list) else []
    arms = {row.arm for row in rows}
    if header.get("gan_variance_included") is False:
        texts.append("One generator serves several pairs: GAN variance not included.")
    if header.get("gan_data") == "u" and _has_others(data):
        fair = "its fair control is R5" if "R5" in arms else "its fair control, R5, was not run"
        texts.append(f"The generator also saw the training images outside the budget, without labels; {fair}.")
    if header.get("guard") == [] and arms & {"S1", "S3"}:
        texts.append(f"{ALPHA} was not chosen on validation: no guard rail is claimed.")
    if header.get("labels"):
        texts.append(f"Labelling mode of the generator: {header['labels']}.")
    if rows and not arms & {"R3", "S2"}:
        texts.append("No crops: R3 = R2 and S2 = S1.")
    return texts


def _has_others(data: JSON) -> bool:
    """Whether there are training images outside a labelled budget, as far as is known."""
    budgets, images = data.get("labelled_budget"), data.get("train_images")
    counts: list[Any] = list(budgets.values()) if isinstance(budgets, dict) else []
    if not counts or not all(map(is_number, [images, *counts])):
        return True
    return any(count < images for count in counts)


def facts(data: JSON, header: JSON, rows: Sequence[Row], ablation: JSON) -> list[tuple[str, str]]:
    """What was run and on which data: (label, value)."""
    found = []
    for key, value in data.items():
        label = str(key).replace("_", " ")
        if key == "classes":
            found.append((label, number(len(value)) if isinstance(value, list) else number(value)))
        elif isinstance(value, dict):
            found.append((label, " · ".join(f"{share(name)}: {number(item)}" for name, item in value.items())))
        elif isinstance(value, (str, int, float)) and not isinstance(value, bool):
            found.append((label, number(value)))
    if rows:
        found.append(("pairs", number(len({row.pair for row in rows}))))
        steps = sorted({row.steps for row in rows if row.steps is not None and row.arm != "R0"})
        found.append(("optimiser steps", ", ".join(map(number, steps)) or "not recorded"))
        found.append(("trained classifiers", number(len(rows))))
    if is_number(ablation.get("test_openings")):
        times = ablation["test_openings"]
        found.append(("test set opened", "once" if times == 1 else f"{number(times)} times"))
    for key, label in (("wall_clock_hours", "wall clock"), ("cpu_hours", "processor time")):
        if is_number(header.get(key)):
            found.append((label, f"{number(header[key])} h"))
    return found


def share(name: str) -> str:
    """ "0.1" -> "10 %"; any other text as it is."""
    try:
        return percent(float(name)) if 0 < float(name) <= 1 else name
    except ValueError:
        return name


def commands(header: JSON) -> list[str]:
    """The commands that make this experiment again."""
    command = header.get("command")
    return [str(line) for line in command] if isinstance(command, list) else [str(command)] if command else []

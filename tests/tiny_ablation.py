"""An ablation of forty coloured images, whose synthetic sets and teacher's labels nobody had to train."""

from __future__ import annotations

from pathlib import Path

from coloured_images import ColouredImages

from classifier.config import ClassifierConfig
from finegan_aug.data.folder import scan
from finegan_aug.data.manifest import Manifest
from finegan_aug.files import write_json
from finegan_aug.lineage import Lineage, write_lineage
from recipes.ablation import AblationOptions
from recipes.sets import labelled_only

MODEL = "test_efficientnet"
CONFIG = ClassifierConfig(model=MODEL, resolution=24, steps=3, batch_size=6, threads=1, log_steps=1)


def photographs(folder: Path, count: int, seed: int) -> Path:
    data = ColouredImages(count, classes=2, side_px=20, seed=seed)
    for index in range(count):
        path = folder / data.classes[data.targets[index]] / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        data.images[index].save(path)
    return folder


def scanned(root: Path) -> Manifest:
    """40 training and 10 test images of the classes green and red."""
    return scan(photographs(root / "train", 40, 0), test_data=photographs(root / "test", 10, 1))


def fake_sets(budget: Manifest, fraction: float, draw: int, out_dir: Path) -> Path:
    """Sets of other drawn images, as if a generator had made them from the labelled images of the budget.

    The generator's teacher named every third image, green and red by turns, whatever it shows.
    """
    for kind, count in (("all", 8), ("filtered", 4)):
        if not (out_dir / kind).exists():
            photographs(out_dir / kind, count, seed=100 + draw)
            used = labelled_only(budget).of("train")
            generator = {"kind": "fake", "checkpoint_sha256": "0" * 64}
            write_lineage(
                out_dir / kind,
                Lineage(
                    {image.sha256: ("gan_train",) for image in used}, budget.classes, budget.sha256, generator,
                    labels="tied", gan_data="s", fraction=fraction, pair=draw,
                ),
            )  # fmt: skip
    write_json(out_dir / "filter.json", {"rows": [{"kept": 4}], "warnings": ["the filter kept 4 of 8"]})
    labels = [place % 2 if place % 3 == 0 else -1 for place in range(len(budget.of("train")))]
    write_json(out_dir.parents[1] / "gan" / out_dir.name / "labels.json", {"labels": labels})
    return out_dir


def options(out: Path, **changes: object) -> AblationOptions:
    values: dict[str, object] = {"out": out, "fractions": (0.5,), "pairs": 2, "models": (MODEL,), "gan_data": "u"}
    return AblationOptions(**{**values, **changes})  # type: ignore[arg-type]

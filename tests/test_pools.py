"""Where the arms take their images from: the teacher's labels, poison, synthetic images alone, pasted objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_ablation import CONFIG, MODEL, fake_sets, options, scanned
from tiny_runs import tiny_config
from untrained_run import untrained_run

from classifier.data import SquareImages
from finegan_aug import pseudo_labels
from finegan_aug.data.folder import load_data
from finegan_aug.data.manifest import Manifest, read_manifest
from finegan_aug.errors import ConfigError, DataError, LeakError
from finegan_aug.files import read_json, write_json
from finegan_aug.lineage import read_lineage
from finegan_aug.synthetic import read_rows, write_manifest
from finegan_aug.synthetic_index import open_index
from recipes.ablation import AblationOptions, run_ablation
from recipes.arms import Cell
from recipes.pools import pool_of

Prepare = Callable[[Manifest, float, int, Path], Path]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return scanned(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def masked_data(toy_folder: Path) -> Manifest:
    """48 training photographs with masks, 32 px."""
    return load_data(
        toy_folder / "train",
        test_data=toy_folder / "test",
        masks=toy_folder / "train_masks",
        test_masks=toy_folder / "test_masks",
    )


def weights(out: Path, arm: str) -> dict[str, torch.Tensor]:
    return load_file(out / "cells" / f"0.5-{arm}-{MODEL}-0" / "model.safetensors")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in second)


def test_r5_takes_the_labels_of_the_teacher_and_no_other(manifest: Manifest, tmp_path: Path) -> None:
    run_ablation(options(tmp_path, arms=("R5",), pairs=1), CONFIG, manifest, fake_sets)  # without any R2
    budget = read_manifest(tmp_path / "budgets" / "0.5-0.jsonl")
    labels = read_json(tmp_path / "gan" / "0.5-0" / "labels.json")["labels"]
    named = [
        (np.asarray(Image.open(manifest.root / record.path)), label)
        for record, label in zip(budget.of("train"), labels, strict=True)
        if label >= 0 and not record.labelled
    ]
    assert len(named) > 3
    pool = open_index(tmp_path / "pools" / "R5-0.5-0")
    assert [pool.row(entry).label for entry in range(len(pool))] == [label for _, label in named]
    for entry, (photograph, _) in enumerate(named):
        wide = Image.fromarray(photograph).resize((30, 30), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(np.asarray(pool.image(entry)), np.asarray(wide), atol=2)
    (row,) = read_json(tmp_path / "rows.json")["rows"]
    assert row["pool"] == len(named)
    assert row["warnings"] == []


def test_r5_is_r2_and_says_so_where_the_teacher_named_nothing(manifest: Manifest, tmp_path: Path) -> None:
    def silent(budget: Manifest, fraction: float, draw: int, out_dir: Path) -> Path:
        fake_sets(budget, fraction, draw, out_dir)
        write_json(tmp_path / "gan" / out_dir.name / "labels.json", {"labels": [-1] * len(budget.of("train"))})
        return out_dir

    run_ablation(options(tmp_path, arms=("R2", "R5"), pairs=1), CONFIG, manifest, silent)
    row = read_json(tmp_path / "rows.json")["rows"][1]
    assert row["warnings"] == ["the generator's teacher named no image outside the budget: R5 is R2"]
    assert same(weights(tmp_path, "R5"), weights(tmp_path, "R2"))


def test_r5_with_every_label_in_the_budget_is_r2_without_any_teacher(manifest: Manifest, tmp_path: Path) -> None:
    cell = Cell(1.0, "R5", MODEL, 0, 0)
    assert pool_of(options(tmp_path, fractions=(1.0,)), CONFIG, cell, manifest) is None


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        (
            None,
            ConfigError,
            "R5 takes its labels from the generator's teacher, found no {path}; "
            "train the generator with tied labels and a pseudo_labels confidence, or leave R5 out of --arms",
        ),
        (
            [0, 1],
            DataError,
            "{path} must hold a label for each of the 40 training photographs, found 2; "
            "restore the file, or train the generator anew",
        ),
    ],
)
def test_r5_is_refused_without_the_labels_of_its_generator(
    manifest: Manifest, tmp_path: Path, labels: list[int] | None, error: type[Exception], words: str
) -> None:
    def other(budget: Manifest, fraction: float, draw: int, out_dir: Path) -> Path:
        fake_sets(budget, fraction, draw, out_dir)
        path.unlink()
        if labels is not None:
            write_json(path, {"labels": labels})
        return out_dir

    path = tmp_path / "gan" / "0.5-0" / "labels.json"
    with pytest.raises(error) as caught:
        run_ablation(options(tmp_path, arms=("R2", "R5"), pairs=1), CONFIG, manifest, other)
    assert str(caught.value) == words.format(path=path)
    assert not (tmp_path / "cells").exists()


def test_poison_is_the_synthetic_set_with_its_labels_dealt_anew(manifest: Manifest, tmp_path: Path) -> None:
    run_ablation(options(tmp_path, arms=("S1", "P0"), pairs=1), CONFIG, manifest, fake_sets)
    _, truth = read_rows(tmp_path / "synthetic" / "0.5-0" / "all")
    header, rows = read_rows(tmp_path / "pools" / "P0-0.5-0")
    assert header.classes == manifest.classes
    assert [row.file for row in rows] == [row.file for row in truth]
    assert Counter(row.label for row in rows) == Counter(row.label for row in truth)
    wrong = sum(row.label != true.label for row, true in zip(rows, truth, strict=True))
    assert 0 < wrong < len(rows)  # by chance some labels are right
    for row in rows:
        pixels = [np.asarray(Image.open(folder / row.file)) for folder in (
            tmp_path / "pools" / "P0-0.5-0", tmp_path / "synthetic" / "0.5-0" / "all")]  # fmt: skip
        np.testing.assert_array_equal(*pixels)
    found = {row["arm"]: row for row in read_json(tmp_path / "rows.json")["rows"]}
    assert found["P0"]["alpha"] == found["S1"]["alpha"] == 0.4
    assert found["P0"]["lineage"] == found["S1"]["lineage"]


@pytest.mark.parametrize("arm", ["P0", "C0"])
def test_the_firewall_stands_before_poison_and_before_synthetic_images_alone(
    manifest: Manifest, tmp_path: Path, arm: str
) -> None:
    def leaking(_: Manifest, fraction: float, draw: int, out_dir: Path) -> Path:
        return fake_sets(manifest, fraction, draw, out_dir)

    with pytest.raises(LeakError, match="must lie in the labelled budget of 20 images"):
        run_ablation(options(tmp_path, arms=(arm,), pairs=1), CONFIG, manifest, leaking)


def test_synthetic_images_alone_means_that_no_real_pixel_is_learnt_from(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all photographs black C0 has the same weights, and S3 has others."""
    config = replace(CONFIG, real_only_share=0.5)
    run_ablation(options(tmp_path / "true", arms=("S3", "C0"), pairs=1), config, manifest, fake_sets)
    black = Image.new("RGB", (30, 30))
    with monkeypatch.context() as patch:
        patch.setattr(SquareImages, "__getitem__", lambda self, index: (black, self.targets[index]))
        run_ablation(options(tmp_path / "black", arms=("S3", "C0"), pairs=1), config, manifest, fake_sets)
    assert same(weights(tmp_path / "true", "C0"), weights(tmp_path / "black", "C0"))
    assert not same(weights(tmp_path / "true", "S3"), weights(tmp_path / "black", "S3"))
    rows = read_json(tmp_path / "true" / "rows.json")["rows"]
    assert [(row["arm"], row["alpha"], row["real_images"]) for row in rows] == [("S3", 0.4, 20), ("C0", 1.0, 0)]
    assert rows[1]["warnings"] == ["the filter kept 4 of 8"]


def test_synthetic_images_alone_are_refused_where_a_class_has_none(manifest: Manifest, tmp_path: Path) -> None:
    def without_red(budget: Manifest, fraction: float, draw: int, out_dir: Path) -> Path:
        fake_sets(budget, fraction, draw, out_dir)
        header, rows = read_rows(out_dir / "filtered")
        dropped = [row if row.label == 0 else replace(row, kept=False, dropped_by="teacher_top_k") for row in rows]
        write_manifest(out_dir / "filtered", header, dropped)
        return out_dir

    with pytest.raises(DataError) as caught:
        run_ablation(options(tmp_path, arms=("R2", "C0"), pairs=1), CONFIG, manifest, without_red)
    assert str(caught.value) == (
        f"C0 trains on synthetic images alone, {tmp_path / 'synthetic' / '0.5-0' / 'filtered'} holds none of red that "
        "was kept; leave C0 out of --arms, or train the generator longer in another --out"
    )


def of_an_untrained_generator(manifest: Manifest) -> Prepare:
    """A lineage of the budget, and a generator that draws noise."""

    def prepare(budget: Manifest, fraction: float, draw: int, out_dir: Path) -> Path:
        fake_sets(budget, fraction, draw, out_dir)
        run_dir = out_dir.parents[1] / "gan" / out_dir.name
        if not (run_dir / "config.json").exists():
            untrained_run(run_dir, tiny_config().resolve(12), manifest)
        return out_dir

    return prepare


def pasted(out: Path, manifest: Manifest, resolution: int, per_class: int) -> Path:
    """The pool of S4 at half the labels."""
    asked = options(out, arms=("S4",), pairs=1, per_class=per_class)
    prepare = of_an_untrained_generator(manifest)
    run_ablation(asked, replace(CONFIG, resolution=resolution, steps=1), manifest, prepare)
    return out / "pools" / "S4-0.5-0"


def test_a_real_object_lies_unchanged_on_backgrounds_that_differ(masked_data: Manifest, tmp_path: Path) -> None:
    """Photographs of 32 px and squares of 32 px: nothing is resized, so the object's pixels are the photograph's."""
    pool = open_index(pasted(tmp_path, masked_data, 26, per_class=5))
    budget = read_manifest(tmp_path / "budgets" / "0.5-0.jsonl")
    assert len(pool) == 12 * 5
    for label in range(12):
        records = [record for record in budget.of("train", labelled=True) if record.label == label]
        entries = [entry for entry in range(len(pool)) if pool.row(entry).label == label]
        outside = []
        for number, entry in enumerate(entries):
            record = records[number % len(records)]
            mask = np.asarray(Image.open(budget.mask_root / record.mask)) > 127  # type: ignore[operator]
            photograph, shown = np.asarray(Image.open(budget.file(record))), np.asarray(pool.image(entry))
            np.testing.assert_array_equal(shown[mask], photograph[mask])
            assert np.abs(shown[~mask].astype(int) - photograph[~mask]).mean() > 10
            outside.append(shown[~mask].astype(int).mean(axis=0))
        assert len({tuple(mean) for mean in outside}) == 5
    assert read_lineage(tmp_path / "pools" / "S4-0.5-0") is not None
    (row,) = read_json(tmp_path / "rows.json")["rows"]
    assert (row["alpha"], row["pool"], row["gan_data"]) == (0.4, 60, "u")


def test_a_pasted_image_is_the_same_however_many_are_asked_for(masked_data: Manifest, tmp_path: Path) -> None:
    few, many = (pasted(tmp_path / str(count), masked_data, 24, per_class=count) for count in (2, 40))
    first, second = open_index(few), open_index(many)
    for label in range(12):
        for number in range(2):
            images = [np.asarray(index.image(label * per + number)) for index, per in ((first, 2), (second, 40))]
            assert images[0].shape == (30, 30, 3)
            np.testing.assert_array_equal(*images)


def test_photographs_whose_mask_is_empty_are_not_pasted(masked_data: Manifest, tmp_path: Path) -> None:
    """With one of each class's photographs empty, every image of the class shows the other."""
    masks = tmp_path / "masks"
    for record in masked_data.of("train"):
        target = masks / str(record.mask)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((masked_data.mask_root / str(record.mask)).read_bytes())  # type: ignore[operator]
    data = replace(masked_data, mask_root=masks)
    run_ablation(options(tmp_path / "draw", arms=("R2",), pairs=1), replace(CONFIG, steps=1), data)
    budget = read_manifest(tmp_path / "draw" / "budgets" / "0.5-0.jsonl")
    kept = {}
    for record in budget.of("train", labelled=True):
        if record.label not in kept:
            kept[record.label] = record
        else:
            Image.new("L", (32, 32)).save(masks / str(record.mask))
    pool = open_index(pasted(tmp_path / "out", data, 26, per_class=3))
    assert len(pool) == 12 * 3
    for entry in range(len(pool)):
        record = kept[pool.row(entry).label]
        mask = np.asarray(Image.open(masks / str(record.mask))) > 127
        photograph = np.asarray(Image.open(data.file(record)))
        np.testing.assert_array_equal(np.asarray(pool.image(entry))[mask], photograph[mask])


def test_pasting_without_masks_is_refused_before_anything_is_trained(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        run_ablation(options(tmp_path, arms=("R2", "S4"), pairs=1), CONFIG, manifest, fake_sets)
    assert str(caught.value) == (
        "S4 cuts objects out by their masks, 40 of 40 training photographs have none; "
        "give --mask-folder, or leave S4 out of --arms"
    )
    assert not (tmp_path / "synthetic").exists()


def test_all_arms_stand_behind_one_real_generator(
    masked_data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is faked: generator, teachers and filter are trained, for a moment."""
    monkeypatch.setattr(pseudo_labels, "TEACHER_KIMG", 0.128)
    settings = {name: value for name, value in tiny_config().to_json().items() if name in (
        "precision", "width", "ndf", "z_dim", "num_parents", "modes_per_class", "batch_size", "log_kimg")}  # fmt: skip
    generator = tmp_path / "generator.json"
    tiny = {**settings, "preset": "slim-32", "total_kimg": 0.016, "pseudo_labels": 0.01, "boxes": "from_masks"}
    write_json(generator, {"train": tiny})
    asked = AblationOptions(
        tmp_path / "out", (0.5,), 1, arms=("R2", "R5", "S1", "S4", "P0"), models=(MODEL,), gan_data="u", per_class=4,
        generator=str(generator), teacher_kimg=0.064,
    )  # fmt: skip
    run_ablation(asked, CONFIG, masked_data)
    rows = {row["arm"]: row for row in read_json(tmp_path / "out" / "rows.json")["rows"]}
    assert {arm: row["pool"] for arm, row in rows.items()} == {"R2": 0, "R5": 24, "S1": 48, "S4": 48, "P0": 48}
    header = read_json(tmp_path / "out" / "rows.json")
    assert (header["lineage_checked"], header["imagenet_features"]) == (True, False)
    budget = read_manifest(tmp_path / "out" / "budgets" / "0.5-0.jsonl")
    labels = read_json(tmp_path / "out" / "gan" / "0.5-0" / "labels.json")["labels"]
    told = [label for record, label in zip(budget.of("train"), labels, strict=True) if not record.labelled]
    _, pool = read_rows(tmp_path / "out" / "pools" / "R5-0.5-0")
    assert [row.label for row in pool] == told

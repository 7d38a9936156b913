"""Images of codes that no label had a part in: a teacher names them, and the set says who knew what."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_sets import CLASSES, colour_logits, data_manifest, real_folder, said_of, synthetic_folder
from tiny_runs import tiny_config
from torch import Tensor
from untrained_run import untrained_run

from finegan_aug import SyntheticMixDataset, naming
from finegan_aug.cli import main
from finegan_aug.config import FineGANConfig
from finegan_aug.data.budget import budget
from finegan_aug.data.manifest import Manifest, write_manifest
from finegan_aug.errors import ConfigError, DataError, LeakError
from finegan_aug.files import link_file, read_json
from finegan_aug.filtering import filter_synthetic
from finegan_aug.lineage import Lineage, check_lineage, read_lineage, write_lineage
from finegan_aug.naming import name_synthetic
from finegan_aug.packaged import packaged_sha256
from finegan_aug.run_evaluation import evaluate_run
from finegan_aug.samples import IMAGE_OF_CODE, redraw
from finegan_aug.small_cnn import SmallClassifier
from finegan_aug.synthesis import load_generator, synthesize
from finegan_aug.synthetic import read_rows
from finegan_aug.synthetic_index import SOFT_LABELS, open_index
from finegan_aug.teacher import Taught, filter_with_teacher, teach
from recipes.sets import without_labels
from recipes.train_classifier import main as train_classifier

torch.set_num_threads(1)
CODES = ("code-000", "code-001", "code-002")


class Colours:
    """A teacher that goes by the mean colours."""

    sha256 = "5" * 64

    def logits(self, images: Tensor) -> Tensor:
        return colour_logits(images)


@pytest.fixture
def photographs(tmp_path: Path) -> Manifest:
    """Of each class two labelled, two unlabelled training photographs."""
    return data_manifest(real_folder(tmp_path / "real"), {}, unlabelled=("2", "3"))


def taught(manifest: Manifest, *, imports: bool = False) -> Taught:
    teacher: SmallClassifier = Colours()  # type: ignore[assignment]
    return Taught(teacher, manifest.classes, manifest.of("train"), torch.zeros(12, 3, 16, 16), imports)


@pytest.fixture
def codes(tmp_path: Path, photographs: Manifest) -> Path:
    """Three codes: the pictures of the set of classes, under other names. Every photograph was only looked at."""
    root = synthetic_folder(tmp_path / "codes", classes=CODES)
    seen = {record.sha256: ("unlabelled",) for record in photographs.of("train")}
    generator = {"kind": "fake", "checkpoint_sha256": "0" * 64}
    write_lineage(root, Lineage(seen, photographs.classes, photographs.sha256, generator, "discovered", "u"))
    return root


def test_every_image_comes_under_the_class_that_the_teacher_sees(
    tmp_path: Path, codes: Path, photographs: Manifest
) -> None:
    out = name_synthetic(codes, tmp_path / "named", taught(photographs), fraction=0.5, pair=2)
    header, rows = read_rows(out)
    assert header.classes == CLASSES
    shares = np.load(out / SOFT_LABELS, allow_pickle=False)
    before = read_rows(codes)[1]
    counts: Counter[int] = Counter()
    for place, (row, source) in enumerate(zip(rows, before, strict=True)):
        expected = said_of(source.label, source.image)
        torch.testing.assert_close(torch.from_numpy(shares[place]), expected)
        assert (row.label, row.class_name) == (int(expected.argmax()), CLASSES[int(expected.argmax())])
        assert (row.image, row.file) == (counts[row.label], f"{row.class_name}/{counts[row.label]:08d}.png")
        assert (row.child, row.sha256, row.seed) == (source.child, source.sha256, source.seed)
        assert (out / row.file).stat().st_ino == (codes / source.file).stat().st_ino  # no second copy
        counts[row.label] += 1
    assert open_index(out).soft_labels.shape == (15, 3)


def test_the_lineage_says_whose_labels_the_names_rest_on_and_the_firewall_reads_it(
    tmp_path: Path, codes: Path, photographs: Manifest
) -> None:
    out = name_synthetic(codes, tmp_path / "named", taught(photographs, imports=True), fraction=0.5, pair=2)
    lineage = read_lineage(out)
    assert lineage is not None
    roles = {record.sha256: lineage.real_images[record.sha256] for record in photographs.of("train")}
    assert all(("filter_teacher" in roles[record.sha256]) == record.labelled for record in photographs.of("train"))
    assert (lineage.fraction, lineage.pair, lineage.code_to_class) == (0.5, 2, None)
    assert [(parent["used_by"], parent["sha256"]) for parent in lineage.parents] == [("labels", packaged_sha256())]
    real = _Labelled(photographs)
    assert SyntheticMixDataset(real, out, data_manifest=photographs).lineage_status == "checked"
    # A classifier that may know fewer labels than the teacher did.
    poorer = data_manifest(photographs.root, {}, unlabelled=("1", "2", "3"))
    with pytest.raises(LeakError, match="must lie in the labelled budget of 3 images"):
        SyntheticMixDataset(real, out, data_manifest=poorer)


def test_a_filter_by_another_teacher_leaves_standing_who_named(
    tmp_path: Path, codes: Path, photographs: Manifest
) -> None:
    out = name_synthetic(codes, tmp_path / "named", taught(photographs, imports=True))
    filter_with_teacher(out, photographs, boxes="none", teacher_kimg=0.1)
    lineage = read_lineage(out)
    assert lineage is not None
    assert [parent["used_by"] for parent in lineage.parents] == ["labels"]


def test_naming_again_gives_the_same_and_what_a_filter_dropped_is_back(
    tmp_path: Path, codes: Path, photographs: Manifest
) -> None:
    out = name_synthetic(codes, tmp_path / "named", taught(photographs))
    first = {path: path.read_bytes() for path in sorted(out.rglob("*.*"))}
    filter_synthetic(out, teacher=lambda images: torch.zeros(len(images), 3))
    name_synthetic(codes, out, taught(photographs))
    assert {path: path.read_bytes() for path in sorted(out.rglob("*.*"))} == first


def test_a_set_that_was_not_named_is_not_overwritten(tmp_path: Path, codes: Path, photographs: Manifest) -> None:
    other = synthetic_folder(tmp_path / "other")
    before = {path: path.read_bytes() for path in other.rglob("*.*")}
    for folder in (other, codes):
        with pytest.raises(ConfigError) as caught:
            name_synthetic(codes, folder, taught(photographs))
        first = sorted(path.name for path in folder.iterdir())[0]
        assert str(caught.value) == f"{folder} must be empty or hold a named set, found {first}; choose another --out"
    assert {path: path.read_bytes() for path in other.rglob("*.*")} == before


def test_a_naming_that_was_broken_off_begins_anew(
    tmp_path: Path, codes: Path, photographs: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = name_synthetic(codes, tmp_path / "whole", taught(photographs))
    calls: list[Path] = []

    def full_disk(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 7:
            raise OSError(28, "No space left on device")
        link_file(source, target)

    monkeypatch.setattr(naming, "link_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        name_synthetic(codes, tmp_path / "broken", taught(photographs))
    assert not (tmp_path / "broken" / "manifest.jsonl").exists()
    monkeypatch.undo()
    broken = name_synthetic(codes, tmp_path / "broken", taught(photographs))
    assert read_rows(broken) == read_rows(whole)
    assert (broken / SOFT_LABELS).read_bytes() == (whole / SOFT_LABELS).read_bytes()


@pytest.mark.parametrize("labels", ["tied", "discovered"])
def test_each_code_can_be_a_class_of_its_own_without_an_audit(tmp_path: Path, toy_data: Manifest, labels: str) -> None:
    config = tiny_config(labels=labels, boxes="none", num_children=12).resolve(len(toy_data.classes))
    run = untrained_run(tmp_path / "run", config, toy_data)
    out = synthesize(run, tmp_path / "codes", per_class=2, by_code=True)
    header, rows = read_rows(out)
    assert header.classes == tuple(f"code-{code:03d}" for code in range(12))
    assert [row.child for row in rows] == [row.label for row in rows]
    lineage = read_lineage(out)
    assert lineage is not None
    used = (("gan_train",), "s") if labels == "tied" else (("unlabelled",), "u")  # no label stands behind found codes
    assert ({*lineage.real_images.values()}, lineage.gan_data) == ({used[0]}, used[1])
    assert synthesize(run, out, per_class=2, by_code=True) == out
    with pytest.raises(ConfigError, match="holds a set made with another by_code"):
        synthesize(run, out, per_class=2)


@pytest.mark.parametrize("share", [[], ["--fraction", "0.5", "--pair", "1"]])
def test_the_verbs_make_a_labelled_set_of_codes_and_mix_it(
    tmp_path: Path, toy_data: Manifest, capsys: pytest.CaptureFixture[str], share: list[str]
) -> None:
    """A generator trained without labels, on photographs that all have one, serves any budget."""
    config = tiny_config(labels="discovered", boxes="none", num_children=6).resolve(len(toy_data.classes))
    run = untrained_run(tmp_path / "run", config, toy_data)
    write_manifest(toy_data, tmp_path / "data.jsonl")
    codes, named, data = tmp_path / "codes", tmp_path / "named", ["--data", str(tmp_path / "data.jsonl")]
    assert main(["synthesize", str(run), "--out", str(codes), "--per-class", "2", "--by-code"]) == 0
    line = ["name", str(codes), *data, "--out", str(named), "--boxes", "none", "--teacher-kimg", "0.2", *share]
    assert main(line) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(named)
    header, rows = read_rows(named)
    assert (header.classes, len(rows)) == (toy_data.classes, 12)
    for row in rows:
        assert Image.open(named / row.file).size == (32, 32)
    training = ["--model", "test_efficientnet", "--resolution", "24", "--steps", "2", "--batch-size", "4"]
    mix = ["--synthetic", str(named), "--alpha", "0.5", "--soft-labels", "--out", str(tmp_path / "classifier")]
    train_classifier([*data, *share, *mix, *training])
    lineage = read_lineage(named)
    assert lineage is not None
    assert lineage.gan_data == ("u" if share else "s")  # every photograph behind it is in the whole budget
    assert (tmp_path / "classifier" / "result.json").exists()


def test_a_generator_of_the_labelled_photographs_alone_and_its_teacher_stay_with_them(
    tmp_path: Path, toy_data: Manifest
) -> None:
    """The other photographs of the scan, which nobody needs here, would make the set one that saw unlabelled images."""
    half = budget(toy_data, 0.5, pair=0, validation_share=0, unlabelled="keep")
    alone = replace(half, images=tuple(image for image in half.images if image.split != "train" or image.labelled))
    config = tiny_config(labels="discovered", boxes="none", num_children=6).resolve(len(toy_data.classes))
    run = untrained_run(tmp_path / "run", config, alone)
    codes = synthesize(run, tmp_path / "codes", per_class=2, by_code=True)
    named = name_synthetic(codes, tmp_path / "named", teach(codes, half, boxes="none", teacher_kimg=0.1))
    lineage = read_lineage(named)
    assert lineage is not None
    assert lineage.gan_data == "s"
    assert set(lineage.real_images) == {record.sha256 for record in half.of("train", labelled=True)}
    check_lineage(lineage, half)


@pytest.fixture(scope="module")
def named_run(tmp_path_factory: pytest.TempPathFactory, toy_data: Manifest) -> tuple[Path, Path]:
    """A run that knows no label, and a set of its images that a teacher of every label has named."""
    folder = tmp_path_factory.mktemp("named-run")
    config = tiny_config(labels="discovered", boxes="given", num_children=6).resolve(len(toy_data.classes))
    run = untrained_run(folder / "run", config, without_labels(toy_data))
    codes = synthesize(run, folder / "codes", per_class=8, by_code=True, placement="frame")
    teacher = teach(codes, toy_data, boxes="given", teacher_kimg=0.2)
    return run, name_synthetic(codes, folder / "named", teacher)


def test_a_named_set_is_judged_without_any_say_in_the_codes(named_run: tuple[Path, Path]) -> None:
    run, named = named_run
    options = {"samples": 48, "judge_kimg": 0.16, "clustering_kimg": 0.1}
    evaluate_run(run, synthetic_dir=named, judge_labels="all", **options)  # type: ignore[arg-type]
    rows = {row["metric"]: row for row in read_json(run / "evaluation.json")["rows"]}
    assert {"class_consistency", "class_consistency_after_filter", "memorised_share", "fid"} <= rows.keys()
    assert rows["class_consistency"]["n_fake"] == sum(row.image < 4 for row in read_rows(named)[1])  # 48 by 12 classes
    assert not (run / "audit.json").exists()


def test_named_images_are_drawn_again_as_they_were(named_run: tuple[Path, Path], tmp_path: Path) -> None:
    run, named = named_run
    config = FineGANConfig.from_json(read_json(run / "config.json")["config"])
    rows = read_rows(named)[1]
    crops = synthesize(run, tmp_path / "crops", per_class=8, by_code=True, placement="crop")
    again = redraw(load_generator(run), config, rows).permute(0, 2, 3, 1)
    for image, row in zip(again, rows, strict=True):
        file = crops / f"code-{row.child:03d}" / f"{int(row.scores[IMAGE_OF_CODE]):08d}.png"
        pixels = torch.from_numpy(np.array(Image.open(file)))
        assert int((image.int() - pixels.int()).abs().max()) <= 1  # another batch may round otherwise
    broken = replace(rows[0], scores={IMAGE_OF_CODE: -1.0})
    with pytest.raises(DataError) as caught:
        redraw(load_generator(run), config, [broken])
    assert str(caught.value) == (
        f"image_of_code of {rows[0].file!r} in the set's manifest must be a whole number from 0, found -1.0; "
        "name the set anew"
    )


class _Labelled:
    """The labelled training photographs of a manifest."""

    def __init__(self, manifest: Manifest) -> None:
        self.records = manifest.of("train", labelled=True)
        self.classes, self.targets = list(manifest.classes), [record.label for record in self.records]
        self.root = manifest.root

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.open(self.root / self.records[index].path), self.records[index].label

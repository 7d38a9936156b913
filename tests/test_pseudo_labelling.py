"""Photographs without a label become a set for mixing: named by a teacher, square, and never by their own label."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_sets import CLASSES, colour_logits, picture, real_folder, synthetic_folder
from torch import Tensor

from classifier.data import SquareImages
from finegan_aug import pseudo_labelling, teaching
from finegan_aug.cli import main
from finegan_aug.data.budget import budget
from finegan_aug.data.folder import scan
from finegan_aug.data.manifest import Manifest, write_manifest
from finegan_aug.errors import ConfigError, DataError, LeakError
from finegan_aug.lineage import read_lineage
from finegan_aug.mixing import SyntheticMixDataset
from finegan_aug.naming import name_synthetic
from finegan_aug.pseudo_labelling import pseudo_label
from finegan_aug.synthetic import read_rows
from finegan_aug.synthetic_index import SOFT_LABELS, open_index
from finegan_aug.teacher import Taught
from finegan_aug.teaching import answers_of_others
from recipes.train_classifier import main as train_classifier

torch.set_num_threads(1)


class Colours:
    """A teacher that goes by the mean colours."""

    sha256 = "5" * 64

    def logits(self, images: Tensor) -> Tensor:
        return colour_logits(images)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve of each class."""
    return real_folder(tmp_path / "photos", per_class=12)


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The labels that the teacher was given, each time."""
    given = list[Tensor]()

    def fit(kind: str, images: Tensor, labels: Tensor, **settings: object) -> Colours:
        given.append(labels)
        return Colours()

    monkeypatch.setattr(pseudo_labelling, "fit_teacher", fit)
    return given


def heap(root: Path) -> Path:
    """Nine photographs of no known class: the colours of the first, of the second and of the third class in turns."""
    root.mkdir()
    for number in range(9):
        Image.fromarray(picture(number % 3, 100 + number)).save(root / f"{number}.png")
    return root


def test_every_photograph_lies_under_what_the_teacher_sees(photos: Path, tmp_path: Path, taught: list[Tensor]) -> None:
    manifest = scan(photos, unlabelled=heap(tmp_path / "heap"))
    out = pseudo_label(manifest, tmp_path / "named", side_px=16)
    header, rows = read_rows(out)
    assert (header.classes, header.resolution) == (CLASSES, 16)
    assert [row.label for row in rows] == [0, 1, 2] * 3  # the heap in its order
    assert [row.image for row in rows] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    unlabelled = manifest.of("train", labelled=False)
    for row, record in zip(rows, unlabelled, strict=True):
        assert np.array_equal(np.asarray(Image.open(out / row.file)), np.asarray(Image.open(manifest.file(record))))
    shares = np.load(out / SOFT_LABELS)
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(manifest.file(r)))) for r in unlabelled])
    assert np.allclose(shares, colour_logits(pixels.permute(0, 3, 1, 2)).softmax(1).numpy(), atol=1e-6)
    labels = [record.label for record in manifest.of("train", labelled=True)]
    assert taught[0].tolist() == labels + [-1] * 9


def test_a_label_that_may_not_be_used_is_not_looked_at(photos: Path, tmp_path: Path, taught: list[Tensor]) -> None:
    half = budget(scan(photos), 0.5, pair=0, unlabelled="keep")
    other = [image if image.labelled else replace(image, label=(image.label + 1) % 3) for image in half.images]
    sets = [half, replace(half, images=tuple(other))]
    rows = [read_rows(pseudo_label(data, tmp_path / str(i), side_px=16))[1] for i, data in enumerate(sets)]
    assert rows[0] == rows[1]
    assert torch.equal(taught[0], taught[1])


def test_the_set_is_mixed_in_with_the_teachers_probabilities(
    photos: Path, tmp_path: Path, taught: list[Tensor]
) -> None:
    manifest = scan(photos, unlabelled=heap(tmp_path / "heap"))
    out = pseudo_label(manifest, tmp_path / "named", side_px=16)
    real = SquareImages(manifest, manifest.of("train", labelled=True), 16)
    mixed = SyntheticMixDataset(real, out, alpha=1.0, return_source=True, soft_labels=True, data_manifest=manifest)
    assert mixed.lineage_status == "checked"
    image, label, synthetic = mixed[0]
    assert synthetic
    assert isinstance(label, Tensor)
    assert int(label.argmax()) == real.targets[0] == int(np.asarray(image).mean(axis=(0, 1)).argmax())


def test_the_lineage_names_who_taught_and_who_is_in_the_set(photos: Path, tmp_path: Path, taught: list[Tensor]) -> None:
    half = budget(scan(photos), 0.5, pair=0, unlabelled="keep")
    lineage = read_lineage(pseudo_label(half, tmp_path / "named", side_px=16, fraction=0.5, pair=0))
    assert lineage is not None
    roles = {record.sha256: ("filter_teacher",) for record in half.of("train", labelled=True)}
    assert lineage.real_images == roles | {r.sha256: ("unlabelled",) for r in half.of("train", labelled=False)}
    assert (lineage.fraction, lineage.pair, lineage.gan_data) == (0.5, 0, "u")
    assert lineage.generator == {"kind": "photographs", "checkpoint_sha256": Colours.sha256}
    assert lineage.parents == ()


@pytest.mark.fault("leaks: sets with a leak behind them, refused")
def test_a_set_with_test_images_of_another_split_is_refused(photos: Path, tmp_path: Path, taught: list[Tensor]) -> None:
    """Resized squares equal no test image pixel by pixel, so nothing else would find them."""
    named = pseudo_label(budget(scan(photos), 0.5, pair=0, unlabelled="keep"), tmp_path / "named", side_px=12)
    other = scan(photos, seed=7)
    with pytest.raises(LeakError, match="no test image may stand behind synthetic images, found image"):
        SyntheticMixDataset(SquareImages(other, other.of("train"), 16), named, data_manifest=other)


@pytest.mark.fault("leaks: sets with a leak behind them, refused")
def test_a_set_that_was_named_with_other_labels_is_refused(photos: Path, tmp_path: Path, taught: list[Tensor]) -> None:
    manifest = scan(photos)
    named = pseudo_label(budget(manifest, 0.5, pair=1, unlabelled="keep"), tmp_path / "named", side_px=12)
    other = budget(manifest, 0.5, pair=0, validation_share=0, unlabelled="keep")
    with pytest.raises(LeakError, match="must lie in the labelled budget of"):
        SyntheticMixDataset(SquareImages(other, other.of("train", labelled=True), 16), named, data_manifest=other)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_of_a_classifier_draws_no_other_budget(
    seed: int, photos: Path, tmp_path: Path, taught: list[Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    """Once another --seed held out other photographs, and most of these were in the set."""
    named = tmp_path / "named"
    share = ["--fraction", "0.5", "--pair", "2"]
    assert main(["pseudo-label", str(photos), *share, "--side-px", "40", "--seed", "5", "--out", str(named)]) == 0
    line = f"--synthetic {named} --alpha 0.5 --steps 2 --batch-size 4 --resolution 32 --seed {seed}"
    train_classifier(["--data", str(photos), *share, *line.split(), "--out", str(tmp_path / "run")])
    assert "validation accuracy" in capsys.readouterr().out


def test_an_old_lineage_does_not_stand_beside_new_images(photos: Path, tmp_path: Path, taught: list[Tensor]) -> None:
    half = budget(scan(photos), 0.5, pair=0, unlabelled="keep")
    codes = synthetic_folder(tmp_path / "codes", classes=("code-000", "code-001", "code-002"))
    known = half.of("train", labelled=True)
    teacher = Taught(Colours(), CLASSES, known, torch.zeros(0), imports=False)  # type: ignore[arg-type]
    out = name_synthetic(codes, tmp_path / "set", teacher)
    assert read_lineage(out) is None
    pseudo_label(half, out, side_px=16)
    assert read_lineage(out) is not None
    assert read_lineage(name_synthetic(codes, out, teacher)) is None
    assert len(read_rows(out)[1]) == 15


def test_there_must_be_a_photograph_without_a_label(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        pseudo_label(scan(photos), tmp_path / "named")
    assert caught.value.cause == "there must be training photographs without a label, found none"
    assert caught.value.remedy == "give --unlabelled-folder, or a --fraction below 1, or take those --with-labelled"
    assert not (tmp_path / "named").exists()


def test_a_folder_of_something_else_is_left_alone(photos: Path, tmp_path: Path, taught: list[Tensor]) -> None:
    manifest = scan(photos, unlabelled=heap(tmp_path / "heap"))
    mine = real_folder(tmp_path / "mine", per_class=1)
    cause = f"{mine} must be empty or hold a set of named photographs, found ant"
    with pytest.raises(ConfigError, match=re.escape(cause)):
        pseudo_label(manifest, mine)
    before = read_rows(pseudo_label(manifest, tmp_path / "named", side_px=16))
    assert read_rows(pseudo_label(manifest, tmp_path / "named", side_px=16)) == before


def as_typed(manifest: Manifest, path: Path) -> str:
    write_manifest(manifest, path)
    return str(path)


def test_a_user_names_a_heap_and_trains_on_it(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = [str(photos), "--unlabelled-folder", str(heap(tmp_path / "heap"))]
    named = tmp_path / "named"
    line = ["pseudo-label", *data, "--out", str(named), "--side-px", "40", "--teacher-kimg", "0.5"]
    assert main(line) == 0
    assert capsys.readouterr().out.strip() == str(named)
    assert len(read_rows(named)[1]) == 9
    settings = "--synthetic SET --soft-labels --alpha 0.5 --steps 3 --batch-size 4 --resolution 32".replace(
        "SET", str(named)
    )
    train_classifier(["--data", *data, "--out", str(tmp_path / "run"), *settings.split()])
    assert "validation accuracy" in capsys.readouterr().out


def test_a_share_of_the_labels_names_the_rest_and_a_cut_manifest_is_taken_as_it_is(
    photos: Path, tmp_path: Path, taught: list[Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = scan(photos)
    assert main(["pseudo-label", str(photos), "--fraction", "0.5", "--out", str(tmp_path / "half")]) == 0
    cut = budget(manifest, 0.5, pair=0, unlabelled="keep")
    assert len(read_rows(tmp_path / "half")[1]) == len(cut.of("train", labelled=False)) > 0
    assert main(["pseudo-label", as_typed(cut, tmp_path / "cut.jsonl"), "--out", str(tmp_path / "cut")]) == 0
    assert read_rows(tmp_path / "cut") == read_rows(tmp_path / "half")
    capsys.readouterr()
    line = [
        "pseudo-label",
        as_typed(cut, tmp_path / "cut.jsonl"),
        "--fraction",
        "0.1",
        "--out",
        str(tmp_path / "tenth"),
    ]
    assert main(line) == 3
    assert "found one that is cut already" in capsys.readouterr().err


def test_labelled_photographs_come_under_labels_that_are_half_their_own(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher of the others knows nothing of a photograph; one that had seen it would be sure."""

    class Parrot(Colours):
        def __init__(self, images: Tensor, labels: Tensor) -> None:
            pairs = zip(images, labels.tolist(), strict=True)
            self.known = {image.numpy().tobytes(): label for image, label in pairs if label >= 0}

        def logits(self, images: Tensor) -> Tensor:
            sure = [self.known.get(image.numpy().tobytes()) for image in images]
            return torch.stack([torch.zeros(3) if s is None else 50 * torch.eye(3)[s] for s in sure])

    for module in (pseudo_labelling, teaching):
        monkeypatch.setattr(module, "fit_teacher", lambda kind, images, labels, **_: Parrot(images, labels))
    manifest = budget(scan(photos), 0.5, pair=0, unlabelled="keep")
    known, unknown = (manifest.of("train", labelled=labelled) for labelled in (True, False))
    out = pseudo_label(manifest, tmp_path / "named", side_px=16, with_labelled=True)
    rows, shares = read_rows(out)[1], np.load(out / SOFT_LABELS)
    assert [row.label for row in rows[: len(known)]] == [record.label for record in known]
    assert len(rows) == len(known) + len(unknown)
    for row, record, said in zip(rows, [*known, *unknown], shares, strict=True):
        assert np.array_equal(np.asarray(Image.open(out / row.file)), np.asarray(Image.open(manifest.file(record))))
        own = 0.5 * np.eye(3)[record.label] + 0.5 / 3 if record.labelled else np.full(3, 1 / 3)
        np.testing.assert_allclose(said, own, atol=1e-6)


def test_labelled_photographs_alone_are_named_and_trained_on(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = tmp_path / "named"
    line = ["pseudo-label", str(photos), "--with-labelled", "--side-px", "40", "--teacher-kimg", "0.1"]
    assert main([*line, "--out", str(named)]) == 0
    assert len(read_rows(named)[1]) == len(budget(scan(photos), 1.0, pair=0).of("train"))
    settings = (
        f"--synthetic {named} --soft-labels --alpha 1 --real-only-share 0 --steps 3 --batch-size 4 --resolution 32"
    )
    train_classifier(["--data", str(photos), "--out", str(tmp_path / "run"), *settings.split()])
    assert "validation accuracy" in capsys.readouterr().out


def test_a_class_of_one_photograph_keeps_its_own_label(tmp_path: Path) -> None:
    """No teacher of the others knows its class: half of a label from there would be wrong for certain."""
    images = torch.from_numpy(
        np.stack([picture(label, n) for label, n in [*((0, n) for n in range(6)), (1, 0), (1, 1)]])
    )
    images = images.permute(0, 3, 1, 2)
    for labels in (torch.tensor([0] * 6 + [1] * 2), torch.tensor([0] * 7 + [1]), torch.tensor([0] * 8)):
        shares = answers_of_others("own", images, labels, num_classes=2, seed=0, kimg=0.05)
        assert torch.allclose(shares.sum(1), torch.ones(8))
        if int(labels.sum()) < 2:
            assert shares[-1].tolist() == torch.eye(2)[labels[-1]].tolist()
    assert answers_of_others("own", images[:1], labels[:1], num_classes=2, seed=0, kimg=0.05).tolist() == [[1.0, 0.0]]


def test_what_fails_leaves_the_set_that_was_there(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = budget(scan(photos), 0.5, pair=0, unlabelled="keep")
    monkeypatch.setattr(pseudo_labelling, "fit_teacher", lambda *_, **__: Colours())
    out = pseudo_label(half, tmp_path / "named", side_px=16)
    before = read_rows(out), read_lineage(out)

    def fails(*_: object, **__: object) -> Tensor:
        raise DataError("too few", "label more")

    monkeypatch.setattr(pseudo_labelling, "answers_of_others", fails)
    with pytest.raises(DataError, match="too few"):
        pseudo_label(half, out, side_px=16, with_labelled=True)
    assert (read_rows(out), read_lineage(out)) == before


def test_a_naming_that_was_broken_off_is_no_folder_of_images(
    photos: Path, tmp_path: Path, taught: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    half = budget(scan(photos), 0.5, pair=0, unlabelled="keep")
    out = pseudo_label(half, tmp_path / "named", side_px=16)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pseudo_labelling, "write_manifest", killed)
    with pytest.raises(KeyboardInterrupt):
        pseudo_label(half, out, side_px=16)
    with pytest.raises(DataError) as caught:
        open_index(out)
    assert str(caught.value) == f"{out} holds images whose naming was broken off; run the command that names them again"


def test_the_side_is_a_number_of_pixels(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pseudo-label", str(photos), "--out", str(tmp_path / "named"), "--side-px", "0"]) == 2
    assert capsys.readouterr().err == "error: side_px must be at least 1, found 0\nfix: correct --side-px\n"

"""Evaluation of a run folder: its generator against photographs, its codes against classes, its figures.

No test image is read: judge, references and clustering use the other splits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from finegan_aug.class_audit import CodeMap, Made, consistency, map_codes
from finegan_aug.clusters import kept_codes
from finegan_aug.config import FineGANConfig, Knowledge
from finegan_aug.data.crops import build_crops
from finegan_aug.data.manifest import Manifest, read_manifest
from finegan_aug.errors import ConfigError, DataError
from finegan_aug.evaluation import cluster_with_generated, evaluate_images
from finegan_aug.features import Extractor, inception_extractor
from finegan_aug.figures import write_failures, write_figures, write_nearest
from finegan_aug.files import JSON, write_json
from finegan_aug.judging import Judge, JudgeLabels, Photographs, fit_judge
from finegan_aug.models.finegan import Generator
from finegan_aug.packaged import LITE0, LITE2, enlarged_px, packaged_extractor
from finegan_aug.randomness import permutation, seed_for
from finegan_aug.samples import redraw, sample
from finegan_aug.set_measures import set_rows
from finegan_aug.synthetic import SyntheticRow, read_rows
from finegan_aug.synthetic_index import open_index
from finegan_aug.trained import check_classes, open_run

Split = Literal["train", "val"]


def evaluate_run(
    run_dir: str | Path,
    *,
    synthetic_dir: str | Path | None = None,
    split: Split = "train",
    samples: int = 1200,
    judge: Knowledge = "own",
    judge_labels: JudgeLabels = "budget",
    judge_kimg: float = 8.0,
    clustering: bool = True,
    clustering_kimg: float = 3.0,
    inception_weights: Path | None = None,
    seed: int = 0,
) -> Path:
    """Measures the averaged generator of a run; writes evaluation.json, audit.json and figures/ into it.

    Generated images have tied codes, every child code equally often; photographs are central object crops, as the
    discriminator sees them but without randomness (finegan.md 9.1). A judge that learned from labelled photographs of
    the train split says which class an image shows; in its features coverage within classes and memorisation are
    measured. FID and KID have the features of the small judge and of every other extractor there is.

    Args:
        run_dir: a training run with a checkpoint; its data.jsonl says which photographs.
        synthetic_dir: a set made by this run, filtered or not: class consistency is then that of its images, drawn
            once more in the crop view, before and after the filter; at most `samples` of them. Where a teacher named
            the images, no code is matched to a class, and audit.json is left as it is.
        split: photographs that the generated images are compared with.
        samples: generated images, rounded up to equally many for each code; at most as many photographs are used.
        judge: "own", a small network trained from scratch; "packaged", a probe on the features of EfficientNet-Lite2.
        judge_labels: which labels of the train split the judge learns from: those of the labelled "budget", or "all",
            also those that neither generator nor filter may use; nothing but measures follows from it.
        judge_kimg: length of the training of the judge "own", thousands of images.
        clustering: also cluster photographs by networks trained on generated images (section 4.4 of the paper).
            With discovered codes these networks always run, since they tell which code is which class; not where the
            codes began as clusters of these photographs.
        clustering_kimg: length of training of each of the two networks.
        inception_weights: weight file of torch-fidelity's Inception, which is otherwise left out.
        seed: of samples, networks and subsets.

    Returns:
        run_dir/evaluation.json: {"rows": as from `evaluation.evaluate_images`, "settings"}.

    Raises:
        CheckpointError: the run has no good checkpoint, or counts other classes than its photographs have.
        ConfigError: the test split is asked for, a judge that is not there, or one that must not choose codes.
        DataError: no labelled photograph, an empty split, or a synthetic set of another checkpoint.
    """
    run = _open(Path(run_dir))
    named = synthetic_dir is not None and "named_by" in open_index(synthetic_dir).header.made_with
    _check_options(run.config, split, judge, judge_labels, named=named)
    checked_rows = None if synthetic_dir is None else _rows_of_set(Path(synthetic_dir), run, samples)
    train = _photographs(run, "train")
    to_measure, val = (train, _validation(run)) if judge_labels == "budget" else (_with_every_label(run, train), None)
    judged_by = fit_judge(judge, to_measure, val, num_classes=len(run.manifest.classes), kimg=judge_kimg, seed=seed)
    fake, child, _ = sample(run.generator, run.config, samples, seed_for(seed, "evaluate/samples"))

    extractors = [*([judged_by.extractor] if judge == "own" else []), *_pretrained(run.config, inception_weights)]
    rows = _image_rows(run, train, fake, extractors, split=split, samples=samples, seed=seed)

    codes, clustering_rows = _codes(run, train, samples, clustering=clustering, kimg=clustering_kimg, seed=seed)
    rows += clustering_rows
    labels, answers = train.labels[train.labels >= 0], judged_by.extractor.logits(fake).argmax(dim=1)
    code_map = map_codes(run.config, run.manifest.classes, codes=codes, labels=labels, child=child, answers=answers)

    if checked_rows is None:
        intended = code_map.code_to_class[child]
        made = Made(fake[intended >= 0], intended[intended >= 0], None)
    else:
        made = _redrawn(run, checked_rows)
    consistency_rows, by_class = consistency(made, judged_by, run.manifest.classes)
    variety_rows = set_rows(made, to_measure, judged_by.extractor, run.manifest.classes, seed=seed)
    rows += [*judged_by.rows, *consistency_rows, *variety_rows]

    if not named:  # whose labels are a teacher's, whatever the codes are
        _write_audit(run, judged_by, by_class, code_map)
    _write_figures(run, train, fake, made, judged_by.extractor, seed=seed)
    settings: JSON = {
        "checkpoint_sha256": run.checkpoint_sha256,
        "seed": seed,
        "judge": judge,
        "judge_labels": judge_labels,
        "judge_kimg": judge_kimg,
        "clustering_kimg": clustering_kimg,
        "synthetic_set": synthetic_dir is not None,
    }
    write_json(run.folder / "evaluation.json", {"rows": rows, "settings": settings})
    return run.folder / "evaluation.json"


def _check_options(config: FineGANConfig, split: str, judge: str, judge_labels: str, *, named: bool) -> None:
    if split not in get_args(Split):
        raise ConfigError(
            f"split must be train or val, found {split!r}", "leave the test images to the comparison of classifiers"
        )
    for name, value, kind in (("judge", judge, Knowledge), ("judge_labels", judge_labels, JudgeLabels)):
        if value not in get_args(kind):
            raise ConfigError(f"{name} must be {' or '.join(get_args(kind))}, found {value!r}", f"change --{name}")
    if config.labels == "discovered" and not named and (judge, judge_labels) != ("own", "budget"):
        raise ConfigError(
            "with discovered labels the judge has a say in which code is which class, so it must be own, with labels "
            f"of the budget, found {judge} with {judge_labels}",
            "leave --judge and --judge-labels out",
        )


def _write_audit(run: _Run, judge: Judge, by_class: list[JSON], code_map: CodeMap) -> None:
    content = {
        "judge": f"{judge.extractor.name}, learned from {judge.learned} labelled photographs of the train split",
        "judge_accuracy": judge.accuracy,
        "classes": by_class,
        "code_to_class": code_map.code_to_class.tolist(),
        "uncovered_classes": code_map.uncovered_classes,
        "codes": code_map.rows,
    }
    write_json(run.folder / "audit.json", content)


def _write_figures(run: _Run, train: Photographs, fake: Tensor, made: Made, judge: Extractor, *, seed: int) -> None:
    write_figures(run.folder, seed=seed)
    folder = run.folder / "figures"
    write_nearest(folder / "nearest.png", real=train.images, fake=fake, features_fn=judge.features)
    if len(made.images) > 0:
        answers = judge.logits(made.images).argmax(dim=1)
        write_failures(
            folder / "failures.png",
            images=made.images,
            intended=made.intended,
            answers=answers,
            num_classes=len(run.manifest.classes),
        )


@dataclass(frozen=True)
class _Run:
    folder: Path
    config: FineGANConfig
    generator: Generator
    manifest: Manifest
    checkpoint_sha256: str


def _open(run_dir: Path) -> _Run:
    run, manifest = open_run(run_dir), read_manifest(run_dir / "data.jsonl")
    check_classes(run, manifest)
    return _Run(run_dir, run.config, run.generator, manifest, run.checkpoint_sha256)


def _photographs(run: _Run, split: Split) -> Photographs:
    """Central object crops of one split, from the crop cache of the run."""
    crops = build_crops(
        run.manifest,
        resolution=run.config.resolution,
        boxes=run.config.boxes,
        official=run.config.official_crops,
        records=run.manifest.of(split),
        cache_dir=run.folder / "crops",
    )
    return Photographs(crops.objects_center_uint8(torch.arange(len(crops))), crops.labels)


def _validation(run: _Run) -> Photographs | None:
    """Photographs of the val split, if any has a label."""
    return _photographs(run, "val") if any(record.labelled for record in run.manifest.of("val")) else None


def _with_every_label(run: _Run, train: Photographs) -> Photographs:
    """The train split with the class of every photograph that has one, whoever may use it."""
    return train._replace(labels=torch.tensor([record.label for record in run.manifest.of("train")]))


def _pretrained(config: FineGANConfig, inception_weights: Path | None) -> list[Extractor]:
    """What is there beside the small network; the packaged one only if it is installed.

    It is EfficientNet-Lite0, or Lite2 where the features of Lite0 had a part in training the generator: they would
    find what they had shown it.
    """
    found = []
    shown = config.judge == "projected" or config.teacher == "packaged"
    with contextlib.suppress(ConfigError):  # optional: extra [features]
        # Twice the size of the images holds all they show, and costs a fraction of the usual 224 pixels.
        side_px = enlarged_px(config.resolution, 2)
        found.append(packaged_extractor(LITE2 if shown else LITE0, input_px=side_px))
    if inception_weights is not None:
        found.append(inception_extractor(inception_weights))
    return found


def _image_rows(
    run: _Run,
    train: Photographs,
    fake: Tensor,
    extractors: Sequence[Extractor],
    *,
    split: Split,
    samples: int,
    seed: int,
) -> list[JSON]:
    """Generated images against at most `samples` photographs; what is known of these is kept in the run folder."""
    real = train.images if split == "train" else _photographs(run, split).images
    real = real[torch.from_numpy(permutation(seed_for(seed, "evaluate/reference"), len(real))[:samples])]
    kept = run.folder / "real_features"
    return evaluate_images(real=real, fake=fake, extractors=extractors, seed=seed, split=split, cache_dir=kept)


def _codes(
    run: _Run, train: Photographs, samples: int, *, clustering: bool, kimg: float, seed: int
) -> tuple[Tensor | None, list[JSON]]:
    """Child code of each labelled photograph, None where nobody asks, and the rows of the clustering if wanted."""
    codes, rows = None, list[JSON]()
    if not bool((train.labels >= 0).any()):  # no label, so nothing to match codes with
        return codes, rows
    if clustering or (run.config.labels == "discovered" and not run.config.clusters):
        codes, rows = _cluster(run, train, samples, kimg=kimg, seed=seed)
    if run.config.clusters:  # settled before the training
        codes = kept_codes(run.config, run.folder, len(train.labels))[train.labels >= 0]
    return codes, rows if clustering else []


def _cluster(run: _Run, train: Photographs, samples: int, *, kimg: float, seed: int) -> tuple[Tensor, list[JSON]]:
    """Child code of each labelled photograph, int64 [n], and the rows of the clustering."""
    known = train.labels >= 0
    found = cluster_with_generated(
        lambda count, draw_seed: sample(run.generator, run.config, count, draw_seed),
        train.images[known],
        train.labels[known],
        num_children=run.generator.child.joint.num_codes,
        num_parents=run.generator.parent.joint.num_codes,
        seed=seed,
        num_generated=samples,
        kimg=kimg,
        split="train",
    )
    return torch.from_numpy(found.child), found.rows


def _rows_of_set(folder: Path, run: _Run, samples: int) -> list[SyntheticRow]:
    """The first images of each class, about `samples` in all."""
    header, rows = read_rows(folder)
    if header.made_with.get("checkpoint_sha256") != run.checkpoint_sha256:
        raise DataError(
            f"{folder} must be made from the checkpoint in use of {run.folder}, found another", "synthesize it again"
        )
    return [row for row in rows if row.image < -(-samples // len(header.classes))]


def _redrawn(run: _Run, rows: Sequence[SyntheticRow]) -> Made:
    labels, kept = torch.tensor([row.label for row in rows]), torch.tensor([row.kept for row in rows])
    return Made(redraw(run.generator, run.config, rows), labels, kept)

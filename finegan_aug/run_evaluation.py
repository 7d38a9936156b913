"""Evaluation of a run folder: its generator against photographs, its codes against classes, its figures.

No test image is read: judge, references and clustering use the other splits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from finegan_aug.checkpoint import latest_checkpoint
from finegan_aug.class_audit import CodeMap, Made, consistency, map_codes
from finegan_aug.codes import deal_codes
from finegan_aug.config import FineGANConfig
from finegan_aug.data.crops import build_crops
from finegan_aug.data.manifest import Manifest, read_manifest
from finegan_aug.errors import ConfigError, DataError
from finegan_aug.evaluation import class_consistency, cluster_with_generated, evaluate_images
from finegan_aug.features import Extractor, fit_classifier, inception_extractor, packaged_extractor, small_cnn_extractor
from finegan_aug.figures import BLOCK, draw, write_figures, write_nearest
from finegan_aug.files import JSON, read_json, sha256_file, write_json
from finegan_aug.grids import to_uint8
from finegan_aug.models.finegan import Generator
from finegan_aug.randomness import normals, permutation, seed_for
from finegan_aug.synthesis import load_generator
from finegan_aug.synthetic import SyntheticRow, read_rows

Split = Literal["train", "val"]
HELD_OUT_SHARE = 0.2  # of the labelled images, to measure the judge where there is no val split


def evaluate_run(
    run_dir: str | Path,
    *,
    synthetic_dir: str | Path | None = None,
    split: Split = "train",
    samples: int = 1200,
    judge_kimg: float = 8.0,
    clustering: bool = True,
    clustering_kimg: float = 3.0,
    inception_weights: Path | None = None,
    seed: int = 0,
) -> Path:
    """Measures the averaged generator of a run; writes evaluation.json, audit.json and figures/ into it.

    Generated images have tied codes, every child code equally often; photographs are central object crops, as the
    discriminator sees them but without randomness (finegan.md 9.1). The judge is a small network trained on the
    labelled train split; its features also serve FID and KID beside those of every other extractor there is.

    Args:
        run_dir: a training run with a checkpoint; its data.jsonl says which photographs.
        synthetic_dir: a set made by this run, filtered or not: class consistency is then that of its images, drawn
            once more in the crop view, before and after the filter; at most `samples` of them.
        split: photographs that the generated images are compared with.
        samples: generated images, rounded up to equally many for each code; at most as many photographs are used.
        judge_kimg: length of the judge's training, thousands of images.
        clustering: also cluster photographs by networks trained on generated images (section 4.4 of the paper).
            With discovered codes these networks always run, since they tell which code is which class.
        clustering_kimg: length of training of each of the two networks.
        inception_weights: weight file of torch-fidelity's Inception, which is otherwise left out.
        seed: of samples, networks and subsets.

    Returns:
        run_dir/evaluation.json: {"rows": as from `evaluation.evaluate_images`, "settings"}.

    Raises:
        CheckpointError: the run has no good checkpoint.
        ConfigError: the test split is asked for.
        DataError: no labelled photograph, an empty split, or a synthetic set of another checkpoint.
    """
    if split not in get_args(Split):
        raise ConfigError(
            f"split must be train or val, found {split!r}", "leave the test images to the comparison of classifiers"
        )
    run = _open(Path(run_dir))
    checked_rows = None if synthetic_dir is None else _rows_of_set(Path(synthetic_dir), run, samples)
    train = _photographs(run, "train")
    judge, judge_rows = _judge(run, train, kimg=judge_kimg, seed=seed)
    fake, child, _ = sample(run.generator, run.config, samples, seed_for(seed, "evaluate/samples"))

    extractors = [judge, *_pretrained(run.config, inception_weights)]
    rows = _image_rows(run, train, fake, extractors, split=split, samples=samples, seed=seed) + judge_rows

    codes = None  # of the labelled photographs
    if clustering or run.config.labels == "discovered":
        codes, clustering_rows = _cluster(run, train, samples, kimg=clustering_kimg, seed=seed)
        rows += clustering_rows if clustering else []
    code_map = map_codes(
        run.config,
        run.manifest.classes,
        codes=codes,
        labels=train.labels[train.labels >= 0],
        child=child,
        answers=judge.logits(fake).argmax(dim=1),
    )

    if checked_rows is None:
        intended = code_map.code_to_class[child]
        made = Made(fake[intended >= 0], intended[intended >= 0], None)
    else:
        made = _redrawn(run, checked_rows)
    consistency_rows, by_class = consistency(made, judge, run.manifest.classes)
    rows += consistency_rows

    _write_audit(run, f"{judge.name}, {judge_kimg:g} kimg on the labelled train split", judge_rows, by_class, code_map)
    write_figures(run.folder, seed=seed)
    write_nearest(run.folder / "figures" / "nearest.png", real=train.images, fake=fake, features_fn=judge.features)
    settings: JSON = {
        "checkpoint_sha256": run.checkpoint_sha256,
        "seed": seed,
        "judge_kimg": judge_kimg,
        "clustering_kimg": clustering_kimg,
        "synthetic_set": synthetic_dir is not None,
    }
    write_json(run.folder / "evaluation.json", {"rows": rows, "settings": settings})
    return run.folder / "evaluation.json"


def _write_audit(run: _Run, judge: str, judge_rows: list[JSON], by_class: list[JSON], code_map: CodeMap) -> None:
    content = {
        "judge": judge,
        "judge_accuracy": judge_rows[0]["value"] if judge_rows else None,
        "classes": by_class,
        "code_to_class": code_map.code_to_class.tolist(),
        "uncovered_classes": code_map.uncovered_classes,
        "codes": code_map.rows,
    }
    write_json(run.folder / "audit.json", content)


def sample(generator: Generator, config: FineGANConfig, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """At least `count` images uint8 [N, 3, S, S] with child and parent codes int64 [N]; every child code equally often.

    Codes are tied as in training. Blocks are always full, so that image n does not depend on `count`.
    """
    children = generator.child.joint.num_codes
    wanted = -(-count // children) * children
    drawn = -(-wanted // BLOCK) * BLOCK
    z = torch.from_numpy(normals(seed_for(seed, "z"), range(drawn), config.z_dim)).float()
    child = deal_codes(seed, 0, drawn, children)
    images = to_uint8(draw(generator, z, child).child)
    return images[:wanted], child[:wanted], generator.child_to_parent[child[:wanted]]


def redraw(generator: Generator, config: FineGANConfig, rows: Sequence[SyntheticRow]) -> Tensor:
    """The images of a set in the crop view, uint8 [N, 3, S, S], from the noise and codes that its rows name.

    A set may show objects as they lie in photographs; a judge of crops needs them as they were drawn.
    """
    noise = [normals(seed_for(row.seed or 0, "sample", row.label), [row.image], config.z_dim) for row in rows]
    z = torch.cat([torch.from_numpy(n) for n in noise]).float()
    codes = (torch.tensor([getattr(row, name) for row in rows]) for name in ("child", "parent", "background"))
    return to_uint8(draw(generator, z, *codes).child)


@dataclass(frozen=True)
class _Run:
    folder: Path
    config: FineGANConfig
    generator: Generator
    manifest: Manifest
    checkpoint_sha256: str


def _open(run_dir: Path) -> _Run:
    config = FineGANConfig.from_json(read_json(run_dir / "config.json")["config"])
    generator = load_generator(run_dir)
    checkpoint = latest_checkpoint(run_dir)
    assert checkpoint is not None
    manifest = read_manifest(run_dir / "data.jsonl")
    return _Run(run_dir, config, generator, manifest, sha256_file(checkpoint / "ema.safetensors"))


class _Photographs(NamedTuple):
    images: Tensor  # uint8 [N, 3, S, S]
    labels: Tensor  # int64 [N], -1 where no label may be used


def _photographs(run: _Run, split: Split) -> _Photographs:
    """Central object crops of one split, from the crop cache of the run."""
    crops = build_crops(
        run.manifest,
        resolution=run.config.resolution,
        boxes=run.config.boxes,
        official=run.config.official_crops,
        records=run.manifest.of(split),
        cache_dir=run.folder / "crops",
    )
    return _Photographs(crops.objects_center_uint8(torch.arange(len(crops))), crops.labels)


def _judge(run: _Run, train: _Photographs, *, kimg: float, seed: int) -> tuple[Extractor, list[JSON]]:
    """A network trained on labelled photographs, and its own accuracy on others of them as a row, if there are any."""
    known = train.labels >= 0
    if not bool(known.any()):
        raise DataError(
            "a judge needs labelled training images, found none", "train the generator on data with some labels"
        )
    has_val = any(record.labelled for record in run.manifest.of("val"))
    held_out = torch.zeros_like(known) if has_val else _held_out(train.labels, seed)
    taught = known & ~held_out
    classifier = fit_classifier(
        train.images[taught],
        train.labels[taught],
        num_classes=len(run.manifest.classes),
        seed=seed_for(seed, "evaluate/judge"),
        kimg=kimg,
        unlabelled=None if bool(known.all()) else train.images[~known],
    )
    judge = small_cnn_extractor(classifier)
    split: Split = "val" if has_val else "train"
    tested = _photographs(run, "val") if has_val else _Photographs(train.images[held_out], train.labels[held_out])
    if not has_val and not bool(held_out.any()):
        return judge, []
    seen = tested.labels >= 0
    row = class_consistency(images=tested.images[seen], labels=tested.labels[seen], judge=judge, split=split)
    return judge, [{**row, "metric": "judge_accuracy", "n_real": row["n_fake"], "n_fake": 0}]


def _held_out(labels: Tensor, seed: int) -> Tensor:
    """bool [N]: a share of the images of each class; none of a class with fewer than five."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in set(labels[labels >= 0].tolist()):
        found = (labels == label).nonzero()[:, 0]
        order = permutation(seed_for(seed, "evaluate/held-out", label), len(found))
        chosen[found[torch.from_numpy(order)[: int(HELD_OUT_SHARE * len(found))]]] = True
    return chosen


def _pretrained(config: FineGANConfig, inception_weights: Path | None) -> list[Extractor]:
    """What is there beside the small network; the packaged one only if it is installed.

    Nor if its features trained the generator: it would find what it was shown.
    """
    found = []
    if config.judge != "projected":
        with contextlib.suppress(ConfigError):  # optional: extra [features]
            # Twice the size of the images holds all they show, and costs a fraction of the usual 224 pixels.
            found.append(packaged_extractor(input_px=min(224, max(96, 2 * config.resolution))))
    if inception_weights is not None:
        found.append(inception_extractor(inception_weights))
    return found


def _image_rows(
    run: _Run,
    train: _Photographs,
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


def _cluster(run: _Run, train: _Photographs, samples: int, *, kimg: float, seed: int) -> tuple[Tensor, list[JSON]]:
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
            f"{folder} must be made from the last checkpoint of {run.folder}, found another", "synthesize it again"
        )
    return [row for row in rows if row.image < -(-samples // len(header.classes))]


def _redrawn(run: _Run, rows: Sequence[SyntheticRow]) -> Made:
    labels, kept = torch.tensor([row.label for row in rows]), torch.tensor([row.kept for row in rows])
    return Made(redraw(run.generator, run.config, rows), labels, kept)

"""What each verb with a generator may be told, and the one call it makes: train, synthesize, filter, ...

A verb takes the command line behind its name and returns an exit code. `recipes/` runs the same functions. What works
long is imported inside the verb, so that `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from finegan_aug.config import Boxes, FineGANConfig, Knowledge
from finegan_aug.errors import ConfigError
from finegan_aug.files import read_json
from finegan_aug.options import Values, build, parse_options

if TYPE_CHECKING:
    from finegan_aug.data.manifest import Manifest


@dataclass(frozen=True)
class PhotoOptions:
    """The photographs."""

    data: Path  # folder with one folder of images for each class, or a manifest written by a scan
    test_data: Path | None = None  # folder of the test images; without it a share of --data is kept for the test
    box_file: Path | None = None  # object boxes: a CSV file or the folder of CUB
    test_box_file: Path | None = None  # object boxes of --test-data
    mask_folder: Path | None = None  # object masks: images with the same relative paths
    test_mask_folder: Path | None = None  # object masks of --test-data
    unlabelled_folder: Path | None = None  # more training photographs, of no known class, at any depth
    test_share: float = 0.2  # share of each class kept for the test when there is no --test-data
    split_seed: int = 0  # another seed keeps other images for the test


@dataclass(frozen=True)
class DataOptions(PhotoOptions):
    """The photographs."""

    on_bad_image: Literal["error", "quarantine"] = "error"  # stop at an image that cannot be read, or leave it out


@dataclass(frozen=True)
class TrainOptions:
    """What to run."""

    out: Path  # run folder; if it holds the same run, that run is resumed
    preset: str | None = None  # classic, slim-32, slim-64, slim-128 or slim-256 (default: slim-64)
    dry_run: bool = False  # print the settings, make three steps and a checkpoint, project time, memory and disk
    overwrite: bool = False  # throw away another run in the folder
    expect_processes: int | None = None  # refuse to start with any other number of processes
    log_with: str | None = None  # one of Accelerate's trackers beside metrics.jsonl, such as tensorboard


def train(argv: Sequence[str]) -> int:
    """Train a generator, or resume it."""
    run, data, written = parse_options(
        "finegan-aug train", argv, TrainOptions, DataOptions, FineGANConfig, section="train", positional=("data",)
    )
    options = build(TrainOptions, run)
    config = generator_config(options.preset, written)
    manifest = load(data)
    if options.dry_run:
        from finegan_aug.dry_run import dry_run

        dry_run(config, manifest, options.out, expect_processes=options.expect_processes)
        return 0
    from finegan_aug.training import train as train_generator

    train_generator(
        config,
        manifest,
        options.out,
        overwrite=options.overwrite,
        expect_processes=options.expect_processes,
        log_with=options.log_with,
    )
    return 0


def generator_config(preset: str | None, written: Values) -> FineGANConfig:
    """The preset with what was written set over it; a run's config.json names its network, and so its preset."""
    name = preset or written.get("network") or "slim-64"
    return FineGANConfig.preset(name, **written)


def load(data: Values) -> Manifest:
    """Scan or read the photographs that `DataOptions` describe."""
    options = build(DataOptions, data)
    from finegan_aug.data.folder import load_data

    return load_data(
        options.data,
        test_data=options.test_data,
        boxes=options.box_file,
        test_boxes=options.test_box_file,
        masks=options.mask_folder,
        test_masks=options.test_mask_folder,
        unlabelled=options.unlabelled_folder,
        test_share=options.test_share,
        seed=options.split_seed,
        on_bad_image=options.on_bad_image,
    )


@dataclass(frozen=True)
class SynthesizeOptions:
    """What to write."""

    run: Path  # run folder of the generator
    out: Path  # folder for the images, their manifest and lineage; if it holds the same set, that is continued
    per_class: int = 100  # images of each class
    seed: int = 0  # another seed gives other images
    image_format: Literal["png", "webp", "jpeg"] = "png"  # png and webp keep every pixel
    background: Literal["tied", "random"] | None = None  # code: that of the object, or any (default: any, if learned)
    placement: Literal["crop", "frame"] | None = None  # object as in the crops, or as it lies in photographs
    canvas_px: int | None = None  # side of an image with placement frame (default: the generator's)
    by_code: bool = False  # a class for each child code, for `name`; discovered codes then need no audit


def synthesize(argv: Sequence[str]) -> int:
    """Write a folder of synthetic images for each class."""
    (values,) = parse_options(
        "finegan-aug synthesize", argv, SynthesizeOptions, section="synthesize", positional=("run",)
    )
    options = build(SynthesizeOptions, values)
    from finegan_aug.synthesis import synthesize as write_images

    print(
        write_images(
            options.run,
            options.out,
            options.per_class,
            options.seed,
            image_format=options.image_format,
            background=options.background,
            placement=options.placement,
            canvas_px=options.canvas_px,
            by_code=options.by_code,
        )
    )
    return 0


@dataclass(frozen=True)
class EvaluateOptions:
    """What to measure."""

    run: Path  # run folder of the generator; evaluation.json, audit.json and figures/ are written into it
    synthetic: Path | None = None  # set made by this run: class consistency of its images, before and after its filter
    split: Literal["train", "val"] = "train"  # photographs to compare with; the test images stay closed
    samples: int = 1200  # generated images, every code equally often
    judge: Knowledge = "own"  # who names the classes: a network trained here, or packaged ImageNet features
    judge_labels: Literal["budget", "all"] = "budget"  # that it learns from; all: also those kept from the generator
    judge_kimg: float = 8.0  # length of the training of the judge own, thousands of images
    clustering: bool = True  # also cluster photographs with networks trained on generated images
    clustering_kimg: float = 3.0  # length of training of each of these networks
    inception_weights: Path | None = None  # weights of torch-fidelity's Inception, for published FID values
    seed: int = 0  # of samples, networks and subsets

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise ConfigError(f"samples must be at least 2, found {self.samples}", "correct --samples")
        for name in ("judge_kimg", "clustering_kimg"):
            if getattr(self, name) <= 0:
                option = name.replace("_", "-")
                raise ConfigError(f"{name} must be above 0, found {getattr(self, name):g}", f"correct --{option}")


def evaluate(argv: Sequence[str]) -> int:
    """Measure a generator against the photographs of its run, and draw its figures."""
    (values,) = parse_options("finegan-aug evaluate", argv, EvaluateOptions, section="evaluate", positional=("run",))
    options = build(EvaluateOptions, values)
    from finegan_aug.run_evaluation import evaluate_run

    written = evaluate_run(
        options.run,
        synthetic_dir=options.synthetic,
        split=options.split,
        samples=options.samples,
        judge=options.judge,
        judge_labels=options.judge_labels,
        judge_kimg=options.judge_kimg,
        clustering=options.clustering,
        clustering_kimg=options.clustering_kimg,
        inception_weights=options.inception_weights,
        seed=options.seed,
    )
    for row in read_json(written)["rows"]:
        counts = f"{row['n_real']} real, {row['n_fake']} generated, split {row['split']}"
        print(f"{row['metric']:<31}{row['value']:10.4f}  {row['extractor']}; {counts}")
    print(written)
    return 0


@dataclass(frozen=True)
class FiguresOptions:
    """What to draw."""

    run: Path  # run folder of the generator
    out: Path | None = None  # folder for the figures (default: figures/ in the run folder)
    seed: int = 0  # another seed gives other noise


def figures(argv: Sequence[str]) -> int:
    """Draw the figures of the paper, and a walk through noises and codes."""
    (values,) = parse_options("finegan-aug figures", argv, FiguresOptions, positional=("run",))
    options = build(FiguresOptions, values)
    from finegan_aug.figures import write_figures

    for path in write_figures(options.run, options.out, seed=options.seed):
        print(path)
    return 0


@dataclass(frozen=True)
class FilterOptions:
    """What to keep."""

    synthetic: Path  # folder of synthetic images
    boxes: Boxes | None = None  # where the object is in the photographs (default: given where every one has a box)
    top_k: int | None = None  # the class must be among this many of the teacher's likeliest (default: by class count)
    drop_lowest_confidence: float = 0.1  # share of each class dropped from below
    max_confidence: float | None = None  # drop what the teacher is surer of than this probability
    drop_outliers: float = 0.0  # share of each class dropped as farthest from every photograph, in the teacher's eyes
    teacher: Knowledge = "own"  # who judges: a network trained on the photographs, or packaged ImageNet features
    teacher_kimg: float = 20.0  # length of the training of the teacher own, thousands of images
    fraction: float = 1.0  # share of the training images whose labels the teacher may use
    pair: int = 0  # number of the draw of that share
    seed: int = 0  # of the teacher


def filter(argv: Sequence[str]) -> int:
    """Mark in the manifest which synthetic images are kept."""
    values, data = parse_options(
        "finegan-aug filter", argv, FilterOptions, DataOptions, section="filter", positional=("synthetic",)
    )
    options = build(FilterOptions, values)
    manifest = load(data)
    from finegan_aug.data.budget import budget
    from finegan_aug.run_folder import run_lock
    from finegan_aug.teacher import filter_with_teacher

    if options.fraction < 1:
        manifest = budget(manifest, options.fraction, pair=options.pair, unlabelled="keep")
    with run_lock(options.synthetic):
        counts = filter_with_teacher(
            options.synthetic,
            manifest,
            boxes=options.boxes,
            teacher=options.teacher,
            teacher_kimg=options.teacher_kimg,
            seed=options.seed,
            top_k=options.top_k,
            drop_lowest_confidence=options.drop_lowest_confidence,
            max_confidence=options.max_confidence,
            drop_outliers=options.drop_outliers,
        )
    dropped = ", ".join(f"{reason} {count}" for reason, count in counts.dropped.items() if count)
    print(f"{options.synthetic}: {counts.kept} of {counts.total} images kept; dropped: {dropped or 'none'}")
    return 0

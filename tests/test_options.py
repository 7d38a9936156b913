"""Options: command line over file over preset over default, and every mistake answered in one line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pytest

from finegan_aug.config_files import SECTIONS, find_config, read_config
from finegan_aug.errors import ConfigError
from finegan_aug.options import Values, build, parse_options

CONFIGS = Path(__file__).resolve().parents[1] / "recipes" / "configs"


@dataclass(frozen=True)
class Run:
    """What a run reads and writes."""

    data: Path  # folder of photographs
    dry_run: bool = False  # two steps only
    limit: int | None = None  # at most so many


@dataclass(frozen=True)
class Net:
    """What a run computes."""

    lr: float = 2e-4  # learning rate
    steps: int = 10  # updates; 100 % of them
    labels: Literal["tied", "discovered"] = "tied"  # labelling mode
    name: str = "net"  # its name
    groups: tuple[int, ...] = ()  # group of each code
    shares: tuple[float, ...] = ()  # of each group


def parse(*argv: str, section: str | None = None) -> Values:
    run, net = parse_options("tool", argv, Run, Net, section=section, positional=("data",))
    return run | net


def refused(*argv: str) -> tuple[str, str]:
    with pytest.raises(ConfigError) as caught:
        parse(*argv)
    assert caught.value.exit_code == 2
    return caught.value.cause, caught.value.remedy


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_only_what_was_written_is_returned_each_to_its_dataclass() -> None:
    run, net = parse_options("tool", ["--data", "d", "--lr", "3"], Run, Net)
    assert run == {"data": Path("d")}
    assert net == {"lr": 3.0}
    assert isinstance(net["lr"], float)


def test_nothing_written_gives_nothing() -> None:
    assert parse() == {}


def test_the_command_line_beats_the_file_wherever_config_stands(tmp_path: Path) -> None:
    file = write(tmp_path / "c.yaml", "lr: 1.0\nsteps: 7\n")
    expected = {"lr": 2.0, "steps": 7}
    assert parse("--config", file, "--lr", "2") == expected
    assert parse("--lr", "2", "--config", file) == expected
    assert parse("--lr", "2", f"--config={file}") == expected


def test_underscores_and_dashes_both_work_and_a_flag_can_be_taken_back(tmp_path: Path) -> None:
    file = write(tmp_path / "c.yaml", "dry_run: true\n")
    assert parse("--dry-run") == parse("--dry_run") == parse("--config", file) == {"dry_run": True}
    assert parse("--config", file, "--no-dry-run") == parse("--no_dry_run") == {"dry_run": False}


def test_the_positional_field_may_stand_anywhere_or_be_named() -> None:
    expected = {"data": Path("12"), "steps": 3}
    assert parse("12", "--steps", "3") == parse("--steps", "3", "12") == parse("--data", "12", "--steps=3") == expected


def test_values_are_converted_to_the_types_of_the_fields(tmp_path: Path) -> None:
    file = write(tmp_path / "c.yaml", "lr: 2e-4\ngroups: [0, 0, 1]\nlimit: null\ndata: photos\n")
    assert parse("--config", file) == {"lr": 2e-4, "groups": (0, 0, 1), "limit": None, "data": Path("photos")}
    assert parse("--groups", "[0, 1]", "--lr=1e-3", "--name", "12") == {"groups": (0, 1), "lr": 1e-3, "name": "12"}


def test_json_round_trips(tmp_path: Path) -> None:
    net = Net(lr=1e-05, groups=(0, 1), labels="discovered")
    file = write(tmp_path / "config.json", json.dumps(asdict(net), indent=1))
    assert build(Net, parse("--config", file)) == net


def test_an_unknown_option_names_the_nearest() -> None:
    expected = ("unknown option --stesp; the nearest is --steps", "write --steps, or see --help")
    assert refused("--stesp", "3") == refused("--stesp=3") == expected
    assert refused("--no-steps")[0] == "unknown option --no-steps; the nearest is --steps"
    assert refused("-lr", "3")[0] == "unknown option -lr; the nearest is --lr"


def test_an_abbreviation_is_an_unknown_option() -> None:
    assert refused("--step", "3")[0] == "unknown option --step; the nearest is --steps"


@pytest.mark.fault("bad input: configurations")
def test_an_unknown_key_in_a_file_names_the_nearest(tmp_path: Path) -> None:
    file = write(tmp_path / "c.yaml", "label: tied\n")
    expected = (f"unknown key 'label' in {file}; the nearest is 'labels'", "write labels or remove it")
    assert refused("--config", file) == expected


def test_what_is_shown_of_a_wrong_value_or_key_is_short(tmp_path: Path) -> None:
    cause, _ = refused("--config", write(tmp_path / "c.yaml", f"steps: {'x' * 500}\n"))
    assert cause == f"steps in {tmp_path / 'c.yaml'} must be int, got {'x' * 78}"
    cause, _ = refused("--config", write(tmp_path / "d.yaml", f"{'x' * 500}: 1\n"))
    assert cause.startswith(f"unknown key '{'x' * 79} in {tmp_path / 'd.yaml'}; the nearest is ")


@pytest.mark.parametrize(
    ("option", "value", "cause"),
    [
        ("--steps", "2.5", "--steps must be int, got 2.5"),
        ("--steps", "many", "--steps must be int, got many"),
        ("--lr", "true", "--lr must be float, got True"),
        ("--lr", "nan", "--lr must be float, got nan"),
        ("--labels", "tide", "--labels must be tied|discovered, got tide"),
        ("--limit", "x", "--limit must be int or null, got x"),
    ],
)
@pytest.mark.fault("bad input: configurations")
def test_a_wrong_type_on_the_line_is_named(option: str, value: str, cause: str) -> None:
    assert refused(option, value) == (cause, "see tool --help")


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("steps: 2.5", "steps in {file} must be int, got 2.5"),
        ("steps: true", "steps in {file} must be int, got True"),
        ("steps: null", "steps in {file} must be int, got None"),
        ("steps: {a: 1}", "steps in {file} must be int, got {{'a': 1}}"),
        ("labels: tide", "labels in {file} must be tied|discovered, got tide"),
        ("name: 3", "name in {file} must be str, got 3"),
        ("groups: [a]", "groups in {file} must be list of int, got ['a']"),
        ("dry_run: 3", "dry_run in {file} must be bool, got 3"),
    ],
)
@pytest.mark.fault("bad input: configurations")
def test_a_wrong_type_in_a_file_is_named(tmp_path: Path, line: str, cause: str) -> None:
    file = write(tmp_path / "c.yaml", line)
    expected = cause.format(file=file), f"correct {line.split(':')[0]} in {file}"
    assert refused("--config", file) == expected


def test_no_is_a_word_in_a_file(tmp_path: Path) -> None:
    """YAML 1.1 reads it as false, so `mixed_precision: no` could not be given without quotes."""
    assert parse("d", "--config", write(tmp_path / "a.yaml", "name: no"))["name"] == "no"
    assert parse("d", "--config", write(tmp_path / "b.yaml", "dry_run: True"))["dry_run"] is True
    assert parse("d", "--config", write(tmp_path / "c.yaml", "dry_run: no"))["dry_run"] is False  # by the field's type


def test_other_slips_on_the_line() -> None:
    assert refused("--steps") == ("--steps needs a value", "write --steps VALUE; see tool --help")
    assert refused("--dry-run=yes") == ("--dry-run takes no value", "write --dry-run or --no-dry-run")
    assert refused("a", "b")[0] == "unrecognized arguments: b"
    assert refused("--config", "a", "--config", "b")[0] == "--config must be given once, found it more than once"


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
@pytest.mark.fault("bad input: configurations")
def test_a_number_that_is_not_finite_is_refused(tmp_path: Path, value: str) -> None:
    """NaN is neither above nor below any limit, so that checks further in would let it pass."""
    found, remedy = value.replace(".", ""), "write a number such as 0.5"
    assert refused(f"--lr={value}") == (f"lr must be a finite number, got {found}", remedy)
    file = write(tmp_path / "c.yaml", f"lr: {value}\n")
    assert refused("--config", file) == (f"lr must be a finite number, got {found}", remedy)
    file = write(tmp_path / "d.yaml", f"shares: [0.5, {value}]\n")
    assert refused("--config", file) == (f"shares must be a finite number, got {found}", remedy)


@pytest.mark.fault("bad input: configurations")
@pytest.mark.parametrize("number", ["0x" + "f" * 400, "1" + "0" * 400], ids=["hexadecimal", "decimal"])
def test_a_whole_number_that_no_float_holds_is_a_wrong_type(tmp_path: Path, number: str) -> None:
    """Found by `make fuzz`: it came out as an OverflowError."""
    for name, text in (("c.yaml", f"lr: {number}\n"), ("c.json", f'{{"lr": {int(number, 0)}}}')):
        cause, remedy = refused("--config", write(tmp_path / name, text))
        assert cause.startswith(f"lr in {tmp_path / name} must be float, got ")
        assert remedy == f"correct lr in {tmp_path / name}"
    cause, remedy = refused("--lr", number)
    assert cause == "a number on the command line is too large for its option"
    assert remedy == "write a number such as 0.5; see tool --help"


@pytest.mark.parametrize("levels", [10, 500, 900])
@pytest.mark.fault("bad input: configurations")
def test_a_list_within_lists_is_a_wrong_type_however_deep(tmp_path: Path, levels: int) -> None:
    file = write(tmp_path / "c.json", '{"groups": ' + "[" * levels + "]" * levels + "}")
    cause, _ = refused("--config", file)
    assert cause.startswith(f"groups in {file} must be list of int, got [[[[[[[[[[")
    assert len(cause) < len(file) + 130


def test_a_field_without_default_must_be_given() -> None:
    with pytest.raises(ConfigError) as caught:
        build(Run, {})
    assert caught.value.cause == "--data must be given: folder of photographs"
    assert caught.value.remedy == "add --data VALUE, or `data: VALUE` in the --config file"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("lr: 1\nlr: 2\n", "key 'lr' is written twice, again in line 2"),
        ("a: 1\nb: *a\n", "aliases are refused, found *a in line 2"),
        ("a: &a [x]\nb: *a\n", "anchors are refused, found &a in line 1"),
        ("&a lr: 1\n", "anchors are refused, found &a in line 1"),
        ("--- &a {lr: 1}\n", "anchors are refused, found &a in line 1"),
        ("lr: !!python/object/apply:os.system ['true']\n", "tags are refused, found tag:yaml.org,2002:python/object"),
        ("lr: !!timestamp foo\n", "tags are refused, found tag:yaml.org,2002:timestamp in line 1"),
        ("lr: !!bool foo\n", "tags are refused, found tag:yaml.org,2002:bool in line 1"),
        ("lr: !!int ''\n", "tags are refused, found tag:yaml.org,2002:int in line 1"),
        ("lr: !!float ''\n", "tags are refused, found tag:yaml.org,2002:float in line 1"),
        ("lr: !!str 1\n", "tags are refused, found tag:yaml.org,2002:str in line 1"),
        ("lr: !own 1\n", "tags are refused, found !own in line 1"),
        ("lr: ! 1\n", "tags are refused, found ! in line 1"),
        ("!!map {lr: 1}\n", "tags are refused, found tag:yaml.org,2002:map in line 1"),
        ("diffaugment: !!set {a}\n", "tags are refused, found tag:yaml.org,2002:set in line 1"),
        ("lr: [1,\n", "expected the node content"),
        ("[1]: 2\n", "a key must be a word, found a list or mapping in line 1"),
        ("lr: 2020-99-99\n", "month must be in 1..12"),
        ("[" * 5000, "recursion"),
        ("\x00", "special characters are not allowed"),
    ],
)
@pytest.mark.fault("bad input: configurations")
def test_a_bad_yaml_file_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    file = write(tmp_path / "c.yaml", text)
    cause, remedy = refused("--config", file)
    assert cause.startswith(f"cannot read {file}: ")
    assert reason in cause
    assert "\n" not in cause
    assert remedy == f"correct {file}"


@pytest.mark.fault("bad input: configurations")
def test_a_json_key_written_twice_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "c.json", '{"lr": 1, "lr": 2}')
    assert refused("--config", file)[0] == f"cannot read {file}: key 'lr' is written twice"


@pytest.mark.fault("bad input: configurations")
def test_a_file_that_is_no_mapping_or_too_large_is_refused(tmp_path: Path) -> None:
    assert refused("--config", write(tmp_path / "a.yaml", "- 1\n"))[0].endswith("must hold `name: value` lines")
    assert refused("--config", write(tmp_path / "b.yaml", "1: 2\n"))[0].endswith("must hold `name: value` lines")
    assert refused("--config", write(tmp_path / "c.yaml", "#" * (2**20 + 1)))[0].endswith("must be at most 1 MiB")
    assert parse("--config", write(tmp_path / "d.yaml", "# nothing\n")) == {}
    for part in ("config: {1: 2}", "classifier: {~: 2}"):
        file = write(tmp_path / "e.yaml", f"classes: [a]\n{part}\n")
        assert refused("--config", file)[0].endswith("must hold `name: value` lines")


@pytest.mark.parametrize(("written", "shown"), [("\\u0000", "\\x00"), ("\\ud800", "\\ud800")])
@pytest.mark.fault("bad input: configurations")
def test_text_that_no_system_takes_as_a_path_is_refused_before_any_file_is_opened(
    tmp_path: Path, written: str, shown: str
) -> None:
    for name in ("c.json", "c.yaml"):
        file = write(tmp_path / name, f'{{"data": "a{written}b"}}')
        assert refused("--config", file)[0] == f"data in {file} must be path, got a{shown}b"


def test_a_sectioned_file_serves_each_command_its_part(tmp_path: Path) -> None:
    file = write(tmp_path / "c.yaml", "train: {lr: 1.0}\nsynthesize: {steps: 3}\nfilter:\n")
    assert parse("--config", file, section="train") == {"lr": 1.0}
    assert parse("--config", file, section="synthesize") == {"steps": 3}
    assert parse("--config", file, section="filter") == parse("--config", file, section="evaluate") == {}


def test_a_configuration_is_found_by_name_and_a_wrong_name_lists_them(tmp_path: Path) -> None:
    assert find_config("flowers").name == "flowers.yaml"
    assert find_config(write(tmp_path / "own.yaml", "")) == tmp_path / "own.yaml"
    with pytest.raises(ConfigError) as caught:
        find_config("flower")
    assert caught.value.cause == "--config must name a file, found none at flower"
    assert caught.value.remedy.startswith("give a path or one of: ")
    assert "flowers" in caught.value.remedy


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_named_configuration_is_sectioned_by_command(file: Path) -> None:
    assert read_config(file).keys() <= set(SECTIONS)
    assert read_config(file)


def test_help_lists_every_option_with_its_comment_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith("usage: tool [DATA] [--config FILE] [options]")
    assert "What a run computes:" in text
    assert "--lr FLOAT learning rate (default: 0.0002)" in text
    assert "--steps INT updates; 100 % of them (default: 10)" in text
    assert "--labels tied|discovered labelling mode" in text
    assert "--limit INT at most so many" in text
    assert "--groups LIST group of each code" in text
    assert "DATA the same as --data" in text
    assert "--dry-run, --no-dry-run two steps only (default: false)" in text

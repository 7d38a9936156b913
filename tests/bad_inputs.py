"""One table of what people feed to the program by mistake or in malice, and what it must say to each.

Every case makes its own files and gives the command line of a user; `test_bad_inputs.py` runs them. Images and folders
stand in `bad_pictures.py`, manifests, configurations and class names here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_pictures import FOLDERS, IMAGES, Case, photographs, png, train
from tiny_runs import tiny_config
from untrained_run import untrained_run

from finegan_aug.data.folder import scan, write_manifest
from finegan_aug.data.manifest import Manifest

AGAIN = "scan the folder again"
EITHER = "give a folder or the manifest of a scan"
HERE = "correct FOLDER/c.yaml"
RELATIVE = "must be relative, with / between folders"
CONTROL = "must not hold control characters, line breaks or marks of writing direction"
NO_BOX = "box must be null or x1, y1, x2, y2 with x1 < x2 and y1 < y2, found .+"
TAG = "READ: tags are refused, found tag:yaml.org,2002:"
_CONFIGS = Path(__file__).resolve().parents[1] / "recipes" / "configs"
NAMED = ", ".join(sorted(path.stem for path in _CONFIGS.glob("*.yaml")))
Rows = list[dict[str, Any]]


def manifest_case(id: str, change: Callable[[Rows], None], cause: str, remedy: str = AGAIN, *more: str) -> Case:
    """The manifest of a scan after `change(rows)`; row 0 is the header. Its hash is kept only where the case is it."""

    def make(folder: Path) -> list[str]:
        path = folder / "data.jsonl"
        write_manifest(scan(photographs(folder / "photos")), path)
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        if "hash" not in id:
            del rows[0]["sha256"]
        change(rows)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return train(folder, path, *(option.replace("FOLDER", str(folder)) for option in more))

    return Case(id, make, 3, f"FOLDER/data.jsonl{cause}" if cause[0] in ": " else cause, remedy)


def row(**changes: Any) -> Callable[[Rows], None]:
    return lambda rows: rows[1].update(changes)


def leaked(rows: Rows) -> None:
    test = next(row for row in rows[1:] if row["split"] == "test")
    test["sha256"] = rows[1]["sha256"]


def text_case(id: str, data: bytes, cause: str, remedy: str) -> Case:
    def make(folder: Path) -> list[str]:
        (folder / "data.jsonl").write_bytes(data)
        return train(folder, folder / "data.jsonl")

    return Case(id, make, 3, cause, remedy)


MANIFESTS = [
    text_case(
        "manifest is text", b"hello\n", "FOLDER/data.jsonl line 1: must be a JSON object, Expecting value: .+", EITHER
    ),
    text_case("manifest is a picture", png(1), "FOLDER/data.jsonl line 1: must be UTF-8 text", EITHER),
    text_case("manifest empty", b"", "FOLDER/data.jsonl is empty, a manifest starts with a header line", AGAIN),
    manifest_case(
        "manifest of another version",
        lambda rows: rows[0].update(version=2),
        " line 1: this program reads version 1, found 2",
    ),
    manifest_case(
        "manifest without a key",
        lambda rows: rows[1].pop("label") and None,
        " line 2: a row .+, wrong or missing: 'label'",
    ),
    manifest_case(
        "manifest climbs out",
        row(path="../secret.png"),
        r" line 2: path '../secret.png' must not hold empty parts, . or ..",
    ),
    manifest_case("manifest with an absolute path", row(path="/etc/passwd"), f" line 2: path '/etc/passwd' {RELATIVE}"),
    manifest_case(
        "manifest with an address", row(path="https://a/b.png"), f" line 2: path 'https://a/b.png' {RELATIVE}"
    ),
    manifest_case(
        "manifest with NUL", row(path="a\0.png"), r" line 2: path 'a\\x00.png' must not hold control characters, .+"
    ),
    manifest_case(
        "manifest names an image twice", lambda rows: rows.append(rows[1]), " line 30: 'ant/[0-9]+.png' is listed twice"
    ),
    manifest_case(
        "manifest with a wrong hash",
        row(labelled=False),
        ": the rows do not match the hash in the header, some were changed",
    ),
    manifest_case(
        "manifest with another split",
        row(split="holdout"),
        " line 2: split must be train, val or test, found 'holdout'",
    ),
    manifest_case("manifest box outside", row(box=[0, 0, 99, 9]), " line 2: box .+ leaves its image, 48 x 36"),
    manifest_case(
        "manifest box beyond numbers", row(box=[0, 0, 10**400, 9]), " line 2: box must be null or x1, y1, x2, y2 .+"
    ),
    manifest_case(
        "manifest box is not a number",
        row(box=[0, 0, float("nan"), 9]),
        " line 2: box must be null or x1, y1, x2, y2 .+",
    ),
    manifest_case(
        "manifest of a lost file",
        row(path="ant/lost.png"),
        " line 2: 'ant/lost.png' does not exist below FOLDER/photos",
        "restore the file or scan again",
    ),
    manifest_case(
        "manifest leaks",
        leaked,
        "no test image may also be a train image, found 1, the first is .+, the same as .+",
        "scan the folder again, or remove one of the two rows",
    ),
    manifest_case(
        "manifest with NUL in a class",
        lambda rows: rows[0].update(classes=["a\0", "bee"]),
        r" line 1: class name 'a\\x00' must not hold control .+",
    ),
    manifest_case(
        "manifest with a line break in a class",
        lambda rows: rows[0].update(classes=["a\nb", "bee"]),
        r" line 1: class name 'a\\nb' must not hold control .+",
    ),
    manifest_case(
        "manifest beside its own masks",
        lambda rows: None,
        "a manifest names all its own folders, found masks beside FOLDER/data.jsonl",
        "give the image folder, or the manifest alone",
        "--mask-folder",
        "FOLDER",
    ),
]


def config_case(id: str, data: bytes, cause: str, remedy: str = HERE, name: str = "c.yaml") -> Case:
    def make(folder: Path) -> list[str]:
        (folder / name).write_bytes(data)
        return ["train", str(folder), "--out", str(folder / "out"), "--config", str(folder / name)]

    return Case(id, make, 2, cause.replace("READ", f"cannot read FOLDER/{name}"), remedy)


CONFIGS = [
    config_case(
        "config with an unknown key",
        b"total_kimgs: 1\n",
        "unknown key 'total_kimgs' in FOLDER/c.yaml; the nearest is 'total_kimg'",
        "write total_kimg or remove it",
    ),
    config_case("config with a key twice", b"lr: 1\nlr: 2\n", "READ: key 'lr' is written twice, again in line 2"),
    config_case(
        "config with a key twice in JSON",
        b'{"lr": 1, "lr": 2}',
        "READ: key 'lr' is written twice",
        "correct FOLDER/c.json",
        "c.json",
    ),
    config_case(
        "config with code",
        b"lr: !!python/object/apply:os.system ['touch out']\n",
        "READ: tags are refused, found tag:yaml.org,2002:python/object/apply:os.system in line 1",
    ),
    config_case(
        "config with a tag",
        b"lr: !!timestamp now\n",
        "READ: tags are refused, found tag:yaml.org,2002:timestamp in line 1",
    ),
    config_case("config with an anchor", b"lr: &a 1\n", "READ: anchors are refused, found &a in line 1"),
    config_case("config bomb of aliases", b"a: 1\nlr: [*a, *a]\n", "READ: aliases are refused, found \\*a in line 2"),
    config_case(
        "config with a wrong type",
        b"total_kimg: many\n",
        "total_kimg in FOLDER/c.yaml must be float, got many",
        "correct total_kimg in FOLDER/c.yaml",
    ),
    config_case(
        "config out of range", b"total_kimg: -1\n", "total_kimg must be above 0, got -1.0", "raise --total_kimg"
    ),
    config_case(
        "config too large", b"#" * (2**20 + 1), "FOLDER/c.yaml must be at most 1 MiB", "name a configuration file"
    ),
    config_case(
        "config in another encoding",
        "lr: \u20ac".encode("utf-16"),
        "READ: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
    ),
    config_case(
        "config is a list", b"- lr\n", "FOLDER/c.yaml must hold `name: value` lines", "write one option per line"
    ),
    config_case(
        "config path with NUL",
        b'test_data: "a\\0b"\n',
        r"test_data in FOLDER/c.yaml must be path or null, got a\\x00b",
        "correct test_data in FOLDER/c.yaml",
    ),
    Case(
        "config missing",
        lambda f: ["train", str(f), "--out", str(f / "out"), "--config", str(f / "no.yaml")],
        2,
        "--config must name a file, found none at FOLDER/no.yaml",
        f"give a path or one of: {NAMED}",
    ),
    Case(
        "option unknown",
        lambda f: train(f, f, "--totl-kimg", "1"),
        2,
        "unknown option --totl-kimg; the nearest is --total-kimg",
        "write --total-kimg, or see --help",
    ),
    Case(
        "verb unknown",
        lambda f: ["trian", str(f)],
        2,
        "unknown verb 'trian'; the nearest is 'train'",
        "see finegan-aug --help",
    ),
]


def name_case(id: str, name: str, folder_name: str = "class_0000") -> Case:
    """A class name that is no plain folder name: its images go into a numbered folder, and nowhere else."""

    def make(folder: Path) -> list[str]:
        found = scan(photographs(folder / "photos"))
        named = Manifest(found.root, (name, "plain"), found.images)
        config = tiny_config(modes_per_class=1, num_parents=1, boxes="none").resolve(2)
        run = untrained_run(folder / "run", config, named)
        return ["synthesize", str(run), "--out", str(folder / "out"), "--per-class", "1"]

    leaves = (folder_name, "index.npy", "lineage.json", "manifest.jsonl", "plain", "synthesis.json")
    return Case(f"class name {id}", make, 0, "FOLDER/out", "", tuple(sorted(leaves)))


CLASS_NAMES = [
    name_case("that is plain", "ant", "ant"),
    name_case("with a separator", "a/b"),
    name_case("with the other separator", "a\\b"),
    name_case("that climbs", "../../climbed"),
    name_case("..", ".."),
    name_case("of 300 characters", "x" * 300),
    name_case("that is a device", "CON"),
    name_case("in HTML", "<script>alert(1)</script>"),
    name_case("that is a formula", "=1+1"),
    name_case("that is an option", "--help"),
    name_case("with a picture", "\U0001f426"),
]
CASES = [*IMAGES, *FOLDERS, *MANIFESTS, *CONFIGS, *CLASS_NAMES]

"""What is fuzzed: for each parser a valid input, ways to spoil it, and what reads it.

A target does with a spoilt file what the program does with it, and checks what must hold of whatever was accepted.
`odd_lines` and `damaged` spoil: the first knows the structure and puts odd values in its places, the second knows bytes
alone.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image
from small_sets import CLASSES, data_manifest, picture, real_folder, synthetic_folder

from finegan_aug.checkpoint import (
    _manifest,
    best_checkpoint,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
    verify_run,
)
from finegan_aug.config import FineGANConfig
from finegan_aug.data.annotations import fit_box, read_boxes
from finegan_aug.data.decode import decode_with_notes
from finegan_aug.data.doctor import run_doctor
from finegan_aug.data.doctor_text import format_report
from finegan_aug.data.duplicates import dhash, pixel_sha256
from finegan_aug.data.folder import load_data
from finegan_aug.data.manifest import write_manifest as write_data_manifest
from finegan_aug.lineage import Lineage, check_lineage, read_lineage, write_lineage
from finegan_aug.options import build, parse_options
from finegan_aug.synthetic import INDEX, MANIFEST, read_rows, write_manifest
from finegan_aug.synthetic_index import SOFT_LABELS, ClassPools, open_index
from finegan_aug.verbs import DataOptions, FilterOptions, TrainOptions, generator_config

# Values as they stand in a JSON file, so that none is lost by a writer that knows better.
ODD_JSON = [
    b"null", b"true", b"false", b"0", b"-1", b"1", b"2147483648", b"9" * 30, b"-" + b"9" * 30, b"1" + b"0" * 400,
    b"1" * 5000, b"1e999", b"-1e999", b"NaN", b"Infinity", b"-Infinity", b"0.5", b"1e308", b"-0.0", b"[]", b"{}",
    b'""', b'"a"', b'"\\ud800"', b'"\\u0000"', b'"\\n"', b'"\\u202e"', b'"../x"', b'"/etc/passwd"', b'"ant/0.png"',
    b'"' + b"x" * 1500 + b'"', b'"\xff"', b'"\xed\xa0\x80"', b"[1, 2]", b'["a", "a"]', b"[1, 2, 3, 4]", b'{"a": 1}',
    b'["ant", "bee", "cat"]', b'{"": null}', b"[[1], [2]]", b'{"a": {"a": {"a": []}}}', b'["\\ud800"]', b'"train"',
    b'"test"', b'"val"', b'"png"', b"18446744073709551616", b"", b"[", b'{"a"',
]  # fmt: skip
# As deep as Python's own limit, where a walk fails that the parser has just managed.
DEEP_JSON = st.integers(850, 1000).map(lambda levels: b"[" * levels + b"]" * levels)
ODD_YAML = [
    "", "~", "yes", ".inf", "-.inf", ".nan", "0", "-1", "1e400", "9" * 30, "9" * 5000, "0x" + "f" * 400, "0b_",
    "1:60:9", "190:20:30.15", "2020-99-99", "2001-12-14t21:59:43.10-23:59", "0001-01-01 00:00:00 +23:59", "!!int ''",
    "!!bool x", "!!timestamp x", "!!set {a}", "&a b", "*a", "<<", "{}", "[]", "[a, b]", "[[a], [b]]", "{a: {b: [c]}}",
    "{1: 2}", '"\\0"', '"\\ud800"', '"a\\nb"', "'", '"', "[", "{", "- a", "|", ">", "%a", "@a", "`a", "=",
    "[" * 400 + "]" * 400, "x" * 1500, "{<<: {a: 1}}", "{<<: [1]}", "0.5", "7", "true", "slim-32", "null",
    "2001-01-01", "1_0", "._", "+.5e+9",
]  # fmt: skip


@dataclass(frozen=True)
class Target:
    """One parser.

    Args:
        valid: a file as it should be. spoilt: makes a spoilt one.
        read: `read(folder, data)` puts the data where the parser looks and does what the program does with it.
    """

    valid: Any
    spoilt: st.SearchStrategy[Any]
    read: Callable[[Path, Any], None]


@st.composite
def damaged(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    """A valid file after one to four edits: bytes changed, inserted, deleted, repeated, or the end cut off."""
    data = bytearray(draw(valid))
    for _ in range(draw(st.sampled_from((1, 1, 2, 4)))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(1, 16))
        edit = draw(st.sampled_from(("change", "flip", "insert", "delete", "repeat", "cut", "number")))
        if edit == "change":
            data[at : at + length] = draw(st.binary(min_size=length, max_size=length))
        elif edit == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif edit == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=16))
        elif edit == "delete":
            del data[at : at + length]
        elif edit == "repeat":
            data[at:at] = data[at : at + length] * draw(st.integers(1, 20))
        elif edit == "cut":
            del data[at:]
        elif edit == "number":  # lengths and offsets of binary formats
            number = draw(st.sampled_from((0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)))
            data[at : at + 4] = struct.pack(draw(st.sampled_from(("<I", ">I"))), number)
    return bytes(data)


@st.composite
def odd_lines(draw: st.DrawFn, lines: Sequence[Any]) -> bytes:
    """Lines of JSON in which one to three values, at any depth, are replaced, removed, renamed or repeated."""
    content = json.loads(json.dumps(lines))
    tokens: dict[str, bytes] = {}
    for number in range(draw(st.sampled_from((1, 1, 2)))):
        parent, key = draw(st.sampled_from(list(places(content))))
        edit = draw(st.sampled_from(("value", "value", "value", "remove", "rename", "repeat")))
        mark = f"odd-value-{number}"
        if edit == "remove":
            del parent[key]
        elif isinstance(parent, list) and edit == "repeat":
            parent.append(parent[key])
        elif isinstance(parent, dict) and edit == "rename":
            parent[draw(st.sampled_from(("", "\ud800", "\0", "x" * 2000, "split")))] = parent.pop(key)
        else:
            parent[key] = mark
            tokens[f'"{mark}"'] = draw(st.sampled_from(ODD_JSON) | DEEP_JSON)
        if not content:
            break
    text = "".join(json.dumps(line) + "\n" for line in content).encode()
    for mark, token in tokens.items():
        text = text.replace(mark.encode(), token)
    return text


def places(content: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value at any depth."""
    keys = list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    return [place for key in keys for place in [(content, key), *places(content[key])]]


def encoded(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(picture(1, 1)).convert(mode)
    image.save(stream, kind, **options)
    return stream.getvalue()


def images() -> list[bytes]:
    """One small image of each kind that is read, and several frames where a format has them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    more = {"save_all": True, "append_images": [Image.fromarray(picture(2, n)) for n in range(2)]}
    plain = [encoded(kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")]
    frames = [encoded(kind, **more) for kind in ("PNG", "WEBP", "TIFF", "GIF")]
    modes = [encoded("PNG", "LA"), encoded("PNG", "P"), encoded("PNG", "1"), encoded("JPEG", "CMYK")]
    turned = [encoded(kind, exif=exif) for kind in ("JPEG", "PNG", "WEBP", "TIFF")]
    packed = [encoded("TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")]
    deep = io.BytesIO()
    Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16)).save(deep, "PNG")
    return [*plain, *frames, *modes, *turned, *packed, deep.getvalue(), encoded("JPEG", progressive=True)]


def read_image(folder: Path, data: bytes) -> None:
    path = folder / "a.jpg"
    path.write_bytes(data)
    image, notes, _ = decode_with_notes(path)
    assert image.mode == "RGB"
    assert all(note.startswith(("W101", "W102", "W103")) for note in notes)
    assert len(pixel_sha256(image)) == 64
    assert len(dhash(image)) == 16


def read_data_manifest(folder: Path, data: bytes) -> None:
    """Whatever is read can be written and read again, and has a hash; doctor never raises at all."""
    path = folder / "data.jsonl"
    path.write_bytes(data)
    format_report(run_doctor(path)).encode()
    manifest = load_data(path)
    assert len(manifest.sha256) == 64
    write_data_manifest(manifest, folder / "again.jsonl")
    assert load_data(folder / "again.jsonl").sha256 == manifest.sha256


def read_synthetic(folder: Path, data: tuple[bytes, bytes]) -> None:
    """The two readers agree, an index that belongs to another manifest is no harm, and what is read can be written."""
    home = folder / "synthetic"
    (home / MANIFEST).write_bytes(data[0])
    (home / INDEX).write_bytes(data[1])
    index = open_index(home)
    pools = ClassPools(index, index.header.classes)
    assert sum(pools.sizes) <= len(index)
    header, rows = read_rows(home)
    assert header == index.header
    for entry in range(len(index)):
        index.path(entry)
    write_manifest(folder / "again", header, rows)
    assert read_rows(folder / "again") == (header, rows)


def read_soft_labels(folder: Path, data: bytes) -> None:
    """What is accepted is shares: a loss takes them as they are."""
    home = folder / "answered"
    if not home.exists():
        synthetic_folder(home, per_class=1)
    (home / SOFT_LABELS).write_bytes(data)
    shares = open_index(home).soft_labels
    assert shares.shape == (3, 3)
    assert bool((shares >= 0).all())
    assert np.allclose(shares.sum(axis=1), 1, atol=1e-3)


def read_lineage_file(folder: Path, data: bytes) -> None:
    (folder / "lineage.json").write_bytes(data)
    lineage = read_lineage(folder)
    assert lineage is not None
    write_lineage(folder / "again", lineage)
    assert read_lineage(folder / "again") == lineage
    check_lineage(lineage, data_manifest(folder / "real", {"0": "test"}))


def read_boxes_file(folder: Path, data: tuple[str, bytes]) -> None:
    """A CSV, or one of the two files of CUB."""
    name, content = data
    (folder / "cub").mkdir(exist_ok=True)
    (folder / "cub" / "images.txt").write_bytes(CUB_IMAGES)
    (folder / "cub" / "bounding_boxes.txt").write_bytes(CUB_BOXES)
    (folder / "cub" / name).write_bytes(content)
    boxes = read_boxes(folder / "cub" if name != "boxes.csv" else folder / "cub" / name)
    for box in boxes.values():
        fitted = fit_box(box, 16, 16)
        assert isinstance(fitted, str) or (0 <= fitted[0] < fitted[2] <= 16 and 0 <= fitted[1] < fitted[3] <= 16)


def read_configuration(folder: Path, data: tuple[str, bytes]) -> None:
    """As the verb filter reads it."""
    name, content = data
    (folder / name).write_bytes(content)
    line = ["synthetic", "--config", str(folder / name), "--data", "photographs"]
    values, photographs = parse_options(
        "filter", line, FilterOptions, DataOptions, section="filter", positional=("synthetic",)
    )
    build(FilterOptions, values)
    build(DataOptions, photographs)


def read_training_configuration(folder: Path, data: tuple[str, bytes]) -> None:
    """As the verb train reads it; what is accepted makes a configuration, which comes back from JSON.

    Codes are not counted from the data here (`resolve`): that makes a list as long as the number of codes.
    """
    name, content = data
    (folder / name).write_bytes(content)
    line = ["--config", str(folder / name), "--out", "run", "--data", "photographs"]
    run, photographs, written = parse_options("train", line, TrainOptions, DataOptions, FineGANConfig, section="train")
    build(DataOptions, photographs)
    config = generator_config(build(TrainOptions, run).preset, written)
    assert FineGANConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def two_checkpoints(run: Path) -> list[Path]:
    """The run's checkpoints of steps 8 and 16."""
    for step in (8, 16):
        tensors = {"model": {"w": torch.ones(3)}, "ema": {"w": torch.zeros(())}}
        save_checkpoint(run, step=step, tensors=tensors, state={"seen_images": step, "kid": 0.5})
    return sorted((run / "checkpoints").iterdir())


def read_checkpoint(folder: Path, data: tuple[str, bytes, bool]) -> None:
    """One file of a checkpoint is another, its hash fitting or not: it loads whole or is refused; the older stands."""
    name, content, fitting = data
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(folder / "whole run", run)
    older, newest = sorted((run / "checkpoints").iterdir())
    (newest / name).write_bytes(content)
    if fitting and name != "manifest.json":
        files = {path.name: path.read_bytes() for path in newest.iterdir() if path.name != "manifest.json"}
        (newest / "manifest.json").write_bytes(_manifest(files))
    assert all(line.startswith(("ok  step-", "bad step-")) for line in verify_run(run))
    assert latest_checkpoint(run) in (older, newest)
    assert best_checkpoint(run) in (older, newest)
    tensors, state = load_checkpoint(newest)
    assert state["step"] == 16
    assert all(isinstance(tensor, torch.Tensor) for part in tensors.values() for tensor in part.values())


def checkpoint_files(folder: Path) -> st.SearchStrategy[tuple[str, bytes, bool]]:
    """Spoilt files of each kind that a checkpoint holds, and whether the hash is made to fit."""
    spoilt = []
    for path in two_checkpoints(folder / "whole run")[1].iterdir():
        name, content = st.just(path.name), path.read_bytes()
        spoilt.append(st.tuples(name, damaged(st.just(content)), st.booleans()))
        if path.suffix == ".json":
            spoilt.append(st.tuples(name, odd_lines([json.loads(content)]), st.booleans()))
    return st.one_of(spoilt)


@st.composite
def yaml_files(draw: st.DrawFn, section: str, keys: Sequence[str]) -> tuple[str, bytes]:
    """Odd values under real keys, flat or in a section, then perhaps odd bytes."""
    some = draw(st.lists(st.sampled_from(keys), min_size=1, max_size=3))
    lines = [f"{key}: {draw(st.sampled_from(ODD_YAML))}" for key in some]
    form = draw(st.sampled_from(("flat", "section", "run")))
    head = {"flat": "", "section": f"{section}:\n", "run": "classes: [a]\nconfig:\n"}[form]
    text = head + "".join(f"{'' if form == 'flat' else '  '}{line}\n" for line in lines)
    data = text.encode("utf-8", "surrogatepass")
    return "c.yaml", draw(damaged(st.just(data))) if draw(st.booleans()) else data


def configurations(section: str, shapes: Sequence[type]) -> st.SearchStrategy[tuple[str, bytes]]:
    keys = [name for shape in shapes for name in shape.__dataclass_fields__]  # type: ignore[attr-defined]
    content = dict.fromkeys(keys, 1)
    whole = odd_lines([content]).map(lambda data: ("c.json", data))
    few = st.lists(st.sampled_from(keys), min_size=1, max_size=2, unique=True).flatmap(
        lambda some: odd_lines([{section: dict.fromkeys(some, 1)}]).map(lambda data: ("c.json", data))
    )
    return yaml_files(section, keys) | few | whole


CUB_IMAGES = b"1 ant/0.png\n2 bee/1.png\n"
CUB_BOXES = b"1 1.0 2.0 9.0 9.0\n2 0.0 0.0 16.0 16.0\n"
CSV = b"path,x1,y1,x2,y2\nant/0.png,1,2,9,9\nbee/1.png,0,0,16,16\n"
ODD_TEXT = [b"\0", b"\r", b'"', b",", b"nan", b"1e999", b"-1", b"9" * 400, b"\xff", b"\xef\xbb\xbf", b"\xe2\x80\xa8",
            b" ", b"\n", b"1_0", b"../x", b"", b"\x1c", b"x" * 140_000, b"path,x,y,w,h"]  # fmt: skip


@st.composite
def odd_text(draw: st.DrawFn, valid: bytes) -> bytes:
    """A text file in which some words are replaced by odd ones."""
    words = valid.replace(b",", b" , ").replace(b"\n", b" \n ").split(b" ")
    for _ in range(draw(st.integers(1, 3))):
        words[draw(st.integers(0, len(words) - 1))] = draw(st.sampled_from(ODD_TEXT))
    return b" ".join(words).replace(b" , ", b",").replace(b" \n ", b"\n")


def npy_bytes(values: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=False)
    return stream.getvalue()


def box_files() -> st.SearchStrategy[tuple[str, bytes]]:
    named = (("boxes.csv", CSV), ("images.txt", CUB_IMAGES), ("bounding_boxes.txt", CUB_BOXES))
    spoilt = [st.tuples(st.just(name), odd_text(data) | damaged(st.just(data))) for name, data in named]
    return st.one_of(spoilt)


def targets(folder: Path) -> dict[str, Target]:
    """All targets, with the valid files they need in `folder`."""
    real = real_folder(folder / "real", per_class=2)
    manifest = data_manifest(real, {"0": "test"})
    write_data_manifest(manifest, folder / "data.jsonl")
    header, *rows = map(json.loads, (folder / "data.jsonl").read_text().splitlines())
    del header["sha256"]  # a changed row would stop there
    rows[0]["box"] = [1, 2, 9, 9]
    synthetic = synthetic_folder(folder / "synthetic", per_class=1)
    lines = [json.loads(line) for line in (synthetic / MANIFEST).read_text().splitlines()]
    index = (synthetic / INDEX).read_bytes()
    lineage = Lineage(
        {image.sha256: ("gan_train",) for image in manifest.of("train")},
        CLASSES,
        manifest.sha256,
        {"checkpoint_sha256": "c" * 64},
        "tied",
        "s",
        fraction=0.5,
        pair=0,
        code_to_class=(0, 1, 2),
        parents=({"kind": "pretrained features", "used_by": "judge"},),
    )
    origin = {"version": 1, **asdict(lineage)}
    plain = "".join(json.dumps(line) + "\n" for line in (header, *rows)).encode()
    answers = npy_bytes(np.array([[0.5, 0.25, 0.25], [0, 1, 0], [0.1, 0.2, 0.7]], dtype=np.float32))
    kinds, shapes = st.sampled_from(("f4", "f8", "i8", "?", "c8")), st.sampled_from(((3, 3), (3, 2), (0, 3), (9,)))
    other_arrays = st.builds(lambda shape, kind: npy_bytes(np.ones(shape, dtype=kind)), shapes, kinds)
    indices = st.sampled_from((b"", index)) | damaged(st.just(index))
    made = (synthetic / MANIFEST).read_bytes()
    whole = json.dumps(origin).encode()
    filtering = ("c.yaml", b"filter: {top_k: 3, teacher: own, boxes: null}\n")
    training = ("c.yaml", b"train: {preset: slim-32, total_kimg: 1, child_to_parent: [0, 0, 0, 0, 1, 1, 1, 1]}\n")
    example = images()
    files = checkpoint_files(folder)
    state = (folder / "whole run" / "checkpoints" / "step-000000016" / "state.json").read_bytes()
    return {
        "checkpoint": Target(("state.json", state, True), files, read_checkpoint),
        "image": Target(example[0], damaged(st.sampled_from(example)), read_image),
        "data manifest": Target(plain, odd_lines([header, *rows]) | damaged(st.just(plain)), read_data_manifest),
        "synthetic set": Target(
            (made, index), st.tuples(odd_lines(lines) | damaged(st.just(made)), indices), read_synthetic
        ),
        "soft labels": Target(answers, damaged(st.just(answers)) | other_arrays, read_soft_labels),
        "lineage": Target(whole, odd_lines([origin]) | damaged(st.just(whole)), read_lineage_file),
        "box file": Target(("boxes.csv", CSV), box_files(), read_boxes_file),
        "configuration": Target(filtering, configurations("filter", [FilterOptions, DataOptions]), read_configuration),
        "training configuration": Target(
            training,
            configurations("train", [TrainOptions, DataOptions, FineGANConfig]),
            read_training_configuration,
        ),
    }

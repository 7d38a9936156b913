"""Small files: whole or not there at all."""

from __future__ import annotations

import errno
import hashlib
import math
import os
from pathlib import Path

import pytest

from finegan_aug.errors import DataError, StorageError
from finegan_aug.files import read_json, sha256_file, write_bytes, write_json


def test_bytes_are_written_into_folders_that_do_not_exist_yet(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    write_bytes(path, b"one")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.bin"
    write_bytes(path, b"old")
    seen = []
    replace = os.replace

    def note(source: Path, target: Path) -> None:
        seen.append((path.read_bytes(), Path(source).read_bytes(), Path(target)))
        replace(source, target)

    monkeypatch.setattr(os, "replace", note)
    write_bytes(path, b"new")
    assert seen == [(b"old", b"new", path)]
    assert path.read_bytes() == b"new"


def test_a_full_disk_keeps_the_old_file_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.bin"
    write_bytes(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError) as caught:
        write_bytes(path, b"new")
    assert str(caught.value) == f"cannot write {path}: No space left on device; free space or choose another --out"
    assert caught.value.exit_code == 74
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]
    assert path.read_bytes() == b"old"


def test_a_folder_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    path = tmp_path / "file" / "inside.json"
    with pytest.raises(StorageError, match=r"cannot write .*inside\.json: .*; free space or choose another --out"):
        write_bytes(path, b"x")


def test_json_survives_exactly(tmp_path: Path) -> None:
    content = {"b": [0.1, 1 / 3, 5e-324, -0.0], "a": {"z": None, "é": True}, "big": 2**63}
    write_json(tmp_path / "x.json", content)
    assert read_json(tmp_path / "x.json") == content
    assert math.copysign(1, read_json(tmp_path / "x.json")["b"][3]) == -1
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert text.index('"a"') < text.index('"b"')  # sorted: the same content has the same bytes
    assert "é" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_none_is_not_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"loss": value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "\udcff", "[" * 100_000])
def test_what_is_not_json_is_a_data_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"cannot read .*x\.json as JSON: .*; restore the file or make it anew"):
        read_json(path)


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*none\.json as JSON: .*No such file"):
        read_json(tmp_path / "none.json")


def test_json_that_is_no_object_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(DataError) as caught:
        read_json(tmp_path / "x.json")
    assert str(caught.value) == f"{tmp_path / 'x.json'} must hold a JSON object, found list; make the file anew"


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_file(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()
    assert sha256_file(tmp_path / "x").startswith("ba7816bf8f01cfea")

"""Predictions that the report cannot read are left out, whatever is wrong with the file."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from finegan_aug.report.rows import Row
from finegan_aug.report.sources import read_predictions

ROW = Row(0.1, "R1", "net", 0, 0.5, predictions="predictions.npz")
GOOD = {
    "labels": np.array([0, 1, 1]),
    "logits": np.eye(2, dtype=np.float32)[[0, 1, 0]],
    "image": np.array(["b", "a", "c"]),
}


def archive(**changes: object) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **{**GOOD, **changes})  # type: ignore[arg-type]
    return stream.getvalue()


def array() -> bytes:
    stream = io.BytesIO()
    np.save(stream, GOOD["logits"])
    return stream.getvalue()


def broken_stream() -> bytes:
    """An archive whose first member does not decompress."""
    data = bytearray(archive())
    info = zipfile.ZipFile(io.BytesIO(bytes(data))).infolist()[0]
    start = info.header_offset + 30 + len(info.filename) + 20
    data[start : start + 4] = b"\xff\xff\xff\xff"
    return bytes(data)


def members_of_another_kind() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name in GOOD:
            file.writestr(name, b"text")
    return stream.getvalue()


def encrypted() -> bytes:
    data = bytearray(archive())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def test_predictions_are_sorted_by_the_names_of_the_images(tmp_path: Path) -> None:
    (tmp_path / "predictions.npz").write_bytes(archive())
    known = read_predictions(tmp_path, ROW)
    assert known is not None
    assert known.images.tolist() == ["a", "b", "c"]
    assert known.right.tolist() == [True, True, False]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        array(),
        archive()[:200],
        broken_stream(),
        members_of_another_kind(),
        encrypted(),
        archive(logits=np.zeros(3)),
        archive(labels=np.zeros(2)),
        archive(image=np.array([["a", "b", "c"]])),
        archive(image=np.array(["a", "b", "c"], dtype=object)),
    ],
)
def test_a_file_of_another_kind_is_left_out(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "predictions.npz").write_bytes(data)
    assert read_predictions(tmp_path, ROW) is None

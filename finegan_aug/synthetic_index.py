"""A synthetic set opened for random access: a million images cost no more than their index.

Layout of the files: docs/formats.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import mmap
import os
import unicodedata
from array import array
from collections.abc import Callable, Sequence
from copy import copy
from functools import cache, cached_property
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image

from finegan_aug.arrays import Shares, read_shares
from finegan_aug.data.decode import decode
from finegan_aug.data.outside import followed
from finegan_aug.errors import DataError, LeakError, StorageError
from finegan_aug.files import sha256_file
from finegan_aug.synthetic import INDEX, MANIFEST, Table, list_folder, open_manifest, write_index
from finegan_aug.synthetic_rows import (
    MAX_LINE_BYTES,
    Header,
    SyntheticRow,
    is_written_path,
    manifest_lines,
    parse_header,
    parse_row,
    row_line,
)

START, END, LABEL, IMAGE, KEPT = range(5)  # columns of the index
SOFT_LABELS = "soft_labels.npy"
NAMING = "naming.json"  # in a set whose images a teacher named: its hash


class SyntheticIndex:
    """A synthetic set opened for random access: a memory-mapped table and a memory-mapped manifest.

    Pickles as its path alone, so that workers map the same pages. `header`, `root`, and `table`
    (int64 [N, 5]: start and end of the line in the manifest, label, image number, kept) are public.
    """

    def __init__(self, root: Path, header: Header, table: Table, lines: bytes | mmap.mmap) -> None:
        self.root, self.header, self.table, self._lines = root, header, table, lines
        self._real_folder = cache(os.path.realpath)

    def __len__(self) -> int:
        return len(self.table)

    def __reduce__(self) -> tuple[Callable[..., SyntheticIndex], tuple[object, ...]]:
        if isinstance(self._lines, bytes):  # a listed folder: list it once, not in every worker
            return SyntheticIndex, (self.root, self.header, self.table, self._lines)
        return open_index, (self.root,)

    def row(self, entry: int) -> SyntheticRow:
        """The manifest's row number `entry`, counted from 0."""
        line = self._lines[self.table[entry, START] : self.table[entry, END]]
        return parse_row(line, self.header, entry + 2, self.root / MANIFEST)

    def path(self, entry: int) -> Path:
        """File of the image."""
        return self.root / self._file(entry)[0]

    def side_px(self) -> int:
        """Side of the images, as the header has it; where sizes differ, the width of the first.

        Raises:
            DataError: the first image has another size than the header says, so that others would be enlarged to it.
        """
        size, said = self.image(0).size, self.header.resolution
        if said is not None and size != (said, said):
            found = f"{size[0]} x {size[1]}"
            raise DataError(
                f"{self.root}: images must have the {said} x {said} pixels of the header, the first has {found}",
                "correct resolution in manifest.jsonl, or make the set anew",
            )
        return size[0]

    def image(self, entry: int, *, verify: bool = False) -> Image.Image:
        """The image as PIL RGB; `verify` also compares the file's SHA-256 with the manifest.

        Raises:
            DataError: the file is missing or broken, or a link that leaves the set.
            LeakError: it is not the one that the manifest names.
        """
        file, sha256 = self._file(entry)
        path = f"{self.root}/{file}"
        if not followed(path, self._real_folder).startswith(self._real_folder(str(self.root)) + os.sep):
            raise DataError(f"{path} is a link that leaves its folder", "copy the file into the folder")
        if verify and sha256 is not None and os.path.isfile(path) and sha256_file(Path(path)) != sha256:
            raise LeakError(f"{path} is not the file that its manifest names", "synthesize the set anew")
        return decode(path)

    def _file(self, entry: int) -> tuple[str, str | None]:
        """Path and hash. The whole row was checked when the index was made; here, once per sample, only the path is."""
        try:
            content = json.loads(self._lines[self.table[entry, START] : self.table[entry, END]])
            if is_written_path(content["file"]):
                return content["file"], content["sha256"]
        except (ValueError, KeyError, TypeError):
            pass
        row = self.row(entry)  # a listed folder; or says what is wrong
        return row.file, row.sha256

    @cached_property
    def sha256(self) -> str:
        """Of the manifest, hexadecimal: which images there are, and which of them are kept."""
        return hashlib.sha256(self._lines).hexdigest()

    @cached_property
    def soft_labels(self) -> Shares:
        """The probability of each class by the teacher that filtered the set, float32 [N, C], memory-mapped.

        Rows of kept images are shares of one; those of dropped images may hold anything.

        Raises:
            DataError: there are none, or they do not fit the manifest.
        """
        shape, kept = (len(self), len(self.header.classes)), self.table[:, KEPT] > 0
        return read_shares(self.root / SOFT_LABELS, shape, kept, "filter the set: finegan-aug filter SET --data DIR")

    def pools(self) -> list[Table]:
        """Kept entries of each class, one int64 array per class of the header."""
        entries = np.flatnonzero(self.table[:, KEPT])
        labels = self.table[entries, LABEL]
        order = np.argsort(labels, kind="stable")
        bounds = np.searchsorted(labels[order], np.arange(1, len(self.header.classes)))
        return np.split(entries[order], bounds)


class ClassPools:
    """Kept entries of each class, end to end, for drawing; classes in the order of the real labels.

    `columns` says which class of the synthetic set each is. Names are equal if they read the same: a Mac writes accents
    as characters of their own.

    Raises:
        DataError: the class names of the two differ.
    """

    def __init__(self, synthetic: SyntheticIndex, classes: Sequence[str]) -> None:
        names, wanted = ([_composed(name) for name in given] for given in (synthetic.header.classes, classes))
        if sorted(names) != sorted(wanted):
            raise DataError(
                f"real and synthetic classes must have the same names, found {list(classes)} and {list(names)}",
                "name the folders of the synthetic set after the real classes, or synthesize it from these data",
            )
        self.columns = [names.index(name) for name in wanted]
        pools = synthetic.pools()
        ordered = [pools[column] for column in self.columns]
        self._flat: Table = np.concatenate(ordered)
        self.sizes: Table = np.array([len(pool) for pool in ordered], dtype=np.int64)
        self._offsets = np.cumsum(self.sizes) - self.sizes

    def emptied(self) -> ClassPools:
        """The same classes without an entry."""
        found = copy(self)
        found.sizes = np.zeros_like(self.sizes)
        return found

    def entries(self, labels: Table, start: npt.NDArray[np.float64], turn: Table) -> Table:
        """For each label a kept entry of its class, which must have one: `turn` places after `start` in [0, 1)."""
        sizes = self.sizes[labels]
        at = self._offsets[labels] + ((start * sizes).astype(np.int64) + turn) % sizes
        return self._flat[at]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def open_index(out_dir: str | Path) -> SyntheticIndex:
    """Open a synthetic set; nothing per image is read when its index fits its manifest.

    Raises:
        DataError: no manifest and no class folders, a naming that was broken off, or a wrong line of the manifest.
    """
    root = Path(out_dir).absolute()
    manifest = root / MANIFEST
    file = open_manifest(manifest)
    if file is None and (root / NAMING).exists():
        raise DataError(f"{root} holds images whose naming was broken off", "run the command that names them again")
    if file is None:
        header, rows = list_folder(root)
        stream = io.BytesIO(b"".join(map(row_line, rows)))
        return SyntheticIndex(root, header, _table(stream, header, manifest), stream.getvalue())
    with file:
        header = parse_header(file.readline(MAX_LINE_BYTES), manifest)
        table = _read_index(root)
        if table is None:
            table = _table(file, header, manifest)
            with contextlib.suppress(StorageError):  # a read-only folder is slower to open, otherwise the same
                write_index(root, table)
        return SyntheticIndex(root, header, table, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _table(stream: IO[bytes], header: Header, manifest: Path) -> Table:
    """The index from the lines that follow."""
    values = array("q")
    for number, start, line in manifest_lines(stream):
        row = parse_row(line, header, number, manifest)
        values.extend((start, start + len(line), row.label, row.image, row.kept))
    return np.array(values, dtype=np.int64).reshape(-1, 5)


def _read_index(root: Path) -> Table | None:
    """The index on disk, memory-mapped, or None if it does not belong to the manifest as it is now."""
    path, manifest = root / INDEX, os.stat(root / MANIFEST)
    if not path.is_file():
        return None
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
        fits = table.dtype == np.int64 and table.ndim == 2 and table.shape[1] == 5
        if not fits or os.stat(path).st_mtime_ns < manifest.st_mtime_ns:
            return None
        return table.view(np.ndarray) if len(table) and table[-1, END] == manifest.st_size else None
    # numpy raises nearly anything on a damaged file, and takes one that begins like an archive for an archive. Whatever
    # is wrong with the index, the manifest is there to make it anew.
    except Exception:
        return None

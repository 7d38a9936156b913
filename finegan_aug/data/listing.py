"""Which files of a folder are images, without opening one.

`ROOT/CLASS/.../image.jpg`: a folder directly below the root is a class, its images may lie at any depth. Links to
folders are never followed (a loop would multiply the data), links to files only while they stay below the root.
"""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from finegan_aug.data.decode import SUFFIXES
from finegan_aug.data.outside import path_fault, printable
from finegan_aug.errors import DataError

_SYSTEM = {"__macosx", "@eadir", "__pycache__", "lost+found", "$recycle.bin", "system volume information"}
_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}
_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}
_PICTURE_SUFFIXES = {".heic", ".heif", ".avif", ".jp2", ".psd", ".svg", ".raw", ".cr2", ".nef", ".jxl", ".tga", ".ppm"}


@dataclass(frozen=True)
class Problem:
    """Something wrong with one file or class. Codes starting with E are errors, with W warnings."""

    code: str
    path: str
    cause: str
    remedy: str

    @property
    def is_error(self) -> bool:
        """True for an error, False for a warning."""
        return self.code.startswith("E")

    def __str__(self) -> str:
        return f"{self.code} {printable(self.path)}: {printable(self.cause)}; {self.remedy}"


@dataclass(frozen=True)
class Listing:
    """Image files of a folder: relative posix paths by class name, both sorted; `loose` ones have no class."""

    root: Path
    files: dict[str, tuple[str, ...]]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    loose: tuple[str, ...] = ()


def list_images(root: str | Path) -> Listing:
    """List the images of a class folder tree.

    Raises:
        DataError: the root is not a readable folder, or holds split folders instead of class folders.
    """
    top = Path(os.path.realpath(root))
    try:
        entries = sorted(os.scandir(top), key=lambda entry: entry.name)
    except OSError as error:
        cause = f"the data must be a folder of class folders, {root}: {error.strerror}"
        raise DataError(cause, "give the folder that holds one folder per class") from error
    problems: list[Problem] = []
    skipped: list[str] = []
    files: dict[str, list[str]] = {}
    for entry in entries:
        if _is_hidden(entry.name) or entry.is_symlink() or not entry.is_dir():
            skipped.append(entry.name)
            continue
        name = unicodedata.normalize("NFC", entry.name)
        if name in files:
            cause = "two folders spell this class with different characters, they were taken as one"
            problems.append(Problem("W206", name, cause, "merge the folders"))
        files.setdefault(name, []).extend(_below(top, entry.name, problems, skipped))
    _refuse_split_folders(root, list(files))
    problems += _twins(files)
    by_class = {name: tuple(sorted(files[name])) for name in sorted(files)}
    return Listing(top, by_class, tuple(problems), _skipped(skipped))


def list_loose(root: str | Path) -> Listing:
    """List the images of a folder at any depth, of no known class whatever its folders are called.

    Raises:
        DataError: the root is not a folder.
    """
    top = Path(os.path.realpath(root))
    if not top.is_dir():
        raise DataError(f"the unlabelled photographs must be a folder, found {root}", "give a folder of images")
    problems: list[Problem] = []
    skipped: list[str] = []
    found = _below(top, "", problems, skipped)
    return Listing(top, {}, tuple(problems), _skipped(skipped), loose=tuple(sorted(found)))


def _skipped(names: list[str]) -> tuple[str, ...]:
    notes = [f"skipped {printable(name)}: hidden, a system file, a link or not an image" for name in names[:10]]
    if len(names) > 10:
        notes.append(f"skipped {len(names) - 10} more files or folders of that kind")
    return tuple(notes)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM or name.lower() in _SYSTEM_FILES


def _below(top: Path, folder: str, problems: list[Problem], skipped: list[str]) -> list[str]:
    """Relative paths of the images at any depth below one class folder."""
    found = []

    def unreadable(error: OSError) -> None:
        path = Path(error.filename).relative_to(top).as_posix()
        cause = f"the folder cannot be read: {error.strerror}"
        problems.append(Problem("E106", path, cause, "restore its permissions"))

    for directory, names, files in os.walk(top / folder, onerror=unreadable):
        here = Path(directory).relative_to(top)
        for name in sorted(names):
            if _is_hidden(name) or os.path.islink(os.path.join(directory, name)):
                skipped.append((here / name).as_posix())
                names.remove(name)
        for name in sorted(files):
            relative = (here / name).as_posix()
            suffix = os.path.splitext(name)[1].lower()
            if suffix in _PICTURE_SUFFIXES and not _is_hidden(name):
                cause = f"the format {suffix} is not read, the image was left out"
                problems.append(Problem("W104", relative, cause, "convert it to JPEG or PNG"))
            elif _is_hidden(name) or suffix not in SUFFIXES:
                skipped.append(relative)
            else:
                problem = _file_problem(top, relative)
                problems.extend([problem] if problem else [])
                found.extend([] if problem else [relative])
    return found


def _file_problem(top: Path, relative: str) -> Problem | None:
    fault = path_fault(relative)
    if fault is not None:
        return Problem("E107", relative, f"a file name {fault}", "rename the file")
    if os.path.islink(top / relative):
        real = os.path.realpath(top / relative)
        if not real.startswith(str(top) + os.sep):
            return Problem("E108", relative, "the link leaves the folder", "copy the file into the folder")
        if not os.path.exists(real):
            return Problem("E106", relative, "the link is broken", "restore the file or remove its link")
    return None


def _refuse_split_folders(root: str | Path, names: list[str]) -> None:
    splits = [name for name in names if name.lower() in _SPLIT_NAMES]
    # One such name among others may be a class (a train among vehicles), two are splits.
    if len(splits) >= 2 or (splits and len(splits) == len(names)):
        cause = f"the folders of {root} must be classes, found splits: {', '.join(splits)}"
        raise DataError(cause, f"give --data {Path(root) / splits[0]} and the test images as --test-data")


def _twins(files: dict[str, list[str]]) -> list[Problem]:
    """Class names that differ in case alone: one class spelt twice, or a trap on other file systems."""
    first: dict[str, str] = {}
    problems = []
    for name in sorted(files):
        other = first.setdefault(name.casefold(), name)
        if other != name:
            cause = f"the class names {other} and {name} differ in case alone"
            problems.append(Problem("W205", name, cause, "rename one, or merge them if they are one class"))
    return problems

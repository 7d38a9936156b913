"""The two views of every photograph that the discriminators see, cached as uint8 and cut by one gather a batch.

The object crop: a square of side 2 int(0.75 max(w, h)) round the box, clipped to the image, shorter side
resized to int(S 76/64). The frame: the whole image, shorter side int(input_px 76/64), with its box scaled.
Source: kkanshul/finegan code/datasets.py and code/main.py; ours resamples the object crop once, the official data path
twice: shorter side int(2 S 76/64), a square of 2 S pixels, that square resized to S.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from PIL import Image

from finegan_aug.data.decode import decode
from finegan_aug.data.manifest import ImageRecord, Manifest
from finegan_aug.data.objects import BoxSource, Bytes, Objects, check_boxes, find_objects, read_mask
from finegan_aug.data.views import Crops, FlatImages, object_px
from finegan_aug.errors import DataError, StorageError
from finegan_aug.files import read_json, sha256_file, write_json
from finegan_aug.patches import patch_geometry

_VERSION = 1  # of the pixels in the cache; a change makes every cache anew


class _Settings(NamedTuple):
    resolution: int
    boxes: BoxSource
    official: bool


def build_crops(
    manifest: Manifest,
    *,
    resolution: int,
    boxes: BoxSource,
    official: bool = False,
    records: Sequence[ImageRecord] | None = None,
    cache_dir: Path | None = None,
) -> Crops:
    """Cut, resize and store the crops of these photographs, or open them if they are in the cache.

    Args:
        records: images of `manifest`; its train split by default.
        boxes: where the object is: the boxes of the manifest, the tight boxes of its masks, or unknown. An empty
            mask means no object: an empty box, and the whole image as object crop.
        official: the official data path; four times the pixels of object crops.
        cache_dir: folder for memory-mapped arrays, one subfolder for each content and setting; None: in memory.

    Raises:
        DataError: no image, a box or mask is missing, or an image is not what the manifest says.
        StorageError: the cache cannot be written.
    """
    chosen = tuple(manifest.of("train") if records is None else records)
    if not chosen:
        raise DataError("crops need at least one image, found none", "choose a split that has images")
    check_boxes(chosen, boxes)
    settings = _Settings(resolution, boxes, official)
    if cache_dir is None:
        found, arrays = _make(manifest, chosen, settings, lambda _, shape: np.empty(shape, np.uint8))
    else:
        found, arrays = _cached(cache_dir, manifest, chosen, settings)
    return _assemble(chosen, settings, found, arrays)


def _cached(
    cache_dir: Path, manifest: Manifest, records: Sequence[ImageRecord], settings: _Settings
) -> tuple[Objects, dict[str, Bytes]]:
    """The arrays of the cache folder, made first if need be; other processes wait for the one that makes them."""
    folder = cache_dir / _key(manifest, records, settings)
    if (stored := _open(folder)) is not None:
        return stored
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(cache_dir / f".{folder.name}.lock"):
            if (stored := _open(folder)) is None:
                _write(folder, manifest, records, settings)
                stored = _open(folder)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"cannot write the crop cache {cache_dir}: {error.strerror}", "free space or choose another folder"
        ) from error
    assert stored is not None
    return stored


class _Layout(NamedTuple):
    offset: npt.NDArray[np.int64]
    height: npt.NDArray[np.int64]
    width: npt.NDArray[np.int64]
    channels: int

    @property
    def rows(self) -> int:
        return int((self.height * self.width).sum())


def _shorter_side(
    width: npt.NDArray[np.int64], height: npt.NDArray[np.int64], side_px: int
) -> tuple[npt.NDArray[np.int64], ...]:
    """Width and height after the shorter side is made `side_px`, the other rounded down."""
    shorter = np.minimum(width, height)
    return side_px * width // shorter, side_px * height // shorter


def _layouts(records: Sequence[ImageRecord], found: Objects, settings: _Settings) -> dict[str, _Layout]:
    """Sizes and places of every stored image, by name of the array."""
    x1, y1, x2, y2 = found.square.T
    objects = _shorter_side(x2 - x1, y2 - y1, object_px(settings.resolution, settings.official) * 76 // 64)
    image_width = np.array([record.width for record in records], np.int64)
    image_height = np.array([record.height for record in records], np.int64)
    frames = _shorter_side(image_width, image_height, patch_geometry(settings.resolution).input_px * 76 // 64)
    layouts = {}
    for name, (width, height) in (("objects", objects), ("frames", frames)):
        ends = np.cumsum(width * height)
        layouts[name] = _Layout(ends - width * height, height, width, 3)
        if found.masks:
            layouts[f"{name}_masks"] = layouts[name]._replace(channels=1)
    return layouts


def _make(
    manifest: Manifest,
    records: Sequence[ImageRecord],
    settings: _Settings,
    new_array: Callable[[str, tuple[int, int]], Bytes],
) -> tuple[Objects, dict[str, Bytes]]:
    """Decode, cut and resize every image into flat arrays [P, channels], made by `new_array(name, shape)`."""
    found = find_objects(manifest, records, settings.boxes)
    layouts = _layouts(records, found, settings)
    arrays = {name: new_array(name, (layout.rows, layout.channels)) for name, layout in layouts.items()}

    def one(i: int) -> None:
        record = records[i]
        image = decode(manifest.file(record))
        if image.size != (record.width, record.height):
            raise DataError(
                f"{record.path} must be {record.width} x {record.height} as the manifest says, "
                f"found {image.size[0]} x {image.size[1]}",
                "scan the folder again",
            )
        views = {"objects": image.crop(tuple(found.square[i].tolist())), "frames": image}
        if found.masks:
            mask = Image.fromarray(read_mask(manifest, record))
            views |= {"objects_masks": mask.crop(tuple(found.square[i].tolist())), "frames_masks": mask}
        for name, view in views.items():
            layout, start = layouts[name], layouts[name].offset[i]
            width, height = int(layout.width[i]), int(layout.height[i])
            small = np.asarray(view.resize((width, height), Image.Resampling.BILINEAR))
            arrays[name][start : start + width * height] = small.reshape(width * height, layout.channels)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the interpreter while it decodes and resizes
        for _ in pool.map(one, range(len(records))):
            pass
    return found, arrays


def _key(manifest: Manifest, records: Sequence[ImageRecord], settings: _Settings) -> str:
    """Name of the cache folder: everything that decides a stored pixel, and no path."""
    resolution, boxes, official = settings
    first = [_VERSION, resolution, boxes, patch_geometry(resolution).input_px, *(["official"] if official else [])]
    digest = hashlib.sha256(json.dumps(first).encode())
    for record in records:
        row: list[object] = [record.sha256, record.width, record.height]
        if boxes == "given":
            row.append(record.box)
        if boxes == "from_masks":
            mask = manifest.mask_file(record)
            assert mask is not None
            row.append(sha256_file(mask))
        digest.update(json.dumps(row).encode())
    return f"crops-{resolution}-{boxes}-{digest.hexdigest()[:16]}"


def _write(folder: Path, manifest: Manifest, records: Sequence[ImageRecord], settings: _Settings) -> None:
    """Make the cache folder under another name, then rename: a folder with its own name is complete."""
    temporary = folder.with_name(f".tmp-{folder.name}")

    def new_array(name: str, shape: tuple[int, int]) -> Bytes:
        path = temporary / f"{name}.npy"
        array: Bytes = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and would be a killed process later
            with open(path, "r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
        return array

    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
        temporary.mkdir()
        found, arrays = _make(manifest, records, settings, new_array)
        for array in arrays.values():
            array.flush()  # type: ignore[attr-defined]
        np.save(temporary / "boxes.npy", found.boxes, allow_pickle=False)
        np.save(temporary / "squares.npy", found.square, allow_pickle=False)
        write_json(temporary / "complete.json", {"version": _VERSION, "rows": {n: len(a) for n, a in arrays.items()}})
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _open(folder: Path) -> tuple[Objects, dict[str, Bytes]] | None:
    """The arrays of a complete cache folder, memory-mapped; None when there is none or a file of it is damaged."""
    if not (folder / "complete.json").is_file():
        return None
    try:
        rows = read_json(folder / "complete.json")["rows"]
        # Mode "c": pages are read on demand, and a write would stay in memory.
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False) for name in rows}
        boxes, square = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("boxes", "squares"))
        whole = {"objects", "frames"} <= arrays.keys() and all(len(arrays[name]) == rows[name] for name in arrays)
        # np.load opens a zip as an archive of arrays.
        whole = whole and all(isinstance(array, np.ndarray) for array in (boxes, square, *arrays.values()))
    # numpy raises nearly anything on a damaged file; whatever is wrong, the photographs are there to make it anew.
    except Exception:
        return None
    return (Objects(boxes, square, "frames_masks" in arrays), arrays) if whole else None


def _assemble(records: tuple[ImageRecord, ...], settings: _Settings, found: Objects, arrays: dict[str, Bytes]) -> Crops:
    layouts = _layouts(records, found, settings)
    flat = {
        name: FlatImages(
            torch.from_numpy(arrays[name]), *(torch.from_numpy(a) for a in (layout.offset, layout.height, layout.width))
        )
        for name, layout in layouts.items()
    }
    frames = layouts["frames"]
    sizes = np.array([(record.width, record.height) for record in records], np.float64)
    scale = np.stack([frames.width, frames.height], 1) / sizes
    return Crops(
        records=records,
        labels=torch.tensor([record.label if record.labelled else -1 for record in records]),
        resolution=settings.resolution,
        input_px=patch_geometry(settings.resolution).input_px,
        official=settings.official,
        object_images=flat["objects"],
        frame_images=flat["frames"],
        frame_boxes=torch.from_numpy((found.boxes * np.tile(scale, 2)).astype(np.float32)),
        object_masks=flat.get("objects_masks"),
        frame_masks=flat.get("frames_masks"),
    )

"""A file that would run code when unpickled, in place of each file that is read: the code never runs.

What comes out is one of our errors with its remedy, or what comes out of an undisturbed folder.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_experiment import make_experiment
from faults import held
from safetensors.torch import save_file
from small_sets import real_folder, synthetic_folder
from test_interop import small_generator
from torch import Tensor
from untrained_run import untrained_run

from classifier.config import ClassifierConfig
from classifier.evaluation import load_classifier
from classifier.models import build_model
from finegan_aug.arrays import write_array
from finegan_aug.checkpoint import load_checkpoint
from finegan_aug.config import FineGANConfig
from finegan_aug.data.crops import build_crops
from finegan_aug.data.decode import decode
from finegan_aug.data.folder import scan
from finegan_aug.data.manifest import read_manifest, write_manifest
from finegan_aug.errors import FineGANAugError
from finegan_aug.features import Extractor, inception_extractor, load_weights
from finegan_aug.files import read_json, write_json
from finegan_aug.interop import import_official
from finegan_aug.reference import reference
from finegan_aug.report.rows import Row
from finegan_aug.report.sources import read_predictions
from finegan_aug.synthetic_index import SOFT_LABELS, open_index

OVERRIDE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"  # 1: torch.load unpickles everything unless it is told not to
REFUSED = "refused"


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.marker,)


def payload(kind: str, marker: Path) -> bytes:
    """The bomb in one of the containers that a reader of arrays or tensors might open."""
    bomb, stream = Bomb(marker), io.BytesIO()
    objects = np.array([bomb], dtype=object)
    if kind == "pickle":
        pickle.dump(bomb, stream)
    elif kind == "torch":
        torch.save({"layer": bomb}, stream)
    elif kind == "torch, old format":
        torch.save({"layer": bomb}, stream, _use_new_zipfile_serialization=False)
    elif kind == "npy":
        np.save(stream, objects)
    else:
        np.savez(stream, labels=objects, logits=objects, image=objects)
    return stream.getvalue()


KINDS = ("pickle", "torch", "torch, old format", "npy", "npz")
UNSAFE: dict[str, Callable[[io.BytesIO], object]] = {
    "pickle": pickle.load,
    "torch": torch.load,
    "torch, old format": torch.load,
    "npy": lambda stream: np.load(stream, allow_pickle=True),
    "npz": lambda stream: np.load(stream, allow_pickle=True)["labels"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_bomb_goes_off_where_a_reader_is_careless(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OVERRIDE, "1")
    UNSAFE[kind](io.BytesIO(payload(kind, tmp_path / "exploded")))
    assert (tmp_path / "exploded").exists()


@dataclass(frozen=True)
class Place:
    """A file that is read, and what reads it; `read` gives something that can be compared."""

    file: Path
    read: Callable[[], Any]
    repair: Callable[[], None] = lambda: None  # what a careful attacker does afterwards: hashes that fit again


def digest(*tensors: Any) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(tensor).tobytes() for tensor in tensors)).hexdigest()


def of_a_checkpoint(folder: Path, name: str, *, hashed: bool) -> Place:
    config = FineGANConfig.preset("slim-32", width=0.05, ndf=4, z_dim=8, num_parents=2).resolve(3)
    run = untrained_run(folder, config)
    (checkpoint,) = (run / "checkpoints").iterdir()
    for other in ("model", "optim"):
        shutil.copy(checkpoint / "ema.safetensors", checkpoint / f"{other}.safetensors")

    def fit() -> None:
        files = [file for file in sorted(checkpoint.iterdir()) if file.name != "manifest.json"]
        listed = {
            file.name: {"size": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
            for file in files
        }
        write_json(checkpoint / "manifest.json", listed)

    fit()
    return Place(checkpoint / name, lambda: load_checkpoint(checkpoint)[1], fit if hashed else lambda: None)


def of_the_crop_cache(folder: Path, name: str) -> Place:
    manifest = scan(real_folder(folder / "real"))

    def read() -> str:
        crops = build_crops(manifest, resolution=32, boxes="none", cache_dir=folder / "cache")
        return digest(crops.objects_center_uint8(torch.arange(len(crops))), crops.frame_boxes)

    read()
    (cached,) = (entry for entry in (folder / "cache").iterdir() if entry.is_dir())
    return Place(cached / f"{name}.npy", read)


def of_a_synthetic_set(folder: Path, name: str) -> Place:
    root = synthetic_folder(folder / "set")
    open_index(root)
    return Place(root / name, lambda: digest(open_index(root).table))


def of_soft_labels(folder: Path) -> Place:
    root = synthetic_folder(folder / "set")
    write_array(root / SOFT_LABELS, np.ones((15, 3), dtype=np.float32) / 3)
    return Place(root / SOFT_LABELS, lambda: digest(open_index(root).soft_labels))


def of_the_predictions(folder: Path) -> Place:
    make_experiment(folder, gans=0, models=1, fractions=1)
    file = sorted(folder.glob("cells/*/predictions.npz"))[0]
    row = Row(0.1, "R1", "net", 0, 0.5, predictions=file.relative_to(folder).as_posix())

    def read() -> str:
        known = read_predictions(folder, row)
        return REFUSED if known is None else digest(known.right)

    return Place(file, read)


def of_real_features(folder: Path) -> Place:
    images = torch.arange(3 * 3 * 8 * 8).remainder(251).to(torch.uint8).view(3, 3, 8, 8)
    extractor = Extractor("means", "0" * 64, lambda batch: batch.float().mean((2, 3)))

    def read() -> str:
        return digest(*reference(extractor, images, cache_dir=folder).gaussian)

    read()
    return Place(next(folder.glob("*.safetensors")), read)


def of_a_classifier(folder: Path) -> Place:
    config = ClassifierConfig(model="test_efficientnet", resolution=24)
    model = build_model(config, 2)
    folder.mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    write_json(folder / "config.json", {"classifier": config.to_json(), "classes": ["a", "b"]})
    return Place(folder / "model.safetensors", lambda: len(load_classifier(folder)[2]))


def weights(folder: Path, name: str) -> Path:
    tensors: dict[str, Tensor] = {"layer.weight": torch.ones(2, 2)}
    folder.mkdir(parents=True)
    if name.endswith(".safetensors"):
        save_file(tensors, folder / name)
    else:
        torch.save(tensors, folder / name)
    return folder / name


def of_weights(folder: Path, name: str, read: Callable[[Path], dict[str, Tensor]]) -> Place:
    file = weights(folder, name)
    return Place(file, lambda: digest(*read(file).values()))


def of_the_official_files(folder: Path) -> Place:
    folder.mkdir(parents=True)
    file = small_generator(folder)
    return Place(file, lambda: import_official(file, folder / "run").name)


def of_inception(folder: Path) -> Place:
    file = weights(folder, "inception.pth")
    return Place(file, lambda: inception_extractor(file).name)


def of_photographs(folder: Path, name: str) -> Place:
    root = real_folder(folder / "real")
    write_manifest(scan(root), root / "manifest.jsonl")
    read: Callable[[Path], object] = read_manifest if name.endswith("jsonl") else decode
    return Place(root / name, lambda: type(read(root / name)).__name__)


def of_json(folder: Path) -> Place:
    write_json(folder / "config.json", {"config": {}})
    return Place(folder / "config.json", lambda: json.dumps(read_json(folder / "config.json")))


PLACES: dict[str, Callable[[Path], Place]] = {
    **{
        f"checkpoint, {name}": lambda folder, name=name: of_a_checkpoint(folder, name, hashed=False)
        for name in ("model.safetensors", "ema.safetensors", "optim.safetensors", "state.json", "manifest.json")
    },
    **{
        f"checkpoint, {name}, hashes that fit": lambda folder, name=name: of_a_checkpoint(folder, name, hashed=True)
        for name in ("model.safetensors", "ema.safetensors", "optim.safetensors", "state.json")
    },
    **{
        f"crop cache, {name}": lambda folder, name=name: of_the_crop_cache(folder, name)
        for name in ("objects", "frames", "boxes", "squares")
    },
    "synthetic set, index.npy": lambda folder: of_a_synthetic_set(folder, "index.npy"),
    "synthetic set, soft_labels.npy": of_soft_labels,
    "synthetic set, manifest.jsonl": lambda folder: of_a_synthetic_set(folder, "manifest.jsonl"),
    "predictions of a classifier": of_the_predictions,
    "real_features": of_real_features,
    "official generator": of_the_official_files,
    "weights of a finished classifier": of_a_classifier,
    "--checkpoint of a classifier, .pt": lambda folder: of_weights(folder, "w.pt", load_weights),
    "--checkpoint of a classifier, .safetensors": lambda folder: of_weights(folder, "w.safetensors", load_weights),
    "weights of an extractor, .pt": lambda folder: of_weights(folder, "w.pt", load_weights),
    "weights of an extractor, .safetensors": lambda folder: of_weights(folder, "w.safetensors", load_weights),
    "Inception weights": of_inception,
    "a photograph": lambda folder: of_photographs(folder, "ant/0.png"),
    "the manifest of photographs": lambda folder: of_photographs(folder, "manifest.jsonl"),
    "a JSON file": of_json,
}


def came_out(place: Place) -> object:
    try:
        return place.read()
    except FineGANAugError:
        return REFUSED
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.fault
@pytest.mark.parametrize("name", PLACES)
def test_no_file_is_unpickled(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = []
    for override in ("", "1"):
        for kind in KINDS:
            folder = tmp_path / f"{kind}{override}"
            marker = folder / "exploded"
            place = PLACES[name](folder)
            clean = came_out(place) if name != "official generator" else REFUSED
            monkeypatch.setenv(OVERRIDE, override)
            place.file.write_bytes(payload(kind, marker))
            place.repair()
            found = came_out(place)
            assert not marker.exists(), f"{kind}: code ran"
            if found not in (REFUSED, clean):
                wrong.append(f"{kind}: {found}")
    print(*wrong, sep="\n")
    tried = 2 * len(KINDS)
    held("security: files that would run code when unpickled", tried - len(wrong), tried)

"""Checkpoints without pickle: safetensors and JSON under SHA-256, made under another name, then renamed.

    checkpoints/step-000004000/model.safetensors ema.safetensors optim.safetensors state.json manifest.json

`manifest.json` ({file: {size, sha256}}) is written last: a folder whose files it does not confirm is no checkpoint.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from finegan_aug.data.outside import shown
from finegan_aug.errors import CheckpointError, NonFiniteError, StorageError
from finegan_aug.files import JSON

Tensors = dict[str, Tensor]

_SCHEMA = 1
_NAME = re.compile(r"step-(\d{9,})")
_FILE = re.compile(r"[a-z_]+\.(safetensors|json)")
_AGAIN = "remove the folder, so that an older checkpoint is used, or train again with --overwrite"


def failpoint(name: str) -> None:
    """End the process as a power cut would, if FINEGAN_AUG_FAIL holds this name; for tests of what survives."""
    if os.environ.get("FINEGAN_AUG_FAIL") == name:
        os._exit(9)


def save_checkpoint(
    run_dir: Path, *, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: JSON, keep: int = 2
) -> Path:
    """Write `checkpoints/step-<step>`, verify it, then remove all but the newest `keep` and the best.

    Args:
        tensors: file name without suffix ("model") -> name -> tensor, from any device and in any layout.
        state: everything that is not a tensor; JSON, floats survive exactly, tuples become lists. With a number "kid",
            its kernel distance, the checkpoint can be the best.
        keep: how many checkpoints stay, this one included; at least 1.

    Raises:
        NonFiniteError: a tensor holds a NaN or infinity; nothing was written.
        StorageError: the disk is full or failed; older checkpoints are untouched.
    """
    assert keep >= 1
    _refuse_non_finite(tensors)
    files = {
        f"{stem}.safetensors": safetensors.torch.save(
            {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in group.items()}
        )
        for stem, group in tensors.items()
    }
    files["state.json"] = _json_bytes({**state, "schema": _SCHEMA, "step": step})
    folder = run_dir / "checkpoints"
    final, temporary = folder / f"step-{step:09d}", folder / f".tmp-{step}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        failpoint("ckpt.before-mkdir")
        temporary.mkdir(parents=True)
        failpoint("ckpt.after-mkdir")
        for name, data in files.items():
            _write(temporary / name, data)
        _write(temporary / "manifest.json", _manifest(files))
        _sync_folder(temporary)
        failpoint("ckpt.before-rename")
        _publish(temporary, final)
        failpoint("ckpt.after-rename")
        problems = _problems(final)
        failpoint("ckpt.before-prune")
        if not problems:
            _prune(folder, step, keep)
    except OSError as error:
        raise StorageError(
            f"cannot write checkpoint {final}: {error.strerror}", "free space; training goes on from the one before"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if problems:
        raise StorageError(f"{final} was written and reads back wrong: {problems[0]}", "check the disk")
    return final


def latest_checkpoint(run_dir: Path) -> Path | None:
    """The newest checkpoint whose files all verify; None if there is no checkpoint at all.

    Raises:
        CheckpointError: there are checkpoints and every one is damaged.
    """
    found = [folder for _, folder in reversed(_checkpoints(run_dir / "checkpoints"))]
    for folder in found:
        problems = _problems(folder)
        if not problems:
            return folder
        warnings.warn(f"checkpoint {folder} is damaged and not used: {problems[0]}", RuntimeWarning, stacklevel=2)
    if found:
        raise CheckpointError(
            f"all {len(found)} checkpoints in {run_dir / 'checkpoints'} are damaged",
            "restore one, or start again with --overwrite or another --out",
        )
    return None


def best_checkpoint(run_dir: Path) -> Path | None:
    """Of the checkpoints that verify and were measured, that of the lowest kernel distance; without such, the newest.

    Raises:
        CheckpointError: there are checkpoints and every one is damaged.
    """
    for folder in _by_distance(run_dir / "checkpoints"):
        if not _problems(folder):
            return folder
    return latest_checkpoint(run_dir)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensors], JSON]:
    """Tensors by file (on the CPU) and state of one checkpoint folder; every hash is checked before a tensor is read.

    Raises:
        CheckpointError: a file is missing or damaged, or the checkpoint is from a newer version.
    """
    if problems := _problems(path):
        raise CheckpointError(f"checkpoint {path} is damaged: {problems[0]}", _AGAIN)
    state: JSON = json.loads((path / "state.json").read_bytes())
    if state.get("schema") != _SCHEMA:
        raise CheckpointError(
            f"checkpoint {path} must have schema {_SCHEMA}, found {shown(state.get('schema'))}",
            "use the version that wrote it",
        )
    return {file.stem: _tensors(file) for file in sorted(path.glob("*.safetensors"))}, state


def verify_run(path: Path) -> list[str]:
    """One line for each file of every checkpoint in a run folder (or of one checkpoint), "ok ..." or "bad ...".

    Raises:
        CheckpointError: there is no checkpoint.
    """
    single = _NAME.fullmatch(path.name) is not None
    folders = [path] if single else [folder for _, folder in _checkpoints(path / "checkpoints")]
    if not folders or not path.is_dir():
        raise CheckpointError(f"{path} must hold a checkpoint, found none", "name the folder of a training run")
    lines = []
    for folder in folders:
        problems = _problems(folder)
        named = {problem.split(":")[0] for problem in problems}
        lines += [f"ok  {folder.name}/{f.name}" for f in sorted(folder.iterdir()) if f.name not in named]
        lines += [f"bad {folder.name}/{problem}" for problem in problems]
    return lines


def _problems(folder: Path) -> list[str]:
    """What is wrong with a checkpoint folder, as "file: fact"; empty when every byte is as it was written."""
    try:
        raw = (folder / "manifest.json").read_bytes()
        listed = json.loads(raw)
        if (
            raw != _json_bytes(listed)
            or not all(_FILE.fullmatch(name) for name in listed)
            or "state.json" not in listed
        ):
            return ["manifest.json: not as it was written"]
    except FileNotFoundError:
        return ["manifest.json: missing"]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        return [f"manifest.json: unreadable, {error}"]
    problems = []
    for name, entry in listed.items():
        try:
            data = (folder / name).read_bytes()
        except OSError as error:
            problems.append(f"{name}: {error.strerror}")
            continue
        if _entry(data) != entry:
            problems.append(f"{name}: {len(data)} bytes with another SHA-256 than when it was written")
        elif name == "state.json" and (step := _state(data).get("step")) != _step_of(folder):
            problems.append(
                f"{name}: step {step} in a folder of another name" if step is not None else f"{name}: no step in it"
            )
    problems += [f"{f.name}: not in the manifest" for f in folder.glob("*.safetensors") if f.name not in listed]
    return problems


def _state(data: bytes) -> JSON:
    """The state in a file's bytes; empty where it is none, or its step no whole number."""
    try:
        state = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) and type(state.get("step")) is int else {}


def _tensors(file: Path) -> Tensors:
    try:
        return safetensors.torch.load(file.read_bytes())
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{file} must hold tensors, found something else: {error}", _AGAIN) from error


def _step_of(folder: Path) -> int | None:
    """Step in the name of a checkpoint folder."""
    match = _NAME.fullmatch(folder.name)
    return int(match[1]) if match else None


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Step and folder of everything that is named as a checkpoint, lowest step first."""
    if not folder.is_dir():
        return []
    named = [(_step_of(entry), entry) for entry in folder.iterdir() if entry.is_dir()]
    return sorted((step, entry) for step, entry in named if step is not None)


def _by_distance(folder: Path) -> list[Path]:
    """Checkpoints whose state can be read and names a kernel distance, the lowest first; of equals the earlier."""
    measured = []
    for step, entry in _checkpoints(folder):
        with contextlib.suppress(OSError):
            kid = _state((entry / "state.json").read_bytes()).get("kid")
            if isinstance(kid, float) and math.isfinite(kid):
                measured.append((kid, step, entry))
    return [entry for _, _, entry in sorted(measured)]


def _publish(temporary: Path, final: Path) -> None:
    if final.exists():
        if not _problems(final):
            return  # the same step of the same run: already safe
        os.rename(final, final.with_name(f".bad-{final.name}-{uuid.uuid4().hex[:8]}"))
    os.rename(temporary, final)
    _sync_folder(final.parent)


def _prune(folder: Path, step: int, keep: int) -> None:
    """Remove older checkpoints only: a later one is from before a fall-back, and damaged."""
    older = [entry for found, entry in _checkpoints(folder) if found < step]
    best = _by_distance(folder)[:1]
    for entry in older[: max(0, len(older) - (keep - 1))]:
        if entry in best:
            continue
        trash = entry.with_name(f".trash-{entry.name}-{uuid.uuid4().hex[:8]}")
        os.rename(entry, trash)
        failpoint("ckpt.mid-prune")
        shutil.rmtree(trash, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as stream:
        stream.write(data[: len(data) // 2])
        stream.flush()
        failpoint(f"ckpt.half-{path.stem}")
        stream.write(data[len(data) // 2 :])
        stream.flush()
        os.fsync(stream.fileno())
    failpoint(f"ckpt.after-{path.stem}")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _json_bytes(content: object) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _entry(data: bytes) -> JSON:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _manifest(files: Mapping[str, bytes]) -> bytes:
    return _json_bytes({name: _entry(data) for name, data in files.items()})


def _refuse_non_finite(tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    for stem, group in tensors.items():
        for name, tensor in group.items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise NonFiniteError(
                    f"a checkpoint must hold finite numbers, found NaN or infinity in {stem}/{name}",
                    "lower the learning rate; the checkpoint before is untouched",
                )

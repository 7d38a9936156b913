"""What the measures need of the real images: computed once, then kept in a file named by everything it follows from.

    real_features/<hash>.safetensors        features, logits (where there are any), mean, factor, digest

The hash is that of the pixels and of the extractor's name and weights. The digest is that of all the other tensors, so
that a file that was damaged, renamed or made by something else is computed anew and not believed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from finegan_aug.errors import StorageError
from finegan_aug.features import Extractor
from finegan_aug.files import write_bytes
from finegan_aug.metrics.frechet import Gaussian, gaussian

_VERSION = 1  # of what the file holds


class Reference(NamedTuple):
    """Real images as one extractor sees them."""

    features: Tensor  # float32 [N, D], on the CPU
    logits: Tensor | None  # float32 [N, C], on the CPU; None where the extractor classifies nothing
    gaussian: Gaussian


def reference(extractor: Extractor, images: Tensor, *, cache_dir: Path | None) -> Reference:
    """Features of images uint8 [N, 3, H, W] and their Gaussian, the same bit for bit from the cache and without it.

    A cache that cannot be written costs time and nothing else.
    """
    if cache_dir is None:
        return _reference(_computed(extractor, images))
    key = _key(extractor, images)
    file = cache_dir / f"{key[:32]}.safetensors"
    tensors = _stored(file, key)
    if tensors is None:
        tensors = _computed(extractor, images)
        with contextlib.suppress(StorageError):
            write_bytes(file, safetensors.torch.save({**tensors, "digest": _digest(tensors, key)}))
    return _reference(tensors)


def _computed(extractor: Extractor, images: Tensor) -> dict[str, Tensor]:
    features = extractor.features(images).cpu()
    mean, factor = map(torch.from_numpy, gaussian(features, name="real"))
    tensors = {"features": features, "mean": mean, "factor": factor}
    if extractor.logits_fn is not None:
        tensors["logits"] = extractor.logits(images).cpu()
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _reference(tensors: dict[str, Tensor]) -> Reference:
    known = Gaussian(tensors["mean"].numpy(), tensors["factor"].numpy())
    return Reference(tensors["features"], tensors.get("logits"), known)


def _stored(file: Path, key: str) -> dict[str, Tensor] | None:
    """The tensors of a whole file; None where there is no such file."""
    try:
        tensors = safetensors.torch.load(file.read_bytes())
        whole = torch.equal(tensors.pop("digest"), _digest(tensors, key))
    except Exception:  # no file, or one that fails with whatever it provokes; safetensors run no code
        return None
    return tensors if whole else None


def _key(extractor: Extractor, images: Tensor) -> str:
    """SHA-256 of everything that decides a feature."""
    settings = [_VERSION, extractor.name, extractor.sha256, extractor.logits_fn is not None, list(images.shape)]
    digest = hashlib.sha256(json.dumps(settings).encode())
    digest.update(images.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _digest(tensors: dict[str, Tensor], key: str) -> Tensor:
    """SHA-256 of the key and of every name, type, shape and value, uint8 [32]."""
    digest = hashlib.sha256(key.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.numpy().data)
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)

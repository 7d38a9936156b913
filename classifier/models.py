"""Any timm classifier by name, with weights from a seed, a local file, a package, or timm itself."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.data.config import resolve_model_data_config
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from finegan_aug.data.transforms import preserved_generators, seed_generators
from finegan_aug.errors import CheckpointError, ConfigError
from finegan_aug.features import load_weights
from finegan_aug.packaged import LITE0, packaged_network
from finegan_aug.preparation import has_bf16_units
from finegan_aug.randomness import seed_for

from .config import ClassifierConfig

TINY_VIT = "vit_tiny_patch8_64"


def build_model(config: ClassifierConfig, num_classes: int) -> nn.Module:
    """The classifier on the CPU, in training mode; the same config gives the same weights.

    Raises:
        ConfigError: no such model; or packaged weights for another model.
        CheckpointError: the checkpoint does not fit the model.
    """
    check_model_name(config.model)
    with preserved_generators():
        seed_generators(seed_for(config.seed, "init"))
        model = _create(config, num_classes)
        if config.checkpoint is not None:
            _load(model, _source(config.checkpoint, config.model), config)
    return model.train()


def check_model_name(name: str) -> None:
    """Refuse a name that is not a model, and name the nearest one.

    Raises:
        ConfigError: there is no such model.
    """
    if name == TINY_VIT or timm.is_model(name):
        return
    nearest = get_close_matches(name, [TINY_VIT, *timm.list_models()], n=1, cutoff=0.0)[0]
    raise ConfigError(f"--model must be a timm model, found {name!r}; the nearest is {nearest!r}", f"write {nearest}")


def input_statistics(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation that the model expects of channels in [0, 1], float32 [1, 3, 1, 1] each."""
    settings = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    mean, std = torch.tensor(settings["mean"]), torch.tensor(settings["std"])
    return mean.float().view(1, -1, 1, 1), std.float().view(1, -1, 1, 1)


def faster_in_bf16(model: nn.Module, device: torch.device) -> bool:
    """Whether the hardware multiplies bf16 faster and the model is made of such products.

    On processors a grouped convolution in bf16 takes longer: MobileNetV3-small at 64 px 2.0x the time of a step in fp32
    on one core with matrix units, 1.4x on one with AVX512-BF16 alone; the tiny ViT 0.5x and 0.32x.
    """
    if device.type != "cpu":
        return has_bf16_units(device)
    grouped = any(isinstance(part, nn.Conv2d) and part.groups > 1 for part in model.modules())
    return not grouped and (has_bf16_units(device) or torch.cpu._is_avx512_bf16_supported())


def plain_attention(model: nn.Module) -> None:
    """Attention as matrix products: on processors the backward pass of torch's fused one takes half a bf16 step."""
    for part in model.modules():
        if hasattr(part, "fused_attn"):
            cast(Any, part).fused_attn = False


def _create(config: ClassifierConfig, num_classes: int) -> nn.Module:
    drop: dict[str, Any] = {"drop_rate": config.drop_rate, "drop_path_rate": config.drop_path_rate}
    if config.model == TINY_VIT:
        if config.resolution % 8 or config.pretrained:
            raise ConfigError(
                f"{TINY_VIT} takes a resolution divisible by 8 and has no pretrained weights, "
                f"found resolution {config.resolution}, pretrained {config.pretrained}",
                "choose another --resolution or --model",
            )
        vit = VisionTransformer(
            img_size=config.resolution,
            patch_size=8,
            num_classes=num_classes,
            embed_dim=192,
            depth=6,
            num_heads=3,
            **drop,
        )
        return vit
    fixed = timm.get_pretrained_cfg_value(config.model, "fixed_input_size")
    size: dict[str, Any] = {"img_size": config.resolution} if fixed else {}
    model: nn.Module = timm.create_model(
        config.model, pretrained=config.pretrained, num_classes=num_classes, **size, **drop
    )
    return model


def _source(checkpoint: str, model: str) -> dict[str, Tensor]:
    """The weights behind `ClassifierConfig.checkpoint`."""
    if checkpoint != "packaged":
        if not Path(checkpoint).is_file():
            raise ConfigError(f"--checkpoint must name a file, found none at {checkpoint}", "correct the path")
        return load_weights(Path(checkpoint))
    if model != LITE0:
        raise ConfigError(
            f"the packaged weights are those of {LITE0}, found --model {model}",
            f"write --model {LITE0} or leave --checkpoint out",
        )
    return dict(packaged_network(LITE0).state_dict())


def _load(model: nn.Module, source: dict[str, Tensor], config: ClassifierConfig) -> None:
    """Copy all weights but those of a head for another number of classes; nothing is copied before all fits."""
    target = model.state_dict()
    head = tuple(name for name, part in model.named_modules() if part is cast(Any, model).get_classifier())
    odd = sorted(source.keys() ^ target.keys())
    odd += [n for n in source.keys() & target.keys() if source[n].shape != target[n].shape]
    wrong = [name for name in odd if not name.startswith(head)]
    if wrong:
        raise CheckpointError(
            f"{config.checkpoint} must hold the weights of {config.model}, {len(wrong)} tensors are missing, unknown "
            f"or of another shape, the first is {wrong[0]}",
            "name the model that the weights were trained with",
        )
    model.load_state_dict({**target, **{name: value for name, value in source.items() if name not in odd}})

"""The names of the official state dicts (kkanshul/finegan code/model.py) and the formula that fills their weights.

`tests/data/official_finegan.json` holds what the official networks give with weights filled so.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

REFERENCE = Path(__file__).parent / "data" / "official_finegan.json"

_STAGES = (("h_net2", "img_net2", "parent"), ("h_net3", "img_net3", "child"))


def reference() -> dict[str, Any]:
    """Configuration, names with shapes in order, and the numbers."""
    found: dict[str, Any] = json.loads(REFERENCE.read_text())
    return found


def fill(shapes: dict[str, list[int]], phase: float = 0.0) -> dict[str, Tensor]:
    """Official name to float64 tensor with float32 values, in the order of `shapes`; counters are left out."""
    found: dict[str, Tensor] = {}
    names = [name for name in shapes if not name.endswith("num_batches_tracked")]
    for k, name in enumerate(names):
        shape = shapes[name]
        count = math.prod(shape)
        w = torch.sin(0.7 * torch.arange(count, dtype=torch.float64) + phase + k).view(shape)
        if name.endswith("running_mean"):
            w = 0.1 * w
        elif name.endswith("running_var"):
            w = 1 + 0.5 * w
        elif len(shape) == 1:
            w = 1 + 0.1 * w if name.endswith("weight") else 0.05 * w
        else:
            w = w * math.sqrt(2 / (count / shape[0]))
        found[name] = w.float().double()
    return found


def generator_names() -> dict[str, str]:
    """Official prefix to ours; what follows (weight, bias, running_mean, ...) is alike."""
    names = {"img_net1_bg.img.0": "background_image"}
    for official, ours in (("h_net1_bg", "background_trunk"), ("h_net1", "object_trunk")):
        names |= {f"{official}.fc.0": f"{ours}.linear", f"{official}.fc.1": f"{ours}.norm"}
        for i in range(5):
            names[f"{official}.upsample{i + 1}.1"] = f"{ours}.ups.{i}.conv"
            names[f"{official}.upsample{i + 1}.2"] = f"{ours}.ups.{i}.norm"
    for official, image, ours in _STAGES:
        names |= {f"{image}.img.0": f"{ours}.image", f"{image}_mask.img.0": f"{ours}.mask"}
        names |= _pair(f"{official}.jointConv", f"{ours}.joint") | _pair(f"{official}.samesample", f"{ours}.squeeze")
        for r in range(2):
            block, residual = f"{official}.residual.{r}.block", f"{ours}.residual.{r}"
            names |= _pair(block, f"{residual}.first") | _pair(block, residual, first=3)
    return names


def background_names() -> dict[str, str]:
    trunk = {f"patchgan_img_code_s16.{i}": f"trunk.{i}" for i in (0, 2, 4)}
    return trunk | {"uncond_logits1.0": "aux", "uncond_logits2.0": "rf"}


def object_trunk_names() -> dict[str, str]:
    """Trunk of the parent and of the child discriminator, below `trunk.`."""
    names = {f"img_code_s16.{i}": f"trunk.{i}" for i in (0, 2, 3, 5, 6, 8, 9)}
    names |= {"img_code_s32.0": "trunk.11", "img_code_s32.1": "trunk.12"}
    return names | {"img_code_s32_1.0": "trunk.14", "img_code_s32_1.1": "trunk.15"}


def info_names(prefix: str = "") -> dict[str, str]:
    """The information branch, below `prefix`."""
    names = {"jointConv.0": f"{prefix}body.0", "jointConv.1": f"{prefix}body.1"}
    return names | {"logits.0": f"{prefix}logits"}


def translate(official: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """State dict under our names; official tensors whose prefix `names` lacks are left out."""
    found = {}
    for name, tensor in official.items():
        prefix, suffix = re.fullmatch(r"(.*)\.(\w+)", name).groups()  # type: ignore[union-attr]
        if prefix in names:
            found[f"{names[prefix]}.{suffix}"] = tensor
    return found


def _pair(official: str, ours: str, first: int = 0) -> dict[str, str]:
    return {f"{official}.{first}": f"{ours}.conv", f"{official}.{first + 1}": f"{ours}.norm"}

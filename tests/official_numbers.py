"""The names of the official state dicts (kkanshul/finegan code/model.py) and the formula that fills their weights.

`tests/data/official_finegan.json` holds what the official networks give with weights filled so.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

REFERENCE = Path(__file__).parent / "data" / "official_finegan.json"


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

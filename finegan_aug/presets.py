"""Presets: the sizes of the networks, and what else a preset sets of the configuration.

No torch here: the command line reads this file to print its help.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Widths:
    """Channels of the generator's parts before the width multiplier."""

    background: tuple[int, ...]  # at 4, 8, ... pixels up to the full size
    object: tuple[int, ...]  # at 4, 8, ... pixels up to where the codes enter
    tail: tuple[int, ...]  # after each doubling from there to the full size
    squeeze: bool = False  # classic: halve the channels after each stage's residual blocks
    finish: bool = True  # slim: one more block at full size in the child stage


# slim: design of this package; classic: kkanshul/finegan code/model.py at ngf 64.
WIDTHS: dict[str, Widths] = {
    "classic": Widths((1024, 512, 256, 128, 64, 64), (1024, 512, 256, 128, 64, 64), (), squeeze=True, finish=False),
    "slim-32": Widths((256, 128, 64, 32), (256, 128, 64), (32,)),
    "slim-64": Widths((256, 128, 64, 32, 16), (256, 128, 64), (32, 16)),
    "slim-128": Widths((256, 128, 64, 32, 16, 16), (512, 256, 128, 64), (32, 16)),
    "slim-256": Widths((256, 128, 64, 32, 16, 16, 8), (512, 256, 128, 64), (32, 16, 8)),
}
PRESETS: dict[str, dict[str, Any]] = {
    "classic": {
        "resolution": 128,
        "mask_size_weight": 0.0,
        "mask_entropy_weight": 0.0,
        "ndf": 64,
        "d_norm": "batch",
        "labels": "discovered",
        "diffaugment": (),
        "ema_halflife_kimg": 11.09,
        "ema_ramp": None,
        "lr": 2e-4,
        "batch_size": 16,
        "total_kimg": 7077.4,
        "hard_negative_kimg": 11.8,
        "num_children": 200,
        "num_parents": 20,
        "balanced_codes": False,
        "class_weight": 0.0,
        "composite_code_weight": 0.0,
    },
    "slim-32": {"resolution": 32},
    "slim-64": {"resolution": 64},
    "slim-128": {"resolution": 128, "batch_size": 16},
    "slim-256": {"resolution": 256, "batch_size": 16},
}

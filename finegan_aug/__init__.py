"""Augment fine-grained classifiers with class-consistent images from a FineGAN.

The public names are imported on first use, so that `finegan-aug --help` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from finegan_aug.config import FineGANConfig
    from finegan_aug.mixing import SyntheticMix, SyntheticMixDataset
    from finegan_aug.synthesis import load_generator, synthesize
    from finegan_aug.training import train

_HOME = {
    "FineGANConfig": "config",
    "train": "training",
    "load_generator": "synthesis",
    "synthesize": "synthesis",
    "SyntheticMixDataset": "mixing",
    "SyntheticMix": "mixing",
}
__all__ = ["FineGANConfig", "SyntheticMix", "SyntheticMixDataset", "load_generator", "synthesize", "train"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'finegan_aug' has no attribute {name!r}")
    return getattr(import_module(f"finegan_aug.{_HOME[name]}"), name)

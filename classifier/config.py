"""Everything that decides what a classifier run computes, checked before anything is built."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from finegan_aug.errors import ConfigError

Augment = Literal["none", "flip-crop", "trivial", "rand", "timm", "albumentations"]
Schedule = Literal["cosine", "linear", "constant"]

# May differ when a finished or interrupted run is called again: they change speed, not the result.
FREE = ("num_workers", "worker_timeout_sec", "max_restarts", "threads")


@dataclass(frozen=True)
class ClassifierConfig:
    """The classifier and how it is trained. Written to run_dir/config.json."""

    model: str = "mobilenetv3_small_100"  # name of a timm model, or vit_tiny_patch8_64
    resolution: int = 64  # side of the square input, pixels
    steps: int = 1000  # optimiser steps, the same for every arm of a comparison
    batch_size: int = 32  # images in one step, all processes together
    optimizer: str = "adamw"  # name of a timm optimizer
    lr: float = 2e-3  # highest learning rate
    weight_decay: float = 0.05  # decoupled from the learning rate's warm-up; not on biases and norms
    schedule: Schedule = "cosine"  # learning rate after the warm-up
    warmup_share: float = 0.05  # share of the steps with a linearly rising learning rate
    label_smoothing: float = 0.1  # for real images
    synthetic_label_smoothing: float = 0.1  # for synthetic images
    synthetic_loss_weight: float = 1.0  # of a synthetic image; a real one weighs 1
    real_only_share: float = 0.1  # share of the steps, at the end, without synthetic images
    augment: Augment = "trivial"  # transforms of one image; flip-crop is part of all others but none
    crop_scale: float = 0.5  # smallest area of a random crop, share of the image
    mixup: float = 0.0  # alpha of Mixup; 0 is off
    cutmix: float = 1.0  # alpha of CutMix; 0 is off
    mix_prob: float = 0.5  # share of the batches with Mixup or CutMix, where one is on
    ema_decay: float = 0.99  # of the averaged weights, which are the result; 0 is off
    drop_rate: float = 0.0  # dropout before the head
    drop_path_rate: float = 0.0  # stochastic depth
    checkpoint: str | None = None  # file with weights to start from, or `packaged` (tf_efficientnet_lite0)
    pretrained: bool = False  # start from timm's own weights, which are downloaded
    mixed_precision: Literal["no", "bf16", "auto"] = "no"  # auto: bf16 where it is faster, by model and hardware
    seed: int = 0  # of initial weights, order and augmentation
    num_workers: int = 0  # processes that prepare images
    worker_timeout_sec: float = 60.0  # longest wait for a batch of theirs
    max_restarts: int = 0  # how often they are started anew after one died or hung; the run goes on where it was
    threads: int | None = None  # processor threads of this process (default: torch's own choice)
    log_steps: int = 20  # steps between two lines of metrics.jsonl

    def __post_init__(self) -> None:
        for name in ("resolution", "steps", "batch_size", "log_steps"):
            _require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("seed", "num_workers", "max_restarts"):
            _require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        _require(self.threads is None or self.threads >= 1, "threads", "at least 1", self.threads)
        for name in ("lr", "worker_timeout_sec"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value > 0, name, "above 0", value)
        for name in ("weight_decay", "mixup", "cutmix", "synthetic_loss_weight"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value >= 0, name, "at least 0", value)
        for name in ("label_smoothing", "synthetic_label_smoothing", "ema_decay", "drop_rate", "drop_path_rate"):
            _require(0 <= getattr(self, name) < 1, name, "at least 0 and below 1", getattr(self, name))
        for name in ("warmup_share", "real_only_share", "mix_prob"):
            _require(0 <= getattr(self, name) <= 1, name, "between 0 and 1", getattr(self, name))
        _require(0 < self.crop_scale <= 1, "crop_scale", "above 0 and at most 1", self.crop_scale)
        if self.checkpoint is not None and self.pretrained:
            raise ConfigError(
                "a run starts from a checkpoint or from timm's pretrained weights, found both",
                "leave one of --checkpoint and --pretrained out",
            )

    @property
    def real_only_from(self) -> int:
        """First step without synthetic images."""
        return self.steps - round(self.real_only_share * self.steps)

    def learning_rate(self, step: int) -> float:
        """Learning rate of step 0, 1, ..., a function of the step alone."""
        warmup = round(self.warmup_share * self.steps)
        if step < warmup:
            return self.lr * (step + 1) / warmup
        progress = (step - warmup) / max(1, self.steps - warmup)
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * progress))
        return self.lr * (1 - progress) if self.schedule == "linear" else self.lr

    def to_json(self) -> dict[str, Any]:
        """All fields, as `ClassifierConfig(**fields)` takes them back."""
        return asdict(self)


def _require(holds: bool, name: str, expected: str, found: object) -> None:
    if not holds:
        option = name.replace("_", "-")
        raise ConfigError(f"{name} must be {expected}, found {found}", f"correct --{option}")

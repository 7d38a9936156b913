"""train_classifier(): one loop over optimiser steps, on one processor or many processes."""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from safetensors.torch import save
from timm.data.mixup import Mixup
from timm.optim._optim_factory import create_optimizer_v2, list_optimizers
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from finegan_aug.data.transforms import Transform, preserved_generators, seed_generators
from finegan_aug.data.wrapped import MapDataset
from finegan_aug.errors import ConfigError, DataError, NonFiniteError
from finegan_aug.files import read_json, sha256_file, write_bytes, write_json
from finegan_aug.mixing import SyntheticMixDataset
from finegan_aug.options import nearest
from finegan_aug.preparation import launched
from finegan_aug.randomness import seed_for
from finegan_aug.run_folder import ensure_same_config, run_lock

from .config import FREE, ClassifierConfig
from .data import TrainSamples, TrainStream
from .evaluation import classification_metrics, predict
from .loading import batches
from .models import build_model, faster_in_bf16, input_statistics, plain_attention
from .transforms import train_transform


def train_classifier(
    config: ClassifierConfig,
    train_set: MapDataset,
    run_dir: str | Path,
    *,
    classes: Sequence[str],
    validation: MapDataset | None = None,
    final_set: MapDataset | None = None,
    transform: Transform | None = None,
    trained_on: dict[str, Any] | None = None,
) -> Path:
    """Train a classifier; a finished run is left as it is, an unfinished one starts again.

    Args:
        config: settings.
        train_set: any map data set of (PIL image, label) or (PIL image, label, is_synthetic); a label is a number, or
            a tensor of shares of the classes, float32 [C].
        run_dir: gets config.json, metrics.jsonl, model.safetensors and, last, result.json.
        classes: names in the order of the labels.
        validation: evaluated once, at the end; must not be test data.
        final_set: what the last `config.real_only_share` of the steps trains on, as long as `train_set`; by default
            a `SyntheticMixDataset` without its synthetic images, otherwise `train_set`.
        transform: of one PIL image, in place of the one `config.augment` names.
        trained_on: what tells these data sets from others, JSON; a folder of a run on others is then refused.

    Returns:
        `run_dir`.

    Raises:
        ConfigError: unknown model or optimizer, or a batch that the processes cannot share.
        DataError: no training image, or data sets of different length.
        CheckpointError: the folder belongs to another configuration or other data, or the checkpoint does not fit.
        NonFiniteError: the loss is not a finite number.
        WorkerError: a loader worker threw, or died or hung more than `config.max_restarts` times.
        RunLockedError: another process trains in this folder.
    """
    out = Path(run_dir)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    # Accelerate's mixed precision would hold for everything that this process trains, so autocast is our own.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False)
    accelerator = Accelerator(cpu=launched().device.type == "cpu", mixed_precision="no", kwargs_handlers=[ddp])
    final = final_set or (train_set.real_only() if isinstance(train_set, SyntheticMixDataset) else train_set)
    _check(config, train_set, final, accelerator.num_processes)
    content: dict[str, Any] = {"classifier": config.to_json(), "classes": list(classes)}
    if trained_on is not None:
        content["trained_on"] = trained_on
    if (out / "config.json").exists():
        before, defaults = read_json(out / "config.json"), {"classifier": ClassifierConfig().to_json()}
        if "trained_on" not in before and content.pop("trained_on", None) is not None:
            warnings.warn(f"{out} does not say on which data it was trained", stacklevel=2)
        free, remedy = [f"classifier.{key}" for key in FREE], "give the options of that run, or choose another --out"
        ensure_same_config(before, content, free, defaults, remedy)
    if (out / "result.json").exists():
        return out
    with run_lock(out) if accelerator.is_main_process else contextlib.nullcontext():
        if accelerator.is_main_process:
            write_json(out / "config.json", content)
        samples = TrainSamples(train_set, final, transform or train_transform(config), config.seed)
        started = time.monotonic()
        model = _run_steps(config, samples, out, len(classes), accelerator)
        if accelerator.is_main_process:
            write_bytes(out / "model.safetensors", save(_portable(model)))
            result = _result(config, model, out, validation)
            write_json(out / "result.json", {**result, "sec": time.monotonic() - started})
        accelerator.wait_for_everyone()
    return out


def _run_steps(
    config: ClassifierConfig, samples: TrainSamples, out: Path, num_classes: int, accelerator: Accelerator
) -> nn.Module:
    """All optimiser steps; returns the averaged network, or the last one where averaging is off."""
    device, rank, world_size = accelerator.device, accelerator.process_index, accelerator.num_processes
    raw = build_model(config, num_classes).to(device).to(memory_format=torch.channels_last)
    if device.type == "cpu":
        plain_attention(raw)
    average = ModelEmaV3(raw, decay=config.ema_decay, use_warmup=True) if config.ema_decay else None
    optimizer = _optimizer(config, raw)
    model = accelerator.prepare_model(raw)
    mean, std = (value.to(device) for value in input_statistics(raw))
    half = config.mixed_precision == "bf16" or (config.mixed_precision == "auto" and faster_in_bf16(raw, device))
    bf16 = partial(torch.autocast, device.type, torch.bfloat16, enabled=half)
    stream = TrainStream(config, len(samples), rank=rank, world_size=world_size)
    blend = Blend(config, num_classes)
    losses = list[Tensor]()
    loader = contextlib.closing(batches(samples, stream, config))  # on the way out, workers end at once
    with _metrics_file(out, accelerator.is_main_process) as log, loader as loaded:
        for step, (images, labels, synthetic) in enumerate(loaded):
            # The batch, normalised and mixed.
            inputs = images.to(device)
            inputs = (inputs.float() / 255 - mean) / std if inputs.dtype == torch.uint8 else inputs.float()
            inputs, targets, weights = blend(inputs, labels.to(device), synthetic, step)

            # One optimiser step. Dropout reads the global generator, so it is seeded.
            lr = config.learning_rate(step)
            for group in optimizer.param_groups:
                group["lr"] = lr * group.get("lr_scale", 1.0)
            with preserved_generators(), bf16():
                seed_generators(seed_for(config.seed, "layer", step, rank))
                logits = model(inputs.contiguous(memory_format=torch.channels_last))
            loss = (weights * -(targets * F.log_softmax(logits.float(), dim=1)).sum(dim=1)).mean()
            optimizer.zero_grad(set_to_none=True)
            accelerator.backward(loss)
            optimizer.step()
            if average is not None:
                average.update(raw, step=step + 1)

            # What happened since the last line.
            losses.append(loss.detach())
            if (step + 1) % config.log_steps == 0 or step + 1 == config.steps:
                value = _checked_mean(losses, step, accelerator)
                seen = (step + 1) * config.batch_size
                line = {"step": step + 1, "seen_images": seen, "loss": value, "lr": lr}
                log.write(json.dumps(line) + "\n") if log else None
                losses.clear()
    result: nn.Module = raw if average is None else average.module
    _average_buffers(result, accelerator)
    return result


class Blend:
    """Mixup, CutMix and label smoothing of a batch, real and synthetic images each among themselves."""

    def __init__(self, config: ClassifierConfig, num_classes: int) -> None:
        self.config, self.num_classes = config, num_classes

    def __call__(self, images: Tensor, labels: Tensor, synthetic: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Images [N, 3, H, W], target shares float32 [N, C] and loss weights float32 [N].

        The two sources draw the same numbers, so that an arm without synthetic images shares its draws with the others.
        An odd image out stays unmixed.

        Args:
            labels: int64 [N], or shares of the classes, float32 [N, C].
        """
        config, synthetic = self.config, synthetic.to(images.device)
        shares = labels if labels.ndim == 2 else F.one_hot(labels, self.num_classes).to(images.dtype)
        smoothing = torch.where(synthetic, config.synthetic_label_smoothing, config.label_smoothing)[:, None]
        targets = (1 - smoothing) * shares + smoothing / self.num_classes
        for source in (False, True) if config.mixup or config.cutmix else ():
            rows = (synthetic == source).nonzero().flatten()
            even = rows[: len(rows) // 2 * 2]
            if len(even):
                # timm mixes labels too; of the labels 0, 1, ... it makes the shares of each image in each.
                mixer = Mixup(
                    config.mixup, config.cutmix, prob=config.mix_prob, label_smoothing=0.0, num_classes=len(even)
                )  # type: ignore[no-untyped-call]
                with preserved_generators():
                    seed_generators(seed_for(config.seed, "batch-mix", step))
                    images[even], mixing = mixer(images[even], torch.arange(len(even), device=images.device))
                targets[even] = mixing @ targets[even]
        return images, targets, torch.where(synthetic, config.synthetic_loss_weight, 1.0)


def _check(config: ClassifierConfig, train_set: MapDataset, final: MapDataset, processes: int) -> None:
    if not len(train_set) or len(final) != len(train_set):
        raise DataError(
            f"training needs images, and as many in its last part, found {len(train_set)} and {len(final)}",
            "check the training split",
        )
    if config.batch_size % processes:
        raise ConfigError(
            f"--batch-size must be divisible by the {processes} processes, found {config.batch_size}",
            f"use {config.batch_size // processes * processes or processes}",
        )


def _optimizer(config: ClassifierConfig, model: nn.Module) -> torch.optim.Optimizer:
    names = [str(name) for name in list_optimizers()]
    if config.optimizer not in names:
        best = nearest(config.optimizer, names)
        raise ConfigError(
            f"--optimizer must be a timm optimizer, found {config.optimizer!r}; the nearest is {best!r}",
            f"write {best}",
        )
    fused: dict[str, Any] = {"fused": True} if config.optimizer in ("adam", "adamw", "sgd") else {}
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model, opt=config.optimizer, lr=config.lr, weight_decay=config.weight_decay, **fused
    )
    return optimizer


@contextlib.contextmanager
def _metrics_file(out: Path, is_main: bool) -> Any:
    """metrics.jsonl from its beginning, or None in every process but the first."""
    if not is_main:
        yield None
        return
    with open(out / "metrics.jsonl", "w", encoding="utf-8", buffering=1) as stream:
        yield stream


def _checked_mean(losses: list[Tensor], step: int, accelerator: Accelerator) -> float:
    """Mean loss over these steps and all processes."""
    value = float(accelerator.reduce(torch.stack(losses).mean(), reduction="mean").item())
    if not torch.isfinite(torch.tensor(value)):
        raise NonFiniteError(
            f"the loss must be a finite number, found {value} by step {step + 1}", "lower --lr or --batch-size"
        )
    return value


def _average_buffers(model: nn.Module, accelerator: Accelerator) -> None:
    """BatchNorm statistics drift apart between processes; the saved ones are their mean."""
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.copy_(accelerator.reduce(buffer, reduction="mean"))


def _portable(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}


def _result(config: ClassifierConfig, model: nn.Module, out: Path, validation: MapDataset | None) -> dict[str, Any]:
    scores = None
    if validation is not None and len(validation):
        logits, labels = predict(model, validation, config.resolution)
        scores = classification_metrics(logits, labels)
    return {
        "steps": config.steps,
        "seen_images": config.steps * config.batch_size,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "model_sha256": sha256_file(out / "model.safetensors"),
        "validation": scores,
    }

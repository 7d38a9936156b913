"""How good a trained classifier is: accuracy in total and by class, calibration, and every single prediction."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from finegan_aug.data.wrapped import MapDataset
from finegan_aug.errors import CheckpointError, ConfigError, DataError
from finegan_aug.features import load_weights
from finegan_aug.files import read_json, write_bytes
from finegan_aug.typed import check_fields, read_field

from .config import ClassifierConfig
from .models import build_model, input_statistics
from .transforms import eval_transform, to_tensor

Metrics = dict[str, Any]
Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

ECE_BINS = 15
_BATCH_IMAGES = 64


def classification_metrics(logits: npt.ArrayLike, labels: npt.ArrayLike) -> Metrics:
    """Scores of predictions, all shares in [0, 1].

    Args:
        logits: float [N, C], before softmax.
        labels: int [N] in 0 .. C - 1.

    Returns:
        accuracy and top5 (of min(5, C) guesses); macro_f1 over classes that occur as truth or guess; ece, the expected
        calibration error in 15 bins of equal width (Guo et al., ICML 2017, equation 3); per_class_accuracy, None for a
        class without images; worst_class_accuracy; confusion, [C][C] counts with rows = truth; n.

    Raises:
        DataError: no image, or shapes that do not fit.
    """
    scores, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if scores.ndim != 2 or truth.shape != scores.shape[:1] or not len(truth):
        raise DataError(
            f"evaluation needs logits [N, C] and labels [N] with N >= 1, found {scores.shape} and {truth.shape}",
            "give a data set with images",
        )
    classes = scores.shape[1]
    guess = scores.argmax(axis=1)
    confusion = np.bincount(truth * classes + guess, minlength=classes * classes).reshape(classes, classes)
    hits, actual, guessed = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    f1 = 2 * hits / np.maximum(actual + guessed, 1)
    top = np.argsort(-scores, axis=1, kind="stable")[:, : min(5, classes)]
    by_class = [float(h / n) if n else None for h, n in zip(hits, actual, strict=True)]
    return {
        "n": len(truth),
        "accuracy": float((guess == truth).mean()),
        "top5": float((top == truth[:, None]).any(axis=1).mean()),
        "macro_f1": float(f1[(actual + guessed) > 0].mean()),
        "ece": _calibration_error(scores, guess == truth),
        "worst_class_accuracy": min(share for share in by_class if share is not None),
        "per_class_accuracy": by_class,
        "confusion": confusion.tolist(),
    }


def _calibration_error(scores: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]) -> float:
    """Mean over images of |accuracy - confidence| of their bin; a bin is open below and closed above."""
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    confidence = odds.max(axis=1) / odds.sum(axis=1)
    place = np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    gaps = np.bincount(place, weights=right - confidence, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(right))


def load_classifier(run_dir: str | Path) -> tuple[ClassifierConfig, nn.Module, tuple[str, ...]]:
    """Config, network in evaluation mode on the CPU, and class names of a finished run.

    Raises:
        CheckpointError: config.json is none of this program, or the weights cannot be read or do not fit it.
        DataError: config.json cannot be read.
    """
    run_dir = Path(run_dir)
    path, remedy = run_dir / "config.json", f"remove {run_dir} and train it again"
    content = read_json(path)
    settings, classes = (read_field(content, path, *what) for what in (("classifier", dict), ("classes", list[str])))
    try:
        check_fields(ClassifierConfig, settings)
        config = ClassifierConfig(**settings)
        model = build_model(replace(config, checkpoint=None, pretrained=False), len(classes))
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error.cause}", remedy) from error
    tensors = load_weights(run_dir / "model.safetensors")
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:  # its message has a line for each tensor
        raise CheckpointError(f"the weights in {run_dir} must fit its config.json, they do not", remedy) from error
    return config, model.eval(), tuple(classes)


@torch.no_grad()
def predict(model: nn.Module, dataset: MapDataset, resolution: int) -> tuple[Logits, Labels]:
    """Logits float32 [N, C] and labels int64 [N] of a data set of (PIL image, label), in its order.

    The model follows its own device; it is in evaluation mode within the call only.
    """
    device = next(model.parameters()).device
    mean, std = (value.to(device) for value in input_statistics(model))
    transform, logits, labels = eval_transform(resolution), list[Tensor](), list[int]()
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(dataset), _BATCH_IMAGES):
            items = [dataset[index] for index in range(start, min(start + _BATCH_IMAGES, len(dataset)))]
            images = torch.stack([to_tensor(transform(item[0])) for item in items]).to(device)
            inputs = (images.float() / 255 - mean) / std
            logits.append(model(inputs.contiguous(memory_format=torch.channels_last)).float().cpu())
            labels += [int(item[1]) for item in items]
    finally:
        model.train(was_training)
    found = torch.cat(logits).numpy() if logits else np.zeros((0, 0), dtype=np.float32)
    assert len(found) == len(dataset) == len(labels)
    return found, np.asarray(labels, dtype=np.int64)


def evaluate_classifier(
    run_dir: str | Path, dataset: MapDataset, *, image_ids: Sequence[str] | None = None, save: bool = True
) -> Metrics:
    """Evaluate the classifier of a finished run on a data set of (PIL image, label).

    Args:
        run_dir: of `train_classifier`.
        dataset: labels in the class order of the run.
        image_ids: one name for each image, for paired tests; by default the data set's own `image_ids`, or numbers.
        save: write predictions.npz into the run folder: labels int64 [N], logits float32 [N, C], image (names).

    Returns:
        See `classification_metrics`.

    Raises:
        DataError: the data set is empty.
    """
    config, model, _ = load_classifier(run_dir)
    logits, labels = predict(model, dataset, config.resolution)
    metrics = classification_metrics(logits, labels)
    if save:
        own = image_ids if image_ids is not None else getattr(dataset, "image_ids", None)
        names = np.array([f"{i:08d}" for i in range(len(labels))] if own is None else list(own), dtype=np.str_)
        assert len(names) == len(labels), (len(names), len(labels))
        stream = io.BytesIO()
        np.savez_compressed(stream, labels=labels, logits=logits, image=names)
        write_bytes(Path(run_dir) / "predictions.npz", stream.getvalue())
    return metrics

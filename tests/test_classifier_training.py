"""The training loop: what it learns, what it repeats bit for bit, and what it leaves behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coloured_images import ColouredImages, Sourced
from safetensors.torch import load_file
from torchvision.transforms import v2

from classifier.config import ClassifierConfig
from classifier.data import TrainSamples, TrainStream
from classifier.evaluation import evaluate_classifier
from classifier.training import Blend, train_classifier
from classifier.transforms import RandomCropFlip, train_transform
from finegan_aug.errors import CheckpointError, ConfigError, DataError, NonFiniteError
from finegan_aug.files import read_json
from finegan_aug.mixing import SyntheticMixDataset

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[1]
BASE = ClassifierConfig(model="test_efficientnet", resolution=24, steps=6, batch_size=8, threads=1, log_steps=2)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def same(first: Path, second: Path) -> bool:
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns_colours(tmp_path: Path) -> None:
    """Chance is 1/3; a network that learns nothing stays below 0.9 of 60 images with certainty."""
    config = replace(BASE, steps=60, batch_size=16, augment="flip-crop", cutmix=0.0, lr=3e-3, ema_decay=0.9)
    data, held_out = ColouredImages(48), ColouredImages(60, seed=1)
    run = train_classifier(config, data, tmp_path / "run", classes=data.classes, validation=held_out)
    result = read_json(run / "result.json")
    assert result["validation"]["accuracy"] >= 0.9
    assert result["validation"]["accuracy"] == evaluate_classifier(run, held_out)["accuracy"]
    assert (result["steps"], result["seen_images"]) == (60, 960)


def test_the_metrics_file_holds_one_line_for_every_few_steps(tmp_path: Path) -> None:
    data = ColouredImages(12)
    run = train_classifier(replace(BASE, steps=5), data, tmp_path / "run", classes=data.classes)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 5]
    assert [line["seen_images"] for line in lines] == [16, 32, 40]
    assert all(np.isfinite(line["loss"]) for line in lines)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(tmp_path: Path, workers: int) -> None:
    data = ColouredImages(12)
    alone = train_classifier(BASE, data, tmp_path / "alone", classes=data.classes)
    helped = train_classifier(replace(BASE, num_workers=workers), data, tmp_path / "helped", classes=data.classes)
    assert same(alone, helped)


def test_a_finished_run_is_left_alone_and_an_unfinished_one_starts_again(tmp_path: Path) -> None:
    data = ColouredImages(12)
    run = train_classifier(BASE, data, tmp_path / "run", classes=data.classes)
    stamp = (run / "model.safetensors").stat().st_mtime_ns
    train_classifier(replace(BASE, num_workers=1), data, run, classes=data.classes)
    assert (run / "model.safetensors").stat().st_mtime_ns == stamp
    (run / "result.json").unlink()  # as if it had been killed
    (run / "metrics.jsonl").write_text("half a li")
    train_classifier(BASE, data, run, classes=data.classes)
    whole = train_classifier(BASE, data, tmp_path / "whole", classes=data.classes)
    assert same(run, whole)
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_another_configuration_in_the_folder_is_refused(tmp_path: Path) -> None:
    data = ColouredImages(12)
    run = train_classifier(BASE, data, tmp_path / "run", classes=data.classes)
    with pytest.raises(CheckpointError, match=r"another configuration \(classifier.lr: 0.002 -> 0.5\)"):
        train_classifier(replace(BASE, lr=0.5), data, run, classes=data.classes)


def test_the_stream_shows_every_image_once_in_an_epoch_and_splits_among_processes() -> None:
    config = replace(BASE, steps=7, batch_size=6, real_only_share=0.25)
    batches = list(TrainStream(config, 14))
    keys = [key for batch in batches for key in batch]
    assert [epoch for epoch, _, _ in keys] == [0] * 14 + [1] * 14 + [2] * 14
    for epoch in range(3):
        assert sorted(index for e, index, _ in keys if e == epoch) == list(range(14))
    assert [index for _, index, _ in keys[:14]] != [index for _, index, _ in keys[14:28]]
    assert [batch[0][2] for batch in batches] == [False] * 5 + [True] * 2
    halves = [list(TrainStream(config, 14, rank=rank, world_size=2)) for rank in range(2)]
    assert [first + second for first, second in zip(*halves, strict=True)] == batches


def test_synthetic_images_end_with_the_last_share_of_the_steps(tmp_path: Path) -> None:
    real, other = ColouredImages(12), ColouredImages(12, seed=5)
    seen: list[str] = []

    class Spy(ColouredImages):
        def __init__(self, name: str) -> None:
            super().__init__(12)
            self.name = name

        def __getitem__(self, index: int) -> Any:
            seen.append(self.name)
            return super().__getitem__(index)

    config = replace(BASE, steps=8, real_only_share=0.25)
    train_classifier(config, Spy("mixed"), tmp_path / "run", classes=real.classes, final_set=Spy("real"))
    assert seen == ["mixed"] * 48 + ["real"] * 16
    with pytest.raises(DataError, match="as many in its last part, found 12 and 3"):
        train_classifier(config, real, tmp_path / "b", classes=real.classes, final_set=ColouredImages(3))
    assert len(other) == 12


def test_alpha_0_gives_the_bits_of_the_real_images_alone(tmp_path: Path) -> None:
    real = ColouredImages(12)
    for index in range(12):
        folder = tmp_path / "synthetic" / real.classes[real.targets[index]]
        folder.mkdir(parents=True, exist_ok=True)
        real.images[index].save(folder / f"{index}.png")
    mixed = [SyntheticMixDataset(real, tmp_path / "synthetic", alpha=alpha, return_source=True) for alpha in (0.0, 0.9)]
    alone = train_classifier(BASE, real, tmp_path / "alone", classes=real.classes)
    off, on = (train_classifier(BASE, data, tmp_path / f"mix{i}", classes=real.classes) for i, data in enumerate(mixed))
    assert same(alone, off)
    assert not same(alone, on)


def test_an_image_gets_the_same_draws_in_any_batch_and_others_in_the_next_epoch() -> None:
    data = ColouredImages(12)
    samples = TrainSamples(data, data, train_transform(BASE), seed=3)
    batch = samples.__getitems__([(0, 4, False), (0, 5, False), (1, 4, False)])
    assert torch.equal(samples[(0, 4, False)][0], batch[0][0])
    assert not torch.equal(batch[0][0], batch[2][0])
    assert batch[0][1:] == (data.targets[4], False)


@pytest.mark.parametrize("augment", ["none", "flip-crop", "trivial", "rand", "timm", "albumentations"])
def test_every_augmentation_gives_bytes_of_the_asked_size_and_depends_on_the_seed_alone(augment: str) -> None:
    if augment == "albumentations" and find_spec("albumentations") is None:  # its import asks the package index
        pytest.skip("the extra `classifier` is not installed")
    data = ColouredImages(8, side_px=40)
    config = replace(BASE, augment=augment)  # type: ignore[arg-type]
    keys = [(0, index, False) for index in range(8)]
    first, second = (TrainSamples(data, data, train_transform(config), seed=3).__getitems__(keys) for _ in range(2))
    other = TrainSamples(data, data, train_transform(config), seed=4).__getitems__(keys)
    assert all(image.dtype == torch.uint8 and image.shape == (3, 24, 24) for image, _, _ in first)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, second, strict=True))
    differing = sum(not torch.equal(a[0], b[0]) for a, b in zip(first, other, strict=True))
    assert differing == 0 if augment == "none" else differing >= 6


def test_a_whole_image_crop_is_a_resize_and_a_crop_keeps_area_and_ratio_in_range() -> None:
    image = ColouredImages(1, side_px=48).images[0]
    whole = RandomCropFlip(24, (1.0, 1.0), (1.0, 1.0))(image)
    plain = image.resize((24, 24), 2)
    assert np.array_equal(np.asarray(whole), np.asarray(plain)) or np.array_equal(
        np.asarray(whole), np.asarray(plain)[:, ::-1]
    )
    boxes = []
    original = image.resize
    image.resize = lambda size, resample, box: boxes.append(box) or original(size, resample, box=box)  # type: ignore
    for _ in range(200):
        RandomCropFlip(24, (0.25, 0.5))(image)
    wide, high = (np.array([b[i + 2] - b[i] for b in boxes]) for i in (0, 1))
    assert 0.25 <= (wide * high / 48**2).min() < 0.3
    assert 0.45 < (wide * high / 48**2).max() <= 0.5
    assert (wide / high).min() >= 0.75 - 1e-9
    assert (wide / high).max() <= 4 / 3 + 1e-9


def test_an_own_transform_to_floats_is_taken_as_it_is(tmp_path: Path) -> None:
    data = ColouredImages(12)
    own = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
    run = train_classifier(replace(BASE, steps=2), data, tmp_path / "run", classes=data.classes, transform=own)
    assert (run / "result.json").exists()


def test_targets_and_weights_follow_the_source_of_an_image() -> None:
    weighed = replace(BASE, synthetic_loss_weight=0.5, synthetic_label_smoothing=0.4)
    config = replace(weighed, mixup=0.0, cutmix=0.0, label_smoothing=0.1)
    images, labels = torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 0])
    synthetic = torch.tensor([False, True, True])
    mixed, targets, loss_weights = Blend(config, 2)(images.clone(), labels, synthetic, 0)
    assert torch.equal(mixed, images)
    torch.testing.assert_close(targets, torch.tensor([[0.95, 0.05], [0.2, 0.8], [0.8, 0.2]]))
    assert loss_weights.tolist() == [1.0, 0.5, 0.5]


def test_by_default_a_synthetic_image_counts_as_a_photograph_does() -> None:
    labels, images = torch.tensor([0, 1, 0]), torch.rand(3, 3, 8, 8)
    blend = Blend(replace(BASE, mixup=0.0, cutmix=0.0), 2)
    real, synthetic = (blend(images.clone(), labels, torch.full((3,), source), 0) for source in (False, True))
    assert torch.equal(real[1], synthetic[1])
    assert torch.equal(real[2], synthetic[2])


def test_the_loss_of_unmixed_real_images_is_cross_entropy_with_smoothing() -> None:
    blend = Blend(replace(BASE, mixup=0.0, cutmix=0.0, label_smoothing=0.1), 3)
    labels, logits = torch.tensor([0, 2, 1]), torch.tensor([[1.0, 0, 2], [0.5, 1, 0], [3, 0, 0]])
    _, targets, w = blend(torch.rand(3, 3, 8, 8), labels, torch.zeros(3, dtype=torch.bool), 0)
    ours = (w * -(targets * F.log_softmax(logits, dim=1)).sum(dim=1)).mean()
    torch.testing.assert_close(ours, F.cross_entropy(logits, labels, label_smoothing=0.1))


def test_mixing_stays_within_one_source() -> None:
    """Real images are 0, synthetic ones 1: no pixel and no class weight crosses over. An odd one out stays whole."""
    config = replace(BASE, mixup=0.0, cutmix=1.0, mix_prob=1.0, label_smoothing=0.0, synthetic_label_smoothing=0.0)
    synthetic = torch.tensor([False, True, False, True, True])
    images = synthetic.float().view(5, 1, 1, 1).expand(5, 3, 16, 16).clone()
    mixed, targets, _ = Blend(config, 5)(images.clone(), torch.arange(5), synthetic, step=1)
    assert torch.equal(mixed, images)
    assert targets[[0, 2]][:, [1, 3, 4]].sum() == 0
    assert targets[[1, 3, 4]][:, [0, 2]].sum() == 0
    assert targets[4].tolist() == [0, 0, 0, 0, 1]
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(5))
    assert 0 < float(targets[0, 0]) < 1


def test_cutmix_targets_are_the_shares_of_the_pixels() -> None:
    config = replace(BASE, mixup=0.0, cutmix=1.0, mix_prob=1.0, label_smoothing=0.0)
    images = torch.arange(4).float().view(4, 1, 1, 1).expand(4, 3, 16, 16).clone()
    mixed, targets, _ = Blend(config, 4)(images, torch.arange(4), torch.zeros(4, dtype=torch.bool), step=3)
    shares = torch.stack([(mixed[:, 0] == value).float().mean(dim=(1, 2)) for value in range(4)], dim=1)
    torch.testing.assert_close(targets, shares)


def test_source_flags_change_the_training(tmp_path: Path) -> None:
    data = ColouredImages(12)
    plain = train_classifier(BASE, data, tmp_path / "plain", classes=data.classes)
    none = train_classifier(BASE, Sourced(data, set()), tmp_path / "none", classes=data.classes)
    some = train_classifier(BASE, Sourced(data, {0, 1, 2, 3}), tmp_path / "some", classes=data.classes)
    assert same(plain, none)
    assert not same(plain, some)


def test_an_unknown_optimizer_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    data = ColouredImages(12)
    with pytest.raises(
        ConfigError, match="--optimizer must be a timm optimizer, found 'adamww'; the nearest is 'adamw'"
    ):
        train_classifier(replace(BASE, optimizer="adamww"), data, tmp_path / "run", classes=data.classes)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    data = ColouredImages(12)
    nan = v2.Lambda(lambda image: torch.full((3, 24, 24), float("nan")))
    with pytest.raises(NonFiniteError, match="the loss must be a finite number, found nan by step 2; lower --lr"):
        train_classifier(BASE, data, tmp_path / "run", classes=data.classes, transform=nan)
    assert not (tmp_path / "run" / "result.json").exists()


def test_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="training needs images, and as many in its last part, found 0 and 0; check"):
        train_classifier(BASE, ColouredImages(0), tmp_path / "run", classes=["a", "b"])


TWO_PROCESSES = """
import json
import sys
from pathlib import Path
from coloured_images import ColouredImages
from classifier.config import ClassifierConfig
from classifier.training import train_classifier
data = ColouredImages(12)
config = ClassifierConfig(**json.loads(sys.argv[2]))
train_classifier(config, data, Path(sys.argv[1]), classes=data.classes)
"""


@pytest.mark.slow
@pytest.mark.sockets
def test_two_processes_share_the_batch(tmp_path: Path) -> None:
    """Not bit for bit, since BatchNorm sees halves of the batch; but one run folder, and the mean loss of both."""
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}"]
    env = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    line = [*command, str(script), str(tmp_path / "run"), json.dumps(replace(BASE, steps=3).to_json())]
    done = subprocess.run(line, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()] == [
        2,
        3,
    ]
    assert read_json(tmp_path / "run" / "result.json")["seen_images"] == 24

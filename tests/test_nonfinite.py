"""A number that is not finite: the run stops and names it, or goes back to its last checkpoint with other noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from tiny_runs import assert_same_run, rows, status, tiny_config

from finegan_aug import training, update
from finegan_aug.data.manifest import Manifest
from finegan_aug.data.stream import RealBatch, RealStream
from finegan_aug.errors import NonFiniteError
from finegan_aug.models.fake_batch import FakeBatch
from finegan_aug.models.game import FineGAN, Terms
from finegan_aug.term_sums import TermSums, first_non_finite
from finegan_aug.training import train

REMEDY = "lower --lr, or go on with other noise by --on-nonfinite rollback; the last checkpoint is kept"


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def broken_at(monkeypatch: pytest.MonkeyPatch, *broken: int) -> list[int]:
    """The loss of the child code is no number in these calls; returns the count of calls."""
    calls, losses = [0], FineGAN.generator_losses

    def breaking(self: FineGAN, fake: FakeBatch, real: RealBatch) -> Terms:
        calls[0] += 1
        terms = losses(self, fake, real)
        return terms | {"g_child_code": terms["g_child_code"] * (float("nan") if calls[0] in broken else 1)}

    monkeypatch.setattr(FineGAN, "generator_losses", breaking)
    return calls


NAN = float("nan")


def spoil(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Something of the sixth step is no number."""
    owner: Any = {"buffer": training, "average": training, "image": RealStream}.get(where, FineGAN)
    name = {"buffer": "update_ema", "average": "update_ema", "image": "batch"}.get(where, where)
    calls, inner = [0], getattr(owner, name)

    def spoiling(*given: Any) -> Any:
        calls[0] += 1
        found = inner(*given)
        if calls[0] != 6:
            return found
        if where == "buffer":
            dict(given[1].named_buffers())["background_trunk.norm.running_var"][0] = NAN
        elif where == "average":
            next(given[0].parameters()).data.view(-1)[0] = NAN
        elif where == "image":
            found.objects[3, 0, 5, 7] = NAN
        else:
            found |= {term: value * NAN for term, value in found.items() if term in ("child_real", "g_child_code")}
        return found

    monkeypatch.setattr(owner, name, spoiling)


FIRST = "background_trunk.linear.weight"
WORDS = {
    "generator_losses": "found g_child_code = nan before image 48 and NaN or infinity in generator.object_trunk.",
    "discriminator_losses": "found child_real = nan before image 48 and NaN or infinity in ",
    "image": f"found child_real = nan before image 48 and NaN or infinity in generator.{FIRST}",
    "buffer": "found NaN or infinity in model/generator.background_trunk.norm.running_var",
    "average": f"found NaN or infinity in ema/generator.{FIRST}",
}
SAVED = ("buffer", "average")  # spoil no loss, so that the next save is what stops


@pytest.mark.fault("not finite: ends or goes back, tensor named")
@pytest.mark.parametrize("where", WORDS)
def test_what_is_not_a_number_ends_the_run_and_keeps_the_last_checkpoint(
    where: str, trained_run: Path, toy_data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, where)
    config = tiny_config(checkpoint_kimg=0.032)
    with pytest.raises(NonFiniteError) as error:
        train(config, toy_data, tmp_path)
    what = "a checkpoint must hold finite numbers, " if where in SAVED else "loss terms must be finite, "
    assert error.value.cause.startswith(what + WORDS[where])
    assert error.value.remedy == (
        "lower the learning rate; the checkpoint before is untouched" if where in SAVED else REMEDY
    )
    assert rows(tmp_path)[-1]["step"] == (8 if where in SAVED else 5)
    assert status(tmp_path)["exit_code"] == 5
    assert checkpoints(tmp_path) == ["step-000000004"]
    monkeypatch.undo()
    train(config, toy_data, tmp_path)
    assert_same_run(tmp_path, trained_run)


@pytest.mark.fault("not finite: ends or goes back, tensor named")
def test_the_first_term_that_is_infinite_is_named() -> None:
    sums, network = TermSums(), torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    assert first_non_finite({"net": network}) is None
    network[1].running_var[1] = float("inf")
    sums.add({"a": torch.tensor(1.0), "b": torch.tensor(2.0)})
    sums.add({"a": torch.tensor(2.0), "b": torch.tensor(4.0)})
    assert sums.mean(Accelerator(), 8, {}) == {"a": 1.5, "b": 3.0}
    sums.add({"a": torch.tensor(1.0), "b": torch.tensor(float("-inf"))})
    words = r"found b = -inf before image 16 and NaN or infinity in net\.1\.running_var; lower --lr, or"
    with pytest.raises(NonFiniteError, match=words):
        sums.mean(Accelerator(), 16, {"net": network})


@pytest.mark.fault("not finite: ends or goes back, tensor named")
def test_a_gradient_that_is_no_number_is_named_with_the_weight_that_it_spoilt(
    toy_data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, gradient_norm = [0], update.gradient_norm

    def spoilt(optimizer: torch.optim.Optimizer) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == 6:  # the generator's in the third step
            optimizer.param_groups[0]["params"][0].grad.view(-1)[0] = float("inf")
        return gradient_norm(optimizer)

    monkeypatch.setattr(update, "gradient_norm", spoilt)
    with pytest.raises(NonFiniteError) as error:
        train(tiny_config(), toy_data, tmp_path)
    words = r"loss terms must be finite, found grad_norm_g = inf before image 24 and NaN or infinity in generator.back"
    assert error.value.cause.startswith(words)


@pytest.mark.fault("not finite: ends or goes back, tensor named")
def test_a_run_goes_back_to_its_checkpoint_and_on_with_other_noise(
    trained_run: Path, toy_data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(checkpoint_kimg=0.032, on_nonfinite="rollback")
    calls = broken_at(monkeypatch, 6)
    with pytest.warns(RuntimeWarning, match=r"= nan before image 48 .*: going back, with other noise"):
        train(config, toy_data, tmp_path / "run")
    assert calls == [12]  # steps 5 and 6 twice
    found, before = rows(tmp_path / "run"), rows(trained_run)
    assert [row["step"] for row in found] == list(range(1, 11))
    assert found[:4] == before[:4]
    assert all(a["child_fake"] != b["child_fake"] for a, b in zip(found[4:], before[4:], strict=True))
    assert status(tmp_path / "run")["exit_code"] == 0
    last = tmp_path / "run" / "checkpoints" / checkpoints(tmp_path / "run")[-1]
    assert json.loads((last / "state.json").read_text())["rollbacks"] == 1

    # Broken off after the set-back, it goes on with the noise that it has.
    broken_at(monkeypatch, 6)
    shorter = tiny_config(checkpoint_kimg=0.032, on_nonfinite="rollback", total_kimg=0.064)
    with pytest.warns(RuntimeWarning, match="going back"):
        train(shorter, toy_data, tmp_path / "parts")
    monkeypatch.undo()
    train(config, toy_data, tmp_path / "parts")
    assert_same_run(tmp_path / "parts", tmp_path / "run")


@pytest.mark.filterwarnings("ignore:loss terms must be finite")
@pytest.mark.fault("not finite: ends or goes back, tensor named")
def test_the_fourth_time_is_an_error(toy_data: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = broken_at(monkeypatch, *range(1, 100))
    with pytest.raises(NonFiniteError):
        train(tiny_config(on_nonfinite="rollback"), toy_data, tmp_path)
    assert calls == [4]
    assert status(tmp_path)["exit_code"] == 5

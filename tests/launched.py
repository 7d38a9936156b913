"""What test_launch.py starts under torchrun: a training, a synthesis, and six trainings that end otherwise.

    launched.py DATA_MANIFEST OUT

Each process leaves its networks, its first gradients, the bytes it reduced and the ends of those six in OUT.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_runs import tiny_config
from torch.distributed import GradBucket, ProcessGroup, group
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from finegan_aug import training, update
from finegan_aug.data.manifest import Manifest, read_manifest
from finegan_aug.data.stream import RealBatch
from finegan_aug.errors import FineGANAugError, StorageError
from finegan_aug.models.fake_batch import FakeBatch
from finegan_aug.models.game import FineGAN, Terms
from finegan_aug.preparation import launched
from finegan_aug.restoring import named_tensors
from finegan_aug.synthesis import synthesize
from finegan_aug.training_state import TrainingState

GENERATOR_LOSSES = FineGAN.generator_losses
SHAPES = {"one_mask": True, "split_noise": True, "free_parent_share": 0.5}  # a head that is frozen for some images
RUN = {"total_kimg": 0.032, "hard_negative_kimg": 0.016, **SHAPES}  # its last update learns from hard samples


def main(data: Path, out: Path) -> None:
    torch.set_num_threads(1)
    # What is registered first runs last: behind whatever the package does at exit.
    parted = out / f"parted-{os.environ['RANK']}.json"
    atexit.register(lambda: parted.write_text(json.dumps(not torch.distributed.is_initialized())))
    manifest, rank = read_manifest(data), launched().process_index
    states: list[TrainingState] = []
    gradients: dict[str, torch.Tensor] = {}
    reduced_bytes = [0]  # by each player's update in turn: discriminators, generator, discriminators, ...
    gradient_norm = update.gradient_norm

    def counted(process_group: ProcessGroup, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        reduced_bytes[-1] += bucket.buffer().nbytes
        return allreduce_hook(process_group, bucket)

    class Kept(TrainingState):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            states.append(self)
            for network in self.game.networks().values():
                assert not network.broadcast_buffers  # on GPUs it fails at the second forward before a backward
                # A lambda, since torch refuses annotations that are text.
                network.register_comm_hook(group.WORLD, lambda state, bucket: counted(state, bucket))  # type: ignore[operator]

    def noted_norm(optimizer: torch.optim.Optimizer) -> torch.Tensor:
        reduced_bytes.append(0)
        if len(optimizer.state) == 0:  # before its first step
            name = "g" if optimizer is states[0].optimizers["g"] else "d"
            for i, parameter in enumerate(optimizer.param_groups[0]["params"]):
                gradients[f"{name}/{i}"] = parameter.grad.clone(memory_format=torch.contiguous_format)
        return gradient_norm(optimizer)

    training.TrainingState, update.gradient_norm = Kept, noted_norm  # type: ignore[misc]
    run = training.train(tiny_config(**RUN), manifest, out / "run", expect_processes=2)
    save_file(gradients, out / f"gradients-{rank}.safetensors")
    (out / f"reduced-{rank}.json").write_text(json.dumps(reduced_bytes[:-1]))
    tensors = named_tensors(states[0].plain) | named_tensors({"average": states[0].average})
    save_file({name: t.detach().contiguous() for name, t in tensors.items()}, out / f"networks-{rank}.safetensors")

    synthesize(run, out / "set", per_class=34)

    stop_in_the_third_step(rank)
    stopped = end_of(manifest, out / "stopped", log_kimg=0.016)
    (out / f"stopped-{rank}.json").write_text(json.dumps(stopped[1]))

    update.gradient_norm = gradient_norm
    if rank == 0:
        shutil.copytree(out / "stopped", out / "resumed")
    launched().wait_for_everyone()
    for name in ("resumed", "undisturbed"):
        end_of(manifest, out / name, log_kimg=0.016)
    if rank == 0:
        shutil.copytree(run, out / "apart-0")
    apart = end_of(manifest, out / f"apart-{rank}", **RUN | {"total_kimg": 0.04})
    (out / f"apart-{rank}.json").write_text(json.dumps(apart))

    for name in ("stop", "rollback"):
        spoil_the_third_step(rank)
        spoilt = end_of(manifest, out / f"spoilt-{name}", checkpoint_kimg=0.016, on_nonfinite=name)
        (out / f"spoilt-{name}-{rank}.json").write_text(json.dumps(spoilt))

    training.TrainingState = FullDisk  # type: ignore[misc]
    (out / f"full-{rank}.json").write_text(json.dumps(end_of(manifest, out / "full")))

    started_sec = time.monotonic()
    kind, code = end_of(manifest, out / "run", lr=2e-3)
    end = {"type": kind, "code": code, "sec": time.monotonic() - started_sec}
    (out / f"refused-{rank}.json").write_text(json.dumps(end))
    sys.exit(code)


class FullDisk(TrainingState):
    """Cannot be saved."""

    def save(self, *arguments: object) -> Path:
        raise StorageError("cannot write checkpoint: No space left on device", "free space")


def stop_in_the_third_step(rank: int) -> None:
    """Sends SIGTERM to the second process while it is computing."""
    calls, gradient_norm = [0], update.gradient_norm

    def stopping_norm(optimizer: torch.optim.Optimizer) -> torch.Tensor:
        calls[0] += 1
        if rank == 1 and calls[0] == 5:  # two calls a step
            os.kill(os.getpid(), signal.SIGTERM)
        return gradient_norm(optimizer)

    update.gradient_norm = stopping_norm


def spoil_the_third_step(rank: int) -> None:
    """A loss of the second process alone is no number, once."""
    calls, losses = [0], GENERATOR_LOSSES

    def spoilt(self: FineGAN, fake: FakeBatch, real: RealBatch) -> Terms:
        calls[0] += 1
        terms = losses(self, fake, real)
        return terms | {"g_child_code": terms["g_child_code"] * (float("nan") if calls[0] == 3 else 1)}

    FineGAN.generator_losses = spoilt if rank == 1 else losses  # type: ignore[method-assign]


def end_of(manifest: Manifest, run: Path, **values: object) -> tuple[str, int]:
    """Name and exit code of what ends a training of four steps."""
    try:
        training.train(tiny_config(**{"total_kimg": 0.032, **values}), manifest, run)
    except SystemExit as error:
        return "SystemExit", int(error.code or 0)
    except FineGANAugError as error:
        return type(error).__name__, error.exit_code
    return "none", 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

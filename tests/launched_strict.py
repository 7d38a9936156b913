"""What test_strict.py runs on 1, 2 and 4 processes: as itself on one, as a command on two and then on four.

    launched_strict.py DATA_MANIFEST OUT

W processes leave the runs strict-W, plain-W and set-back-W in OUT, and go on with the run `chain`. They are forked with
what torchrun sets: six fresh interpreters would spend more time on imports than on training.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from tiny_runs import tiny_config

from finegan_aug import training, update
from finegan_aug.data.manifest import Manifest, read_manifest
from finegan_aug.models.fake_batch import FakeBatch
from finegan_aug.models.game import FineGAN, RealBatch, Terms
from finegan_aug.preparation import launched

STEPS = 50 if os.environ.get("FINEGAN_AUG_FAULTS") else 4  # `make faults` tries harder
# Batch norm everywhere; the last two updates are of the hard-negative phase; no line of metrics.jsonl before step 3.
RUN = {"total_kimg": STEPS * 0.008, "hard_negative_kimg": 0.016, "log_kimg": 0.024, "d_norm": "batch"}
STRICT = {**RUN, "shards": 4}
PLAIN = {**RUN, "log_kimg": 0.008}
SET_BACK = {**STRICT, "total_kimg": 0.024, "on_nonfinite": "rollback", "checkpoint_kimg": 0.008, "log_kimg": 0.008}
CHAIN_LEAVES = {1: 1, 2: STEPS - 1}  # after so many steps one and two processes are stopped; four go to the end


def runs(manifest: Manifest, out: Path) -> None:
    """All runs of as many processes as there are."""
    processes, rank = launched().num_processes, launched().process_index
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(training, "write_training_grids", lambda *arguments: None)  # they take longer than the steps
        warnings.simplefilter("error", RuntimeWarning)
        training.train(tiny_config(**STRICT), manifest, out / f"strict-{processes}")
        if processes > 1:
            training.train(tiny_config(**PLAIN), manifest, out / f"plain-{processes}")
        if rank == processes - 1 and processes in CHAIN_LEAVES:
            stop_in_step(patch, CHAIN_LEAVES[processes] - (processes > 1) * CHAIN_LEAVES[1])
        with pytest.raises(SystemExit, match="143") if processes < 4 else nullcontext():
            training.train(tiny_config(**STRICT), manifest, out / "chain")
        if processes < 4:
            warnings.simplefilter("ignore", RuntimeWarning)
            if rank == processes - 1:
                break_a_shard(patch, 4 // processes)
            training.train(tiny_config(**SET_BACK), manifest, out / f"set-back-{processes}")


def stop_in_step(patch: pytest.MonkeyPatch, number: int) -> None:
    """Sends SIGTERM to this process while it computes its step of that number, from 1."""
    calls, gradient_norm = [0], update.gradient_norm

    def stopping(optimizer: torch.optim.Optimizer) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == 2 * number:  # two calls a step
            os.kill(os.getpid(), signal.SIGTERM)
        return gradient_norm(optimizer)

    patch.setattr(update, "gradient_norm", stopping)


def break_a_shard(patch: pytest.MonkeyPatch, shards: int) -> None:
    """The loss of the last shard of this process is no number, once, in the second step."""
    calls, losses = [0], FineGAN.generator_losses

    def breaking(self: FineGAN, fake: FakeBatch, real: RealBatch) -> Terms:
        calls[0] += 1
        terms = losses(self, fake, real)
        return terms | {"g_child_code": terms["g_child_code"] * (float("nan") if calls[0] == 2 * shards else 1)}

    patch.setattr(FineGAN, "generator_losses", breaking)


def one_of(rank: int, processes: int, port: int, data: Path, out: Path) -> None:
    """One of several processes."""
    found = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": processes, "RANK": rank, "LOCAL_RANK": rank}
    os.environ.update({name: str(value) for name, value in found.items()})
    runs(read_manifest(data), out)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    for processes in (2, 4):
        arguments = (processes, free_port(), Path(sys.argv[1]), Path(sys.argv[2]))
        torch.multiprocessing.start_processes(one_of, arguments, processes, start_method="fork")

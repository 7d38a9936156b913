"""What test_launch.py starts under torchrun: a training, a synthesis, and a training that is refused.

    launched.py DATA_MANIFEST OUT

Each process leaves its networks, its first gradients and the end of the refused training in OUT.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_runs import tiny_config

from finegan_aug import training
from finegan_aug.data.manifest import read_manifest
from finegan_aug.preparation import launched
from finegan_aug.restoring import named_tensors
from finegan_aug.synthesis import synthesize
from finegan_aug.training_state import TrainingState


def main(data: Path, out: Path) -> None:
    torch.set_num_threads(1)
    manifest, rank = read_manifest(data), launched().process_index
    states: list[TrainingState] = []
    gradients: dict[str, torch.Tensor] = {}
    gradient_norm = training.gradient_norm

    class Kept(TrainingState):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            states.append(self)

    def noted_norm(optimizer: torch.optim.Optimizer) -> torch.Tensor:
        if len(optimizer.state) == 0:  # before its first step
            name = "g" if optimizer is states[0].optimizers["g"] else "d"
            for i, parameter in enumerate(optimizer.param_groups[0]["params"]):
                gradients[f"{name}/{i}"] = parameter.grad.clone(memory_format=torch.contiguous_format)
        return gradient_norm(optimizer)

    training.TrainingState, training.gradient_norm = Kept, noted_norm  # type: ignore[misc]
    run = training.train(tiny_config(total_kimg=0.032), manifest, out / "run", expect_processes=2)
    save_file(gradients, out / f"gradients-{rank}.safetensors")
    tensors = named_tensors(states[0].plain) | named_tensors({"average": states[0].average})
    save_file({name: t.detach().contiguous() for name, t in tensors.items()}, out / f"networks-{rank}.safetensors")

    synthesize(run, out / "set", per_class=34)

    started_sec = time.monotonic()
    try:
        training.train(tiny_config(lr=1e-3), manifest, out / "run")
    except BaseException as error:
        end = {"type": type(error).__name__, "code": getattr(error, "exit_code", getattr(error, "code", None))}
        end["sec"] = time.monotonic() - started_sec
        (out / f"refused-{rank}.json").write_text(json.dumps(end))
        raise


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""What a checkpoint holds: the networks, the averaged generator, the optimisers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from finegan_aug.checkpoint import save_checkpoint
from finegan_aug.config import FineGANConfig
from finegan_aug.ema import averaged_copy
from finegan_aug.errors import CheckpointError
from finegan_aug.files import JSON
from finegan_aug.models.game import FineGAN
from finegan_aug.restoring import flatten_optimizer, load_into, named_tensors, restore_optimizer


class TrainingState:
    """Networks on their device, wrapped for several processes, with one optimiser for each player.

    `game` plays with the wrapped networks, `plain` names the networks inside, `average` is what draws samples.
    """

    def __init__(self, accelerator: Accelerator, config: FineGANConfig) -> None:
        self.game = game = FineGAN(config)
        self.plain = dict(game.networks())
        for network in self.plain.values():
            network.to(accelerator.device).to(memory_format=torch.channels_last).train()
        if game.features is not None:
            game.features.to(accelerator.device)  # not trained, not saved, the same on every process
        self.average = averaged_copy(self.plain["generator"])
        if config.compile_backend is not None:
            for network in self.plain.values():
                network.compile(backend=config.compile_backend)  # in place: names of weights stay
        betas = (config.beta1, config.beta2)
        self.optimizers = {
            name: torch.optim.Adam(_parameters(networks), config.lr, betas, fused=True)
            for name, networks in (("g", game.generator_networks()), ("d", game.discriminator_networks()))
        }
        if accelerator.num_processes > 1 and not config.shards:  # strict mode sums gradients in an order of its own
            with warnings.catch_warnings():  # torch 2.9 does not know the option that is to replace this one
                warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
                for name, network in self.plain.items():
                    setattr(game, name, accelerator.prepare(network))

    def set_learning_rate(self, lr: float) -> None:
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = lr

    @contextmanager
    def waiting_readers(self, accelerator: Accelerator) -> Iterator[None]:
        """Gradients that the discriminators' losses leave in what reads codes stay on their process while it is
        entered: they belong to the generator's optimiser and are reduced once, with the generator's.
        """
        with ExitStack() as waiting:
            for network in self.game.code_readers():
                waiting.enter_context(accelerator.no_sync(network))
            yield

    def take_average(self) -> None:
        """The generator takes over weights and buffers of its average; its optimiser goes on as it was."""
        load_into(self.plain["generator"], self.average.state_dict())

    def average_buffers(self, accelerator: Accelerator) -> None:
        """Batch norm statistics become their mean over the processes, which each gathers from images of its own.

        After every update, so that a run does not depend on when it was saved. All of them travel together.
        """
        if accelerator.num_processes == 1:
            return
        floating = [b for network in self.plain.values() for b in network.buffers() if b.is_floating_point()]
        if not floating:
            return
        means = accelerator.reduce(torch.cat([buffer.flatten() for buffer in floating]), reduction="mean")
        for buffer, mean in zip(floating, means.split([buffer.numel() for buffer in floating]), strict=True):
            buffer.copy_(mean.view_as(buffer))

    def save(self, run_dir: Path, step: int, state: JSON, keep: int) -> Path:
        """Writes a checkpoint of this step."""
        tensors = {"model": named_tensors(self.plain), "ema": named_tensors({"generator": self.average})}
        tensors["optim"], groups = {}, {}
        for name, optimizer in self.optimizers.items():
            flat, groups[name] = flatten_optimizer(optimizer)
            tensors["optim"] |= {f"{name}/{key}": value for key, value in flat.items()}
        return save_checkpoint(run_dir, step=step, tensors=tensors, state={**state, "param_groups": groups}, keep=keep)

    def load(self, tensors: dict[str, dict[str, Tensor]], state: JSON) -> None:
        """Takes over a checkpoint; networks and average all or nothing.

        An imported one holds no optimisers, and perhaps no discriminators: those begin fresh.

        Raises:
            CheckpointError: it belongs to other networks.
        """
        imported = "param_groups" not in state and set(tensors) == {"model", "ema"}
        if not imported and set(tensors) != {"model", "ema", "optim"}:
            raise CheckpointError(
                f"a checkpoint must hold model, ema, optim, found {', '.join(sorted(tensors))}",
                "use --overwrite or another --out",
            )
        held = {name.split(".")[0] for name in tensors["model"]} if imported else set(self.plain)
        networks = {name: network for name, network in self.plain.items() if name in held}
        live = {"model": named_tensors(networks), "ema": named_tensors({"generator": self.average})}
        load_into(_joined(live), _joined({part: tensors[part] for part in live}))
        if imported:
            return
        for name, optimizer in self.optimizers.items():
            own = {k.split("/", 1)[1]: v for k, v in tensors["optim"].items() if k.startswith(f"{name}/")}
            restore_optimizer(optimizer, own, state["param_groups"][name])


def _joined(parts: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{part}: {name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def _parameters(networks: list[nn.Module]) -> list[nn.Parameter]:
    return [parameter for network in networks for parameter in network.parameters()]

"""What a benchmark of training runs: our step and the official one, on a batch that stays."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor

from benchmarks.official_iteration import OfficialIteration
from finegan_aug.config import FineGANConfig
from finegan_aug.data.stream import RealBatch
from finegan_aug.ema import ema_decay, update_ema
from finegan_aug.interop import official_views
from finegan_aug.losses import gradient_norm
from finegan_aug.models.game import FineGAN
from finegan_aug.patches import patch_geometry
from finegan_aug.training_state import TrainingState

Losses = dict[str, float]


class Ours:
    """The step of `update.plain_update` and of the average, on one batch that stays."""

    def __init__(self, config: FineGANConfig, batch: Batch) -> None:
        self.config, self.batch = config, batch
        self.accelerator = Accelerator(cpu=True)
        self.state = TrainingState(self.accelerator, config)
        self.seen = 0

    def step(self) -> Losses:
        config, game, batch = self.config, self.state.game, self.batch
        half = config.precision == "bf16"
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            fake = game.forward(batch.z, batch.child, range(len(batch.z)))
            d_terms = game.discriminator_losses(batch.real(), fake)
        torch.stack(list(d_terms.values())).sum().backward()
        gradient_norm(self.state.optimizers["d"])
        self.state.optimizers["d"].step()
        self.state.optimizers["d"].zero_grad(set_to_none=True)
        with game.frozen_discriminators():
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                g_terms = game.generator_losses(fake)
            torch.stack(list(g_terms.values())).sum().backward()
        gradient_norm(self.state.optimizers["g"])
        self.state.optimizers["g"].step()
        self.state.optimizers["g"].zero_grad(set_to_none=True)
        self.seen += len(batch.z)
        decay = ema_decay(len(batch.z), self.seen, config.ema_halflife_kimg * 1000, config.ema_ramp)
        update_ema(self.state.average, self.state.plain["generator"], decay)
        background = sum(value.item() for name, value in d_terms.items() if name.startswith("background"))
        child = sum(value.item() for name, value in d_terms.items() if name.startswith("child"))
        return {
            "background_d": background,
            "child_d": child,
            "generator": sum(value.item() for value in g_terms.values()),
        }


class Official:
    """The official iteration, from the weights that ours begins with."""

    def __init__(self, config: FineGANConfig, batch: Batch) -> None:
        self.batch, self.iteration = batch, OfficialIteration(config)
        views = official_views(FineGAN(config)).values()
        for network, view in zip(self.iteration.networks(), views, strict=True):
            network.load_state_dict({name: tensor.clone() for name, tensor in view.items()})
        self.iteration.begin()

    def step(self) -> Losses:
        batch = self.batch
        return self.iteration.step(batch.frames, batch.objects, batch.boxes, batch.z, batch.child)


class Batch:
    """Images as a photograph's crops would be, in smooth random colours; boxes around the middle; noise and codes."""

    def __init__(self, config: FineGANConfig, size: int) -> None:
        draw = torch.Generator().manual_seed(0)
        self.geometry = patch_geometry(config.resolution)
        frame_px = self.geometry.input_px
        self.objects = _smooth(size, config.resolution, draw)
        self.frames = _smooth(size, frame_px, draw)
        corners = torch.rand(size, 4, generator=draw) * 0.15 * frame_px
        self.boxes = torch.tensor([0.4, 0.4, 0.45, 0.45]) * frame_px + corners
        self.labels = torch.arange(size) % (config.num_classes or 1)
        self.z = torch.randn(size, config.z_dim, generator=draw)
        self.child = torch.randint(config.num_children or 1, (size,), generator=draw)

    def real(self) -> RealBatch:
        outside = self.geometry.outside_boxes(self.boxes)
        return RealBatch(self.objects, self.frames, outside, self.labels, torch.rand(len(self.labels), 7))


def _smooth(count: int, side_px: int, draw: torch.Generator) -> Tensor:
    small = torch.rand(count, 3, 8, 8, generator=draw) * 2 - 1
    return torch.nn.functional.interpolate(small, side_px, mode="bicubic").clamp(-1, 1)

"""Our training step against the official one: time, memory, and the same losses.

    python -m benchmarks.training_step                               classic, 128 px, batch 8, and the official one
    python -m benchmarks.training_step --preset slim-64 --batch 32   a slim preset: share of the machine's peak
    python -m benchmarks.training_step --profile                     where our time goes, by operator

Both iterations take the same weights, batch, noise and codes and run in turns. Times are ratios of medians of one run.
Memory is what a fresh process needs above torch itself, networks and optimisers included. The machine's peak is that of
a float32 matrix product of 2,048 x 2,048 with the same threads, measured between the steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.official_iteration import OfficialIteration
from finegan_aug.config import FineGANConfig
from finegan_aug.data.stream import RealBatch
from finegan_aug.ema import ema_decay, update_ema
from finegan_aug.interop import official_views
from finegan_aug.losses import gradient_norm
from finegan_aug.patches import patch_geometry
from finegan_aug.training_state import TrainingState

Losses = dict[str, float]


class Ours:
    """The step of `training._loop`, on one batch that stays."""

    def __init__(self, config: FineGANConfig, batch: Batch) -> None:
        from accelerate import Accelerator

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
    """The official iteration on the same batch, from the same weights."""

    def __init__(self, config: FineGANConfig, batch: Batch) -> None:
        self.batch, self.iteration = batch, OfficialIteration(config)

    def take_weights(self, ours: Ours) -> None:
        for network, view in zip(self.iteration.networks(), official_views(ours.state.game).values(), strict=True):
            network.load_state_dict({name: tensor.clone() for name, tensor in view.items()})

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


def main() -> None:
    """Measure and print one table; `--json` also writes it."""
    options = _options()
    torch.set_num_threads(options.threads)
    config = _config(options)
    batch = Batch(config, options.batch)
    if options.memory:
        print(json.dumps(_memory(options.memory, config, batch)))
        return
    ours = Ours(config, batch)
    if options.profile:
        _profile(ours.step)
        return
    result: dict[str, object] = {"preset": options.preset, "batch": options.batch, "threads": options.threads}
    result |= {"precision": config.precision, "rounds": options.rounds}
    contenders: dict[str, Callable[[], Losses]] = {"ours": ours.step}
    if options.preset == "classic":
        official = Official(config, batch)
        official.take_weights(ours)
        official.iteration.begin()
        contenders["official"] = official.step
    losses = {name: step() for name, step in contenders.items()}
    if "official" in losses:
        result["losses"] = losses
        result["largest_difference"] = max(
            abs(losses["ours"][name] - value) / abs(value) for name, value in losses["official"].items()
        )
    times: dict[str, list[float]] = {name: [] for name in contenders}
    peak_flops = []
    for _ in range(options.rounds):
        for name, step in contenders.items():
            times[name].append(_sec(step))
        peak_flops.append(2 * 2048**3 / _sec(_product()))
    with FlopCounterMode(display=False) as counter:
        ours.step()
    flops = counter.get_total_flops()
    middle = {name: statistics.median(found) for name, found in times.items()}
    result["gmac_a_step"] = flops / 2e9
    result["share_of_float32_peak"] = flops / middle["ours"] / statistics.median(peak_flops)
    if "official" in contenders:
        ratios = sorted(b / a for a, b in zip(times["ours"], times["official"], strict=True))
        result["times_faster"] = middle["official"] / middle["ours"]
        result["spread_of_rounds"] = [ratios[0], ratios[-1]]
        result["memory_share"] = _child_memory("ours", options) / _child_memory("official", options)
    for name, value in result.items():
        print(f"{name:<24}{value}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="classic")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--memory", choices=("ours", "official"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _config(options: argparse.Namespace) -> FineGANConfig:
    config = FineGANConfig.preset(options.preset, width=options.width, precision=options.precision)
    config = config.resolve(100)
    return replace(config, ndf=max(4, round(config.ndf * options.width)))


def _memory(which: str, config: FineGANConfig, batch: Batch) -> float:
    """MiB at the worst moment of three steps, above what the process held before (Linux)."""
    before = _status_kib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    if which == "ours":
        step = Ours(config, batch).step
    else:
        official = Official(config, batch)
        official.iteration.begin()
        step = official.step
    for _ in range(3):
        step()
    return (_status_kib("VmHWM") - before) / 1024


def _status_kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def _child_memory(which: str, options: argparse.Namespace) -> float:
    line = [sys.executable, "-m", "benchmarks.training_step", "--memory", which, "--preset", options.preset]
    line += ["--batch", str(options.batch), "--width", str(options.width), "--precision", options.precision]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def _profile(step: Callable[[], Losses]) -> None:
    from torch.profiler import ProfilerActivity, profile

    step()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=45))


def _sec(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _product() -> Callable[[], Tensor]:
    a = torch.randn(2048, 2048)
    return lambda: a @ a


def _smooth(count: int, side_px: int, draw: torch.Generator) -> Tensor:
    small = torch.rand(count, 3, 8, 8, generator=draw) * 2 - 1
    return torch.nn.functional.interpolate(small, side_px, mode="bicubic").clamp(-1, 1)


if __name__ == "__main__":
    main()

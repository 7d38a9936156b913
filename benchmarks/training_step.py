"""Our training step against the official one: time, memory, and the same losses.

    python -m benchmarks.training_step                                  classic, 128 px, batch 8, and the official one
    python -m benchmarks.training_step --preset slim-128 --batch 16     images a second against the official one
    python -m benchmarks.training_step --preset slim-64 --batch 32      a slim preset: share of the machine's peak
    python -m benchmarks.training_step --profile                        where our time goes, by operator

Each contender has a process of its own, ours with the settings that our launcher makes, the official one with torch's
defaults; they take their steps in turns, from the same weights, batch, noise and codes. Times are ratios of medians of
one run. Memory is what a fresh process needs above torch itself, networks and optimisers included. The machine's peak
is that of a float32 matrix product of 2,048 x 2,048 with the same threads, measured between the steps.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contenders import Batch, Losses, Official, Ours
from finegan_aug.config import FineGANConfig
from finegan_aug.environment import prepare_environment

OFFICIAL_BATCH, OFFICIAL_PX = 8, 128


class Contender:
    """A process that takes one step whenever it is told to."""

    def __init__(self, name: str, line: list[str]) -> None:
        command = [sys.executable, "-m", "benchmarks.training_step", *line, "--serve", name]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.first: dict[str, Any] = self._read()

    def ask(self, what: str) -> float:
        """Seconds of a "step" or of a matrix "product"."""
        assert self.process.stdin is not None
        print(what, file=self.process.stdin, flush=True)
        return float(self._read())

    def _read(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


def main() -> None:
    """Measure and print one table; `--json` also writes it."""
    options = _options()
    torch.set_num_threads(options.threads)
    if options.serve or options.memory or options.profile:
        if (options.serve or options.memory) != "official":
            prepare_environment()  # read at the first large tensor, so it still counts
        step = _make(options, options.serve or options.memory or "ours")
        if options.serve:
            _serve(step, count=options.serve == "ours")
        elif options.memory:
            print(json.dumps(_memory(step)))
        else:
            _profile(step)
        return
    result = _compare(options, _line(options))
    for name, value in result.items():
        print(f"{name:<24}{value}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _compare(options: argparse.Namespace, line: list[str]) -> dict[str, object]:
    config = _config(options)
    result: dict[str, object] = {"preset": options.preset, "batch": options.batch, "threads": options.threads}
    result |= {"precision": config.precision, "rounds": options.rounds}
    names = ["ours", "official"] if config.resolution == OFFICIAL_PX else ["ours"]
    contenders = {name: Contender(name, line) for name in names}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    products = []
    for _ in range(options.rounds):
        for name, contender in contenders.items():
            times[name].append(contender.ask("step"))
        products.append(contenders["ours"].ask("product"))
    peak_flops = 2 * 2048**3 / statistics.median(products)
    flops = contenders["ours"].first["flops"]
    result["gmac_a_step"] = flops / 2e9
    result["share_of_float32_peak"] = flops / statistics.median(times["ours"]) / peak_flops
    for contender in contenders.values():
        contender.process.terminate()
    if "official" in contenders:
        more = options.batch / OFFICIAL_BATCH  # images a step
        ratios = sorted(more * b / a for a, b in zip(times["ours"], times["official"], strict=True))
        result["images_a_sec_ratio"] = more * statistics.median(times["official"]) / statistics.median(times["ours"])
        result["spread_of_rounds"] = [ratios[0], ratios[-1]]
        result["memory_share"] = _child_memory("ours", line) / _child_memory("official", line)
    if options.preset == "classic":
        losses = {name: contender.first["losses"] for name, contender in contenders.items()}
        result["losses"] = losses
        result["largest_difference"] = max(
            abs(losses["ours"][name] - value) / abs(value) for name, value in losses["official"].items()
        )
    return result


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="classic")
    parser.add_argument("--batch", type=int, default=OFFICIAL_BATCH)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--serve", choices=("ours", "official"), help=argparse.SUPPRESS)
    parser.add_argument("--memory", choices=("ours", "official"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _line(options: argparse.Namespace) -> list[str]:
    names = ("preset", "batch", "width", "precision", "threads")
    return [token for name in names for token in (f"--{name}", str(getattr(options, name)))]


def _config(options: argparse.Namespace, preset: str | None = None) -> FineGANConfig:
    config = FineGANConfig.preset(preset or options.preset, width=options.width, precision=options.precision)
    config = config.resolve(100)
    return replace(config, ndf=max(4, round(config.ndf * options.width)))


def _make(options: argparse.Namespace, name: str) -> Callable[[], Losses]:
    """The step of a contender."""
    if name == "official":
        config = _config(options, "classic")
        return Official(config, Batch(config, OFFICIAL_BATCH)).step
    config = _config(options)
    return Ours(config, Batch(config, options.batch)).step


def _serve(step: Callable[[], Losses], *, count: bool) -> None:
    """First the losses of a step, then the seconds of what each line of input asks for; `count` the operations."""
    answers = sys.stdout
    sys.stdout = sys.stderr
    first: dict[str, Any] = {"losses": step()}
    if count:
        with FlopCounterMode(display=False) as counter:
            step()
        first["flops"] = counter.get_total_flops()
    print(json.dumps(first), file=answers, flush=True)
    a = torch.randn(2048, 2048)
    for asked in sys.stdin:
        call: Callable[[], object] = step if asked.strip() == "step" else lambda: a @ a
        start = time.perf_counter()
        call()
        print(json.dumps(time.perf_counter() - start), file=answers, flush=True)


def _memory(step: Callable[[], Losses]) -> float:
    """MiB at the worst moment of three steps, above what an importing process holds (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    for _ in range(3):
        step()
    return _status_kib("VmHWM") / 1024 - float(os.environ["IMPORTED_MIB"])


def _status_kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def _child_memory(which: str, line: list[str]) -> float:
    command = [sys.executable, "-m", "benchmarks.training_step", *line, "--memory", which]
    environment = {**os.environ, "IMPORTED_MIB": str(_status_kib("VmRSS") / 1024)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout.splitlines()[-1])


def _profile(step: Callable[[], Losses]) -> None:
    from torch.profiler import ProfilerActivity, profile

    step()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=45))


if __name__ == "__main__":
    main()

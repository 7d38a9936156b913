"""A training step on 8, 64 and 512 GPUs, on paper: counts of this code, published figures of the hardware.

    python -m benchmarks.cluster_arithmetic

Nothing is timed. Counted here are the bytes whose gradients are reduced (`tests/test_launch.py` holds the training to
them), the all-reduces that DDP makes of them, the multiply-adds and the operators of a step. What is published stands
below with its source, what is assumed is called so. The answer is where a larger machine would stop helping.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contenders import Batch, Ours
from finegan_aug.config import FineGANConfig

# Published. NVIDIA H100 SXM data sheet: bf16 without sparsity; NVLink 4 carries 900 GB/s, half of it each way.
PEAK_FLOPS = 989e12
NVLINK_BYTES_A_SEC = 450e9
# NVIDIA DGX H100 data sheet: eight GPUs a node, each with its own 400 Gb/s port. A ring leaves a node once, and NCCL
# lays one through each port, so that the eight ports of a node carry one all-reduce together.
GPUS_A_NODE = 8
NODE_BYTES_A_SEC = GPUS_A_NODE * 400e9 / 8
# NVIDIA NCCL src/graph/tuning.cc (2.30), microseconds: (start, a hop inside a node, a hop between nodes).
RING_USEC = (8.4, 3.4, 14.0)  # protocol Simple
TREE_USEC = (14.0, 1.25, 8.5)  # protocol LL128
# torch.nn.parallel.DistributedDataParallel: gradients travel in buckets, a small one first.
BUCKETS_BYTES = (2**20, 25 * 2**20)

# Assumed: convolutions of this size reach a third of the peak, links four fifths of what is published, and one operator
# costs the processor 5 us, forward or backward.
PEAK_SHARE, LINK_SHARE, OPERATOR_SEC = 0.33, 0.8, 5e-6


@dataclass(frozen=True)
class StepCounts:
    """What one training step of a preset needs, counted on this machine."""

    preset: str
    images: int  # batch of the preset
    d_bytes: int  # float32 gradients reduced in the discriminators' half
    g_bytes: int  # and in the generator's
    reductions: tuple[int, ...]  # bytes of each all-reduce of both halves
    flops_an_image: float
    operators: int  # dispatched, views not counted


class OperatorCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators that compute something: each is at least one kernel on a GPU."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        views = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        self.count += not views
        return func(*args, **(kwargs or {}))


def counted(preset: str, classes: int) -> StepCounts:
    """Builds the networks, makes one step of two images and counts."""
    config = FineGANConfig.preset(preset, precision="fp32").resolve(classes)
    ours = Ours(config, Batch(config, 2))
    ours.step()  # optimisers make their state in the first
    with FlopCounterMode(display=False) as flops, OperatorCount() as operators:
        ours.step()
    game = ours.state.game
    d_networks, g_networks = game.discriminator_networks(), game.generator_networks()
    reductions = [size for network in (*d_networks, *g_networks) for size in bucket_bytes(network)]
    d_bytes, g_bytes = (sum(sum(bucket_bytes(network)) for network in part) for part in (d_networks, g_networks))
    an_image = flops.get_total_flops() / 2
    return StepCounts(preset, config.batch_size, d_bytes, g_bytes, tuple(reductions), an_image, operators.count)


def bucket_bytes(network: nn.Module) -> list[int]:
    """Bytes of each all-reduce of a network's gradients: a bucket closes as soon as it is full."""
    found, limit = [0], BUCKETS_BYTES[0]
    for parameter in reversed([p for p in network.parameters() if p.requires_grad]):
        if found[-1] >= limit:
            found.append(0)
            limit = BUCKETS_BYTES[1]
        found[-1] += parameter.nbytes
    return found


def all_reduce_sec(size_bytes: int, gpus: int) -> float:
    """Time of one all-reduce as NCCL itself estimates it, the better of ring and tree; nothing overlaps.

    Each GPU sends and receives 2 (n - 1) / n times the bytes; a ring makes 2 (n - 1) hops, a tree 2 log2 of the nodes.
    """
    nodes = max(1, gpus // GPUS_A_NODE)
    link = LINK_SHARE * (NVLINK_BYTES_A_SEC if nodes == 1 else min(NVLINK_BYTES_A_SEC, NODE_BYTES_A_SEC))
    volume_sec = 2 * (gpus - 1) / gpus * size_bytes / link
    start, inside, between = RING_USEC
    ring_usec = start + 2 * (gpus - nodes) * inside + (2 * (nodes - 1) * between if nodes > 1 else 0)
    start, inside, between = TREE_USEC
    tree_usec = start + 2 * ((gpus // nodes - 1) * inside + math.log2(nodes) * between)
    return volume_sec + min(ring_usec, tree_usec) / 1e6


def step_row(counts: StepCounts, gpus: int, images: int) -> str:
    """One line: milliseconds of a step on `gpus` GPUs with so many images each."""
    arithmetic_ms = 1e3 * images * counts.flops_an_image / (PEAK_SHARE * PEAK_FLOPS)
    operators_ms = 1e3 * counts.operators * OPERATOR_SEC
    reduce_ms = 1e3 * sum(all_reduce_sec(size, gpus) for size in counts.reductions)
    hidden, exposed = max(arithmetic_ms, operators_ms, reduce_ms), max(arithmetic_ms, operators_ms) + reduce_ms
    cells = [counts.preset, f"{gpus}", f"{images}", f"{gpus * images:,}", f"{arithmetic_ms:.2f}"]
    cells += [f"{operators_ms:.1f}", f"{reduce_ms:.2f}", f"{hidden:.1f} to {exposed:.1f}"]
    return _line(cells)


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["classic", "slim-64", "slim-128"])
    parser.add_argument("--classes", type=int, default=200, help="as many as in CUB")
    options = parser.parse_args()
    torch.set_num_threads(1)
    every = [counted(preset, options.classes) for preset in options.presets]
    print(_line(["preset", "MB reduced, D", "G", "all-reduces", "GMAC an image", "operators a step"]))
    for found in every:
        cells = [found.preset, f"{found.d_bytes / 1e6:.1f}", f"{found.g_bytes / 1e6:.1f}", f"{len(found.reductions)}"]
        print(_line([*cells, f"{found.flops_an_image / 2e9:.2f}", f"{found.operators:,}"]))
    print()
    print(
        _line(["preset", "GPUs", "images each", "batch", "arithmetic ms", "operators ms", "all-reduce ms", "step ms"])
    )
    for found in every:
        print(step_row(found, GPUS_A_NODE, max(2, found.images // GPUS_A_NODE)))
        for gpus in (8, 64, 512):
            print(step_row(found, gpus, found.images))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()

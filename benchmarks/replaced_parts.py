"""Each part of the official iteration beside the one that takes its place, alone, at the sizes of preset classic.

    python -m benchmarks.replaced_parts --rounds 5 --json parts.json

Row numbers are those of the table in docs/performance.md. Both sides run in turns in one process, forward and backward
where there is a backward; the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.official_iteration import average_one_by_one, planes_of_parents, weights_outside
from benchmarks.official_networks import Initial, Next, OfficialObjectDiscriminator, enlarge, same
from finegan_aug.config import FineGANConfig
from finegan_aug.ema import update_ema
from finegan_aug.models.blocks import CodeTrunk, JointBlock, UpBlock
from finegan_aug.models.finegan import ChildDiscriminator, Generator, InformationHead
from finegan_aug.patches import patch_geometry

Part = tuple[str, Callable[[], object], Callable[[], object]]


def main() -> None:
    """Print one line for each part; `--json` also writes them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = FineGANConfig.preset("classic").resolve(100)
    rows = []
    for make in (_generator_parts, _discriminator_parts, _bookkeeping_parts):
        for name, official, ours in make(config, options.batch):
            row = {"part": name, **_compare(official, ours, options.rounds)}
            rows.append(row)
            print(f"{name:<58}{row['official_ms']:9.1f}{row['ours_ms']:9.1f} ms{row['times_faster']:8.2f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _compare(official: Callable[[], object], ours: Callable[[], object], rounds: int) -> dict[str, float]:
    seconds: tuple[list[float], list[float]] = ([], [])
    for call in (official, ours):
        call()
    for _ in range(rounds):
        for call, found in zip((official, ours), seconds, strict=True):
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
    before, after = (1000 * statistics.median(found) for found in seconds)
    return {"official_ms": before, "ours_ms": after, "times_faster": before / after}


def _generator_parts(config: FineGANConfig, batch: int) -> list[Part]:
    children, z_dim = config.num_children or 0, config.z_dim
    code = torch.arange(batch)
    planes = F.one_hot(code, children).float()
    z = torch.randn(batch, z_dim)
    parts: list[Part] = []

    narrow = torch.randn(batch, 32, 128, 128)
    wide_planes = planes[:, :, None, None]
    plain, joint = same(children + 32, 32), _ours(JointBlock(children, 32, 32))
    parts.append(
        (
            "2 child joint block: one-hot planes, or a lookup",
            _backward(lambda x: plain(torch.cat((wide_planes.expand(-1, -1, 128, 128), x), 1)), narrow),
            _backward(lambda x: joint(x, code), _last(narrow)),
        )
    )
    first, ours_first = Initial(children, z_dim, 64).fc, CodeTrunk(children, z_dim, (1024,))
    parts.append(
        (
            "3 first linear layer, norm and gate (both one-hot)",
            _backward(lambda x: first(torch.cat((planes, x), 1)), z),
            _backward(lambda x: ours_first(x, code), z),
        )
    )
    for into, out, side_px in ((1024, 512, 4), (512, 256, 8), (128, 64, 32), (64, 64, 64)):
        x = torch.randn(batch, into, side_px, side_px)
        before, after = enlarge(into, out), _ours(UpBlock(into, out))
        name = f"4 up block {into} to {out} channels from {side_px} px"
        parts.append((name, _backward(before, x), _backward(after, _last(x))))
    whole, trunk = Initial(children, z_dim, 64), _ours(CodeTrunk(children, z_dim, (1024, 512, 256, 128, 64, 64)))
    parts.append(
        (
            "3, 4 code to features at 128 px",
            _backward(lambda x: whole(x, planes), z),
            _backward(lambda x: trunk(x, code), z),
        )
    )
    before_stage = Next(32, children)
    stage = _ours(Generator(config).child)
    parts.append(
        (
            "2 whole child stage (ours with its pictures)",
            _backward(lambda x: before_stage(x, planes), narrow),
            _backward(lambda x: torch.cat(stage(x, code)[1:], 1), _last(narrow)),
        )
    )
    return parts


def _discriminator_parts(config: FineGANConfig, batch: int) -> list[Part]:
    images = torch.randn(batch, 3, 128, 128)
    classes = torch.full((batch,), -1)
    official = OfficialObjectDiscriminator(config.ndf, config.num_children or 0)
    ours, head = _ours(ChildDiscriminator(config)), _ours(InformationHead(8 * config.ndf, 200, "batch"))
    frozen = copy.deepcopy(ours).requires_grad_(False)
    channels_last = _last(images)
    return [
        ("1 a pass of the parent discriminator, or none", _backward(lambda x: official(x)[0], images), lambda: None),
        (
            "5 generator's pass: weight gradients, or none",
            _backward(lambda x: ours(x, classes)[1], channels_last),
            _backward(lambda x: frozen(x, classes)[1], channels_last),
        ),
        (
            "7 real or fake with the code head, or without",
            lambda: (lambda found: (head(found[0]), found[1]))(ours(channels_last, classes)),
            lambda: ours(channels_last, classes),
        ),
    ]


def _bookkeeping_parts(config: FineGANConfig, batch: int) -> list[Part]:
    geometry, boxes = patch_geometry(128), torch.tensor([[40.0, 40.0, 90.0, 95.0]]).repeat(batch, 1)
    to_parent = torch.tensor(config.child_to_parent)
    child = torch.arange(batch)
    planes = F.one_hot(child, config.num_children or 0)

    generator = Generator(config)
    average = copy.deepcopy(generator)
    weights = list(generator.parameters())
    means = [p.detach().clone() for p in weights]

    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    plain, fused = torch.optim.Adam(weights, 1e-9), torch.optim.Adam(weights, 1e-9, fused=True)
    return [
        (
            "8 box masks: a loop, or a closed form",
            lambda: weights_outside(boxes),
            lambda: geometry.outside_boxes(boxes),
        ),
        (
            "9, 10 parents: a loop over one-hot codes, or an index",
            lambda: planes_of_parents(planes, config.num_parents or 0),
            lambda: to_parent[child],
        ),
        (
            "11 average of the generator (ours with buffers)",
            lambda: average_one_by_one(means, weights),
            lambda: update_ema(average, generator, 0.999),
        ),
        ("15 Adam over the generator: torch's default, or fused", plain.step, fused.step),
    ]


def _backward(call: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    """Forward and backward pass, to the weights and to x."""

    def both() -> None:
        leaf = x.detach().requires_grad_()
        call(leaf * 1).sum().backward()  # type: ignore[no-untyped-call]

    return both


def _ours(network: nn.Module) -> nn.Module:
    return network.to(memory_format=torch.channels_last).train()


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


if __name__ == "__main__":
    main()

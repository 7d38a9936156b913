"""torch.compile gives what the plain networks give: all of them traced, one as machine code."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
import torch
from tiny_runs import rows, tiny_config

from finegan_aug.data.manifest import Manifest
from finegan_aug.models.game import FineGAN
from finegan_aug.training import train

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("values", [{}, {"labels": "discovered", "num_children": 16, "d_norm": "batch"}], ids=str)
def test_a_compiled_run_logs_what_a_plain_one_logs(
    toy_data: Manifest, tmp_path: Path, values: dict[str, object]
) -> None:
    """`aot_eager` traces forward and backward passes as `inductor` does, and leaves the numbers to eager operators."""
    short = {"total_kimg": 0.024, **values}
    plain = rows(train(tiny_config(**short), toy_data, tmp_path / "plain"))
    compiled = rows(train(tiny_config(compile_backend="aot_eager", **short), toy_data, tmp_path / "compiled"))
    assert len(plain) == len(compiled) == 3
    for one, other in zip(plain, compiled, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)


def test_a_compiled_run_resumes_without_the_compiler(toy_data: Manifest, tmp_path: Path) -> None:
    run = train(tiny_config(compile_backend="aot_eager", total_kimg=0.016), toy_data, tmp_path / "run")
    train(tiny_config(total_kimg=0.024), toy_data, run)
    assert [row["step"] for row in rows(run)] == [1, 2, 3]


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor_gives_the_output_and_gradients_of_the_plain_network() -> None:
    network = FineGAN(tiny_config().resolve(12)).generator.child.joint.double()
    compiled = copy.deepcopy(network)
    compiled.compile(backend="inductor")
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(4, network.conv.in_channels - network.num_codes, 16, 16, generator=draw, dtype=torch.float64)
    gradients = []
    for module in (network, compiled):
        x = (features.contiguous(memory_format=torch.channels_last) * 1).requires_grad_()
        out = module(x * 1, torch.tensor([0, 3, 5, 11]))
        out.square().sum().backward()
        gradients.append([out, x.grad, *(p.grad for p in module.parameters())])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)

"""Modules and optimizers to named tensors and back, all or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import torch
from torch import Tensor, nn

from finegan_aug.checkpoint import Tensors
from finegan_aug.errors import CheckpointError
from finegan_aug.files import JSON


def named_tensors(modules: Mapping[str, nn.Module]) -> Tensors:
    """Live parameters and buffers of several modules, names prefixed: {"G": net} gives "G.conv.weight", ..."""
    return {f"{prefix}.{name}": t for prefix, module in modules.items() for name, t in module.state_dict().items()}


def load_into(target: nn.Module | Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into a module, or into live tensors by name, all or nothing.

    Raises:
        CheckpointError: a name, shape or dtype differs; lists what, and `target` is as it was.
    """
    live = target.state_dict() if isinstance(target, nn.Module) else target
    if difference := _difference(live, tensors):
        _refuse(difference)
    with torch.no_grad():
        for name, tensor in live.items():
            tensor.copy_(tensors[name])


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[Tensors, list[JSON]]:
    """State of Adam or AdamW as tensors named "<index>/exp_avg", ... and its parameter groups as JSON."""
    content = optimizer.state_dict()
    tensors = {f"{i}/{name}": t for i, entry in content["state"].items() for name, t in entry.items()}
    groups = [{k: list(v) if isinstance(v, tuple) else v for k, v in g.items()} for g in content["param_groups"]]
    return tensors, groups


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], groups: list[JSON]) -> None:
    """Give Adam or AdamW the state of `flatten_optimizer`, bit for bit.

    Raises:
        CheckpointError: other groups, parameters or shapes; the optimizer is as it was.
    """
    live = optimizer.state_dict()["param_groups"]
    indices = [[g["params"] for g in content] for content in (live, groups)]
    if indices[0] != indices[1] or any(a.keys() != b.keys() for a, b in zip(live, groups, strict=True)):
        _refuse([f"optimizer groups of {_counts(groups)} parameters -> {_counts(live)}"])
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    expected: Tensors = {}
    for index in {int(name.split("/")[0]) for name in tensors}:
        if index >= len(parameters):
            _refuse([f"optimizer state of parameter {index}: not here"])
        moments = ["exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * any(
            index in g["params"] and g["amsgrad"] for g in live
        )
        expected |= {f"{index}/{name}": parameters[index] for name in moments} | {f"{index}/step": torch.zeros(())}
    if difference := _difference(expected, tensors):
        _refuse([f"optimizer {line}" for line in difference])
    state: dict[int, Tensors] = {}
    for name, tensor in tensors.items():
        i, key = name.split("/")
        # The layout of the parameter, as if the optimizer had made it (channels_last in particular).
        own = tensor.clone() if key == "step" else torch.empty_like(parameters[int(i)]).copy_(tensor)
        state.setdefault(int(i), {})[key] = own.detach()
    restored = [
        {k: tuple(v) if isinstance(old[k], tuple) else v for k, v in new.items()}
        for old, new in zip(live, groups, strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": restored})


def _difference(live: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> list[str]:
    def kind(tensor: Tensor) -> str:
        return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"

    lines = [f"{name}: {kind(live[name])} needed, missing" for name in live.keys() - saved.keys()]
    lines += [f"{name}: {kind(saved[name])} found, unknown" for name in saved.keys() - live.keys()]
    lines += [
        f"{name}: {kind(live[name])} needed, {kind(saved[name])} found"
        for name in live.keys() & saved.keys()
        if kind(live[name]) != kind(saved[name])
    ]
    return sorted(lines)


def _counts(groups: list[JSON]) -> str:
    return " + ".join(str(len(group["params"])) for group in groups)


def _refuse(difference: list[str]) -> NoReturn:
    shown = "; ".join(difference[:8]) + (f"; and {len(difference) - 8} more" if len(difference) > 8 else "")
    raise CheckpointError(
        f"{len(difference)} tensors of the checkpoint do not fit: {shown}",
        "use the configuration that wrote it, or --overwrite or another --out",
    )

"""Loss terms between two lines of metrics.jsonl."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from finegan_aug.errors import NonFiniteError
from finegan_aug.files import JSON
from finegan_aug.models.game import Terms


class TermSums:
    """Sums of loss terms on the device between two log lines, so that no step waits for a number.

    Args:
        alike: every process adds the same terms, those of the whole batch; otherwise each its own part's.
    """

    def __init__(self, *, alike: bool = False) -> None:
        self.alike = alike
        self.names: list[str] = []
        self.total: Tensor | None = None
        self.count = 0

    def add(self, terms: Terms) -> None:
        """Adds one step's terms; the names never change during a run."""
        values = torch.stack([term.detach().float() for term in terms.values()])
        self.names = list(terms)
        self.total = values if self.total is None else self.total + values
        self.count += 1

    def mean(self, accelerator: Accelerator, seen_images: int, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """Mean of each term over steps and processes since the last call.

        Args:
            networks: where to look for what became not a number first.

        Raises:
            NonFiniteError: on all processes alike, naming the first term that is not a number, and the first tensor.
        """
        assert self.total is not None
        own = self.total / self.count
        means = (own if self.alike else accelerator.reduce(own, reduction="mean")).tolist()
        self.total, self.count = None, 0
        return self._finite(means, seen_images, networks)

    def pending(self, accelerator: Accelerator, seen_images: int, networks: Mapping[str, nn.Module]) -> JSON | None:
        """What no line has yet, the sums of every process, once where they are alike; None where there is nothing.

        Raises:
            NonFiniteError: as of `mean`.
        """
        if self.total is None:
            return None
        totals = (self.total[None] if self.alike else accelerator.gather(self.total[None])).tolist()
        for total in totals:
            self._finite(total, seen_images, networks)
        return {"names": self.names, "count": self.count, "totals": totals}

    def restore(self, pending: JSON | None, accelerator: Accelerator) -> None:
        """Takes over what `pending` gave; another number of processes goes on with the mean over those before."""
        if pending is None:
            return
        totals = torch.tensor(pending["totals"], device=accelerator.device)
        same = len(totals) == accelerator.num_processes
        self.total = totals[accelerator.process_index] if same else totals.mean(dim=0)
        self.names, self.count = pending["names"], pending["count"]

    def _finite(self, values: list[float], seen_images: int, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        for name, value in zip(self.names, values, strict=True):
            if not math.isfinite(value):
                tensor = first_non_finite(networks)
                raise NonFiniteError(
                    f"loss terms must be finite, found {name} = {value} before image {seen_images}"
                    + (f" and {tensor}" if tensor else ""),
                    "lower --lr, or go on with other noise by --on-nonfinite rollback; the last checkpoint is kept",
                )
        return dict(zip(self.names, values, strict=True))


def first_non_finite(networks: Mapping[str, nn.Module]) -> str | None:
    """The first weight or buffer that holds a NaN or infinity, as "NaN or infinity in generator.child.mask.weight"."""
    for name, network in networks.items():
        for key, tensor in network.state_dict().items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                return f"NaN or infinity in {name}.{key}"
    return None

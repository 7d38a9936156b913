"""Child, parent and background codes: maps between them, the order in which they are dealt, and their audit.

Codes are int64 indices everywhere; a map is an int64 tensor, never arithmetic at the place of use.
FineGAN (Singh et al., CVPR 2019): one parent (shape) owns several children (appearances).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from finegan_aug.errors import DataError
from finegan_aug.files import JSON
from finegan_aug.randomness import permutation, seed_for, uniforms


def child_to_class(num_classes: int, modes_per_class: int) -> Tensor:
    """Mode `tied`: code = class M + mode, so the class of code c is c // M; int64 [num_classes M]."""
    return torch.arange(num_classes).repeat_interleave(modes_per_class)


def deal_codes(seed: int, draw_start: int, count: int, num_children: int) -> Tensor:
    """Codes of draws draw_start ... draw_start + count - 1, int64 [count], every code equally often.

    One endless stream for each seed: all codes shuffled, dealt out, shuffled anew. The draw's number decides its
    code, so batch size, processes and resuming change nothing; a batch of at most `num_children` draws that
    starts at a multiple of it holds no code twice.
    """
    first, last = draw_start // num_children, (draw_start + count - 1) // num_children
    rounds = [permutation(seed_for(seed, "code", r), num_children) for r in range(first, last + 1)]
    start = draw_start - first * num_children
    return torch.from_numpy(np.concatenate(rounds or [np.empty(0, np.int64)])[start : start + count])


def uniform_codes(seed: int, draw_start: int, count: int, num_children: int) -> Tensor:
    """Codes with replacement as in the official code, int64 [count], one for each draw's number."""
    u = uniforms(seed_for(seed, "code-uniform"), np.arange(draw_start, draw_start + count), 1)[:, 0]
    return torch.from_numpy((u * num_children).astype(np.int64))


@dataclass(frozen=True)
class CodeRow:
    """What the labelled training images say about one child code.

    `purity` is the share of the most frequent class among its images, `margin` its lead over the second.
    """

    code: int
    size: int
    first_class: int | None
    second_class: int | None
    purity: float
    margin: float
    agreement: float | None
    kept: bool
    reason: str  # why the audit abstains; empty for a kept code


@dataclass(frozen=True)
class CodeAudit:
    """Which child codes may serve as labels."""

    rows: tuple[CodeRow, ...]
    code_to_class: Tensor  # int64 [num_children], -1 where the audit abstains
    num_classes: int

    @property
    def kept(self) -> int:
        """Number of codes that may serve as a label."""
        return sum(row.kept for row in self.rows)

    @property
    def uncovered_classes(self) -> tuple[int, ...]:
        """Classes that no kept code stands for."""
        covered = set(self.code_to_class.tolist())
        return tuple(y for y in range(self.num_classes) if y not in covered)

    def to_json(self) -> JSON:
        """The audit file: every row, kept and abstained, and the classes left without a code."""
        return {
            "num_classes": self.num_classes,
            "code_to_class": self.code_to_class.tolist(),
            "uncovered_classes": list(self.uncovered_classes),
            "rows": [asdict(row) for row in self.rows],
        }


def audit_codes(
    codes: Tensor,
    labels: Tensor,
    *,
    num_children: int,
    num_classes: int,
    min_size: int = 10,
    min_purity: float = 0.7,
    min_margin: float = 0.3,
    agreement: Tensor | None = None,
) -> CodeAudit:
    """Match child codes to classes by labelled training images, and abstain where the match is not clear.

    Several codes may stand for one class. Every bound is inclusive: a code at the bound is kept.

    Args:
        codes: int64 [n], the code predicted for each labelled training image.
        labels: int64 [n], the true classes; -1 (no label) is left out.
        agreement: float [num_children] in [0, 1], share of the generated images of a code that a classifier trained
            on real images puts in the code's class; must reach `min_purity` too.

    Raises:
        DataError: different lengths, or a code or class out of range.
    """
    _check_pairs(codes, labels, num_children, num_classes)
    codes, labels = codes.cpu()[labels.cpu() >= 0], labels.cpu()[labels.cpu() >= 0]
    table = torch.bincount(codes * num_classes + labels, minlength=num_children * num_classes)
    table = table.view(num_children, num_classes)
    size = table.sum(1)
    # Stable, so that a tie goes to the class that comes first.
    order = table.sort(dim=1, descending=True, stable=True)
    top, second = order.values[:, 0], order.values[:, 1] if num_classes > 1 else torch.zeros_like(size)
    purity = top.double() / size.clamp(min=1)
    margin = (top - second).double() / size.clamp(min=1)
    reasons = [
        (size < min_size, f"fewer than {min_size} images"),
        (purity < min_purity, f"purity below {min_purity:g}"),
        (margin < min_margin, f"margin below {min_margin:g}"),
    ]
    if agreement is not None:  # "not at least", so that NaN abstains too
        reasons.append((~(agreement.cpu() >= min_purity), f"agreement of generated images below {min_purity:g}"))
    fails = torch.stack([failed for failed, _ in reasons]).T.tolist()
    shares = [None] * num_children if agreement is None else agreement.tolist()
    columns = (size, top, second, order.indices[:, 0], order.indices[:, 1 % num_classes], purity, margin)
    rows = tuple(
        CodeRow(
            code=k,
            size=n,
            first_class=y1 if n1 else None,
            second_class=y2 if n2 else None,
            purity=p,
            margin=m,
            agreement=None if share is None or math.isnan(share) else share,
            kept=not any(failed),
            reason=next((text for fail, (_, text) in zip(failed, reasons, strict=True) if fail), ""),
        )
        for k, (share, failed, n, n1, n2, y1, y2, p, m) in enumerate(
            zip(shares, fails, *(column.tolist() for column in columns), strict=True)
        )
    )
    kept = torch.tensor([row.kept for row in rows])
    return CodeAudit(rows, torch.where(kept, order.indices[:, 0], -1), num_classes)


def _check_pairs(codes: Tensor, labels: Tensor, num_children: int, num_classes: int) -> None:
    if codes.shape != labels.shape or codes.dim() != 1:
        raise DataError(
            f"codes and labels must be [n] alike, found {list(codes.shape)} and {list(labels.shape)}",
            "predict one code for each labelled image",
        )
    for name, values, low, high in (("codes", codes, 0, num_children), ("labels", labels, -1, num_classes)):
        if values.dtype != torch.int64 or (len(values) and not low <= int(values.min()) <= int(values.max()) < high):
            ends = f", {int(values.min())} to {int(values.max())}" if len(values) else ""
            found = str(values.dtype).removeprefix("torch.") + ends
            raise DataError(
                f"{name} must be int64 from {low} to {high - 1}, found {found}",
                "use the model and classes that belong together",
            )

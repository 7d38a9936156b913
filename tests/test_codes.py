"""Maps, dealing and audit of codes."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from finegan_aug.codes import (
    CodeAudit,
    audit_codes,
    child_to_class,
    deal_codes,
    uniform_codes,
)
from finegan_aug.errors import DataError

torch.set_num_threads(1)


def test_tied_codes_belong_to_their_class() -> None:
    found = child_to_class(3, 2)
    assert found.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.dtype == torch.int64
    assert child_to_class(4, 1).tolist() == [0, 1, 2, 3]


def test_codes_are_dealt_evenly() -> None:
    for start in (0, 24, 24 * 1000):
        found = deal_codes(3, start, 24, 24)
        assert found.dtype == torch.int64
        assert sorted(found.tolist()) == list(range(24))
    counts = torch.bincount(deal_codes(0, 5, 1003, 10))
    assert counts.max() - counts.min() <= 2
    rounds = deal_codes(0, 0, 240, 24).view(10, 24)
    assert len({tuple(r) for r in rounds.tolist()}) == 10  # shuffled anew each time


def test_the_stream_of_codes_knows_no_batches() -> None:
    for draw in (deal_codes, uniform_codes):
        whole = draw(1, 0, 100, 7)
        for size in (1, 3, 7, 16, 33):
            parts = [draw(1, start, min(size, 100 - start), 7) for start in range(0, 100, size)]
            assert torch.equal(torch.cat(parts), whole)
        assert not torch.equal(whole, draw(2, 0, 100, 7))
        assert draw(1, 5, 0, 7).tolist() == []


def test_uniform_codes_are_uniform_with_replacement() -> None:
    """Chi-square of 9 degrees of freedom; false alarm 1e-4."""
    found = uniform_codes(0, 0, 10_000, 10)
    assert found.dtype == torch.int64
    counts = torch.bincount(found, minlength=10).double()
    assert len(counts) == 10
    assert ((counts - 1000) ** 2 / 1000).sum() < 33.7
    assert len(set(uniform_codes(0, 0, 10, 10).tolist())) < 10


# Rows: codes; columns: how many images of classes 0, 1, 2, 3.
TABLE = [
    [18, 2, 0, 0],  # purity .9, margin .8: kept for class 0
    [0, 0, 9, 0],  # pure but too small
    [0, 6, 4, 0],  # purity .6
    [0, 0, 0, 0],  # never predicted
    [7, 0, 0, 3],  # purity exactly .7, margin .4: kept, a second code of class 0
    [0, 7, 3, 0],  # kept for class 1
]


def pairs(table: list[list[int]]) -> tuple[Tensor, Tensor]:
    both = [(k, y) for k, row in enumerate(table) for y, n in enumerate(row) for _ in range(n)]
    codes, labels = torch.tensor(both).unbind(1)
    order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(0))
    return codes[order], labels[order]


def toy_audit(agreement: Tensor | None = None) -> CodeAudit:
    codes, labels = pairs(TABLE)
    return audit_codes(codes, labels, num_children=6, num_classes=4, agreement=agreement)


def test_the_audit_of_a_table_computed_by_hand() -> None:
    audit = toy_audit()
    found = [(r.size, r.first_class, r.second_class, r.purity, r.margin, r.kept, r.reason) for r in audit.rows]
    assert found == [
        (20, 0, 1, 0.9, 0.8, True, ""),
        (9, 2, None, 1.0, 1.0, False, "fewer than 10 images"),
        (10, 1, 2, 0.6, 0.2, False, "purity below 0.7"),
        (0, None, None, 0.0, 0.0, False, "fewer than 10 images"),
        (10, 0, 3, 0.7, 0.4, True, ""),
        (10, 1, 2, 0.7, 0.4, True, ""),
    ]
    assert [r.code for r in audit.rows] == list(range(6))
    assert audit.code_to_class.tolist() == [0, -1, -1, -1, 0, 1]
    assert audit.code_to_class.dtype == torch.int64
    assert audit.uncovered_classes == (2, 3)
    assert audit.kept == 3


def test_the_margin_is_a_bound_of_its_own() -> None:
    codes, labels = pairs([[70, 30, 0], [70, 15, 15]])
    audit = audit_codes(codes, labels, num_children=2, num_classes=3, min_margin=0.5)
    assert [r.reason for r in audit.rows] == ["margin below 0.5", ""]


def test_generated_images_that_disagree_drop_a_code() -> None:
    audit = toy_audit(torch.tensor([0.69, 1, 1, 1, 0.7, float("nan")]))
    assert audit.code_to_class.tolist() == [-1, -1, -1, -1, 0, -1]
    assert audit.rows[0].reason == "agreement of generated images below 0.7"
    assert audit.rows[4].agreement == pytest.approx(0.7)
    assert audit.rows[5].reason == "agreement of generated images below 0.7"


@pytest.mark.fault("leaks: random codes get no class")
def test_random_codes_are_abstained_from() -> None:
    """No relation between codes and classes: at least 95 % of 2,400 codes abstain, in every setting of size."""
    generator = torch.Generator().manual_seed(0)
    for images, num_children in ((1200, 24), (240, 24), (24_000, 2400)):
        codes = torch.randint(num_children, (images,), generator=generator)
        labels = torch.randint(12, (images,), generator=generator)
        audit = audit_codes(codes, labels, num_children=num_children, num_classes=12)
        assert audit.kept <= 0.05 * num_children


def test_perfect_codes_are_all_kept_and_images_without_label_count_for_nothing() -> None:
    codes = torch.arange(24).repeat(12)
    labels = child_to_class(12, 2)[codes]
    perfect = audit_codes(codes, labels, num_children=24, num_classes=12)
    assert torch.equal(perfect.code_to_class, child_to_class(12, 2))
    assert perfect.uncovered_classes == ()
    noise = torch.randint(24, (500,), generator=torch.Generator().manual_seed(0))
    with_unlabelled = audit_codes(
        torch.cat([codes, noise]), torch.cat([labels, torch.full((500,), -1)]), num_children=24, num_classes=12
    )
    assert with_unlabelled.to_json() == perfect.to_json()


def test_a_tie_goes_to_the_class_that_comes_first_and_one_class_is_no_crash() -> None:
    codes, labels = pairs([[0, 5, 5]])
    row = audit_codes(codes, labels, num_children=1, num_classes=3).rows[0]
    assert (row.first_class, row.second_class, row.margin) == (1, 2, 0.0)
    single = audit_codes(
        torch.zeros(10, dtype=torch.int64), torch.zeros(10, dtype=torch.int64), num_children=1, num_classes=1
    )
    assert single.code_to_class.tolist() == [0]
    assert (
        audit_codes(
            torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), num_children=2, num_classes=2
        ).kept
        == 0
    )


def test_the_audit_file_is_json_and_holds_everything() -> None:
    content = json.loads(json.dumps(toy_audit().to_json(), allow_nan=False))
    assert content["code_to_class"] == [0, -1, -1, -1, 0, 1]
    assert content["uncovered_classes"] == [2, 3]
    assert content["rows"][2] == {
        "code": 2,
        "size": 10,
        "first_class": 1,
        "second_class": 2,
        "purity": 0.6,
        "margin": 0.2,
        "agreement": None,
        "kept": False,
        "reason": "purity below 0.7",
    }


def test_codes_and_labels_out_of_range_are_refused() -> None:
    good = torch.tensor([0, 1, 2])
    with pytest.raises(
        DataError, match=r"codes and labels must be \[n\] alike, found \[3\] and \[2\]; predict one code"
    ):
        audit_codes(good, good[:2], num_children=3, num_classes=3)
    with pytest.raises(DataError, match="codes must be int64 from 0 to 1, found int64, 0 to 2; use the model and"):
        audit_codes(good, good, num_children=2, num_classes=3)
    with pytest.raises(DataError, match="labels must be int64 from -1 to 1, found int64, 0 to 2"):
        audit_codes(good, good, num_children=3, num_classes=2)
    with pytest.raises(DataError, match="codes must be int64 from 0 to 2, found float32"):
        audit_codes(good.float(), good, num_children=3, num_classes=3)

"""Memorised images are said on the first lines of the page, with the generator's name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_experiment import write

from finegan_aug.report import write_report
from finegan_aug.set_measures import memorised_warnings


def line(metric: str, share: float) -> dict[str, object]:
    return {"metric": metric, "value": share, "extractor": "net", "warnings": memorised_warnings(share)}


@pytest.mark.parametrize(("share", "said"), [(0.05, False), (0.051, True), (1.0, True)])
def test_a_generator_that_repeats_photographs_is_warned_of_on_the_page(
    share: float, said: bool, tmp_path: Path
) -> None:
    write(tmp_path / "gan" / "10-0" / "evaluation.json", {"rows": [line("memorised_share", share), line("fid", 1.0)]})
    page = write_report(tmp_path).read_text(encoding="utf-8")
    warnings = json.loads((tmp_path / "report.json").read_text())["warnings"]
    assert warnings == [f"{text} (10-0)." for text in memorised_warnings(share)]
    assert len(warnings) == said
    assert all(text in page for text in warnings)


@pytest.mark.parametrize("warnings", [None, 3, "text", [], {}])
def test_an_evaluation_of_another_shape_warns_of_nothing(warnings: object, tmp_path: Path) -> None:
    write(tmp_path / "evaluation.json", [line("memorised_share", 0.5) | {"warnings": warnings}])
    write_report(tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["warnings"] == []

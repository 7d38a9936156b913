"""Whatever a file holds, its parser reads it or raises one of our errors, and comes to an end.

FINEGAN_AUG_FUZZ_EXAMPLES=20000 in the environment makes that many examples of each target, drawn anew each time.
"""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from faults import held
from fuzz_targets import Target, targets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finegan_aug import options
from finegan_aug.errors import FineGANAugError

LONGER = os.environ.get("FINEGAN_AUG_FUZZ_EXAMPLES")
SETTINGS = settings(
    max_examples=int(LONGER or 100),
    derandomize=LONGER is None,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
NAMES = (
    "image",
    "data manifest",
    "synthetic set",
    "soft labels",
    "lineage",
    "box file",
    "configuration",
    "training configuration",
    "checkpoint",
)
HANGS_AFTER_SEC = 20


@pytest.fixture(scope="module")
def parsers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Target]]]:
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:  # a parser is made once for each command, not for each example
        patch.setattr(options, "_parser", cache(options._parser))
        yield folder, targets(folder)


@contextmanager
def an_end_in_sight() -> Iterator[None]:
    """Raises TimeoutError in what takes longer than 20 s."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"no end after {HANGS_AFTER_SEC} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(HANGS_AFTER_SEC)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.fault
@pytest.mark.parametrize("name", NAMES)
def test_only_our_own_errors_come_out_of(name: str, parsers: tuple[Path, dict[str, Target]]) -> None:
    folder, known = parsers
    known[name].read(folder, known[name].valid)
    refused, answered = set(), [0]

    @SETTINGS
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        spoilt = data.draw(known[name].spoilt)
        with an_end_in_sight(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own
            try:
                known[name].read(folder, spoilt)
            except FineGANAugError as error:
                refused.add((error.cause, error.remedy))
        answered[0] += 1

    holds()
    held("bad input: spoilt inputs that were read or answered by our own errors", answered[0], answered[0])
    assert len(refused) > 5  # the inputs are spoilt in several ways
    for cause, remedy in refused:  # lines in a terminal, no pages
        assert 0 < len(cause) < 2000
        assert 0 < len(remedy) < 200


def test_every_target_is_fuzzed(parsers: tuple[Path, dict[str, Target]]) -> None:
    assert parsers[1].keys() == set(NAMES)

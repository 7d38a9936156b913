"""No test opens a network socket unless it has the marker `sockets`; one that asked for one fails (pytest's hooks)."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

QUIET = str(Path(__file__).with_name("quiet"))
sys.path.append(QUIET)
from no_sockets import ALLOWED, LOG, refused  # noqa: E402


def pytest_configure() -> None:
    """Pass the rule on to the processes that tests start."""
    os.environ[LOG] = os.path.join(tempfile.mkdtemp(prefix="sockets-"), "refused.txt")
    os.environ["PYTHONPATH"] = os.pathsep.join([QUIET, *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Allow sockets where the marker does, before any fixture of the test begins, whatever its scope."""
    os.environ[ALLOWED] = "1" if item.get_closest_marker("sockets") else "0"


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Fail a test during which a socket was refused, even where it caught the refusal."""
    os.environ[ALLOWED] = "0"
    if found := refused():
        pytest.fail(f"a network socket was asked for: {', '.join(found)}", pytrace=False)

"""What several test files share: drawn photographs on disk, one finished run, and the rule that no test opens a socket.

Photographs and run are for reading only.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from faults import pytest_runtest_makereport  # noqa: F401
from socket_rule import pytest_configure, pytest_runtest_setup, pytest_runtest_teardown  # noqa: F401
from tiny_runs import tiny_config

from finegan_aug.data.folder import load_data
from finegan_aug.data.manifest import Manifest
from finegan_aug.data.toy import write_toy

torch.set_num_threads(1)  # bits are promised for one number of threads
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 training and 12 test images of twelve classes, 32 px, with boxes and masks."""
    return write_toy(tmp_path_factory.mktemp("photographs") / "toy", resolution=32, num_train=48, num_test=12)


@pytest.fixture(scope="session")
def toy_data(toy_folder: Path) -> Manifest:
    """The same as a manifest."""
    return load_data(
        toy_folder / "train",
        test_data=toy_folder / "test",
        boxes=toy_folder / "train_boxes.csv",
        test_boxes=toy_folder / "test_boxes.csv",
    )


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory, toy_data: Manifest) -> Path:
    """Ten steps of `tiny_config()`, undisturbed."""
    from finegan_aug.training import train

    return train(tiny_config(), toy_data, tmp_path_factory.mktemp("runs") / "undisturbed")

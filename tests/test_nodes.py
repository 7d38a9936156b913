"""Two nodes as a cluster starts them, both on this machine: two torchrun agents that find each other by c10d."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import assert_same_run, command_line, files, status

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "train_finegan.py"


def started(launch: list[str], toy_folder: Path, run: Path) -> subprocess.Popen[bytes]:
    """A launcher with four steps of `tiny_config()`, as a user types it."""
    _, data, *options = command_line(toy_folder, run, "--total_kimg", "0.032", "--expect_processes", "2")
    line = [sys.executable, "-m", "torch.distributed.run", *launch, str(RECIPE), "--data", data, *options]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.sockets
def test_two_nodes_give_what_one_node_with_two_processes_gives(toy_folder: Path, tmp_path: Path) -> None:
    node = ["--nnodes", "2", "--nproc_per_node", "1", "--rdzv_backend", "c10d", "--rdzv_id", "finegan"]
    node += ["--rdzv_endpoint", f"127.0.0.1:{free_port()}"]
    launches = [(node, "nodes"), (node, "nodes"), (["--standalone", "--nproc_per_node", "2"], "node")]
    launchers = [started(launch, toy_folder, tmp_path / run) for launch, run in launches]
    try:
        said = [launcher.communicate(timeout=120)[1].decode() for launcher in launchers]
    finally:
        for launcher in launchers:
            launcher.kill()
    assert [launcher.returncode for launcher in launchers] == [0, 0, 0], "\n".join(said)
    assert_same_run(tmp_path / "nodes", tmp_path / "node")
    assert status(tmp_path / "nodes") == {"state": "done", "exit_code": 0, "seen_images": 32, "message": ""}
    found, expected = files(tmp_path / "nodes"), files(tmp_path / "node")
    assert found.keys() == expected.keys()
    with_clock = {name for name in expected if Path(name).name in ("metrics.jsonl", "state.json", "manifest.json")}
    assert {name for name in expected if found[name] != expected[name]} <= with_clock

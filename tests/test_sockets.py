"""No test opens a network socket unless it asks for one: the rule catches what it should, here and in children."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from faults import held
from no_sockets import ALLOWED, LOG, refused

ATTEMPTS = {
    "a connection": "socket.create_connection(('127.0.0.1', 9), timeout=1)",
    "a connection to a number": "socket.socket().connect(('127.0.0.1', 9))",
    "a connection over IPv6": "socket.socket(socket.AF_INET6).connect(('::1', 9))",
    "a port": "socket.socket().bind(('127.0.0.1', 0))",
    "a datagram": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
    "a name": "socket.getaddrinfo('localhost', 80)",
    "an address": "urllib.request.urlopen('http://127.0.0.1:9', timeout=1)",
}
TRY = """
import socket, sys, urllib.request
try:
    {attempt}
except OSError as error:
    assert 'without the marker' in str(error), error
    sys.exit(3)
"""


def in_a_child(attempt: str) -> int:
    return subprocess.run([sys.executable, "-c", TRY.format(attempt=attempt)], check=False).returncode


@pytest.mark.fault
def test_every_attempt_is_refused_in_this_process_and_in_a_child() -> None:
    caught = 0
    for attempt in ATTEMPTS.values():
        with pytest.raises(OSError, match="without the marker"):
            eval(attempt, {"socket": socket, "urllib": urllib})
        caught += len(refused()) == 1
        caught += in_a_child(attempt) == 3 and len(refused()) == 1
    held("security: network sockets refused to the tests", caught, 2 * len(ATTEMPTS))


def spawned_attempt() -> None:
    socket.create_connection(("127.0.0.1", 9), timeout=1)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_are_refused_too_under_every_start_method(method: str) -> None:
    worker = multiprocessing.get_context(method).Process(target=spawned_attempt)
    worker.start()
    worker.join()
    assert worker.exitcode == 1
    assert len(refused()) == 1


def test_a_socket_between_processes_of_one_machine_is_let_pass(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "s"))
        server.listen()
        client.connect(str(tmp_path / "s"))
    assert refused() == []


@pytest.mark.sockets
def test_the_marker_allows_sockets_here_and_in_a_child() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        assert in_a_child(f"socket.create_connection(('127.0.0.1', {port}), timeout=5)") == 0
    assert refused() == []


def test_a_test_that_catches_the_refusal_fails_all_the_same(tmp_path: Path) -> None:
    attempt = "try:\n        socket.socket().connect(('127.0.0.1', 9))\n    except OSError:\n        pass\n"
    (tmp_path / "test_it.py").write_text(
        f"import pytest, socket\ndef test_quiet():\n    pass\ndef test_loud():\n    {attempt}"
        f"@pytest.mark.sockets\ndef test_marked():\n    {attempt}"
    )
    environment = {name: value for name, value in os.environ.items() if name not in (ALLOWED, LOG)}
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    line = [sys.executable, "-m", "pytest", "-p", "socket_rule", "-c", os.devnull, "--rootdir", str(tmp_path), "-rE"]
    done = subprocess.run([*line, str(tmp_path)], env=environment, capture_output=True, text=True, check=False)
    assert "3 passed" in done.stdout, done.stdout
    assert "1 error" in done.stdout
    assert "ERROR at teardown of test_loud" in done.stdout
    assert "a network socket was asked for: socket.connect ('127.0.0.1', 9)" in done.stdout

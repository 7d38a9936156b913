"""Hostile class names in a real browser: the page asks for nothing from any network, whatever it is told."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, browse
from fake_experiment import change, make_experiment
from faults import held

from finegan_aug.report import write_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.sockets,  # the counter's own
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
ASKING = [  # each asks the network for something where it is taken for markup
    '<img src="http://evil.example/1.png">',
    '"><img src=x onerror="new Image().src=\'http://evil.example/2.png\'">',
    "</style><link rel=stylesheet href=http://evil.example/3.css>",
    "</title><style>@import url(http://evil.example/4.css);</style>",
    "<script src=http://evil.example/5.js></script>",
    "<iframe src=http://evil.example/6.html></iframe>",
    "</text></svg><svg width=9 height=9><image href=http://evil.example/7.png width=9 height=9 /></svg>",
    '<p style="background: url(http://evil.example/8.png)">x</p>',
]


class Counter:
    """A server on this machine that counts who connects, whatever they want to say."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.server.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:  # closed
                return
            self.connections += 1
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(5)  # a browser also opens connections in advance
            client.recv(4096)
            client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def close(self) -> None:
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()


@pytest.fixture
def counter() -> Iterator[Counter]:
    made = Counter()
    yield made
    made.close()


def requests_of(page: Path, folder: Path, counter: Counter) -> int:
    """Connections that a browser makes for a page, every name of every host standing for the counter."""
    before = counter.connections
    browse(page, folder, "--dump-dom", everywhere=counter.address)
    return counter.connections - before


@pytest.mark.parametrize("number", range(len(ASKING)))
def test_each_name_asks_the_network_where_it_is_not_escaped(number: int, tmp_path: Path, counter: Counter) -> None:
    page = tmp_path / "careless.html"
    page.write_text(f"<!doctype html><title>x</title><p>{ASKING[number]}", encoding="utf-8")
    if "</title>" in ASKING[number]:
        page.write_text(f"<!doctype html><title>{ASKING[number]}</title>", encoding="utf-8")
    assert requests_of(page, tmp_path, counter) >= 1


def test_a_page_without_addresses_asks_for_nothing(tmp_path: Path, counter: Counter) -> None:
    page = tmp_path / "plain.html"
    page.write_text("<!doctype html><title>x</title><p>x", encoding="utf-8")
    assert requests_of(page, tmp_path, counter) == 0


@pytest.mark.fault
def test_the_report_asks_for_nothing_whatever_the_names(tmp_path: Path, counter: Counter) -> None:
    folder = make_experiment(tmp_path / "hostile", classes=ASKING, gans=1, models=1, fractions=1)
    facts = {"title": ASKING[0], "command": ASKING, "warnings": ASKING, "config": {name: name for name in ASKING}}
    change(folder / "experiment.json", **facts)
    change(folder / "rows.json", notes=ASKING)
    page = write_report(folder)
    assert "evil.example/8.png" in page.read_text(encoding="utf-8")
    asked = requests_of(page, tmp_path, counter)
    held(
        "security: hostile names for which the report asks no network",
        len(ASKING) - min(asked, len(ASKING)),
        len(ASKING),
    )

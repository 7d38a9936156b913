"""Refuses network sockets in a Python process and writes down each that was asked for.

`tests/socket_rule.py` loads this in the process of the tests; `sitecustomize.py` beside it in every Python process that
they start. Sockets that compiled code opens by itself, such as those of torch.distributed, are not seen: Python's audit
events come from Python's own socket module.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

ALLOWED = "FINEGAN_AUG_SOCKETS"  # 1: sockets may be opened
LOG = "FINEGAN_AUG_REFUSED_SOCKETS"  # names the file of what was refused, a line each
OF_A_SOCKET = ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg")
OF_A_NAME = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: no connection, no port, no look-up of a name."""
    if event not in OF_A_SOCKET + OF_A_NAME or os.environ.get(ALLOWED) == "1":
        return
    if event in OF_A_SOCKET:
        import socket

        if arguments[0].family == socket.AF_UNIX:  # between the processes of one machine, by a file
            return
    said = f"{event} {arguments[1] if event in OF_A_SOCKET else arguments[0]!r}"
    if LOG in os.environ:
        with open(os.environ[LOG], "a", encoding="utf-8") as stream:  # the exception may be swallowed, this is not
            stream.write(f"{said}\n")
    raise PermissionError(f"no test opens a network socket without the marker `sockets`, found {said}")


def refused() -> list[str]:
    """What was refused since this was last asked, here and in the processes started from here."""
    path = Path(os.environ[LOG])
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


sys.addaudithook(refuse)

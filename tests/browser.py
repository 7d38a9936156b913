"""A headless Chromium for tests; None where there is none on the machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


OWN = ("googleapis.com", "google.com", "gvt1.com")  # hosts that a Chromium asks by itself


def browse(page: Path, folder: Path, *options: str, everywhere: str = "~NOTFOUND") -> str:
    """What the browser prints of a local page.

    Args:
        page: the file.
        folder: gets the browser's profile.
        options: of its command line.
        everywhere: what every name of a host stands for, but those that the browser asks by itself; by default nothing.
    """
    assert CHROMIUM is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
    flags += ["--disable-component-update", "--disable-sync", "--no-first-run", "--no-proxy-server"]
    rules = [*(f"MAP *.{host} ~NOTFOUND" for host in OWN), f"MAP * {everywhere}"]  # the first that fits
    flags += [f"--host-resolver-rules={', '.join(rules)}", f"--user-data-dir={folder / 'profile'}"]
    command = [CHROMIUM, *flags, *options, page.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout

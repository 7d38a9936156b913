"""The table of `make faults`: for every promise how often it held, added up over the tests that tried it.

    python -m benchmarks.faults runs/faults.jsonl

Ends with 1 where one did not hold, or where nothing was tried.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def counts(lines: str) -> dict[str, tuple[int, int]]:
    """Promise -> how often it held, of how many; lines as `tests/faults.py` writes them."""
    found: dict[str, tuple[int, int]] = {}
    for line in lines.splitlines():
        entry = json.loads(line)
        held, tried = found.get(entry["row"], (0, 0))
        found[entry["row"]] = held + entry["held"], tried + entry["of"]
    return found


def table(found: dict[str, tuple[int, int]]) -> str:
    """One row for each promise, in the order of their names; what did not hold is marked."""
    width = max(map(len, found), default=0)
    rows = [
        f"{row:{width}}  held {held} of {tried}{'' if held == tried else '  <- did not hold'}"
        for row, (held, tried) in sorted(found.items())
    ]
    whole = sum(held == tried for held, tried in found.values())
    return "\n".join([*rows, f"{whole} of {len(found)} promises held"])


def main(path: Path) -> int:
    """Print the table; 0 if every promise held."""
    found = counts(path.read_text(encoding="utf-8")) if path.exists() else {}
    print(table(found))
    return 0 if found and all(held == tried for held, tried in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

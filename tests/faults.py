"""The counts behind `make faults`: each row of its table is one promise, held so many times of so many."""

from __future__ import annotations

import json
import os

FILE = "FINEGAN_AUG_FAULTS"  # names the JSON-lines file that collects the rows; unset: nothing is written


def held(row: str, held: int, of: int) -> None:
    """Note that a promise held `held` times of `of`, then fail unless it held every time."""
    path = os.environ.get(FILE)
    if path:
        line = json.dumps({"row": row, "held": held, "of": of}, ensure_ascii=False)
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(line + "\n")
    assert held == of, f"{row}: held {held} of {of}"
    assert of > 0, f"{row}: nothing was tried"

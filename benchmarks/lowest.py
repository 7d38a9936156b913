"""The lowest versions that pyproject.toml declares, one `name==version` a line, for `make lowest`.

    python benchmarks/lowest.py pyproject.toml >.venv-lowest/lowest.txt

Tools of development without an effect on the results (ruff, mypy, types) are left out.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TOOLS = ("ruff", "mypy", "types-PyYAML", "hatchling")


def lowest(project: Mapping[str, Any]) -> list[str]:
    """The floor of every requirement of the project and its extras, as an equality."""
    extras = [line for group in project["optional-dependencies"].values() for line in group]
    floors = []
    for line in [*project["dependencies"], *extras]:
        name = re.split(r"[\[=<>~! ]", line, maxsplit=1)[0]
        if name in TOOLS or name == project["name"]:
            continue
        found = re.search(r"(?:>=|==)\s*([\w.]+)", line)
        if found is None:
            raise ValueError(f"every requirement needs a lowest version, found {line!r}")
        floors.append(f"{name}=={found[1]}")
    return floors


if __name__ == "__main__":
    content = tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print("\n".join(lowest(content["project"])))

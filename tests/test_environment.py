"""The setting of the process: made before torch is there, in favour of what the user has set."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from {module} import {function}
try:
    {function}({arguments})
finally:
    import os
    print(os.environ["THP_MEM_ALLOC_ENABLE"], "torch" in sys.modules)
"""


@pytest.mark.parametrize(
    ("module", "function", "arguments"),
    [
        ("finegan_aug.cli", "main", "['--version']"),
        ("recipes.common", "run_recipe", "lambda line: None"),
    ],
)
@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("0", "0")])
def test_huge_pages_are_asked_for_before_torch_is_imported_unless_refused(
    module: str, function: str, arguments: str, before: str | None, after: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    environment |= {} if before is None else {"THP_MEM_ALLOC_ENABLE": before}
    program = PROGRAM.format(module=module, function=function, arguments=arguments)
    line = [sys.executable, "-c", program]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{after} False"

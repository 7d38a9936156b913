"""What every recipe that trains a classifier does first: make sure that `classifier` is the one of this checkout."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from finegan_aug.cli import flushed, tell
from finegan_aug.environment import prepare_environment
from finegan_aug.errors import ConfigError, FineGANAugError, storage_error
from finegan_aug.leaving import leaving_on_request

ROOT = Path(__file__).resolve().parents[1]


def ensure_own_classifier() -> None:
    """Refuse an unrelated installed package of the same name, which would come first on the path.

    Raises:
        ConfigError: `import classifier` would find another package, or none.
    """
    own = ROOT / "classifier" / "__init__.py"
    spec = importlib.util.find_spec("classifier")
    found = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
    if found != own:
        raise ConfigError(
            f"`import classifier` must find {own}, found {found}",
            f"pip uninstall classifier, or run `python -m recipes.NAME` in {ROOT}",
        )


def run_recipe(main: Callable[[Sequence[str]], None]) -> int:
    """Run a recipe on the command line of the process; an error becomes two lines and its exit code."""
    prepare_environment()
    line = sys.argv[1:]
    try:
        ensure_own_classifier()
        with leaving_on_request():
            main([token for token in line if token != "--debug"])
    except (FineGANAugError, OSError) as found:
        if "--debug" in line:
            raise
        return tell(found if isinstance(found, FineGANAugError) else storage_error(found))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    return flushed(0)

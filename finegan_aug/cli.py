"""The command `finegan-aug`: names the verbs, runs one, and turns errors into two lines and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module

from finegan_aug import __version__
from finegan_aug.data.outside import printable
from finegan_aug.environment import prepare_environment
from finegan_aug.errors import ConfigError, FineGANAugError, StorageError, storage_error
from finegan_aug.leaving import leaving_on_request

VERBS = {
    "train": "train a generator on a folder of photographs; the same command again resumes it",
    "synthesize": "write a folder of synthetic images for each class",
    "name": "let a teacher name the images of codes that were found without labels, one by one",
    "pseudo-label": "let a teacher name photographs without a label, for mixing them in as synthetic images are",
    "filter": "drop synthetic images that a teacher doubts or that copy a photograph; edits the manifest only",
    "evaluate": "measure a generator: FID, KID, IS, precision and recall, clustering",
    "figures": "draw what each code changes: stages, tables of codes, swaps, and a walk as GIF",
    "doctor": "say what is wrong with a folder of photographs before anything is trained",
    "verify": "check the files of a run or checkpoint against their hashes",
    "report": "write one HTML page about a finished comparison",
    "toy": "write the embedded data set of drawn animals as image folders",
    "import-official": "make a run folder of the official FineGAN's files",
    "export-official": "write a run of preset classic as the official FineGAN's files",
}
_WITH_GENERATOR = ("train", "synthesize", "filter", "evaluate", "figures")
HELP = f"""usage: finegan-aug VERB [--config FILE] [options]

{chr(10).join(f"  {verb:<17}{what}" for verb, what in VERBS.items())}

finegan-aug VERB --help lists the options of a verb. Options beat the --config file, the file beats the preset.
--debug shows where an error came from; --version prints the version.
"""
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code (docs/guide.md lists them).

    Args:
        argv: the command line without the command; None takes that of the process.
    """
    prepare_environment()
    line = list(sys.argv[1:] if argv is None else argv)
    try:
        return flushed(_answer(line, "--debug" in line))
    except SystemExit:  # after --help, or at a request to leave
        flushed(0)
        raise


def _answer(line: list[str], debug: bool) -> int:
    try:
        with warnings.catch_warnings(), leaving_on_request():
            if not debug:
                warnings.showwarning = _warn
            return _run([token for token in line if token != "--debug"])
    except FineGANAugError as error:
        return _fail(error, debug)
    except BrokenPipeError:  # of what was printed before the end
        return StorageError.exit_code
    except OSError as error:
        return _fail(storage_error(error), debug)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _run(line: list[str]) -> int:
    if not line or line[0] in ("--help", "-h", "help"):
        print(HELP, end="")
        return 0 if line else ConfigError.exit_code
    if line[0] == "--version":
        print(f"finegan-aug {__version__}")
        return 0
    verb = line[0]
    if verb not in VERBS:
        from finegan_aug.options import nearest

        best = nearest(verb, list(VERBS))
        raise ConfigError(f"unknown verb {verb!r}; the nearest is {best!r}", "see finegan-aug --help")
    home = "finegan_aug.verbs" if verb in _WITH_GENERATOR else "finegan_aug.folder_verbs"
    return int(getattr(import_module(home), verb.replace("-", "_"))(line[1:]))


def flushed(code: int) -> int:
    """The exit code once all that was printed is written; where its reader has left (`| head`), 74 instead of 0."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left goes nowhere: the interpreter would try again at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or StorageError.exit_code
    return code


def _warn(message: Warning | str, category: type[Warning], *where: object, **more: object) -> None:
    """A warning as one line, without the source line it came from."""
    print(f"warning: {printable(str(message))}", file=sys.stderr)


def _fail(error: FineGANAugError, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    return tell(error)


def tell(error: FineGANAugError) -> int:
    """Print cause and remedy, a line each; returns the exit code.

    Names of files and classes come from outside: they may hold line breaks, or codes that a terminal obeys.
    """
    print(f"error: {printable(error.cause)}\nfix: {printable(error.remedy)}", file=sys.stderr)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())

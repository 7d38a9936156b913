"""What can go wrong for a user: one line of cause, one line of remedy, one exit code.

Every exception here is a user's error, shown without a traceback by the command line.
A bug of ours is any other exception.
"""

from __future__ import annotations


class FineGANAugError(Exception):
    """An error with a remedy.

    Args:
        cause: what must hold and what was found, one line.
        remedy: what to do about it, one line; none where torch's DataLoader brings an error home from a worker, with
            the whole story as its cause.
    """

    exit_code = 1

    def __init__(self, cause: str, remedy: str = "") -> None:
        super().__init__(f"{cause}; {remedy}" if remedy else cause)
        self.cause = cause
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[FineGANAugError], tuple[str, str]]:
        return type(self), (self.cause, self.remedy)


class ConfigError(FineGANAugError, ValueError):
    """Wrong usage or configuration."""

    exit_code = 2


class DataError(FineGANAugError, ValueError):
    """A folder, image, box, manifest or data set that cannot be used as it is."""

    exit_code = 3


class LeakError(DataError):
    """Data that would cross the border between training and test."""


class CheckpointError(FineGANAugError, RuntimeError):
    """A checkpoint or run folder that is corrupt or belongs to another configuration."""

    exit_code = 4


class NonFiniteError(FineGANAugError, ArithmeticError):
    """A loss, gradient or buffer that is not a finite number."""

    exit_code = 5


class WorldSizeError(FineGANAugError, RuntimeError):
    """More or fewer processes than asked for."""

    exit_code = 6


class WorkerError(FineGANAugError, RuntimeError):
    """A data loading worker that died or hangs."""

    exit_code = 7


class StorageError(FineGANAugError, OSError):
    """Input or output failed: the disk is full or cannot be written."""

    exit_code = 74


class RunLockedError(FineGANAugError, RuntimeError):
    """The output folder is in use by another process."""

    exit_code = 75


def storage_error(error: OSError) -> StorageError:
    """What the operating system refused, in our words."""
    where = f" {error.filename}" if error.filename else ""
    return StorageError(f"cannot read or write{where}: {error.strerror or error}", "check the path and free space")

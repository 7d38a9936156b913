"""Errors that people see."""

from __future__ import annotations

import pickle

import pytest

from finegan_aug import errors

CODES = {
    errors.FineGANAugError: 1,
    errors.ConfigError: 2,
    errors.DataError: 3,
    errors.LeakError: 3,
    errors.CheckpointError: 4,
    errors.NonFiniteError: 5,
    errors.WorldSizeError: 6,
    errors.WorkerError: 7,
    errors.StorageError: 74,
    errors.RunLockedError: 75,
}


@pytest.mark.parametrize(("kind", "code"), CODES.items())
def test_every_error_has_its_words_and_exit_code(kind: type[errors.FineGANAugError], code: int) -> None:
    error = kind("the cause", "the remedy")
    assert str(error) == "the cause; the remedy"
    assert (error.cause, error.remedy, error.exit_code) == ("the cause", "the remedy", code)
    assert isinstance(error, errors.FineGANAugError)


@pytest.mark.parametrize("kind", CODES)
def test_an_error_comes_back_whole_from_another_process(kind: type[errors.FineGANAugError]) -> None:
    """Workers send their errors pickled; both fields and the class must survive."""
    back = pickle.loads(pickle.dumps(kind("the cause", "the remedy")))
    assert type(back) is kind
    assert (str(back), back.cause, back.remedy) == ("the cause; the remedy", "the cause", "the remedy")


def test_every_error_of_the_package_is_listed_here() -> None:
    found = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert found == set(CODES)

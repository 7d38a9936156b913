"""Types of values out of JSON: what fits, how a type is said in words, and what is answered where one does not fit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from finegan_aug.config import FineGANConfig
from finegan_aug.errors import ConfigError, DataError
from finegan_aug.typed import check_fields, fits, in_words, read_field

HUGE = int("9" * 400)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (bool, [True, False], [0, 1, None, "true"]),
        (int, [0, -1, 2**63 - 1, -(2**63)], [2**63, HUGE, -HUGE, 1.0, True, None, "1"]),
        (float, [0, 1.5, -1, sys.float_info.max], [HUGE, -HUGE, float("nan"), float("inf"), True, None, "1.5"]),
        (str, ["", "x", "\u00e9"], ["\ud800", 5, None, ["x"]]),
        (dict, [{}, {"a": 1}], [[], None, "x"]),
        (int | None, [None, 5], ["x", 5.5, HUGE]),
        (list[int], [[], [1, -1], (1,)], ["12", 5, None, [0.5], [HUGE], [[0]], {"a": 1}]),
        (list[dict[str, Any]], [[], [{}]], [{}, [1]]),
        (tuple[int, ...], [[], [1, 2]], ["ab", [None]]),
        (tuple[float, float], [[0, 1.5]], [[], [1], [1, 2, 3], [1, "x"]]),
        (Literal["s", "u"], ["s", "u"], ["x", None, ["s"], 1]),
    ],
    ids=str,
)
def test_a_value_fits_its_type_and_no_other(kind: Any, good: list[object], bad: list[object]) -> None:
    assert [value for value in good if not fits(value, kind)] == []
    assert [value for value in bad if fits(value, kind)] == []


def test_every_type_has_words() -> None:
    kinds = [int | None, list[int], tuple[float, float], dict, list[dict[str, Any]], Literal["s", "u"], Path]
    words = ["int or null", "list of int", "list of float", "object", "list of object", "s|u", "path"]
    assert [in_words(kind) for kind in kinds] == words


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ({}, "result.json must hold validation.accuracy, found no such key"),
        ({"validation": None}, "result.json must hold validation.accuracy, found no such key"),
        ({"validation": {}}, "result.json must hold validation.accuracy, found no such key"),
        ({"validation": {"accuracy": "x"}}, "result.json: validation.accuracy must be float, found 'x'"),
        ({"validation": {"accuracy": HUGE}}, f"result.json: validation.accuracy must be float, found {'9' * 80}"),
    ],
    ids=["empty", "null", "nothing in it", "text", "400 digits"],
)
def test_a_missing_or_wrong_value_is_named_with_its_file(content: dict[str, Any], cause: str) -> None:
    with pytest.raises(DataError) as caught:
        read_field(content, Path("result.json"), "validation.accuracy", float)
    assert (caught.value.cause, caught.value.remedy) == (cause, "restore the file or make it anew")


def test_a_value_that_is_there_is_given_as_it_is() -> None:
    assert read_field({"a": {"b": [1, None]}}, Path("x"), "a.b", list[int | None]) == [1, None]


def test_unknown_fields_and_values_of_another_type_are_refused() -> None:
    check_fields(FineGANConfig, FineGANConfig().to_json())
    for values, cause, remedy in (
        ({"b": 1, "a": 2}, "configuration holds unknown keys a, b", "remove them"),
        ({"z_dim": 8.5}, "z_dim must be int, got 8.5", "correct z_dim"),
    ):
        with pytest.raises(ConfigError) as caught:
            check_fields(FineGANConfig, values)
        assert (caught.value.cause, caught.value.remedy) == (cause, remedy)

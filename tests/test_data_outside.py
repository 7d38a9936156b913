"""Words for what stands in other people's files."""

from __future__ import annotations

import json

import pytest

from finegan_aug.data.outside import is_storable, name_fault, printable, shown


@pytest.mark.parametrize("content", [None, 1.5, "\u00e9\U0001f426", [1, [2]], {"a": {"b": [None, True]}}, 10**400])
def test_what_can_be_written_again_is_storable(content: object) -> None:
    assert is_storable(content)
    assert json.loads(json.dumps(content, allow_nan=False, ensure_ascii=False).encode()) == content


@pytest.mark.parametrize(
    "text", ["NaN", "1e999", '"\\ud800"', '{"\\udc00": 1}', '{"a": [-1e999]}', "[" * 33 + "]" * 33]
)
def test_what_json_gives_and_nothing_can_write_is_not_storable(text: str) -> None:
    assert not is_storable(json.loads(text))


def test_thirty_two_levels_are_storable() -> None:
    assert is_storable(json.loads("[" * 32 + "]" * 32))


def test_what_is_shown_is_one_short_line_whatever_it_is() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert shown("a\n\x1b[31m") == r"'a\n\x1b[31m'"
    assert shown("x" * 1000) == "'" + "x" * 79
    assert shown(deep) == "list too large to show"
    assert shown(10**10_000) == "int too large to show"


def test_codes_that_a_terminal_obeys_are_escaped_and_letters_are_not() -> None:
    assert printable("caf\u00e9 \u732b \U0001f426") == "caf\u00e9 \u732b \U0001f426"
    assert printable("a\nb\x1b[2J\udcff\u202e") == "a\\nb\\x1b[2J\\udcff\\u202e"


def test_names_are_text_of_a_line() -> None:
    assert [name_fault(name) for name in ("a/b", "..", "=1+1", "<b>", "caf\u00e9", "x" * 1024)] == [None] * 6
    assert name_fault("") == "must have 1 to 1024 characters, found 0"
    for name in ("a\nb", "a\0b", "\ud800", "\u2028", "a\u202eb"):
        assert name_fault(name) == "must not hold control characters, line breaks or marks of writing direction"

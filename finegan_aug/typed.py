"""Whether what JSON gave has the type that a reader or a dataclass asks for: files are damaged, or edited by hand."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from finegan_aug.data.outside import is_storable, shown
from finegan_aug.errors import ConfigError, DataError
from finegan_aug.files import JSON

_LARGEST_WHOLE = 2**63  # numpy and torch take no larger ones
_REMEDY = "restore the file or make it anew"


def read_field(content: JSON, path: Path, name: str, kind: Any) -> Any:
    """A value of a JSON file.

    Args:
        content: of the file.
        path: of the file, for the message.
        name: of the value; dots lead into objects.
        kind: its type, as in `fits`.

    Raises:
        DataError: there is no such value, or it has another type.
    """
    value: object = content
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            raise DataError(f"{path} must hold {name}, found no such key", _REMEDY)
        value = value[part]
    if not fits(value, kind):
        raise DataError(f"{path}: {name} must be {in_words(kind)}, found {shown(value)}", _REMEDY)
    return value


def check_fields(shape: type, values: JSON) -> None:
    """Refuse values that a dataclass does not take.

    Args:
        shape: the dataclass.
        values: by the names of its fields; not all need be there.

    Raises:
        ConfigError: an unknown name, or a value of another type.
    """
    kinds = get_type_hints(shape)
    if unknown := set(values) - {f.name for f in fields(shape)}:
        raise ConfigError(f"configuration holds unknown keys {', '.join(sorted(unknown))}", "remove them")
    for name, value in values.items():
        if not fits(value, kinds[name]):
            raise ConfigError(f"{name} must be {in_words(kinds[name])}, got {shown(value)}", f"correct {name}")


def fits(value: object, kind: Any) -> bool:
    """Whether a value has a type: bool, int, float, str, dict, a list or tuple of one, a Literal, or a union of these.

    A list stands for a tuple and a whole number for a float, as in JSON; a truth value is no number. Numbers must be
    finite and no larger than what computes with them takes; text must be writable in UTF-8.
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in args)
    if origin is Literal:
        return any(type(value) is type(word) and value == word for word in args)
    if origin is dict:
        return isinstance(value, dict)
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            return False
        counted = origin is tuple and Ellipsis not in args
        kinds = args if counted else args[:1] * len(value)
        return len(kinds) == len(value) and all(map(fits, value, kinds))
    if kind is float:  # a comparison, because math.isfinite cannot take an integer of 400 digits
        return isinstance(value, int | float) and type(value) is not bool and abs(value) <= sys.float_info.max
    if kind is int:
        return type(value) is int and -_LARGEST_WHOLE <= value < _LARGEST_WHOLE
    return type(value) is kind and (kind is not str or is_storable(value))


def in_words(kind: Any) -> str:
    """A type in words: `int`, `float or null`, `tied|discovered`, `list of int`."""
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if NoneType in get_args(kind):
        return " or ".join(in_words(k) for k in get_args(kind) if k is not NoneType) + " or null"
    if get_origin(kind) in (list, tuple):
        return f"list of {in_words(get_args(kind)[0])}"
    return "object" if dict in (kind, get_origin(kind)) else str(getattr(kind, "__name__", kind)).lower()

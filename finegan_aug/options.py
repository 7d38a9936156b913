"""From a command line and a configuration file to the values a person wrote down, checked against dataclasses.

The fields of one or more dataclasses become flat options: a field `total_kimg: float = 100.0  # length of training`
is `--total-kimg 100` on the command line and `total_kimg: 100` in a file, and its comment is its help. Only what was
written is returned, so that a preset can fill the rest: command line over `--config` file over preset over default,
wherever `--config` stands on the line.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import math
import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

from jsonargparse import ActionYesNo, ArgumentError, ArgumentParser

from finegan_aug.config_files import find_config, read_config
from finegan_aug.data.outside import shown
from finegan_aug.errors import ConfigError
from finegan_aug.typed import in_words

Values = dict[str, Any]
Shape = TypeVar("Shape")


def parse_options(
    prog: str, argv: Sequence[str], *shapes: type, section: str | None = None, positional: tuple[str, ...] = ()
) -> list[Values]:
    """Read the options written on the command line and in the file that `--config` names.

    Args:
        prog: how the command is called, for its help.
        argv: the command line without the command itself.
        shapes: dataclasses whose fields are the options; no field name may occur twice.
        section: the part of a sectioned configuration file that belongs to this command (see `read_config`).
        positional: fields that may also be given without their names, in this order.

    Returns:
        For each dataclass the values that were written, converted to the types of its fields; nothing else.

    Raises:
        ConfigError: an unknown option or key, a value of the wrong type, a file that cannot be read.
        SystemExit: with code 0, after `--help`.
    """
    fields = _fields(shapes)
    parser = _parser(prog, shapes, positional)
    known = {"config", "help", *fields}
    line = _parse_line(parser, [_spelling(token, known, fields) for token in argv], fields, prog)
    wanted = line.pop("config", None)
    written = {} if wanted is None else _parse_file(parser, find_config(wanted), fields, section)
    written.update(line)
    for name, value in written.items():
        for number in value if isinstance(value, tuple | list) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"{name} must be a finite number, got {number}", "write a number such as 0.5")
    return [{f.name: written[f.name] for f in dataclasses.fields(s) if f.name in written} for s in shapes]


def build(shape: type[Shape], values: Values) -> Shape:
    """Make the dataclass from the values that were written.

    Raises:
        ConfigError: a field without default was not written.
    """
    for field in dataclasses.fields(shape):  # type: ignore[arg-type]
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in values:
            option = _option(field.name)
            raise ConfigError(
                f"{option} must be given: {_comments(shape)[field.name] or field.name}",
                f"add {option} VALUE, or `{field.name}: VALUE` in the --config file",
            )
    return shape(**values)


def nearest(name: str, known: Sequence[str]) -> str:
    """The name among `known` that is most like `name`."""
    return get_close_matches(name, list(known), n=1, cutoff=0.0)[0]


def _fields(shapes: Sequence[type]) -> dict[str, Any]:
    """Name to type of every option, in the order of the dataclasses."""
    types: dict[str, Any] = {}
    for shape in shapes:
        hints = get_type_hints(shape)
        for field in dataclasses.fields(shape):
            assert field.name not in {"config", "help", *types}, f"{field.name} would be two options"
            types[field.name] = hints[field.name]
    return types


def _parser(prog: str, shapes: Sequence[type], positional: tuple[str, ...]) -> ArgumentParser:
    parser = ArgumentParser(
        prog=prog,
        usage=" ".join([prog, *(f"[{name.upper()}]" for name in positional), "[--config FILE] [options]"]),
        allow_abbrev=False,
        exit_on_error=False,
        formatter_class=argparse.HelpFormatter,
    )
    parser.add_argument(
        "--config",
        type=str,
        metavar="FILE",
        help="YAML or JSON file, or the name of one in recipes/configs; options on the line beat it",
    )
    for shape in shapes:
        title = (inspect.getdoc(shape) or shape.__name__).splitlines()[0].split(". ")[0].rstrip(".")
        group = parser.add_argument_group(title)
        hints, comments = get_type_hints(shape), _comments(shape)
        for field in dataclasses.fields(shape):
            _add(group, field, hints[field.name], comments[field.name])
    for name in positional:
        parser.add_argument(f"{name}_", nargs="?", type=str, metavar=name.upper(), help=f"the same as {_option(name)}")
    return parser


def _add(group: Any, field: dataclasses.Field[Any], kind: Any, comment: str) -> None:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    if default is not dataclasses.MISSING and default is not None:
        comment = f"{comment} (default: {str(default).lower() if isinstance(default, bool) else default})"
    comment = comment.replace("%", "%%")
    if kind is bool:
        group.add_argument(_option(field.name), action=ActionYesNo(yes_prefix="", no_prefix="no-"), help=comment)
    else:
        group.add_argument(_option(field.name), type=kind, metavar=_metavar(kind), help=comment)


def _spelling(token: str, known: set[str], fields: dict[str, Any]) -> str:
    """An option with dashes for underscores, or the error for an option nobody knows."""
    if not re.match(r"--?[A-Za-z]", token):
        return token
    head, equals, value = token.partition("=")
    if head == "-h":
        return token
    name = head.lstrip("-").replace("-", "_")
    plain = name.removeprefix("no_")
    if head.startswith("--") and (name in known or (name != plain and fields.get(plain) is bool)):
        return _option(name) + equals + value
    best = _option(nearest(name, sorted(known - {"help"})))
    raise ConfigError(f"unknown option {shown(head)[1:-1]}; the nearest is {best}", f"write {best}, or see --help")


def _parse_line(parser: ArgumentParser, argv: Sequence[str], fields: dict[str, Any], prog: str) -> Values:
    if sum(token == "--config" or token.startswith("--config=") for token in argv) > 1:
        raise ConfigError("--config must be given once, found it more than once", "merge the files into one")
    try:
        found = parser.parse_args(list(argv), defaults=False).as_dict()
    except ArgumentError as error:
        raise _line_error(str(error), fields, prog) from error
    except OverflowError as error:  # the parser does not say at which option
        cause, remedy = "a number on the command line is too large for its option", "write a number such as 0.5"
        raise ConfigError(cause, f"{remedy}; see {prog} --help") from error
    values = {name: value for name, value in found.items() if not name.endswith("_")}
    for name, value in found.items():
        if name.endswith("_") and value is not None:
            values.update(_check(parser, name[:-1], value, fields, "the command line"))
    return values


def _line_error(message: str, fields: dict[str, Any], prog: str) -> ConfigError:
    """One line out of the parser's message about the command line."""
    see = f"see {prog} --help"
    key = re.search(r'Parser key "(\w+)"|argument --([\w-]+)', message)
    if key is None:
        return ConfigError(message.splitlines()[0], see)
    name = (key[1] or key[2]).replace("-", "_")
    if "expected one argument" in message:
        return ConfigError(f"{_option(name)} needs a value", f"write {_option(name)} VALUE; {see}")
    if "explicit argument" in message:
        return ConfigError(f"{_option(name)} takes no value", f"write {_option(name)} or {_option('no_' + name)}")
    value = re.search(r"(?:Got|Given) value: (.*)", message)
    return _wrong_type(_option(name), fields[name], value[1] if value else "?", see)


def _parse_file(parser: ArgumentParser, path: Path, fields: dict[str, Any], section: str | None) -> Values:
    values: Values = {}
    for name, value in read_config(path, section).items():
        if name not in fields:
            best = nearest(name, list(fields))
            raise ConfigError(
                f"unknown key {shown(name)} in {path}; the nearest is {best!r}", f"write {best} or remove it"
            )
        values.update(_check(parser, name, value, fields, str(path)))
    return values


def _check(parser: ArgumentParser, name: str, value: object, fields: dict[str, Any], where: str) -> Values:
    """The value converted to the type of its field."""
    refusal = _wrong_type(f"{name} in {where}", fields[name], value, f"correct {name} in {where}")
    if (value is None and NoneType not in get_args(fields[name])) or not _is_text(value):
        raise refusal
    try:
        return {name: parser.parse_object({name: value}, defaults=False).as_dict()[name]}
    except (ArgumentError, OverflowError) as error:  # the second of a whole number that no float holds
        raise refusal from error


def _is_text(value: object) -> bool:
    """Whether the operating system takes it, or what a list holds, as text: no NUL, which ends text there, and no half
    of a character. Lists within lists are left to the check of types."""
    if isinstance(value, list):
        return all(_is_text(item) for item in value if isinstance(item, str))
    try:
        return not isinstance(value, str) or b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def _wrong_type(what: str, kind: Any, value: object, remedy: str) -> ConfigError:
    found = shown(value)[1:-1] if isinstance(value, str) else shown(value)
    return ConfigError(f"{what} must be {in_words(kind)}, got {found}", remedy)


def _metavar(kind: Any) -> str:
    words = in_words(kind).removesuffix(" or null")
    return words.split()[0].upper() if "|" not in words else words


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _comments(shape: type) -> dict[str, str]:
    """Field name to the comment behind it, also of inherited fields."""
    sources = [inspect.getsource(kind) for kind in reversed(shape.__mro__) if dataclasses.is_dataclass(kind)]
    found = dict(re.findall(r"^    (\w+): .*?  # (.+)$", "\n".join(sources), flags=re.MULTILINE))
    return {field.name: found.get(field.name, "") for field in dataclasses.fields(shape)}

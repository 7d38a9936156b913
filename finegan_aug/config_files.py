"""Configuration files: YAML or JSON, found by path or by name, read without surprises.

Refused: a key written twice, YAML tags, anchors and aliases, files over 1 MiB.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from finegan_aug.errors import ConfigError

MAX_BYTES = 2**20
SECTIONS = ("train", "synthesize", "filter", "evaluate", "classifier", "ablation")
_FOLDERS = (Path("recipes/configs"), Path(__file__).resolve().parents[1] / "recipes" / "configs")


def find_config(wanted: str) -> Path:
    """The file that `--config` names: a path, or the bare name of a file in recipes/configs.

    Raises:
        ConfigError: there is no such file.
    """
    path = Path(wanted)
    if path.is_file():
        return path
    if path.name == wanted and not path.suffix:
        for folder in _FOLDERS:
            named = folder / f"{wanted}.yaml"
            if named.is_file():
                return named
    names = sorted({file.stem for folder in _FOLDERS for file in folder.glob("*.yaml")})
    raise ConfigError(
        f"--config must name a file, found none at {wanted}", f"give a path or one of: {', '.join(names) or 'none'}"
    )


def read_config(path: Path, section: str | None = None) -> dict[str, Any]:
    """Read one mapping of option names to values.

    A file may serve several commands: if its keys are all names of `SECTIONS`, each command reads its own part. Of the
    config.json of a run folder the settings are read, without what was found in the data.

    Args:
        path: a YAML file, or JSON if it ends in `.json`.
        section: the part for this command; None reads flat files only.

    Raises:
        ConfigError: the file cannot be read, is no mapping, or holds something refused above.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} must be at most 1 MiB", "name a configuration file")
        text = path.read_text(encoding="utf-8")
        content = _read_json(text) if path.suffix == ".json" else _StrictLoader(text).get_single_data()
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"cannot read {path}: {_one_line(error)}", f"correct {path}") from error
    content = _named_values(content, str(path))
    for name in ("config", "classifier"):
        if "classes" in content and isinstance(content.get(name), dict):
            return _named_values(content[name], f"{name} in {path}")
    if section is None or not content or not content.keys() <= set(SECTIONS):
        return content
    return _named_values(content.get(section), f"{section} in {path}")


def _named_values(content: object, what: str) -> dict[str, Any]:
    content = {} if content is None else content
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{what} must hold `name: value` lines", "write one option per line")
    return content


def _read_json(text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} is written twice")
        return content

    return json.loads(text, object_pairs_hook=unique)


class _StrictLoader(yaml.SafeLoader):
    """The safe loader without aliases, anchors and tags, and with one value per key.

    `yes` and `no` are words, as in YAML 1.2: `mixed_precision: no`.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:bool" or first not in {*"yYnN"}]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = f"in line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"aliases are refused, found *{event.anchor} {line}")
        if event.anchor is not None:
            raise yaml.YAMLError(f"anchors are refused, found &{event.anchor} {line}")
        if event.tag is not None:
            raise yaml.YAMLError(f"tags are refused, found {event.tag} {line}")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"a key must be a word, found a list or mapping in line {key.start_mark.line + 1}")
            if key.value in seen:
                raise yaml.YAMLError(f"key {key.value!r} is written twice, again in line {key.start_mark.line + 1}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _one_line(error: BaseException) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} in line {error.problem_mark.line + 1}"
    return " ".join(str(error).split()) or type(error).__name__

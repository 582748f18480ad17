"""values.yaml as a list of values with the comments above them: the source of README and schema descriptions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True)
class Value:
    """One value of values.yaml."""

    path: tuple[str, ...]
    """Its keys from the top."""
    default: Any
    """What it is when nobody says otherwise."""
    comment: str
    """The comment right above it, as one paragraph; empty if there is none."""
    leaf: bool
    """Whether it is a value, not a section of more documented values."""


def documented_values(text: str) -> list[Value]:
    """Give all values of the text of values.yaml in their order, sections before what is in them.

    A mapping is a section when it is written over several lines; `{}` and `{cpu: 1}` are values.
    """
    root = yaml.compose(text)
    if not isinstance(root, yaml.MappingNode):
        raise TypeError("values.yaml is not a mapping")
    lines = text.splitlines()
    found: list[Value] = []
    _walk(root, (), lines, found)
    return found


def _walk(node: yaml.MappingNode, path: tuple[str, ...], lines: list[str], found: list[Value]) -> None:
    for key, value in node.value:
        here = (*path, key.value)
        section = isinstance(value, yaml.MappingNode) and not value.flow_style and not _is_data(here)
        default = yaml.safe_load(yaml.serialize(value))
        found.append(Value(here, default, _comment_above(lines, key.start_mark.line), not section))
        if section:
            _walk(value, here, lines, found)


def _is_data(path: tuple[str, ...]) -> bool:
    """Mappings of the user's own keys, and of Kubernetes' fields, are values however they are written."""
    return path[-1] in {"resources", "pools", "code"}


def _comment_above(lines: list[str], line: int) -> str:
    comment: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        comment.insert(0, lines[line].lstrip().removeprefix("#").strip())
    return " ".join(comment)

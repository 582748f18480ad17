"""What to write instead of what is wrong in a pipeline file: the end of a sentence, with the semicolon before it."""

from __future__ import annotations

import json
import shlex
from typing import Any

from blockyard.spec.errors import brief

REFERENCES = ("function", "worker", "check", "before", "after")
NUMBERS = ("offset", "shape")

_PARSER = {
    "mapping values are not allowed": "indent it like the lines around it, write 'key: value' on the line before, or"
    " put text that holds ': ' in quotes",
    "cannot start any token": "put text that begins like this in quotes",
    "undefined alias": "an anchor (&name) comes before its aliases (*name); text that begins with * goes in quotes",
    "expected '-' indicator": "indent it like the other fields of its task",
    "expected <block end>": "indent it like the other fields of its task",
    "did not find expected key": "indent it like the other fields of its task",
    "could not find expected ':'": "write 'key: value'",
    "unexpected end of stream": "a quote is opened and not closed",
    "expected ',' or": "a bracket is not closed, or a comma is missing",
    "but found another document": "write one pipeline a file, without a line '---' in it",
    "unexpected ':'": "write a blank after each ':'",
    "<document start>": "is it another kind of file?",
}
"""What the parser of YAML finds, and what most often is to be done."""


def of_syntax(problem: str, line: str) -> str:
    """Return what to do where the parser of YAML has this `problem` with a `line`, and the line itself."""
    shown = f" in {brief(line.strip())}" if line.strip() else ""
    return shown + next((f"; {hint}" for found, hint in _PARSER.items() if found in problem), "")


def of_kind(where: tuple[str | int, ...], expected: str, value: Any) -> str:
    """Return what to write at a path in place of a value that is not of the `expected` kinds (in msgspec's words)."""
    names = [part for part in where if isinstance(part, str)]
    field = names[-1] if names else ""
    whole = where[-1:] == (field,)  # and not an item of it
    if not where:
        return "; a pipeline file has 'name: NAME' and, below 'tasks:', its tasks"
    if field == "tasks":
        return "; write each task as '- id: NAME', with its other fields below"
    if field in REFERENCES and whole:
        pair = field == "check" and isinstance(value, list) and len(value) == 2
        return f"; write {{before: '{value[0]}', after: '{value[1]}'}}" if pair else "; write 'module:name'"
    if field == "command" and whole:
        return f"; write {json.dumps(_words(value))}" if isinstance(value, str) else "; write [program, argument, ...]"
    if field.endswith("_roi"):
        return "; write {offset: [0, 0], shape: [10, 10]}, with a number for each axis"
    if field == "timeout_s":
        return "; write seconds, such as 600"
    return _of_plain(field, expected, value)


def _of_plain(field: str, expected: str, value: Any) -> str:
    if "array" in expected and isinstance(value, str if field not in NUMBERS else int):
        return f"; write [{value}]"
    if "str" in expected and isinstance(value, bool | int | float):
        return "; put it in quotes"
    if "int" in expected and isinstance(value, str | float) and _is_whole(value):
        return f"; write {int(float(value))}"
    if "bool" in expected and str(value).lower() in ("true", "false"):
        return f"; write {str(value).lower()}"
    return ""


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # a quote that is not closed
        return command.split()


def _is_whole(value: str | float) -> bool:
    try:
        return float(value).is_integer()
    except ValueError:
        return False

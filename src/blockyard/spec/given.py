"""Values that Python code gives, as plain data where they can only mean one thing.

Numbers and truths of numpy become Python's, paths and enums what they stand for, tuples and Coordinates lists, other
mappings dicts: so a function gets the same in a serial run, in another process, and from a pipeline file. What JSON
can't carry stays as it is, and `validate.check_plain` refuses it with the pipeline.
"""

from __future__ import annotations

import enum
import operator
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from blockyard.spec.errors import SpecError, brief

DEEPEST = 100
"""Levels of lists and mappings in parameters; one that holds itself has no end."""


def plain(value: Any, what: str, depth: int = 0) -> Any:
    """Return a value as plain data, a copy of its own. Raises SpecError, in which `what` names it, for no end of it."""
    if depth > DEEPEST:
        raise SpecError(f"{what} is nested more than {DEEPEST} deep, or holds itself; make it flatter")
    if isinstance(value, Mapping):
        return {plain(key, what): plain(item, what, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        if {*map(type, value)} <= {int, float, str, bool}:  # long ones are of one kind
            return list(value)
        return [plain(item, what, depth + 1) for item in value]
    if isinstance(value, np.number | np.bool_ | np.str_) and not isinstance(value, np.timedelta64):
        return value.item()
    if isinstance(value, enum.Enum):
        return plain(value.value, what, depth + 1)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return next((base(value) for base in (bool, int, float, str) if isinstance(value, base)), value)


def text(value: Any) -> Any:
    """Return a text of a class of its own (of numpy, an enum of texts) as text; anything else as it is."""
    value = value.value if isinstance(value, enum.Enum) else value
    return str(value) if isinstance(value, str) else value


def whole(value: Any, what: str) -> int:
    """Return a whole number of any library as Python's. Raises SpecError, in which `what` names it."""
    try:
        return operator.index(value)
    except TypeError:
        raise SpecError(f"{what} is {brief(value)}; it must be a whole number") from None


def seconds(value: Any, what: str) -> float:
    """Return a number of any library as Python's. Raises SpecError, in which `what` names it."""
    fault = SpecError(f"{what} is {brief(value)}; it must be a number of seconds")
    if isinstance(value, str | bytes):
        raise fault
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise fault from None

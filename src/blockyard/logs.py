"""Log lines of a service: text for people, or one JSON object a line for a log collector."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from blockyard.wire.text import indented

NOT_EXTRA = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_always: dict[str, Any] = {}


def say_always(**fields: Any) -> None:
    """Have every later JSON line of this process carry these fields."""
    _always.update(fields)


def json_line(level: str, message: str, created_s: float, fields: Mapping[str, Any]) -> str:
    """Return one line: time (UTC), level, message, what this process always says, and the fields given.

    Fields are user code's too: one whose name the line has already is left out, one that JSON can't hold becomes text.
    """
    time = datetime.fromtimestamp(created_s, UTC).isoformat(timespec="milliseconds")
    line = {"time": time, "level": level, "message": message, **_always}
    line |= {key: value for key, value in fields.items() if key not in line}
    try:
        dumped = _dumped(line)
    except UNHOLDABLE:
        dumped = _dumped({str(key): _holdable(value) for key, value in line.items()})
    # A lone surrogate, such as of a file name that is not UTF-8: half of the readers of JSON refuse the whole line.
    return _dumped(_without_surrogates(json.loads(dumped))) if "\\ud" in dumped else dumped


def _dumped(value: Any) -> str:
    return json.dumps(value, default=str, allow_nan=False)  # NaN is no JSON


def _without_surrogates(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
        case list():
            return [_without_surrogates(item) for item in value]
    return value


UNHOLDABLE = (TypeError, ValueError, RecursionError)
"""What json raises for keys that are no text, for circles, and for numbers that JSON does not have."""


def _holdable(value: Any) -> Any:
    try:
        _dumped(value)
    except UNHOLDABLE:
        return str(value)
    return value


class JsonFormatter(logging.Formatter):
    """One JSON object a line: also the logger's name, what was given as `extra`, and the traceback as ``error``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of one record."""
        fields = {key: value for key, value in vars(record).items() if key not in NOT_EXTRA}
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        fields["logger"] = record.name
        return json_line(record.levelname.lower(), record.getMessage(), record.created, fields)


class TextFormatter(logging.Formatter):
    """Lines for people. What a message quotes of user code begins no line at the left, and moves no cursor."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of one record, and below it, indented, what belongs to it."""
        return indented(super().format(record), CONTINUED)


CONTINUED = "  | "
"""Before the further lines of a message."""


def start_logging(form: str, level: str) -> None:
    """Send the log of this process to standard error, as ``text`` or ``json``."""
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)

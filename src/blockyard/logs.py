"""Log lines of a service: text for people, or one JSON object a line for a log collector."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

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
        return json.dumps(line, default=str)
    except UNHOLDABLE:
        return json.dumps({key: _holdable(value) for key, value in line.items()}, default=str)


UNHOLDABLE = (TypeError, ValueError, RecursionError)
"""What json raises for keys that are no text, and for circles."""


def _holdable(value: Any) -> Any:
    try:
        json.dumps(value, default=str)
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


def start_logging(form: str, level: str) -> None:
    """Send the log of this process to standard error, as ``text`` or ``json``."""
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)

"""Log lines of a service: text for people, or one JSON object a line for a log collector."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

NOT_EXTRA = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_always: dict[str, Any] = {}


def say_always(**fields: Any) -> None:
    """Have every later JSON line of this process carry these fields."""
    _always.update(fields)


def json_line(level: str, message: str, created_s: float, **fields: Any) -> str:
    """Give one line: time (UTC), level, message, what this process always says, and the fields given."""
    time = datetime.fromtimestamp(created_s, UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": time, "level": level, "message": message, **_always, **fields}, default=str)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: also the logger's name, what was given as `extra`, and the traceback as ``error``."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line of one record."""
        fields = {key: value for key, value in vars(record).items() if key not in NOT_EXTRA}
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json_line(record.levelname.lower(), record.getMessage(), record.created, logger=record.name, **fields)


def start_logging(form: str, level: str) -> None:
    """Send the log of this process to standard error, as ``text`` or ``json``."""
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)

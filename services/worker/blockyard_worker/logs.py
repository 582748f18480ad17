"""Log lines to standard error: text for people, or one JSON object a line for a log collector."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, what is in `fields` at that moment, and the traceback."""

    def __init__(self, **fields: Any) -> None:
        super().__init__()
        self.fields: dict[str, Any] = fields
        """Such as worker, task, block (its id) and attempt."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line of a record."""
        line = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self.fields,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def start_logging(form: str, level: str, **fields: Any) -> JsonFormatter | None:
    """Send the log of this process to standard error; for ``json`` give what can be told of its lines."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = JsonFormatter(**fields) if form == "json" else None
    handler.setFormatter(formatter or logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    return formatter

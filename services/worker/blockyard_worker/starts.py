"""Processes that end before they have done anything: when they are started again, and when nobody should go on so.

A place is a slot, or one process of a user's own worker. What ends in its set-up (a module that is missing, a path that
is wrong, no memory) ends so each time, so the pauses grow, and once every place has failed `MOST_STARTS` times in a row
the worker gives up: who looks after it has the reason, and starts it again when that pays.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MOST_STARTS = 6
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
EXIT_CANNOT_START = 3
"""Exit status of a worker that gives up (`blockyard.local.run` knows it)."""
LONGEST_WORDS = 500
READ_BYTES = 4096


@dataclass(slots=True)
class Starts:
    """What became of the starts in one place since something there worked."""

    failed: int = 0
    reason: str = ""
    """Of the last failure."""

    def worked(self) -> None:
        """Something came of it."""
        self.failed, self.reason = 0, ""

    def fail(self, reason: str) -> float:
        """Nothing came of it; return the seconds to wait before the next start."""
        self.failed, self.reason = self.failed + 1, reason
        return min(FIRST_PAUSE_S * 2.0 ** (self.failed - 1), LONGEST_PAUSE_S)

    @property
    def hopeless(self) -> bool:
        """Whether it failed so often that it will again."""
        return self.failed >= MOST_STARTS


def last_words(log: Path | None, since_bytes: int) -> str:
    """Return the last line that was added to a log since it had this size; "" where there is none."""
    if log is None:
        return ""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(since_bytes, size - READ_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:LONGEST_WORDS] if lines else ""


def size_of(log: Path | None) -> int:
    """Return the size of a log, 0 where it is not there."""
    try:
        return log.stat().st_size if log is not None else 0
    except OSError:
        return 0

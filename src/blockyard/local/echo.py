"""What workers print, shown by the process that started the run; a stream that no text and no terminal can break."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, TextIO

PATTERNS = ("*.slot-*.log", "*.own-*.log")
"""Logs of the processes that run user code."""

log = logging.getLogger("blockyard")


class SteadyStream:
    """A text stream that writes what it can and never raises: a run does not end because nobody can see it.

    What the encoding does not have is written as Python writes it. A stream that is closed, full or gone is given up,
    with a word in the log.
    """

    def __init__(self, stream: TextIO | None) -> None:
        """`stream` may be None, as standard output is of a program without one."""
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text."""
        if self._stream is not None:
            try:
                try:
                    self._stream.write(text)
                except UnicodeEncodeError:
                    self._stream.write(_encodable(text, getattr(self._stream, "encoding", None)))
            except (OSError, ValueError) as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Have it out."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._give_up(error)

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        try:
            return self._stream is not None and self._stream.isatty()
        except (OSError, ValueError):
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self, error: Exception) -> None:
        self._stream = None
        log.warning("nothing more is shown, for it can't be written (%s); the run goes on", error)


def _encodable(text: str, encoding: str | None) -> str:
    try:
        return text.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")
    except LookupError:  # a stream of somebody's own with an encoding that Python does not know
        return text.encode("ascii", "backslashreplace").decode("ascii")


class Echo:
    """Copies what is added to the workers' logs in a folder, whole lines only, whenever `copy` is called."""

    def __init__(self, logs: Path, stream: TextIO | None) -> None:
        """Begin at what the logs hold now: a run that is resumed does not repeat itself."""
        self._logs = logs
        self._stream = SteadyStream(stream)
        self._read_bytes = {path: path.stat().st_size for path in self._files()}

    def copy(self, *, last: bool = False) -> None:
        """Copy what is new; with `last`, also a line that has no end."""
        for path in self._files():
            at = self._read_bytes.get(path, 0)
            if path.stat().st_size <= at:
                continue
            with path.open("rb") as file:
                file.seek(at)
                data = file.read()
            whole = data if last else data[: data.rfind(b"\n") + 1]
            self._read_bytes[path] = at + len(whole)
            self._stream.write(whole.decode(errors="replace"))
        self._stream.flush()

    def _files(self) -> list[Path]:
        return sorted(path for pattern in PATTERNS for path in self._logs.glob(pattern))

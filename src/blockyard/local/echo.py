"""What workers print, shown by the process that started the run."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

PATTERNS = ("*.slot-*.log", "*.own-*.log")
"""Logs of the processes that run user code."""


class Echo:
    """Copies what is added to the workers' logs in a folder, whole lines only, whenever `copy` is called."""

    def __init__(self, logs: Path, stream: TextIO) -> None:
        """Begin at what the logs hold now: a run that is resumed does not repeat itself."""
        self._logs = logs
        self._stream = stream
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

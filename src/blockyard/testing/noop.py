"""Blocks that do nothing, for benchmarks; they leave notes of when they ran."""

from __future__ import annotations

import atexit
import json
import os
import time
from pathlib import Path

from blockyard.spec.block import Block


class Nothing:
    """A process function that does nothing.

    Each slot leaves a file in the folder `notes`: ``began_s``, when its first block began, and ``ended_s``, when it was
    told to end, which is after the last commit of the run (None until then); seconds of the monotonic clock. ``busy_s``
    is the time spent in blocks, for what is derived from this.
    """

    def __init__(self, notes: str) -> None:
        self._note = Path(notes, f"{os.getpid()}-{id(self)}.json")
        self._began_s: float | None = None
        self.busy_s = 0.0
        """Time spent in blocks, where a subclass counts it."""
        atexit.register(self._write, ended=True)

    def __call__(self, _block: Block) -> None:
        """Run a block."""
        if self._began_s is None:
            self._began_s = time.monotonic()
            self._write(ended=False)

    def _write(self, *, ended: bool) -> None:
        partial = self._note.with_suffix(".partial")
        ended_s = time.monotonic() if ended else None
        partial.write_text(json.dumps({"began_s": self._began_s, "ended_s": ended_s, "busy_s": self.busy_s}))
        partial.replace(self._note)

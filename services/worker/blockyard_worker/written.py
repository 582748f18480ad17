"""Where in a slot's log file the output of each block is: `blockyard logs` finds it by this.

Beside ``NAME.log`` stands ``NAME.log.index``, a line for each block that wrote anything: begin and end (bytes),
attempt, block id, task. A block that writes nothing costs one look at the file's size.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TextIO

VARIABLE = "BLOCKYARD_SLOT_LOG"
"""Names the log file to the slot, where it has one of its own."""
STDERR_FD = 2
LEAST_TO_WRITE_S = 2e-6
"""A block that took less has written nothing: looking would double what a block that does nothing costs."""


class Written:
    """The index of one log file, which both standard output and standard error of this process are added to."""

    def __init__(self, log: str) -> None:
        """Go on after what is in the file."""
        self._index: TextIO = Path(f"{log}.index").open("a", buffering=1, encoding="utf-8")  # noqa: SIM115 - for life
        self._size = os.fstat(STDERR_FD).st_size

    def note(self, task: str, block: int, attempt: int) -> None:
        """A block has ended: what has come since the last one is its output."""
        size = os.fstat(STDERR_FD).st_size
        if size != self._size:
            sys.stdout.flush()
            sys.stderr.flush()
            size = os.fstat(STDERR_FD).st_size
            self._index.write(f"{self._size} {size} {attempt} {block} {task}\n")
            self._size = size


def written_here() -> Written | None:
    """Give the index of this slot's log file; None where it has none."""
    log = os.environ.get(VARIABLE, "")
    return Written(log) if log else None

"""A slot's page: memory that the slot writes and the agent reads, so that a block costs no message.

The slot notes where it is before and after each block. When it crashes, the agent still knows which blocks have
finished and which one ran. Blocks have *places*: a counter of all blocks handed to the slot, stored modulo `PLACES`::

    bytes 0..8     place of the block that runs, or comes next         written by the slot
    bytes 8..16    when it started (CLOCK_MONOTONIC, seconds)          written by the slot
    bytes 16..24   what the slot does (`SlotState`)                    written by the slot
    bytes 24..32   size of its log file when that block began          written by the slot
    64..           one outcome a place (u1)                            set to UNSET by the agent, then by the slot
    64 + PLACES..  one duration a place (f4, seconds)                  written by the slot before the outcome
"""

from __future__ import annotations

import enum
import mmap
import os
import tempfile

PLACES = 1 << 16
MASK = PLACES - 1
HEADER_BYTES = 64
SIZE_BYTES = HEADER_BYTES + PLACES + 4 * PLACES
UNSET = 255

PLACE = 0
STARTED = 1
STATE = 2
WRITTEN = 3
"""Positions in the header, in units of 8 bytes."""


class SlotState(enum.IntEnum):
    """What a slot does."""

    STARTING = 0
    IDLE = 1
    LOADING = 2
    """Importing the task's function, or building its class; the block at `PLACE` waits for it."""
    RUNNING = 3


class SlotPage:
    """Views on the shared memory; the same class on both sides."""

    def __init__(self, fd: int) -> None:
        """Map the page behind a file descriptor, which may be closed afterwards."""
        memory = memoryview(mmap.mmap(fd, SIZE_BYTES))
        self.longs = memory[:HEADER_BYTES].cast("q")
        self.doubles = memory[:HEADER_BYTES].cast("d")
        self.outcomes = memory[HEADER_BYTES : HEADER_BYTES + PLACES]
        self.seconds = memory[HEADER_BYTES + PLACES : SIZE_BYTES].cast("f")


def shared_fd(name: str, size_bytes: int) -> int:
    """Return a file descriptor of fresh zeroed memory that no path leads to (on Linux; elsewhere an unlinked file)."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create(name)
    else:
        fd, path = tempfile.mkstemp(prefix=name)
        os.unlink(path)  # noqa: PTH108 - a bare file descriptor
    os.ftruncate(fd, size_bytes)
    return fd

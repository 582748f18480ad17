"""Which leases a process has acquired and not released, in memory that its agent reads when the process has died.

A process that ends without Python's exit (`os._exit`, a crash in a library, kill -9) says nothing. Its agent sees how
it ended, and here which blocks it ran: the evidence is against these and no others. The memory is a page of signed
64-bit numbers: first how many blocks it has taken, and 1 more (0: no Client was made, so that only processes which this
one started lease blocks, and nothing is known of those); then lease numbers, 0 where a place is free. Behind them is a
text: the exception with which it ended.
"""

from __future__ import annotations

import mmap
import os

import numpy as np
import numpy.typing as npt

NUMBERS_BYTES = 4096
TEXT_BYTES = 1024
SIZE_BYTES = NUMBERS_BYTES + TEXT_BYTES
PLACES = NUMBERS_BYTES // 8 - 1
"""Blocks that run at once in one process, at most; further ones are not noted."""


class InHand:
    """The page; the same class in the process and in its agent."""

    def __init__(self, fd: int) -> None:
        """Map the page behind a file descriptor, which may be closed afterwards."""
        page = memoryview(mmap.mmap(fd, SIZE_BYTES))
        self._longs = page[:NUMBERS_BYTES].cast("q")
        self._text = page[NUMBERS_BYTES:]
        self._free = list(range(PLACES, 0, -1))
        self._places: dict[int, int] = {}

    def open(self) -> None:
        """A Client was made."""
        self._longs[0] = self._longs[0] or 1

    def take(self, number: int) -> None:
        """The block of this lease runs."""
        self._longs[0] += 1
        if self._free:
            self._places[number] = place = self._free.pop()
            self._longs[place] = number

    def drop(self, number: int) -> None:
        """It runs no more; harmless for one that was not noted."""
        if place := self._places.pop(number, 0):
            self._longs[place] = 0
            self._free.append(place)

    def end(self, error: str) -> None:
        """The process ends with this error."""
        text = error.encode(errors="replace")[:TEXT_BYTES]
        self._text[: len(text)] = text

    @property
    def error(self) -> str:
        """The error with which it ended; "" where it has none, or could not say it."""
        return bytes(self._text).rstrip(b"\0").decode(errors="replace")

    @property
    def worked(self) -> bool:
        """Whether any block was taken."""
        return self._longs[0] > 1

    def numbers(self) -> npt.NDArray[np.int64] | None:
        """Return the leases that run, in no order; None where no Client was made."""
        longs = np.array(self._longs)
        return longs[1:][longs[1:] != 0] if longs[0] else None


_ours: InHand | None = None


def watch(fd: int) -> None:
    """Have the Clients of this process note their leases in the page behind `fd`; those of a forked one do not."""
    global _ours  # noqa: PLW0603 - there is one page a process
    _ours = InHand(fd)
    os.register_at_fork(after_in_child=_forget)


def _forget() -> None:
    global _ours  # noqa: PLW0603
    _ours = None


def ours() -> InHand | None:
    """Return the page of this process; None where nobody reads one."""
    return _ours


def end(error: str) -> None:
    """Have our agent know with which error this process ends; nothing in a forked one, or without an agent."""
    if _ours is not None:
        _ours.end(error)

"""A block is one process, whoever forks: a child that comes out of user code into ours ends there.

User code may fork (`os.fork`, a library, `pty.fork`), and the child may leave as programs do: by `sys.exit`, by an
exception, or by reaching the end of the function. What it would come back to is a copy of our loop: a second slot, or
the rest of somebody's script. So who has called user code looks whether it is still the same process::

    with OneProcess():
        function(block)

A child ends as a program does, with its exit status and its traceback on standard error, but leaves alone what belongs
to the process it was copied from: the hooks of `atexit` (which remove temporary folders, say) and what waits in the
buffers of that one's files.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from types import TracebackType
from typing import NoReturn

from blockyard.client import output
from blockyard.client.interrupts import INTERRUPTED


class OneProcess:
    """What is called inside may fork; only the process that went in comes out."""

    def __enter__(self) -> None:
        self._pid = os.getpid()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        if os.getpid() != self._pid:
            leave(error)


def leave(error: BaseException | None = None) -> NoReturn:
    """End this process, a copy of one of ours, in which user code has returned or raised `error`."""
    status = 1
    try:
        status = _status(error)
        for thread in threading.enumerate():  # those that it has started itself: others are not copied
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        output.finish()
    finally:
        os._exit(status)


def _status(error: BaseException | None) -> int:
    """Return the exit status that Python gives to a program that ends with `error`; say what it says."""
    if error is None:
        return 0
    status = INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
    if not isinstance(error, SystemExit):
        sys.excepthook(type(error), error, error.__traceback__)
    elif error.code is None or isinstance(error.code, int):
        status = (error.code or 0) & 0xFF
    else:
        sys.stderr.write(f"{error.code}\n")
    traceback.clear_frames(error.__traceback__)  # closes the files that they had open
    return status

"""Whether a KeyboardInterrupt is a signal that came, or one that user code raised itself.

A batch system or a person sends SIGINT to end processes, which is no fault of a block; a block that raises
KeyboardInterrupt has failed like any other. Only a handler of ours can tell: it remembers.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
"""What shells give as the status of a program that SIGINT has ended."""

_watching = False
_came = False


def watch() -> None:
    """Remember from now on whether SIGINT came; call it before user code runs, in a process of ours."""
    global _watching  # noqa: PLW0603 - a process has one handler
    _watching = True
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM, signal.SIGINT])  # our agent holds them back for itself
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it was told to ignore the signal
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    global _came  # noqa: PLW0603
    _came = True
    raise KeyboardInterrupt


def is_from_outside(error: BaseException | None) -> bool:
    """Whether `error` is a KeyboardInterrupt that no code raised, or may be one, where nobody watches."""
    return isinstance(error, KeyboardInterrupt) and (_came or not _watching)


def end_by_it() -> NoReturn:
    """End this process as SIGINT ends a program, so that who waits for it sees why."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
    os._exit(INTERRUPTED)  # where the signal is blocked

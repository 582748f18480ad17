"""What there is once a process and user code may change: each task of a slot has its own.

A slot runs blocks of many tasks. A task that changes directory, sets a variable, handles a signal or turns warnings off
does that for itself: before a block of another task all of it is put back as it was, and before its own next block as
it has left it. What the import of a module or the building of a class changes is for all tasks where the kind says
so, since a module is imported once for all that use it.

Not put back, since nothing can or nobody would expect it: modules and what is in them, loggers other than the root,
threads, children, open files, memory, the scheduling priority.
"""

from __future__ import annotations

import contextlib
import gc
import locale
import logging
import os
import random
import resource
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Kind:
    """One thing that there is once a process."""

    take: Callable[[], Any]
    """Return it as it is now; equal to what it was unless it was changed."""
    put: Callable[[Any], None]
    shared: bool = False
    """Whether what an import changes is for all tasks."""
    fresh: bool = False
    """Whether a task begins with one of its own, by `put(None)`: the same numbers in two tasks would be as bad."""


LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
SIGNALS = [number for number in range(1, signal.SIGRTMIN) if number not in {signal.SIGKILL, signal.SIGSTOP}]


def _put_environment(wanted: Mapping[str, str]) -> None:
    for name in [name for name in os.environ if name not in wanted]:
        del os.environ[name]
    os.environ.update(wanted)


def _umask() -> int:
    now = os.umask(0o077)
    os.umask(now)
    return now


def _put_limits(wanted: Mapping[int, tuple[int, int]]) -> None:
    for limit, (soft, hard) in wanted.items():
        with contextlib.suppress(ValueError, OSError):  # a hard limit that was lowered stays, but for root
            resource.setrlimit(limit, (soft, hard))


def _handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in SIGNALS}


def _put_handlers(wanted: Mapping[int, Any]) -> None:
    for number, handler in wanted.items():
        if handler is not None and handler is not signal.getsignal(number):  # None: it was not set from Python
            signal.signal(number, handler)


def _put_timers(_: Any) -> None:
    """End what was set: it would go off in a block of another task."""
    for timer in TIMERS:
        signal.setitimer(timer, 0.0)


def _put_random(wanted: tuple[Any, ...] | None) -> None:
    if wanted is None:
        random.seed()
    else:
        random.setstate(wanted)


def _numpy_random() -> Any:
    if "numpy.random" not in sys.modules:  # importing it takes longer than all of this
        return None
    return np.random.get_state(legacy=False)  # noqa: NPY002 - the global one is what is shared


def _put_numpy_random(wanted: Any) -> None:
    if wanted is not None:
        np.random.set_state(wanted)  # noqa: NPY002
    elif "numpy.random" in sys.modules:
        np.random.seed()  # noqa: NPY002


def _put_warnings(wanted: list[Any]) -> None:
    warnings.resetwarnings()  # the list may be changed, but only this makes what was warned of before be forgotten
    warnings.filters.extend(wanted)  # type: ignore[attr-defined]


def _logging() -> tuple[Any, ...]:
    return logging.root.level, list(logging.root.handlers), logging.root.manager.disable


def _put_logging(wanted: tuple[Any, ...]) -> None:
    level, handlers, disabled = wanted
    logging.root.setLevel(level)
    logging.root.handlers[:] = handlers
    logging.disable(disabled)


def _streams() -> tuple[Any, ...]:
    return sys.stdin, sys.stdout, sys.stderr, sys.excepthook, sys.displayhook


def _put_streams(wanted: tuple[Any, ...]) -> None:
    sys.stdin, sys.stdout, sys.stderr, sys.excepthook, sys.displayhook = wanted


def _folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - a string, as it is changed back to
    except OSError:  # it was removed
        return ""


def _put_folder(wanted: str) -> None:
    with contextlib.suppress(OSError):
        os.chdir(wanted)


def _put_path(wanted: list[str]) -> None:
    sys.path[:] = wanted


def _put_locale(wanted: str) -> None:
    locale.setlocale(locale.LC_ALL, wanted)


KINDS: dict[str, Kind] = {
    "environment variables": Kind(lambda: dict(os.environ), _put_environment, shared=True),
    "working directory": Kind(_folder, _put_folder),
    "module search path": Kind(
        lambda: list(sys.path), lambda wanted: sys.path.__setitem__(slice(None), wanted), shared=True
    ),
    "umask": Kind(_umask, lambda wanted: void(os.umask(wanted))),
    "resource limits": Kind(lambda: {limit: resource.getrlimit(limit) for limit in LIMITS}, _put_limits),
    "signal handlers": Kind(_handlers, _put_handlers),
    "signal mask": Kind(
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        lambda wanted: void(signal.pthread_sigmask(signal.SIG_SETMASK, wanted)),
    ),
    "timers": Kind(lambda: any(signal.getitimer(timer)[0] for timer in TIMERS), _put_timers),
    "random numbers of Python": Kind(random.getstate, _put_random, fresh=True),
    "random numbers of numpy": Kind(_numpy_random, _put_numpy_random, fresh=True),
    "how numpy treats errors": Kind(np.geterr, lambda wanted: void(np.seterr(**wanted)), shared=True),
    "how numpy prints": Kind(np.get_printoptions, lambda wanted: np.set_printoptions(**wanted), shared=True),
    "locale": Kind(
        lambda: locale.setlocale(locale.LC_ALL),
        lambda wanted: void(locale.setlocale(locale.LC_ALL, wanted)),
        shared=True,
    ),
    "warnings": Kind(lambda: list(warnings.filters), _put_warnings, shared=True),
    "root logger": Kind(_logging, _put_logging, shared=True),
    "standard streams and hooks": Kind(_streams, _put_streams),
    "recursion limit": Kind(sys.getrecursionlimit, sys.setrecursionlimit, shared=True),
    "garbage collection": Kind(gc.isenabled, lambda wanted: gc.enable() if wanted else gc.disable(), shared=True),
    "timeout of new sockets": Kind(socket.getdefaulttimeout, socket.setdefaulttimeout, shared=True),
}


def void(_: Any) -> None:
    """Take what a setter gives back."""


class ProcessState:
    """The state of each task's own, of one slot."""

    def __init__(self) -> None:
        self._first = {name: None if kind.fresh else kind.take() for name, kind in KINDS.items()}
        self._of: dict[str, dict[str, Any]] = {}
        self._task = ""

    def change_to(self, task: str) -> None:
        """Keep the state as the last task leaves it, and put that of this one."""
        now = {name: kind.take() for name, kind in KINDS.items()}
        if self._task:
            self._of[self._task] = now
        wanted = self._of.get(task, self._first)
        for name, kind in KINDS.items():
            if kind.fresh or now[name] != wanted[name]:  # whether random states differ takes longer than to put one
                kind.put(wanted[name])
        self._task = task

    def imported(self) -> None:
        """What a task was loaded from has been imported for the first time: that is for later tasks too."""
        for name, kind in KINDS.items():
            if kind.shared:
                self._first[name] = kind.take()

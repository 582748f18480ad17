"""A user's own worker: the process that calls a function of no argument, which drives `blockyard.Client` itself.

Started by the agent as ``python -m blockyard_worker.userloop PAGE_FD REFERENCE [PICKLE_DIR]``. SIGTERM has its Clients
give None after the block that runs, so that an ordinary loop ends by itself; a second one ends the process. What they
run is noted in the page behind PAGE_FD, where the agent finds it if the process dies.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from blockyard.client import inhand, interrupts, main_module
from blockyard.client.forked import OneProcess
from blockyard.client.imported import Imported
from blockyard.logs import say_always
from blockyard.spec.errors import BlockyardError
from blockyard.spec.functions import has_call, load_function
from blockyard.spec.module_path import find_user_code
from blockyard.spec.randomness import SeededGlobals, random_sources
from blockyard.spec.unrun import unrun_function, unrun_result
from blockyard_worker.process import process_output


def stop(_number: int, _frame: FrameType | None) -> None:
    """Let the loop end; the second time, at once."""
    from blockyard.client.client import request_stop

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    request_stop()


class Forks:
    """Lets SIGTERM end a process that user code forks: a multiprocessing.Pool ends its processes so, and waits.

    The signal is held back during the fork, or one that comes before the new process has undone our handler is lost.
    """

    def __init__(self) -> None:
        self._masks = threading.local()
        os.register_at_fork(before=self._begin, after_in_parent=self._end, after_in_child=self._forked)

    def _begin(self) -> None:
        self._masks.old = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    def _forked(self) -> None:
        if signal.getsignal(signal.SIGTERM) is stop:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._end()

    def _end(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.old)


def _ready(function: Any, seeded: SeededGlobals) -> Any:
    """Return what is called: of a class an instance. The Clients that it makes learn what they should know of it."""
    with seeded.watching():
        called = function() if has_call(function) else function
    from blockyard.client.client import prepare_clients

    prepare_clients(random_sources(called) + seeded.sources, Imported().code_of(called))
    return called


def main(argv: list[str]) -> int:
    """Call the user's function: ``PAGE_FD REFERENCE [PICKLE_DIR]``."""
    page_fd, reference, *pickle_dir = int(argv[0]), *argv[1:3]
    inhand.watch(page_fd)
    os.close(page_fd)
    signal.signal(signal.SIGTERM, stop)
    interrupts.watch()
    main_module.take()
    Forks()
    process_output(os.environ).install()
    say_always(run=os.environ.get("BLOCKYARD_RUN", ""))
    find_user_code(os.environ)
    try:
        fault = call(reference, pickle_dir[0] if pickle_dir else None)
    except BaseException as error:
        if not (isinstance(error, SystemExit) and error.code in (None, 0)):
            inhand.end(f"{type(error).__name__}: {error}")
        raise
    if fault is None:
        return 0
    inhand.end(fault)
    sys.stderr.write(f"blockyard worker: {fault}\n")
    return 2


def call(reference: str, pickle_dir: str | None) -> str | None:
    """Call the function; return why it is none that can be called, or None."""
    seeded = SeededGlobals()
    try:
        with seeded.watching():
            function = load_function(reference, pickle_dir=pickle_dir)
        main_module.show(function)
    except BlockyardError as error:
        return str(error)
    if (fault := unrun_function(function)) is not None:
        return f"'{reference}' {fault}"
    with OneProcess():
        result = _ready(function, seeded)()
    unrun = unrun_result(result)
    return unrun and f"'{reference}' returned {unrun}, so nothing of it has run"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

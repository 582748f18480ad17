"""Signals that tell an agent to end, with the process that sent them.

A batch system and a person may end a worker; user code must not, though it can: one `os.kill(os.getppid(), SIGTERM)`
in a block, and its worker would leave, be started again, and get the block again. Python's handlers are not told who
sent a signal, `sigwaitinfo` is, in a thread that waits for signals which all threads hold back. Children inherit that
and undo it (`interrupts.watch`).
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterable

from blockyard_worker.process import ChildProcess
from blockyard_worker.watchdog import find_processes

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Told:
    """Calls `told` on the loop with (signal, sender) for each signal; the sender is 0 where it is not known."""

    def __init__(self, told: Callable[[int, int], None]) -> None:
        """Begin, on a running loop in the main thread; before its imports the process has held the signals back."""
        self._told = told
        self._loop = asyncio.get_running_loop()
        for number in SIGNALS:  # where the system has no sigwaitinfo
            self._loop.add_signal_handler(number, told, number, 0)
        if hasattr(signal, "sigwaitinfo"):
            threading.Thread(target=self._wait, name="signals", daemon=True).start()

    def _wait(self) -> None:
        while True:
            came = signal.sigwaitinfo(SIGNALS)
            try:  # as a timer, which comes after all that had arrived before the signal
                self._loop.call_soon_threadsafe(self._loop.call_later, 0, self._told, came.si_signo, came.si_pid)
            except RuntimeError:  # the loop has ended, and so will the process
                return


def sent_by(processes: Iterable[ChildProcess], sender: int) -> ChildProcess | None:
    """Return the child that is, or started, the process `sender`; None where it came from elsewhere."""
    if not sender:
        return None
    return next((one for one in processes if sender in find_processes(one.mark, [one.pid])), None)

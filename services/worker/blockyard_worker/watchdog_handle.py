"""The agent's side of its watchdog (see `watchdog.py`)."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from blockyard_worker import watchdog
from blockyard_worker.process import adopt_orphans, reap_orphans
from blockyard_worker.slot_page import shared_fd


class WatchdogHandle:
    """A running watchdog process: it is told the deadline and the process groups, and replaced where it has died."""

    def __init__(self, mark: str) -> None:
        """Start a watchdog for all processes whose mark begins with `mark`."""
        adopt_orphans()
        self._mark = mark
        self._page_fd = shared_fd("blockyard-watchdog", watchdog.PAGE_BYTES)
        self.page = watchdog.WatchdogPage(self._page_fd)
        self.page.deadline_s = math.inf
        self._start()

    def _start(self) -> None:
        read_fd, self._write_fd = os.pipe()
        command = [
            sys.executable,
            "-I",
            "-S",
            str(Path(watchdog.__file__)),
            str(read_fd),
            str(self._page_fd),
            self._mark,
        ]
        try:
            self._process = subprocess.Popen(
                command, pass_fds=(read_fd, self._page_fd), stdin=subprocess.DEVNULL, start_new_session=True
            )
        finally:
            os.close(read_fd)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def update(self, deadline_s: float, groups: Iterable[int]) -> None:
        """Tell it when the leases run out and which process groups there are; start another one where it has died."""
        listed = list(groups)
        self.page.groups = listed
        self.page.deadline_s = deadline_s
        reap_orphans({self._process.pid, *listed})
        if self._process.poll() is not None:
            os.close(self._write_fd)
            self._start()

    def close(self) -> None:
        """End it; it kills what is left of the agent's processes first."""
        os.close(self._write_fd)
        self._process.wait()
        os.close(self._page_fd)

"""The watchdog: a small process outside user code that ends what an agent started when the agent cannot.

It holds one end of a pipe; the agent holds the other, and nobody else. It also sees a page of memory with the time at
which the agent's leases run out. Two things make it act:

- the pipe ends: the agent is dead, however it died. All that it started is killed, and the watchdog ends.
- the deadline has passed: the agent is frozen (or it would have moved the deadline, or killed its slots itself). The
  slots are killed, since another worker may begin their blocks; the watchdog stays, in case the agent thaws.

What the agent started is found by process group (each slot leads one), by descent, and on Linux by a variable in the
environment, which also finds daemons that left both. Only a process that cleared its environment *and* left group and
parent escapes.

Run as a file by an isolated interpreter (``python -I -S watchdog.py PIPE_FD PAGE_FD MARK``): it starts in 15 ms,
imports nothing of the user's, and needs 7 MB.
"""

from __future__ import annotations

import math
import mmap
import os
import select
import signal
import sys
import time
from collections.abc import Iterable

MARK_VARIABLE = "BLOCKYARD_MARK"
"""In the environment of all that an agent starts: its worker id, ``/``, and the slot."""

MOST_GROUPS = 1000
PAGE_BYTES = 8 * (2 + MOST_GROUPS)
DEADLINE = 0
"""Position of the deadline in the page (a double: CLOCK_MONOTONIC seconds, infinite while nothing is leased)."""
COUNT = 1
"""Position of the number of process groups; the groups (signed 64-bit) follow."""

LOOK_S = 0.25
MARGIN_S = 0.5
"""How long past the deadline a healthy but busy agent gets to do it itself. The scheduler's grace is longer."""


class WatchdogPage:
    """The memory that agent and watchdog share."""

    def __init__(self, fd: int) -> None:
        """Map the page behind a file descriptor, which may be closed afterwards."""
        memory = memoryview(mmap.mmap(fd, PAGE_BYTES))
        self._longs = memory.cast("q")
        self._doubles = memory.cast("d")

    @property
    def deadline_s(self) -> float:
        """When the slots must have stopped."""
        return self._doubles[DEADLINE]

    @deadline_s.setter
    def deadline_s(self, value: float) -> None:
        self._doubles[DEADLINE] = value

    @property
    def groups(self) -> list[int]:
        """The process groups of the slots."""
        return [group for group in self._longs[COUNT + 1 : COUNT + 1 + self._longs[COUNT]] if group > 1]

    @groups.setter
    def groups(self, groups: Iterable[int]) -> None:
        listed = list(groups)[:MOST_GROUPS]
        for at, group in enumerate(listed):
            self._longs[COUNT + 1 + at] = group
        self._longs[COUNT] = len(listed)


def kill_all(mark: str, groups: Iterable[int] = ()) -> int:
    """Kill process groups, their descendants, and all processes whose mark begins with `mark`; give how many were seen.

    Looks again until nothing is left, because a process may fork while it is being killed. Never kills the caller.
    """
    groups = {group for group in groups if group > 1 and group != os.getpgrp()}
    killed: set[int] = set()
    for _ in range(50):
        found = find_processes(mark, groups) - killed
        for group in groups:
            _kill(-group)
        for pid in found:
            _kill(pid)
        if not found:
            break
        killed |= found
    return len(killed)


def find_processes(mark: str, groups: Iterable[int] = ()) -> set[int]:
    """Return the living processes with that mark, in these groups or sessions, or below them (Linux only)."""
    if not os.path.isdir("/proc/self"):  # noqa: PTH112 - pathlib would double the start-up time
        return set()
    wanted = f"{MARK_VARIABLE}={mark}".encode()
    roots = set(groups)
    parents: dict[int, int] = {}
    found = set()
    for name in os.listdir("/proc"):  # noqa: PTH208 - likewise
        if not name.isdigit():
            continue
        pid = int(name)
        stat = _read(pid, "stat")
        # "pid (command) state parent group session ...": the command may hold spaces and brackets.
        fields = stat[stat.rfind(b")") + 2 :].split()
        if len(fields) < 4 or fields[0] in b"ZX":
            continue
        parents[pid] = int(fields[1])
        if int(fields[2]) in roots or int(fields[3]) in roots or b"\0" + wanted in b"\0" + _read(pid, "environ"):
            found.add(pid)
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found - {os.getpid()}


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:  # noqa: PTH123 - likewise
            return file.read()
    except OSError:  # it has ended, or is another user's
        return b""


def _kill(pid: int) -> None:
    try:
        if pid < 0:
            os.killpg(-pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
    except OSError:
        pass


def watch(pipe_fd: int, page: WatchdogPage, mark: str) -> None:
    """Wait for the agent's end; kill its slots whenever the deadline passes."""
    while True:
        if select.select([pipe_fd], [], [], LOOK_S)[0]:
            kill_all(mark, page.groups)
            return
        deadline = page.deadline_s
        if 0 < deadline < math.inf and time.monotonic() > deadline + MARGIN_S:
            kill_all(mark, page.groups)


def main(argv: list[str]) -> int:
    """Watchdog an agent: ``PIPE_FD PAGE_FD MARK``."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with its agent, not with the terminal
    page = WatchdogPage(int(argv[1]))
    watch(int(argv[0]), page, argv[2])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

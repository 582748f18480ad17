"""What the processes of a run cost, read from Linux' /proc; a process that has ended keeps its last figures."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

TICKS = os.sysconf("SC_CLK_TCK")
LOOK_EVERY_S = 0.05


@dataclass(slots=True)
class Usage:
    """One process."""

    cpu_s: float = 0.0
    """User and system time."""
    peak_mb: float = 0.0
    """Largest resident set it ever had."""
    now_mb: float = 0.0
    """Resident set at the last look."""


def usage(pid: int) -> Usage | None:
    """Look at one process; None where it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
        )
    except (FileNotFoundError, ProcessLookupError):
        return None
    if "VmRSS" not in status:  # ended, not yet waited for
        return None
    cpu_s = (int(stat[11]) + int(stat[12])) / TICKS
    return Usage(cpu_s, int(status["VmHWM"].split()[0]) / 1024, int(status["VmRSS"].split()[0]) / 1024)


def children(pid: int) -> list[int]:
    """Give the processes that this one started."""
    found = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    except FileNotFoundError:
        pass
    return found


def role_of(pid: int) -> str | None:
    """Say what a process is in a run of blockyard, from its command line."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except FileNotFoundError:
        return None
    line = b" ".join(words)
    for mark, role in (
        (b"blockyard_scheduler", "scheduler"),
        (b"blockyard_worker.slot", "slots"),
        (b"blockyard_worker.watchdog", "watchdog"),
        (b"blockyard_worker", "agent"),
        (b"valkey-server", "redis"),
        (b"redis-server", "redis"),
    ):
        if mark in line and not words[0].endswith(b"sh"):
            return role
    return None


@dataclass(slots=True)
class Watch:
    """Follows all that this process starts, from a thread: `with Watch() as watch: ...; watch.by_role()`."""

    _seen: dict[int, tuple[str, Usage]] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> None:
        """Look at all processes now."""
        waiting = children(os.getpid())
        while waiting:
            pid = waiting.pop()
            waiting += children(pid)
            role, used = role_of(pid), usage(pid)
            if role is not None and used is not None:
                self._seen[pid] = role, used

    def by_role(self) -> dict[str, Usage]:
        """Give the sum of processor time, and the largest memory, of the processes of each role."""
        found: dict[str, Usage] = {}
        for role, used in list(self._seen.values()):
            sum_ = found.setdefault(role, Usage())
            sum_.cpu_s += used.cpu_s
            sum_.peak_mb = max(sum_.peak_mb, used.peak_mb)
            sum_.now_mb = max(sum_.now_mb, used.now_mb)
        return found

    def _follow(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            self.look()

"""What the scheduler counts as it goes: plain numbers, added to once a batch; `metrics.py` shows them to Prometheus."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from blockyard.core.events import (
    BlocksReleased,
    BlocksWanted,
    CommitRecord,
    Effect,
    Event,
    FailureNote,
    SendLeases,
    WorkerGone,
)
from blockyard.wire.messages import Outcome

DURATION_BOUNDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1200, 3600, 7200, 14400)
"""Seconds a block runs: upper bounds of the histogram."""
WAIT_BOUNDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 300)
COMMIT_BOUNDS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
RETRY_REASONS = ("error", "check", "timeout", "signal", "exit", "lost")
WASTE_REASONS = {
    Outcome.FAILED: "failed",
    Outcome.FATAL: "failed",
    Outcome.KILLED: "killed",
    Outcome.LOST: "lost",
    Outcome.RETURNED: "returned",
}
REFUSALS = ("token", "protocol", "standby", "pool", "busy", "malformed", "timeout")
"""Why a connection was refused: the codes of `Refused`, and those that never spoke the protocol."""


class Tally:
    """A histogram: how many values up to each bound, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = np.zeros(len(bounds) + 1, np.int64)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_right(self.bounds, value)] += 1
        self.total += value

    def add_all(self, values: npt.NDArray[np.floating]) -> None:
        """Count many values at once."""
        at = np.searchsorted(self.bounds, values, "right")
        self.counts += np.bincount(at, minlength=len(self.counts))
        self.total += float(values.sum(dtype=np.float64))


class Meter:
    """All that is counted of one run by one scheduler process."""

    def __init__(self, tasks: Sequence[str]) -> None:
        """Start every count at zero for these tasks."""
        self.tasks = tuple(tasks)
        self.durations = {task: Tally(DURATION_BOUNDS) for task in tasks}
        self.waits = Tally(WAIT_BOUNDS)
        self.commits = Tally(COMMIT_BOUNDS)
        self.failed = Counter(dict.fromkeys(tasks, 0))
        """Blocks that failed for good, by task."""
        self.retries = Counter({(task, reason): 0 for task in tasks for reason in RETRY_REASONS})
        self.wasted_s = dict.fromkeys(dict.fromkeys(WASTE_REASONS.values()), 0.0)
        self.refused = Counter(dict.fromkeys(REFUSALS, 0))
        self.granted = 0
        self.turns = 0
        self._wanted_s: dict[str, float] = {}

    def turned(self, events: Iterable[Event], effects: Iterable[Effect], began_s: float, spoke_s: float) -> None:
        """A turn was told these events and decided these effects."""
        self.turns += 1
        for event in events:
            match event:
                case BlocksReleased():
                    self.released(event)
                case BlocksWanted():
                    self.wanted(event.worker, event.n, began_s)
                case WorkerGone():
                    self.gone(event.worker)
                case _:
                    pass
        for effect in effects:
            match effect:
                case SendLeases():
                    self.leased(effect, spoke_s)
                case CommitRecord():
                    self.noted(effect.errors)
                case _:
                    pass

    def wanted(self, worker: str, n: int, now: float) -> None:
        """A worker wants blocks; it waits from its first wish that was not met."""
        if n > 0:
            self._wanted_s.setdefault(worker, now)
        else:
            self._wanted_s.pop(worker, None)

    def leased(self, lease: SendLeases, now: float) -> None:
        """Leases were sent."""
        self.granted += len(lease.blocks)
        if (since_s := self._wanted_s.pop(lease.worker, None)) is not None:
            self.waits.add(now - since_s)

    def released(self, event: BlocksReleased) -> None:
        """A worker said what became of leases, and how long each block ran."""
        if event.seconds is None or not (event.outcomes >= Outcome.FAILED).any():
            return
        for outcome, reason in WASTE_REASONS.items():
            self.wasted_s[reason] += float(event.seconds[event.outcomes == outcome].sum(dtype=np.float64))

    def take_durations(self, durations: dict[str, list[npt.NDArray[np.float32]]]) -> None:
        """Count how long blocks ran, by task, and empty the lists."""
        for task, parts in durations.items():
            if parts:
                self.durations[task].add_all(np.concatenate(parts))
                parts.clear()

    def gone(self, worker: str) -> None:
        """A worker will not come back."""
        self._wanted_s.pop(worker, None)

    def noted(self, notes: Iterable[FailureNote]) -> None:
        """Attempts failed."""
        for note in notes:
            if note.final:
                self.failed[note.task] += 1
            else:
                kind = note.error.kind
                self.retries[note.task, kind if kind in RETRY_REASONS else "error"] += 1

"""How a run has used its slots: busy slot-seconds by task and slots by pool, in all and lately.

`Pace.look` is told once in a while how things stand; that is taken to hold until the next look. Time in which nothing
is leased on purpose (a pause) is left out: the window is the last two minutes in which the run could go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from blockyard.record.rates import WINDOW_S

Floats: TypeAlias = npt.NDArray[np.float64]

LOOK_EVERY_S = 1.0


class Usage(NamedTuple):
    """What a task has used in a stretch of time."""

    busy_s: float
    """Slot-seconds that held a block."""
    work_s: float
    """Seconds that workers say attempts took, failed ones included."""
    done: float
    """Blocks done or skipped."""


@dataclass(frozen=True, slots=True)
class Past:
    """What a stretch of time has seen."""

    seconds: float
    busy_s: Floats
    """Slot-seconds that held a block, by task."""
    done: Floats
    """Blocks done or skipped, by task."""
    work_s: Floats
    """Seconds that workers say attempts took, by task, failed ones included."""
    slots_s: Floats
    """Slot-seconds that were there, by pool."""

    def of(self, task: int) -> Usage:
        """Return what concerns one task."""
        return Usage(float(self.busy_s[task]), float(self.work_s[task]), float(self.done[task]))


class Pace:
    """Integrates busy slots and slots over time."""

    __slots__ = ("_busy", "_parts", "_runs", "_samples", "_slots", "next_s", "seen_s")

    def __init__(self, n_tasks: int, n_pools: int) -> None:
        self._parts = np.cumsum([n_tasks, n_tasks, n_tasks])
        self._busy = np.zeros(n_tasks)
        self._slots = np.zeros(n_pools)
        self._runs = False
        self.seen_s: float | None = None
        """When it was last told."""
        self.next_s = float("-inf")
        """From when on it is worth telling again."""
        self._samples: deque[tuple[float, Floats]] = deque([(0.0, np.zeros(3 * n_tasks + n_pools))])
        """(seconds in which the run could go on, what was seen in them), since the beginning."""

    def look(
        self,
        now: float,
        *,
        busy: Sequence[float],
        slots: Sequence[float],
        done: Sequence[float],
        work_s: Sequence[float],
        runs: bool,
    ) -> None:
        """Take how things stand: slots busy by task and present by pool; blocks and seconds in all since the beginning.

        `runs` is False while nothing is leased on purpose.
        """
        at, seen = self._samples[-1]
        passed = now - self.seen_s if self.seen_s is not None and self._runs else 0.0
        busy_s, _, _, slots_s = np.split(seen, self._parts)
        sample = np.concatenate([busy_s + passed * self._busy, done, work_s, slots_s + passed * self._slots])
        if passed or not self._runs:
            self._samples.append((at + passed, sample))
        while len(self._samples) > 1 and self._samples[1][0] <= at + passed - WINDOW_S:
            self._samples.popleft()
        self._busy, self._slots, self._runs = np.array(busy, float), np.array(slots, float), runs
        self.seen_s, self.next_s = now, now + LOOK_EVERY_S

    def slots(self, pool: int) -> float:
        """Return how many slots of a pool were there at the last look."""
        return float(self._slots[pool])

    def busy(self, task: int) -> float:
        """Return how many slots held a block of a task at the last look."""
        return float(self._busy[task])

    def window(self) -> Past:
        """Return the last two minutes in which the run could go on."""
        (since, before), (until, seen) = self._samples[0], self._samples[-1]
        return Past(until - since, *np.split(seen - before, self._parts))

    def whole(self) -> Past:
        """Return all since the beginning."""
        until, seen = self._samples[-1]
        return Past(until, *np.split(seen, self._parts))

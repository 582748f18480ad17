"""What a run has cost and how fast it goes, since this scheduler began to lead. Nothing here decides what may run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from blockyard.core.observer import Seconds, TaskShape
from blockyard.record.rates import Rate
from blockyard.wire.messages import Outcome

RECENT_BLOCKS = 512
"""Durations kept of each task, for the median."""


class Measures:
    """Counters of the whole run, and by task what its blocks took and how many a second are done."""

    def __init__(self, tasks: Sequence[TaskShape]) -> None:
        """Begin at zero."""
        self.granted = 0
        self.expired = 0
        self.stale = 0
        self.undone = 0
        """Blocks that were over and were made to wait again, by retries and reruns."""
        self.by_outcome: dict[tuple[str, Outcome], int] = {}
        self.work_s: dict[str, float] = {}
        """Seconds that attempts took, by task, as workers say."""
        self.voxels: dict[str, int] = {}
        """Voxels that done blocks have written, by task; skipped blocks write none."""
        self.durations: dict[str, list[Seconds]] = {}
        """Seconds of finished blocks since the last time somebody took them, for a histogram."""
        self.rates = {task.number: Rate() for task in tasks}
        """Blocks done or skipped a second."""
        self.voxel_rates = {task.number: Rate() for task in tasks}
        self.recent_s: dict[int, Seconds] = {}
        """Seconds of the last blocks, by task."""
        self.ids = tuple(task.id for task in tasks)
        """Id of each task, by number."""

    def leased(self, task: int, n: int, now: float) -> None:
        """`n` blocks of a task were leased."""
        self.rates[task].start(now)
        self.voxel_rates[task].start(now)
        self.granted += n

    def ended(self, task: int, outcome: Outcome, n: int, seconds: Seconds | None) -> None:
        """`n` leases on blocks of a task ended with this outcome, after attempts that took so long."""
        id_ = self.ids[task]
        key = (id_, outcome)
        self.by_outcome[key] = self.by_outcome.get(key, 0) + n
        if seconds is not None:
            self.work_s[id_] = self.work_s.get(id_, 0.0) + float(seconds.sum(dtype=np.float64))

    def finished_blocks(self, task_id: str) -> int:
        """Count the blocks of a task that were done or skipped; never goes down."""
        return sum(self.by_outcome.get((task_id, outcome), 0) for outcome in (Outcome.SUCCESS, Outcome.SKIPPED))

    def finished(self, task: int, n: int, voxels: int, now: float) -> None:
        """`n` blocks are done or skipped; those that are done wrote so many voxels."""
        self.rates[task].add(n, now)
        if voxels:
            id_ = self.ids[task]
            self.voxels[id_] = self.voxels.get(id_, 0) + voxels
            self.voxel_rates[task].add(voxels, now)

    def took(self, task: int, seconds: Seconds) -> None:
        """Blocks that are done took so long."""
        recent = self.recent_s.get(task, seconds[:0])
        self.recent_s[task] = np.concatenate([recent, seconds[-RECENT_BLOCKS:]])[-RECENT_BLOCKS:]
        self.durations.setdefault(self.ids[task], []).append(seconds)

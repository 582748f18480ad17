"""What a run has cost and how fast it goes, since this scheduler began to lead. Nothing here decides what may run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from blockyard.core.rates import Rate
from blockyard.core.state.task import Task
from blockyard.wire.messages import Outcome

RECENT_BLOCKS = 512
"""Durations kept of each task, for the median."""
SMOOTHING = 0.7
"""How much of the known mean duration is kept when new blocks are measured."""


class Measures:
    """Counters of the whole run, and by task what its blocks took and how many a second are done."""

    def __init__(self, tasks: Sequence[Task]) -> None:
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
        self.durations: dict[str, list[npt.NDArray[np.float32]]] = {}
        """Seconds of finished blocks since the last time somebody took them, for a histogram."""
        self.rates = {task.number: Rate() for task in tasks}
        """Blocks done or skipped a second."""
        self.voxel_rates = {task.number: Rate() for task in tasks}
        self.mean_s: dict[int, float] = {}
        """Smoothed seconds of a block, by task; missing: none measured yet."""
        self.recent_s: dict[int, npt.NDArray[np.float32]] = {}
        """Seconds of the last blocks, by task."""

    def leased(self, task: Task, n: int, now: float) -> None:
        """`n` blocks of a task were leased."""
        self.rates[task.number].start(now)
        self.voxel_rates[task.number].start(now)
        self.granted += n

    def ended(self, task: Task, outcome: Outcome, n: int) -> None:
        """`n` leases on blocks of a task ended with this outcome."""
        key = (task.spec.id, outcome)
        self.by_outcome[key] = self.by_outcome.get(key, 0) + n

    def finished_blocks(self, task_id: str) -> int:
        """Count the blocks of a task that were done or skipped; never goes down."""
        return sum(self.by_outcome.get((task_id, outcome), 0) for outcome in (Outcome.SUCCESS, Outcome.SKIPPED))

    def worked(self, task: Task, seconds: npt.NDArray[np.float32]) -> None:
        """Attempts took so long, whatever became of them."""
        self.work_s[task.spec.id] = self.work_s.get(task.spec.id, 0.0) + float(seconds.sum(dtype=np.float64))

    def finished(self, task: Task, n: int, voxels: int, now: float) -> None:
        """`n` blocks are done or skipped; those that are done wrote so many voxels."""
        self.rates[task.number].add(n, now)
        if voxels:
            self.voxels[task.spec.id] = self.voxels.get(task.spec.id, 0) + voxels
            self.voxel_rates[task.number].add(voxels, now)

    def took(self, task: Task, seconds: npt.NDArray[np.float32]) -> None:
        """Blocks that are done took so long."""
        mean, known = float(seconds.mean()), self.mean_s.get(task.number)
        self.mean_s[task.number] = mean if known is None else SMOOTHING * known + (1 - SMOOTHING) * mean
        recent = self.recent_s.get(task.number, seconds[:0])
        self.recent_s[task.number] = np.concatenate([recent, seconds[-RECENT_BLOCKS:]])[-RECENT_BLOCKS:]
        self.durations.setdefault(task.spec.id, []).append(seconds)

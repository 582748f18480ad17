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
MOST_SKIPS = 64
"""Blocks in a batch where the last ones were skipped: the next may be the first that runs, and those behind it wait."""
SMOOTHING = 0.7
"""How much of the known mean duration is kept when new blocks are measured."""


class Measures:
    """Counters of the whole run, and by task what its blocks took and how many a second are done."""

    def __init__(self, tasks: Sequence[Task], least_skip_s: float = 0.0) -> None:
        """Begin at zero.

        A skipped block counts as `least_skip_s` at least: skips end without a sign, and what comes then may take long.
        """
        self._least_skip_s = least_skip_s
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
        """Smoothed seconds until a worker is finished with a block, by task: skipped blocks are among them as often as
        they were of late. Missing: none measured yet."""
        self._run_s: dict[int, float] = {}
        """Smoothed seconds of a block that ran and was done, by task; missing: none measured yet."""
        self._skip_s: dict[int, float] = {}
        """The same of one that was skipped."""
        self._skipping: dict[int, float] = {}
        """Share of skipped blocks among the last ones, by task."""
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

    def skipped(self, task: Task, seconds: npt.NDArray[np.float32]) -> None:
        """Blocks were found done, which took so long."""
        _smooth(self._skip_s, task.number, max(float(seconds.mean()), self._least_skip_s))
        self._skipping.setdefault(task.number, 0.0 if task.number in self._run_s else 1.0)
        self._note(task.number, skipped=1.0)

    def _note(self, number: int, skipped: float) -> None:
        """Blocks were finished with, such a share of them by being skipped."""
        _smooth(self._skipping, number, skipped)
        share, skip_s = self._skipping[number], self._skip_s[number]
        self.mean_s[number] = share * skip_s + (1 - share) * self._run_s.get(number, skip_s)

    def took(self, task: Task, seconds: npt.NDArray[np.float32]) -> None:
        """Blocks that are done took so long."""
        _smooth(self._run_s, task.number, float(seconds.mean()))
        if task.number in self._skipping:
            self._note(task.number, skipped=0.0)
        else:
            self.mean_s[task.number] = self._run_s[task.number]
        recent = self.recent_s.get(task.number, seconds[:0])
        self.recent_s[task.number] = np.concatenate([recent, seconds[-RECENT_BLOCKS:]])[-RECENT_BLOCKS:]
        self.durations.setdefault(task.spec.id, []).append(seconds)


def _smooth(means: dict[int, float], number: int, mean: float) -> None:
    known = means.get(number)
    means[number] = mean if known is None else SMOOTHING * known + (1 - SMOOTHING) * mean

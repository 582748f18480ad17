"""The smoothed seconds of a task's blocks, which say how many of them are one batch of leases."""

from __future__ import annotations

from blockyard.core.observer import Seconds

MOST_SKIPS = 64
"""Blocks in a batch where the last ones were skipped: the next may be the first that runs, and those behind it wait."""
SMOOTHING = 0.7
"""How much of the known mean duration is kept when new blocks are measured."""


class BlockSeconds:
    """What a block keeps a worker for, by task, as the last ones did."""

    def __init__(self, least_skip_s: float = 0.0) -> None:
        """Know nothing yet.

        A skipped block counts as `least_skip_s` at least: skips end without a sign, and what comes then may take long.
        """
        self._least_skip_s = least_skip_s
        self.mean_s: dict[int, float] = {}
        """Smoothed seconds until a worker is finished with a block, by task: skipped blocks are among them as often as
        they were of late. Missing: none measured yet."""
        self._run_s: dict[int, float] = {}
        """Smoothed seconds of a block that ran and was done, by task; missing: none measured yet."""
        self._skip_s: dict[int, float] = {}
        """The same of one that was skipped."""
        self._skipping: dict[int, float] = {}
        """Share of skipped blocks among the last ones, by task."""

    def skipped(self, task: int, seconds: Seconds) -> None:
        """Blocks were found done, which took so long."""
        _smooth(self._skip_s, task, max(float(seconds.mean()), self._least_skip_s))
        self._skipping.setdefault(task, 0.0 if task in self._run_s else 1.0)
        self._note(task, skipped=1.0)

    def took(self, task: int, seconds: Seconds) -> None:
        """Blocks that are done took so long."""
        _smooth(self._run_s, task, float(seconds.mean()))
        if task in self._skipping:
            self._note(task, skipped=0.0)
        else:
            self.mean_s[task] = self._run_s[task]

    def _note(self, task: int, skipped: float) -> None:
        """Blocks were finished with, such a share of them by being skipped."""
        _smooth(self._skipping, task, skipped)
        share, skip_s = self._skipping[task], self._skip_s[task]
        self.mean_s[task] = share * skip_s + (1 - share) * self._run_s.get(task, skip_s)


def _smooth(means: dict[int, float], task: int, mean: float) -> None:
    known = means.get(task)
    means[task] = mean if known is None else SMOOTHING * known + (1 - SMOOTHING) * mean

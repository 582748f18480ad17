"""How fast the run went since this leader began: a fixed number of samples, coarser as the run gets longer."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

MOST_SAMPLES = 240
FIRST_BUCKET_S = 1.0


class Throughput(msgspec.Struct, kw_only=True):
    """Blocks finished in each interval, as the page draws them."""

    bucket_s: float
    """Length of an interval."""
    tasks: dict[str, list[int]]
    """For each task the blocks done or skipped in each interval, oldest first; the last one is not over yet."""


class Recorder:
    """Keeps the counts at the ends of intervals; when there are too many, every other one is dropped."""

    def __init__(self) -> None:
        self._bucket_s = FIRST_BUCKET_S
        self._began_s: float | None = None
        self._ends: list[dict[str, int]] = []
        """Counts at the end of each interval; those of the last one so far."""

    def add(self, counts: Mapping[str, int], now: float) -> None:
        """Take what each task has finished in all until `now`; counts only grow."""
        if self._began_s is None:
            self._began_s = now
        while (place := int((now - self._began_s) / self._bucket_s)) >= MOST_SAMPLES:
            self._halve()
        last = self._ends[-1] if self._ends else dict.fromkeys(counts, 0)
        self._ends += [last] * (place - len(self._ends))  # nobody looked meanwhile: it counts now
        self._ends[place:] = [dict(counts)]

    def _halve(self) -> None:
        """Make two intervals one; an odd last one goes on as the first half of its interval."""
        odd = self._ends[-1:] if len(self._ends) % 2 else []
        self._ends = self._ends[1::2] + odd
        self._bucket_s *= 2

    def give(self) -> Throughput:
        """Give the counts of each interval."""
        names = self._ends[-1] if self._ends else {}
        tasks = {}
        for name in names:
            ends = [counts.get(name, 0) for counts in self._ends]
            tasks[name] = [now - before for before, now in zip([0, *ends], ends, strict=False)]
        return Throughput(bucket_s=self._bucket_s, tasks=tasks)

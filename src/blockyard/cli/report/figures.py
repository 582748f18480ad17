"""What a report shows, computed from the record of a run: all of it vectorised over blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blockyard.wire.api import Record, RegionsRecord, TaskRecord

MOST_INTERVALS = 120
SHORTEST_S = 0.5
"""Of an interval: workers tell of fast blocks a few times a second."""
MOST_WORKERS = 40
MOST_CELLS = 48
"""Cells of a map on each axis."""
SLOWEST = 20

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """The recorded blocks of one task, as arrays of one entry a block, by id."""

    id: str
    shape: tuple[int, ...]
    blocks: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.float32]
    attempts: npt.NDArray[np.uint8]
    workers: npt.NDArray[np.uint16]
    ended_s: npt.NDArray[np.float32]

    @classmethod
    def of(cls, task: TaskRecord) -> TaskFigures:
        """Read what the scheduler gave."""
        return cls(
            task.id,
            task.shape,
            np.frombuffer(task.blocks, "<i8"),
            np.frombuffer(task.seconds, "<f4"),
            np.frombuffer(task.attempts, "u1"),
            np.frombuffer(task.workers, "<u2"),
            np.frombuffer(task.ended_s, "<f4"),
        )

    def throughput(self, end_s: float) -> Floats:
        """Return blocks a second in each interval from 0 to `end_s`."""
        n = intervals(end_s)
        counts, _ = np.histogram(self.ended_s, n, (0.0, end_s))
        return counts / (end_s / n)

    def durations(self) -> tuple[Floats, Floats]:
        """Return counts and edges (seconds) of a histogram with edges at even steps of the logarithm."""
        low, high = max(float(self.seconds.min()), 1e-6), max(float(self.seconds.max()), 2e-6)
        edges = np.logspace(np.log10(low) - 0.05, np.log10(high) + 0.05, 41)
        counts, _ = np.histogram(self.seconds, edges)
        return counts.astype(np.float64), edges

    def quantiles(self) -> tuple[float, float, float]:
        """Return median, p95 and the longest, in seconds."""
        p50, p95, p100 = np.percentile(self.seconds, [50, 95, 100])
        return float(p50), float(p95), float(p100)

    def slowest(self) -> list[tuple[tuple[int, ...], float, int, int]]:
        """Return (index, seconds, attempt, worker) of the slowest blocks."""
        order = np.argsort(self.seconds)[::-1][:SLOWEST]
        indices = np.stack(np.unravel_index(self.blocks[order], self.shape), axis=-1).tolist()
        rows = zip(indices, self.seconds[order], self.attempts[order], self.workers[order], strict=True)
        return [(tuple(index), float(s), int(attempt), int(worker)) for index, s, attempt, worker in rows]

    def map(self) -> Floats:
        """Return the mean seconds of blocks projected on the last two axes, (rows, columns); NaN where none is."""
        return _projected(self.blocks, self.shape, self.seconds.astype(np.float64), np.ones(len(self.blocks)))


@dataclass(frozen=True, slots=True)
class RegionFigures:
    """What is recorded of one task by region of its grid, as arrays of one entry a region."""

    id: str
    side: tuple[int, ...]
    regions: tuple[int, ...]
    blocks: npt.NDArray[np.int32]
    seconds: Floats
    retries: npt.NDArray[np.int32]

    @classmethod
    def of(cls, task: RegionsRecord) -> RegionFigures:
        """Read what the scheduler gave."""
        return cls(
            task.id,
            task.side,
            task.regions,
            np.frombuffer(task.blocks, "<i4"),
            np.frombuffer(task.seconds, "<f8"),
            np.frombuffer(task.retries, "<i4"),
        )

    @property
    def mean_s(self) -> float:
        """Mean seconds of a block."""
        return float(self.seconds.sum() / self.blocks.sum())

    def slowest(self) -> list[tuple[tuple[int, ...], float, int]]:
        """Return (index of the first block, mean seconds of a block, recorded blocks) of the slowest regions."""
        means = np.divide(self.seconds, self.blocks, out=np.zeros(len(self.blocks)), where=self.blocks > 0)
        order = np.argsort(means)[::-1][:SLOWEST]
        order = order[self.blocks[order] > 0]
        begins = (np.stack(np.unravel_index(order, self.regions), axis=-1) * np.array(self.side)).tolist()
        rows = zip(begins, means[order], self.blocks[order], strict=True)
        return [(tuple(begin), float(mean), int(n)) for begin, mean, n in rows]

    def map(self) -> Floats:
        """Return the mean seconds of blocks as `TaskFigures.map` does; cells are regions, or several of them."""
        return _projected(np.arange(len(self.blocks)), self.regions, self.seconds, self.blocks.astype(np.float64))


def _projected(ids: npt.NDArray[np.int64], shape: tuple[int, ...], sums: Floats, counts: Floats) -> Floats:
    """Return sum over count of what lies behind one another along all axes but the last two, in so many cells."""
    index = np.unravel_index(ids, shape)
    row, rows = (index[-2], shape[-2]) if len(shape) > 1 else (np.zeros_like(ids), 1)
    cells = min(rows, MOST_CELLS), min(shape[-1], MOST_CELLS)
    place = row * cells[0] // rows * cells[1] + index[-1] * cells[1] // shape[-1]
    size = cells[0] * cells[1]
    counted = np.bincount(place, counts, minlength=size)
    summed = np.bincount(place, sums, minlength=size)
    return np.divide(summed, counted, out=np.full(size, np.nan), where=counted > 0).reshape(cells)


def intervals(end_s: float) -> int:
    """Return in how many intervals a run of this length is shown."""
    return min(max(int(end_s / SHORTEST_S), 1), MOST_INTERVALS)


def figures(record: Record) -> list[TaskFigures]:
    """Return the tasks of which any block is recorded."""
    return [found for found in map(TaskFigures.of, record.tasks) if len(found.blocks)]


def region_figures(record: Record) -> list[RegionFigures]:
    """Return the tasks recorded by region of which anything is recorded."""
    return [found for found in map(RegionFigures.of, record.regions) if found.blocks.any()]


def busy(tasks: list[TaskFigures], workers: int, end_s: float) -> Floats:
    """Return how many blocks each worker ran at once, on the average in each interval, shape (workers, intervals).

    A block counts where it ran, not where it ended: the running sum of begins less ends, each weighted by where in its
    interval it lies.
    """
    n = intervals(end_s)
    width = end_s / n
    worked = np.zeros((workers, n + 1))
    for task in tasks:
        ends = np.clip(task.ended_s.astype(np.float64), 0.0, end_s)
        begins = np.clip(ends - task.seconds, 0.0, end_s)
        for times, sign in ((begins, 1.0), (ends, -1.0)):
            at = np.minimum((times / width).astype(np.int64), n - 1)
            share = 1.0 - (times / width - at)  # of this interval it is there, of all later ones wholly
            np.add.at(worked, (task.workers, at), sign * share)
            np.add.at(worked, (task.workers, at + 1), sign * (1.0 - share))
    return np.maximum(np.cumsum(worked, axis=1)[:, :n], 0.0)

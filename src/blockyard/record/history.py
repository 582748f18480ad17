"""How long each block took, at which attempt, where and when: the record of the run, beside what the run depends on.

Tasks are recorded block by block, 10 bytes each, as long as all of those have no more than `most` places; the others by
chunk only: how many blocks, and the sums of their seconds and attempts. What is new is collected as it comes, at no
cost to a turn, and taken now and then as `Batch`es, to be kept by `pages.py`; given back after a restart they
make the same record. A lost tail of it costs nothing but itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from blockyard.core.observer import TaskShape
from blockyard.plan.grid import Ints
from blockyard.record import durations

MOST_WORKERS = 2**16 - 1
ROW = np.dtype([("code", "<u2"), ("attempt", "u1"), ("spare", "u1"), ("worker", "<u2"), ("ended_ds", "<u4")])
"""Code of its seconds (0: no record), attempt, number of the worker, tenths of a second from the first record."""

SUMS = np.dtype([("seconds", "<f8"), ("blocks", "<i4"), ("retries", "<i4")])
"""Of a chunk: how many blocks are recorded, their seconds, and their attempts beyond the first, each all together."""


class Batch(msgspec.Struct, array_like=True, frozen=True):
    """Blocks of one task that one worker finished."""

    task: int
    worker: str
    addresses: bytes
    """In the task's `address_dtype`."""
    codes: bytes
    """``<u2`` each, see `durations.py`."""
    attempts: dict[int, int] = {}
    """Position to attempt number, where that is not 1."""
    age_ds: int = 0
    """Tenths of a second from their end to the time of the piece."""


@dataclass(slots=True)
class _Fresh:
    """Like a Batch, as it came."""

    worker: str
    addresses: Ints
    seconds: npt.NDArray[np.float32]
    attempts: Mapping[int, int]
    now: float
    """When they were done, on the core's clock."""


class TaskHistory:
    """The record of one task."""

    def __init__(self, task: TaskShape, *, whole: bool) -> None:
        chunks = task.chunks
        self.rows = np.zeros(chunks * task.capacity, ROW) if whole else None
        """By address; None: the task is too large for that."""
        self.sums = np.zeros(chunks, SUMS)
        """Of each chunk. A block that runs again counts once in a record by block, and again in one by chunk."""
        self.changed_since = np.zeros(chunks, np.int64)
        """Of each chunk the first piece that was recorded since its page was kept; 0: none."""
        self.capacity = task.capacity
        """Addresses of a chunk."""

    def add(
        self, addresses: Ints, codes: durations.Codes, attempts: npt.NDArray[np.uint8], worker: int, ds: int, piece: int
    ) -> None:
        """Take blocks that one worker finished, of the piece of this number."""
        chunks = addresses // self.capacity
        self.changed_since[chunks[self.changed_since[chunks] == 0]] = piece
        if self.rows is None:
            self._sum(addresses, codes, attempts, 1)
            return
        ours, last = np.unique(addresses[::-1], return_index=True)  # the last, where a block ran again at once
        codes = codes[::-1][last]
        attempts = np.where(codes > 0, attempts[::-1][last], np.uint8(0))
        before = self.rows["code"][ours]
        if before.any():
            self._sum(ours, before, self.rows["attempt"][ours], -1)
        self._sum(ours, codes, attempts, 1)
        self.rows["code"][ours] = codes
        self.rows["attempt"][ours] = attempts
        self.rows["worker"][ours] = worker
        self.rows["ended_ds"][ours] = ds

    def _sum(self, addresses: Ints, codes: durations.Codes, attempts: npt.NDArray[np.uint8], sign: int) -> None:
        """Count what is recorded of blocks, or (-1) no more."""
        recorded = np.flatnonzero(codes)
        chunks, retries = addresses[recorded] // self.capacity, attempts[recorded] > 1
        np.add.at(self.sums["blocks"], chunks, np.int32(sign))
        np.add.at(self.sums["seconds"], chunks, sign * durations.decode(codes[recorded]).astype(np.float64))
        if retries.any():
            np.add.at(self.sums["retries"], chunks, sign * (attempts[recorded].astype(np.int32) - 1))


class History:
    """The record of a run."""

    def __init__(self, tasks: Sequence[TaskShape], most: int) -> None:
        """Record nothing yet; up to `most` places block by block; `most` 0: nothing at all."""
        self.tasks: dict[int, TaskHistory] = {}
        left = most
        for task in tasks if most else ():
            size = task.chunks * task.capacity
            self.tasks[task.number] = TaskHistory(task, whole=size <= left)
            left -= size if size <= left else 0
        self.workers: dict[str, int] = {}
        """Number of each worker's name."""
        self.began_s: float | None = None
        """Time of the first batch, on the clock of whoever takes them."""
        self._dtypes = {task.number: task.address_dtype for task in tasks}
        self._fresh: dict[int, list[_Fresh]] = {}

    def finished(
        self,
        task: int,
        worker: str,
        addresses: Ints,
        seconds: npt.NDArray[np.float32],
        attempts: Mapping[int, int],
        now: float,
    ) -> None:
        """Blocks of a task were done at `now`; keeps the arrays as they are."""
        if task in self.tasks:
            self._fresh.setdefault(task, []).append(_Fresh(worker, addresses, seconds, attempts, now))

    def take(self, at_s: float, now: float, piece: int = 1) -> list[Batch]:
        """Record what has come since the last time, as the piece of this number; give what of it is to be kept.

        `at_s` is the time on the clock of the record, `now` the same moment on the core's.
        """
        fresh, self._fresh = self._fresh, {}
        batches = [batch for task, rows in fresh.items() for batch in self._packed(task, rows, now)]
        self.add(batches, at_s, piece)
        return [batch for batch in batches if self.tasks[batch.task].rows is not None]

    def _packed(self, task: int, rows: list[_Fresh], now: float) -> list[Batch]:
        together: dict[tuple[str, int], list[_Fresh]] = {}
        for row in rows:
            together.setdefault((row.worker, max(round((now - row.now) * 10), 0)), []).append(row)
        batches = []
        for (worker, age_ds), parts in together.items():
            addresses = np.concatenate([part.addresses for part in parts]).astype(self._dtypes[task])
            codes = durations.encode(np.concatenate([part.seconds for part in parts]))
            attempts, begin = {}, 0
            for part in parts:
                attempts.update({begin + position: attempt for position, attempt in part.attempts.items()})
                begin += len(part.addresses)
            batches.append(Batch(task, worker, addresses.tobytes(), codes.astype("<u2").tobytes(), attempts, age_ds))
        return batches

    def add(
        self, batches: Sequence[Batch], at_s: float, piece: int = 1, known: Mapping[int, Ints] | None = None
    ) -> None:
        """Take the batches of a piece, of the time `at_s`, now or when a run is loaded.

        `known` has for each task the last piece that each chunk already contains. Raises ValueError or IndexError for
        batches of another run.
        """
        if not batches:
            return
        if self.began_s is None:
            self.began_s = at_s - max(batch.age_ds for batch in batches) / 10
        piece_ds = round((at_s - self.began_s) * 10)
        for batch in batches:
            if (task := self.tasks.get(batch.task)) is None:
                continue
            ds = min(max(piece_ds - batch.age_ds, 0), 2**32 - 1)
            addresses = np.frombuffer(batch.addresses, self._dtypes[batch.task]).astype(np.int64)
            codes = np.frombuffer(batch.codes, "<u2")
            attempts = np.ones(len(addresses), np.uint8)
            for position, attempt in batch.attempts.items():
                attempts[position] = min(attempt, 255)
            if known is not None:
                newer = known[batch.task][addresses // task.capacity] < piece
                addresses, codes, attempts = addresses[newer], codes[newer], attempts[newer]
            task.add(addresses, codes, attempts, self.number_of(batch.worker), ds, piece)

    def number_of(self, worker: str) -> int:
        """Return the number of a worker's name, a new one where it has none."""
        return self.workers.setdefault(worker, min(len(self.workers), MOST_WORKERS))

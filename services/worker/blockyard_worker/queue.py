"""What an agent keeps between its session and its slots: leases that wait, and results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from blockyard.wire.happenings import LeaseBatch
from blockyard.wire.messages import BlockError, Outcome

Ids: TypeAlias = npt.NDArray[np.int64]


@dataclass(slots=True)
class Results:
    """What became of leases since somebody asked last."""

    numbers: list[Ids] = field(default_factory=list)
    outcomes: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    seconds: list[npt.NDArray[np.float32]] = field(default_factory=list)
    errors: list[BlockError] = field(default_factory=list)

    def add(self, numbers: Ids, outcomes: npt.NDArray[np.uint8], seconds: npt.NDArray[np.float32]) -> None:
        """Add leases with their outcomes and durations."""
        self.numbers.append(numbers)
        self.outcomes.append(outcomes)
        self.seconds.append(seconds)

    def add_same(self, numbers: Ids, outcome: Outcome, seconds: float = 0.0) -> None:
        """Add leases that all ended the same way."""
        n = len(numbers)
        self.add(numbers, np.full(n, outcome, np.uint8), np.full(n, seconds, np.float32))

    def __bool__(self) -> bool:
        return bool(self.numbers)


class Queue:
    """Leases that wait for a slot, in the order in which they came."""

    def __init__(self) -> None:
        self._lots: deque[LeaseBatch] = deque()
        self.size = 0

    def push(self, batches: Iterable[LeaseBatch]) -> None:
        """Add batches at the end."""
        for batch in batches:
            self._lots.append(batch)
            self.size += len(batch)

    def push_front(self, batches: Iterable[LeaseBatch]) -> None:
        """Put batches back to where they came from."""
        for batch in reversed([batch for batch in batches if len(batch)]):
            self._lots.appendleft(batch)
            self.size += len(batch)

    def next_task(self, allowed: Callable[[str], bool]) -> str | None:
        """Return the task of the first block whose task is allowed, or None."""
        for batch in self._lots:
            if allowed(batch.task):
                return batch.task
        return None

    def pull(self, task: str, most: int) -> LeaseBatch:
        """Take up to `most` blocks of the first batch of a task that has one."""
        at = next(at for at, batch in enumerate(self._lots) if batch.task == task)
        batch = self._lots[at]
        if len(batch) > most:
            self._lots[at] = batch.part(most, len(batch))
            batch = batch.part(0, most)
        else:
            del self._lots[at]
        self.size -= len(batch)
        return batch

    def drop(self, numbers: Ids) -> None:
        """Forget these leases."""
        batches, self._lots, self.size = self._lots, deque(), 0
        for batch in batches:
            keep = ~np.isin(batch.numbers, numbers)
            if keep.any():
                self.push([batch.only(keep)])

    def clear(self) -> Ids:
        """Forget all; give their numbers."""
        numbers = [batch.numbers for batch in self._lots]
        self._lots.clear()
        self.size = 0
        return np.concatenate(numbers) if numbers else np.empty(0, np.int64)

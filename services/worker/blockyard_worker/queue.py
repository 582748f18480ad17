"""What an agent keeps between its session and its slots: leases that wait, and results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from blockyard.wire.messages import BlockError, Outcome
from blockyard.wire.session import Lot

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
        self._lots: deque[Lot] = deque()
        self.size = 0

    def push(self, lots: Iterable[Lot]) -> None:
        """Add lots at the end."""
        for lot in lots:
            self._lots.append(lot)
            self.size += len(lot)

    def push_front(self, lots: Iterable[Lot]) -> None:
        """Put lots back to where they came from."""
        for lot in reversed([lot for lot in lots if len(lot)]):
            self._lots.appendleft(lot)
            self.size += len(lot)

    def next_task(self, allowed: Callable[[str], bool]) -> str | None:
        """Give the task of the first block whose task is allowed, or None."""
        for lot in self._lots:
            if allowed(lot.task):
                return lot.task
        return None

    def pull(self, task: str, most: int) -> Lot:
        """Take up to `most` blocks of the first lot of a task that has one."""
        at = next(at for at, lot in enumerate(self._lots) if lot.task == task)
        lot = self._lots[at]
        if len(lot) > most:
            self._lots[at] = lot.part(most, len(lot))
            lot = lot.part(0, most)
        else:
            del self._lots[at]
        self.size -= len(lot)
        return lot

    def drop(self, numbers: Ids) -> None:
        """Forget these leases."""
        lots, self._lots, self.size = self._lots, deque(), 0
        for lot in lots:
            keep = ~np.isin(lot.numbers, numbers)
            if keep.any():
                self.push([lot.only(keep)])

    def clear(self) -> Ids:
        """Forget all; give their numbers."""
        numbers = [lot.numbers for lot in self._lots]
        self._lots.clear()
        self.size = 0
        return np.concatenate(numbers) if numbers else np.empty(0, np.int64)

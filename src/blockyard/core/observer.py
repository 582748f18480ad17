"""Who keeps the record of a run is told through here what its blocks took; the core itself remembers none of it.

Nothing that an observer does changes what may run. It must not raise, and may keep the arrays: nobody writes to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from blockyard.core.state.task import Task
from blockyard.plan.grid import Ints
from blockyard.wire.messages import Outcome

Seconds: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TaskShape:
    """All of a task that an observer needs to know beforehand."""

    number: int
    id: str
    chunks: int
    capacity: int
    """Addresses of a chunk."""
    address_dtype: np.dtype[Any]


class Observer(Protocol):
    """Hears what became of leases, as it happens. Tasks are named by number."""

    def leased(self, task: int, n: int, now: float) -> None:
        """`n` blocks were leased."""

    def ended(self, task: int, outcome: Outcome, n: int, seconds: Seconds | None) -> None:
        """`n` leases ended, after attempts that took so long; None: nobody said how long."""

    def finished(
        self,
        task: int,
        worker: str,
        outcome: Outcome,
        addresses: Ints,
        seconds: Seconds | None,
        attempts: Mapping[int, int],
        voxels: int,
        now: float,
    ) -> None:
        """Blocks are done or were skipped; together they wrote so many voxels.

        `attempts` has the number of the attempt by position, where that was not the first.
        """

    def expired(self, n: int) -> None:
        """`n` leases ended since nothing was heard of their worker."""

    def stale(self, n: int) -> None:
        """`n` releases were refused: they were of no lease that is recorded."""

    def undone(self, n: int) -> None:
        """`n` blocks that were over wait again, by a retry or a rerun."""


class Unobserved:
    """An observer that keeps nothing."""

    def leased(self, task: int, n: int, now: float) -> None: ...  # noqa: D102 - as in Observer

    def ended(self, task: int, outcome: Outcome, n: int, seconds: Seconds | None) -> None: ...  # noqa: D102

    def finished(  # noqa: D102
        self,
        task: int,
        worker: str,
        outcome: Outcome,
        addresses: Ints,
        seconds: Seconds | None,
        attempts: Mapping[int, int],
        voxels: int,
        now: float,
    ) -> None: ...

    def expired(self, n: int) -> None: ...  # noqa: D102

    def stale(self, n: int) -> None: ...  # noqa: D102

    def undone(self, n: int) -> None: ...  # noqa: D102


def shapes_of(tasks: Sequence[Task]) -> list[TaskShape]:
    """Return what an observer needs to know of these tasks."""
    return [
        TaskShape(task.number, task.spec.id, task.layout.chunks, task.layout.capacity, task.address_dtype)
        for task in tasks
    ]

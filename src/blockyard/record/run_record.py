"""All that is recorded of a run: an observer of the core that leads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from blockyard.core.observer import Seconds, TaskShape
from blockyard.plan.grid import Ints
from blockyard.record.history import History
from blockyard.record.measures import Measures
from blockyard.wire.messages import Outcome


class RunRecord:
    """What blocks took, each of them (`history`) and all together (`measures`)."""

    def __init__(self, tasks: Sequence[TaskShape], most: int) -> None:
        """Record nothing yet; up to `most` places of the history block by block; `most` 0: no history."""
        self.measures = Measures(tasks)
        self.history = History(tasks, most)

    def leased(self, task: int, n: int, now: float) -> None:
        """`n` blocks were leased."""
        self.measures.leased(task, n, now)

    def ended(self, task: int, outcome: Outcome, n: int, seconds: Seconds | None) -> None:
        """`n` leases ended."""
        self.measures.ended(task, outcome, n, seconds)

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
        """Blocks are done or were skipped."""
        self.measures.finished(task, len(addresses), voxels, now)
        if seconds is not None and outcome == Outcome.SUCCESS:
            self.measures.took(task, seconds)
            self.history.finished(task, worker, addresses, seconds, attempts, now)

    def expired(self, n: int) -> None:
        """Leases ended since nothing was heard of their worker."""
        self.measures.expired += n

    def stale(self, n: int) -> None:
        """Releases were refused."""
        self.measures.stale += n

    def undone(self, n: int) -> None:
        """Blocks that were over wait again."""
        self.measures.undone += n

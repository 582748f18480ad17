"""Workers that can't start what they should: what a person is told of them, and for how long.

While such a worker is connected it says so itself. When it gives up and leaves, another may come in its place and fail
as well (a pod that is started again), so what it said stands for its pool or task until a block of that is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.core.notices import Notices
from blockyard.wire.api import Notice

if TYPE_CHECKING:
    from blockyard.core.state.task import Task
    from blockyard.core.state.workers import Worker

KIND = "cannot_start"


class Unstarted:
    """The workers that have complained."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices
        self._said: dict[str, str] = {}
        """Worker to what it said."""
        self._left: set[tuple[str, str]] = set()
        """(task or "", pool) of those who said so and are gone."""

    def complain(self, worker: Worker, text: str) -> None:
        """A worker says why it can't start; "": it can now."""
        self._said.pop(worker.id, None)
        if text:
            self._said[worker.id] = text
            self._notices.put(Notice(KIND, text, worker.task or "", worker.id, worker.pool))
        else:
            self._notices.drop(KIND, worker=worker.id)

    def left(self, worker: Worker) -> None:
        """A worker is gone."""
        text = self._said.pop(worker.id, "")
        if text:
            self._notices.drop(KIND, worker=worker.id)
            self._notices.put(Notice(KIND, text, worker.task or "", "", worker.pool))
            self._left.add((worker.task or "", worker.pool))

    def works(self, task: Task) -> None:
        """A block of the task is done: somebody could start."""
        for key in [key for key in self._left if key in ((task.spec.id, task.spec.pool), ("", task.spec.pool))]:
            self._left.discard(key)
            self._notices.drop(KIND, task=key[0], worker="", pool=key[1])

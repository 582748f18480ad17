"""Workers that can't start what they should: what a person is told of them, and for how long.

While such a worker is connected it says so itself. When it gives up and leaves, another may come in its place and fail
as well (a pod that is started again), so what it said stands for its pool or task until a block of that is done.

A worker of the user's own that hangs in its set-up, or a job that waits in a queue, says nothing; that is said too. So
is that jobs have ended and left blocks: who submitted them can't see that they did, nor whether others still wait in
the queue, and one too many is an allocation of hours; a person decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.core.notices import Notices
from blockyard.wire.api import Notice

if TYPE_CHECKING:
    from blockyard.core.ready.frontier import Frontier
    from blockyard.core.state.task import Task
    from blockyard.core.state.workers import Worker

KIND = "cannot_start"
LATE = "slow_start"
LATE_S = 120.0
"""So long after the first worker of a task was started somebody should have asked for a block."""


class Unstarted:
    """The workers that have complained."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices
        self._said: dict[str, str] = {}
        """Worker to what it said."""
        self._left: set[tuple[str, str]] = set()
        """(task or "", pool) of those who said so and are gone."""
        self._begun: dict[str, tuple[Task, float]] = {}
        """Tasks whose workers are being started, and since when; none of them was leased a block yet."""
        self._ended: dict[str, float | None] = {}
        """Tasks of which jobs have ended, and since when blocks are ready that nobody is there for."""

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
        if worker.own and worker.task:
            self._ended.setdefault(worker.task, None)
        text = self._said.pop(worker.id, "")
        if text:
            self._notices.drop(KIND, worker=worker.id)
            self._notices.put(Notice(KIND, text, worker.task or "", "", worker.pool))
            self._left.add((worker.task or "", worker.pool))

    def begun(self, task: Task, now: float) -> None:
        """Workers of the user's own are started for a task."""
        self._begun.setdefault(task.spec.id, (task, now))

    def asked(self, worker: Worker) -> None:
        """A worker of the user's own is leased a block."""
        task = worker.task or ""
        begun, idle_s = self._begun.pop(task, None), self._ended.pop(task, None)
        if begun is not None or idle_s is not None:
            self._notices.drop(LATE, task=task)

    def look(
        self, tasks: dict[str, Task], frontiers: dict[int, Frontier], workers: dict[str, Worker], now: float
    ) -> None:
        """Say of whom nothing was heard for long."""
        for task_id, (task, since_s) in self._begun.items():
            if now >= since_s + LATE_S:
                text = (
                    f"no worker of task '{task_id}' has asked for a block within {LATE_S:g} s of its start: its set-up"
                    " takes long or hangs (its log tells), or its job waits in a queue"
                )
                self._notices.put(Notice(LATE, text, task_id, pool=task.spec.pool))
        for task_id, idle_s in self._ended.items():
            left = tasks.get(task_id)
            here = any(one.own and one.connected and one.task == task_id for one in workers.values())
            if left is None or here or not left.spec.submits or not len(frontiers[left.number].ready):
                self._ended[task_id] = None
            elif idle_s is None:
                self._ended[task_id] = now
            elif now >= idle_s + LATE_S:
                text = (
                    f"the jobs of task '{task_id}' that were here have ended (at a time limit, perhaps), and blocks"
                    " are left; unless others wait in the queue, submit more, or stop the run and start it again by the"
                    " same command, which does"
                )
                self._notices.put(Notice(LATE, text, task_id, pool=left.spec.pool))

    def works(self, task: Task) -> None:
        """A block of the task is done: somebody could start."""
        for key in [key for key in self._left if key in ((task.spec.id, task.spec.pool), ("", task.spec.pool))]:
            self._left.discard(key)
            self._notices.drop(KIND, task=key[0], worker="", pool=key[1])

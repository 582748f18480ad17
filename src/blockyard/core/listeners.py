"""Those who take no blocks but start workers of a task that do: told when there is something to start them for.

A worker of the user's own may read in its set-up what an upstream task writes, and may empty its outputs when it opens
them. So it is started when a block of its task is ready that none of those who are there has taken, and not before; and
not again while all that is left is leased, or waits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from blockyard.core.events import SendTaskBegan
from blockyard.core.unstarted import Unstarted

if TYPE_CHECKING:
    from blockyard.core.ready.frontier import Frontier
    from blockyard.core.state.task import Task
    from blockyard.core.state.workers import Worker


class Listeners:
    """Who could start workers, and how many blocks the workers of each were leased."""

    def __init__(self, unstarted: Unstarted) -> None:
        self._unstarted = unstarted
        self._wanting: dict[str, str] = {}
        """Listener to its task."""
        self._leased: dict[str, int] = {}

    def want(self, worker: Worker) -> None:
        """Take note of what a worker wants now, or that it is not there; one with slots is no listener."""
        if worker.task is not None and not worker.slots and worker.want and worker.connected:
            self._wanting[worker.id] = worker.task
        else:
            self._wanting.pop(worker.id, None)

    def forget(self, worker: Worker) -> None:
        """It is gone."""
        self._wanting.pop(worker.id, None)
        self._leased.pop(worker.id, None)

    def leased(self, worker: Worker, n: int) -> None:
        """Take note that a worker was leased `n` blocks: whoever started it knows then that it could begin."""
        if worker.own:
            self._unstarted.asked(worker)
            starter = worker.id.partition("/")[0]
            self._leased[starter] = self._leased.get(starter, 0) + n

    def waited_for(self, task: Task) -> bool:
        """Whether somebody would start workers of this task."""
        return task.spec.id in self._wanting.values()

    def due(
        self, tasks: dict[str, Task], frontiers: dict[int, Frontier], stopped: Collection[int], now: float
    ) -> Iterator[SendTaskBegan]:
        """Yield what to tell to whom, once the blocks of this turn are handed out; who is told wants no more.

        `stopped` are the numbers of the tasks that are not leased now.
        """
        for listener, task_id in list(self._wanting.items()):
            task = tasks.get(task_id)
            if task is not None and task.number not in stopped and len(frontiers[task.number].ready):
                del self._wanting[listener]
                self._unstarted.begun(task, now)
                yield SendTaskBegan(listener, task_id, self._leased.get(listener, 0))

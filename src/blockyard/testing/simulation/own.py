"""Workers of the user's own in the simulation: an agent that listens, and the process that it starts when told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.testing.simulation.worker import WorkerProcess
from blockyard.wire.messages import Hello

if TYPE_CHECKING:
    from blockyard.testing.simulation.cluster import Cluster


class Listener(WorkerProcess):
    """The agent: takes no blocks, keeps one process of its task while there is something to do for it."""

    def __init__(self, cluster: Cluster, name: str, task: str) -> None:
        self._task = task
        self._child: OwnProcess | None = None
        super().__init__(cluster, name)

    def _hello(self) -> Hello:
        return Hello(worker=f"{self.name}-{self._lives}", slots=0, task=self._task)

    def _ask(self) -> None:
        self.session.want(0 if self._child is not None else 1)

    def _task_waits(self, task: str) -> None:
        if self._child is None and not self._draining:
            self._cluster.history.set_up(task, self.name)
            self._child = OwnProcess(self._cluster, self, task)

    def ended(self, child: OwnProcess) -> None:
        """A process of ours has ended (it could be that of an earlier life)."""
        if child is self._child:
            self._child = None
            self.later(0.05, self._work)

    def drain(self) -> None:
        """So does its process."""
        if self._child is not None and self._child.alive:
            self._child.drain()
        super().drain()

    def die(self) -> None:
        """Its guard ends the process."""
        self._end_child()
        super().die()

    def _leave(self) -> None:
        self._end_child()
        super()._leave()

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is not None and child.alive:
            child.die()


class OwnProcess(WorkerProcess):
    """The process: takes blocks of one task until that is over, and is not started again by itself."""

    def __init__(self, cluster: Cluster, listener: Listener, task: str) -> None:
        self._listener = listener
        self._task = task
        self._prefix = listener.session.hello.worker
        super().__init__(cluster, f"{listener.name}.own")
        cluster.workers.append(self)

    def _hello(self) -> Hello:
        name = f"{self._prefix}/own-{self._rng.getrandbits(32):x}"
        return Hello(worker=name, slots=1, task=self._task, own=True)

    def _task_ended(self, task: str) -> None:
        if task == self._task:
            self._stop_asking()

    def _again(self, most_s: float) -> None:  # noqa: ARG002 - its agent decides
        self._cluster.workers.remove(self)
        self._listener.ended(self)

"""A worker of the simulation: the real session in an agent process, and slots that outlive a frozen agent."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from blockyard.testing.order import Name
from blockyard.testing.simulation.clock import Process
from blockyard.testing.simulation.network import Connection, End
from blockyard.wire.happenings import (
    BlocksGranted,
    Disconnect,
    Happening,
    LeasesLost,
    LeasesRevoked,
    RefusedForGood,
    ReleaseSafe,
    RunEnded,
    TaskEnded,
    TaskWaits,
)
from blockyard.wire.messages import Hello, Outcome
from blockyard.wire.session import SessionState, WorkerSession

if TYPE_CHECKING:
    from blockyard.testing.simulation.cluster import Cluster


SICK_S = 0.001
"""A sick worker fails a block so fast."""


@dataclass(slots=True, eq=False)
class Execution:
    """A block that a slot runs."""

    number: int
    name: Name
    since_s: float
    killed: bool = False


class WorkerProcess(Process):
    """An agent with slots; it is started again, as another worker, when it dies or leaves."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        super().__init__(cluster.clock, name)
        self._cluster = cluster
        self._rng: random.Random = cluster.rng
        self._lives = 0
        self.later(0.0, self.begin)

    def begin(self) -> None:
        """Start afresh: a new worker id, nothing held."""
        self.rise()
        self._lives += 1
        self.slots = self._rng.randint(1, 3)
        hello = self._hello()
        address = self._rng.choice(self._cluster.addresses)
        self.session = WorkerSession(hello, address, self._rng, self.clock.now)
        self._queue: deque[tuple[int, Name, int]] = deque()
        self._running: list[Execution] = []
        self._results: list[tuple[int, float]] = []
        self._released: dict[int, list[Name]] = {}
        """Names in each release that was not acknowledged yet, by sequence."""
        self._names: dict[int, Name] = {}
        self._end: End | None = None
        self._connection: Connection | None = None
        self._draining = False
        self.repeats = False
        """Whether what is sent next is sent twice, as after a reconnect of which only we know."""
        self._appetite = self._rng.choice([1, 2, 8])
        self._connect()
        self._beat()

    @property
    def _is_sick(self) -> bool:
        return self.name == self._cluster.sick

    def _hello(self) -> Hello:
        return Hello(worker=f"{self.name}-{self._lives}", slots=self.slots)

    # --- the connection ----------------------------------------------------------------------------------------

    def _connect(self) -> None:
        if self.session.state is not SessionState.AWAY:
            return
        wait_s = self.session.retry_at_s - self.clock.now
        if wait_s > 0:
            self.later(wait_s + 1e-6, self._connect)
            return
        scheduler = self._cluster.schedulers.get(self.session.address)
        if scheduler is None or not scheduler.alive:
            self.session.connection_lost(self.clock.now)
            self.later(0.01, self._connect)
            return
        peer = scheduler.accept()
        end = End(self, self._receive, lambda: self._lost(end))
        self._end, self._connection = end, self._cluster.connect(end, peer.end)
        peer.connection = self._connection
        self.session.connection_made(self.clock.now)
        self._flush()

    def _receive(self, data: bytes) -> None:
        self._carry_out(self.session.receive(data, self.clock.now))

    def _lost(self, end: End) -> None:
        if end is not self._end:  # word of an older connection, held back
            return
        if self.session.state in {SessionState.GREETING, SessionState.JOINED}:
            self.session.connection_lost(self.clock.now)
        self._connect()

    def _flush(self) -> None:
        data = self.session.data_to_send()
        if self._connection is not None and self._end is not None and data:
            self._cluster.point(self)
            self._connection.send(self._end, data)
            self._cluster.point(self)
            if self.repeats and self.session.state is SessionState.JOINED:
                self.repeats = False
                self._connection.send(self._end, data)

    def slow(self, seconds: float) -> None:
        """The network holds this connection's bytes back; those of a newer one overtake them."""
        if self._connection is not None:
            self._connection.hold_back(seconds)

    def cut(self, *, silently: bool) -> None:
        """The network fails, for this connection."""
        if self._connection is None:
            return
        if silently:
            self._connection.silent.update(self._rng.sample(self._connection.ends, self._rng.randint(1, 2)))
        else:
            self._connection.close()

    # --- what the session says ---------------------------------------------------------------------------------

    def _carry_out(self, happenings: list[Happening]) -> None:
        for happening in happenings:
            match happening:
                case BlocksGranted():
                    for batch in happening.batches:
                        for number, block_id in zip(batch.numbers.tolist(), batch.blocks.tolist(), strict=True):
                            name = (batch.task, block_id)
                            self._names[number] = name
                            self._queue.append((number, name, batch.attempts.get(number, 1)))
                    if self._draining:
                        self._hand_back()
                case LeasesRevoked() | LeasesLost() if self._cluster.workers_stop:
                    self._stop(set(happening.numbers.tolist()))
                case ReleaseSafe():
                    names = self._released.pop(happening.seq, [])
                    if not happening.stale:
                        self._cluster.history.acknowledged(names)
                case Disconnect():
                    if self._connection is not None and self._end is not None:
                        self._connection.close(self._end)
                    self._connect()
                case RunEnded() | RefusedForGood():
                    self._leave()
                    return
                case TaskWaits(task):
                    self._task_waits(task)
                case TaskEnded(task):
                    self._task_ended(task)
        self._work()

    def _beat(self) -> None:
        running = [(e.number, self.clock.now - e.since_s) for e in self._running if not e.killed]
        self._carry_out(self.session.tick(self.clock.now, running))
        if self.session.state is SessionState.AWAY:
            self._connect()
        self.later(0.05 if self.session.state is not SessionState.OVER else 1e9, self._beat)

    # --- blocks ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Release what is finished, start what waits, ask for more."""
        if self._results:
            results, self._results = self._results, []
            held = [(number, seconds) for number, seconds in results if number in self.session.held]
            before = len(self.session.unacked)
            numbers = np.array([number for number, _ in held], np.int64)
            seconds = np.array([s for _, s in held], np.float32)
            outcome = Outcome.FAILED if self._is_sick else Outcome.SUCCESS
            self.session.release(numbers, np.full(len(held), outcome, np.uint8), seconds)
            for release in list(self.session.unacked)[before:]:
                names = [self._names.pop(number) for number in np.frombuffer(release.numbers, "<i8").tolist()]
                self._released[release.seq] = [] if self._is_sick else names
        while self._queue and len(self._running) < self.slots and not self._draining:
            self._start(*self._queue.popleft())
        if not self._draining:
            self._ask()
        if self._draining and not self._running and self.session.settled:
            self.session.leave("drained")
            self._flush()
            self._leave()
            return
        self._flush()

    def _ask(self) -> None:
        """Ask for more."""
        if len(self._queue) + len(self._running) <= self._appetite // 2:
            self.session.want(self._appetite)

    def _task_waits(self, task: str) -> None:
        """Nothing to one who runs blocks himself."""

    def _task_ended(self, task: str) -> None:
        """Nothing to one who takes those of any task."""

    def _start(self, number: int, name: Name, attempt: int) -> None:
        if number not in self.session.held and self._cluster.workers_stop:
            return
        execution = Execution(number, name, self.clock.now)
        self._cluster.history.started(name, attempt, self.session.hello.worker)
        self._running.append(execution)
        seconds = SICK_S if self._is_sick else self._rng.expovariate(1 / self._cluster.block_s)
        # The slot is a process of its own: it ends its block also while the agent is frozen.
        self.clock.at(self.clock.now + seconds, lambda: self._finish(execution))

    def _finish(self, execution: Execution) -> None:
        if execution.killed:
            return
        execution.killed = True
        self._cluster.history.stopped(execution.name, failed=self._is_sick)

        def collected() -> None:
            if execution in self._running:  # else its lease ended meanwhile
                self._running.remove(execution)
                self._results.append((execution.number, self.clock.now - execution.since_s))
            self._carry_out(self.session.tick(self.clock.now))  # as an agent does: first the clock, then the work

        self.later(0.0, collected)

    def _stop(self, numbers: set[int]) -> None:
        """Kill what runs and forget what waits of these leases."""
        self._queue = deque(row for row in self._queue if row[0] not in numbers)
        for execution in [execution for execution in self._running if execution.number in numbers]:
            self._kill(execution)
            self._running.remove(execution)

    def _kill(self, execution: Execution) -> None:
        if not execution.killed:
            execution.killed = True
            self._cluster.history.stopped(execution.name)

    # --- ends --------------------------------------------------------------------------------------------------

    def freeze(self, seconds: float) -> None:
        """The agent stops; its guard kills the slots at the leases' deadline if it is still stopped then."""
        super().freeze(seconds)
        running, deadline_s = list(self._running), self.session.deadline_s

        def guard() -> None:
            if self.frozen:
                for execution in running:
                    self._kill(execution)

        if deadline_s < self.clock.now + seconds and self._cluster.workers_stop:
            self.clock.at(deadline_s, guard)

    def die(self) -> None:
        """Die with all slots; another worker takes its place."""
        for execution in self._running:
            self._kill(execution)
        if self._connection is not None and self._end is not None:
            self._connection.close(self._end)
        super().die()
        self._again(2.0)

    def _again(self, most_s: float) -> None:
        """Another one takes its place in a moment."""
        if not self._cluster.is_over:
            self.clock.at(self.clock.now + self._rng.uniform(0.1, most_s), self.begin)

    def drain(self) -> None:
        """SIGTERM: hand back what has not begun, finish the rest, leave."""
        if self._draining or self.session.state is SessionState.OVER:
            return
        self._stop_asking()
        self._work()

    def _stop_asking(self) -> None:
        self._draining = True
        self.session.want(0)
        self._hand_back()

    def _hand_back(self) -> None:
        """Return what has not begun."""
        waiting = [number for number, _, _ in self._queue if number in self.session.held]
        self._queue.clear()
        numbers = np.array(waiting, np.int64)
        outcomes = np.full(len(waiting), Outcome.RETURNED, np.uint8)
        if waiting:
            self.session.release(numbers, outcomes, np.zeros(len(waiting), np.float32))
            for release in list(self.session.unacked):
                self._released.setdefault(release.seq, [])

    def _leave(self) -> None:
        for execution in self._running:
            self._kill(execution)
        self._running.clear()
        self._queue.clear()
        if self._connection is not None and self._end is not None:  # the system closes what a process had open
            self._connection.close(self._end)
        Process.die(self)
        self._again(1.0)

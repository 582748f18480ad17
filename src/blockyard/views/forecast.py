"""What is known of a run's past and present, put into the terms of `eta.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from blockyard.plan.requests import topological
from blockyard.record.measures import Measures
from blockyard.views.eta import Eta, Load, block_time, forecast
from blockyard.views.usage import Pace, Past
from blockyard.wire.states import RunPhase

if TYPE_CHECKING:
    from blockyard.core.runstate import RunState
    from blockyard.core.state.task import Task

UNKNOWN_VARIATION = 1.0
"""Standard deviation over mean of blocks, where fewer than two were measured."""


class Forecast:
    """Follows a run, and says when its tasks will be done. Its cost is O(tasks + workers), once a second."""

    def __init__(self, tasks: list[Task]) -> None:
        self.pools = list(dict.fromkeys(task.spec.pool for task in tasks))
        self._pool_of = [self.pools.index(task.spec.pool) for task in tasks]
        place = {name: n for n, name in enumerate(topological([task.spec for task in tasks]))}
        self._order = sorted(range(len(tasks)), key=lambda n: place[tasks[n].spec.id])
        self.pace = Pace(len(tasks), len(self.pools))

    def look(self, core: RunState, measures: Measures, now: float) -> None:
        """Take how the run stands, after a turn, if that is due."""
        if now >= self.pace.next_s:
            slots, busy = self._slots(core)
            ids = [task.spec.id for task in core.tasks]
            self.pace.look(
                now,
                busy=self._busy_by_task(core, busy),
                slots=slots,
                done=[measures.finished_blocks(id_) for id_ in ids],
                work_s=[measures.work_s.get(id_, 0.0) for id_ in ids],
                runs=core.state is RunPhase.RUNNING and not core.hold.lasts(now),
            )

    def _slots(self, core: RunState) -> tuple[list[float], list[float]]:
        """Return the slots that are there and those that hold a block, by pool."""
        slots, busy = [0.0] * len(self.pools), [0.0] * len(self.pools)
        for worker in core.workers.values():
            if worker.connected and worker.slots and worker.pool in self.pools:
                pool = self.pools.index(worker.pool)
                slots[pool] += worker.slots
                busy[pool] += min(core.leases.held_by(worker.id), worker.slots)
        return slots, busy

    def _busy_by_task(self, core: RunState, busy: list[float]) -> list[float]:
        """Split busy slots by what is leased: a worker may hold more blocks than slots, of several tasks."""
        work = [core.leases.count_by_task.get(n, 0) * core.seconds.mean_s.get(n, 1.0) for n in range(len(core.tasks))]
        by_pool = [1e-9] * len(self.pools)
        for n, seconds in enumerate(work):
            by_pool[self._pool_of[n]] += seconds
        return [busy[self._pool_of[n]] * seconds / by_pool[self._pool_of[n]] for n, seconds in enumerate(work)]

    def etas(self, core: RunState, measures: Measures) -> list[Eta | None]:
        """Return the time to the end of each task, counted from the last look; None while unknown, or while paused."""
        if core.state is not RunPhase.RUNNING:
            return [None if task.unfinished else Eta(0.0, 0.0, 0.0) for task in core.tasks]
        window, whole = self.pace.window(), self.pace.whole()
        position = {number: place for place, number in enumerate(self._order)}
        loads = [self._load(measures, core.tasks[number], window, whole, position) for number in self._order]
        ends = forecast(loads, [self._slots_at_work(core, pool, window) for pool in range(len(self.pools))])
        stopped = core.fail_fast.stops
        return [None if number in stopped else ends[position[number]] for number in range(len(core.tasks))]

    def _load(self, measures: Measures, task: Task, window: Past, whole: Past, position: dict[int, int]) -> Load:
        n = task.number
        recent = measures.recent_s.get(n)
        variation = float(recent.std() / recent.mean()) if recent is not None and len(recent) > 1 else UNKNOWN_VARIATION
        busy = float(window.busy_s[n] / window.seconds) if window.seconds else 0.0
        return Load(
            pool=self._pool_of[n],
            unfinished=task.unfinished,
            running=min(self.pace.busy(n), task.unfinished),
            block=block_time(window.of(n), whole.of(n), slots=busy, variation=variation),
            share=busy,
            num_workers=task.spec.num_workers,
            upstream=tuple(position[up.number] for _, up in task.upstream),
        )

    def _slots_at_work(self, core: RunState, pool: int, window: Past) -> float:
        """Return the slots of a pool that will be at work: those that are there, as busy as they were.

        Where some are idle and nothing is ready, more slots would not help: as many as were busy.
        """
        there = self.pace.slots(pool)
        tasks = [n for n, at in enumerate(self._pool_of) if at == pool]
        busy_s = float(np.sum(window.busy_s[tasks]))
        if not there or not busy_s:
            return there
        at_work = there * min(busy_s / float(window.slots_s[pool]), 1.0)
        busy = sum(self.pace.busy(n) for n in tasks)
        if busy < there and not any(core.ready_count(n) for n in tasks):
            return min(at_work, max(busy_s / window.seconds, busy))
        return at_work

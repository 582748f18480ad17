"""Handing out ready blocks: lowest Z-order key first, in batches that fit how long blocks take.

A batch is about `batch_s` seconds of work for each slot (with as much again asked for before it is finished), never
more than the worker's fair share of what is ready, and one block a slot when blocks are slow. A task's `num_workers` is
kept by allotting each worker a number of blocks that it may run at once, so that it can still hold a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from blockyard.core.health import look, may_retry
from blockyard.plan.grid import Ints

if TYPE_CHECKING:
    from blockyard.core.ready.frontier import Frontier
    from blockyard.core.runstate import RunState
    from blockyard.core.state.task import Task
    from blockyard.core.state.workers import Worker

LEAST_BLOCK_S = 1e-5
"""A block costs its worker at least this, however little it does."""
FEWEST_READY = 64
"""Looked for even when nobody asks, so that the status can say whether more workers would help."""
MOST_SEGMENTS = 16
"""A batch of several tasks is handed out in Z-order in at most this many pieces."""


@dataclass(frozen=True, slots=True)
class Group:
    """Connected workers that may run the same tasks."""

    tasks: Sequence[Task]
    workers: Sequence[Worker]


@dataclass(frozen=True, slots=True)
class Choice:
    """A task of which a worker may have ready blocks now."""

    task: Task
    frontier: Frontier
    max_running: int
    """How many of its blocks the worker may run at once."""
    left: int
    """How many more of its blocks the worker may have."""


def assign(core: RunState, now: float) -> bool:
    """Hand out what is ready; give whether another turn would find more for workers that still want some."""
    if core.health.streaks or core.retries.waiting:
        look(core, now)
    again = False
    active = _active(core)
    served: set[int] = set()
    for group in _groups(core, active, now):
        served.update(task.number for task in group.tasks)
        again |= _assign_group(core, group, now)
    for task in active:
        if task.number not in served:
            again |= _look_ahead(core, core.frontiers[task.number], waited_for=core.listeners.waited_for(task))
    live = core.activity.live
    live.difference_update([number for number in live if core.frontiers[number].idle])
    return again


def _active(core: RunState) -> list[Task]:
    """Return the tasks that have blocks ready, leased or to be tried again, or chunks to look at."""
    numbers = core.activity.live.union(core.leases.count_by_task, core.retries.waiting)
    return [core.tasks[number] for number in sorted(numbers)]


def _groups(core: RunState, active: Sequence[Task], now: float) -> list[Group]:
    """Return the connected workers that were heard of in time, by what they may run; not those who only listen."""
    patience = core.settings.patience_s
    found: dict[tuple[str, bool, str | None], list[Worker]] = {}
    for worker in core.workers.values():
        if worker.connected and worker.slots and worker.heard_s + patience > now:
            found.setdefault((worker.pool, worker.own, worker.task), []).append(worker)
    return [Group(_eligible(core, active, *key), workers) for key, workers in found.items()]


def _eligible(core: RunState, active: Sequence[Task], pool: str, own: bool, only: str | None) -> list[Task]:
    return [
        task
        for task in active
        if task.spec.pool == pool
        and (task.spec.worker is not None) == own
        and only in {None, task.spec.id}
        and task.number not in core.tasks_over
        and task.number not in core.fail_fast.stops
    ]


def _look_ahead(core: RunState, frontier: Frontier, *, waited_for: bool) -> bool:
    """Look for blocks that workers would find if they came; give whether it pays to go on at once."""
    before, want = len(frontier.ready), _fewest(core)
    frontier.advance(want, core.settings.looks_a_turn)
    found = len(frontier.ready)
    return (before < found or (waited_for and not found)) and found < want and not frontier.exhausted


def _fewest(core: RunState) -> int:
    return max(FEWEST_READY, core.settings.ready_ahead)


def _assign_group(core: RunState, group: Group, now: float) -> bool:
    wanting = [worker for worker in group.workers if worker.want > 0]
    rooms = {worker.id: _room(core, group, worker) for worker in wanting}
    need = sum(rooms.values())
    frontiers = [core.frontiers[task.number] for task in group.tasks]
    slots = sum(max(worker.slots, 1) for worker in group.workers)
    looks = core.settings.looks_a_turn
    for frontier in frontiers:
        looks = frontier.advance(max(2 * slots, 2 * need, _fewest(core)), looks)
    if not need:
        return False
    available = sum(len(frontier.ready) for frontier in frontiers)
    shares = {worker.id: math.ceil(available * max(worker.slots, 1) / slots) for worker in wanting}
    for worker in wanting:
        room = rooms[worker.id]
        retried = _assign_retries(core, group, worker, room, now) if core.retries.waiting else 0
        _assign_worker(core, group, worker, min(room - retried, shares[worker.id]), now)
    hungry = any(worker.want > 0 and not core.leases.held_by(worker.id) for worker in wanting)
    return hungry and looks == 0 and not all(frontier.exhausted for frontier in frontiers)


def _room(core: RunState, group: Group, worker: Worker) -> int:
    """Return how many more blocks the worker may have: two batches less what it holds, at least its idle slots."""
    held = 0
    work_s = 0.0
    fastest = core.settings.batch_s
    for task in group.tasks:
        mean_s = _mean_s(core, task)
        fastest = min(fastest, mean_s)
        mine = core.leases.held(task.number, worker.id)
        held += mine
        work_s += mine * mean_s
    slots = max(worker.slots, 1)
    by_time = int((2 * core.settings.batch_s * slots - work_s) / fastest)
    return min(worker.want, max(slots - held, by_time, 0), core.settings.most_in_batch)


def _mean_s(core: RunState, task: Task) -> float:
    """Return the smoothed seconds of a block; before any is measured, so long that one a slot is handed out."""
    return max(core.seconds.mean_s.get(task.number, 2 * core.settings.batch_s), LEAST_BLOCK_S)


def _assign_worker(core: RunState, group: Group, worker: Worker, most: int, now: float) -> None:
    """Hand a worker up to `most` of the ready blocks with the lowest keys."""
    if most <= 0:
        return
    choices: list[Choice] = []
    for task in group.tasks:
        frontier = core.frontiers[task.number]
        if len(frontier.ready):
            max_running = _max_running(core, task, worker)
            if max_running is not None and (left := _left_of(core, task, worker, max_running, most, now)) > 0:
                choices.append(Choice(task, frontier, max_running, left))
    if not choices:
        return
    for choice, n in _order(core, choices, most, worker):
        task, frontier, max_running = choices[choice].task, choices[choice].frontier, choices[choice].max_running
        _lease(core, worker, task, frontier.ready.take(n), max_running, now)
        if core.health.streaks:
            core.health.leased(task, worker.id, now)


def _lease(core: RunState, worker: Worker, task: Task, addresses: Ints, max_running: int, now: float) -> None:
    if task.spec.num_workers is not None:
        core.allotted[task.number][worker.id] = max_running
    for batch in _apart(core, task, addresses):
        core.lease(worker, task, batch, now, max_running if task.spec.num_workers is not None else 0)
    worker.want = 0


def _assign_retries(core: RunState, group: Group, worker: Worker, room: int, now: float) -> int:
    """Hand a worker blocks that others failed, its fair share of them; give how many."""
    slots = max(worker.slots, 1)
    all_slots = sum(max(other.slots, 1) for other in group.workers)
    taken = 0
    for task in [task for task in group.tasks if task.number in core.retries.waiting]:
        max_running = _max_running(core, task, worker)
        if max_running is None:
            continue
        share = math.ceil(sum(map(len, core.retries.waiting[task.number].values())) * slots / all_slots)
        in_time = int(2 * core.settings.batch_s * slots / _mean_s(core, task)) - core.leases.held_by(worker.id)
        most = min(max(in_time, slots - core.leases.held_by(worker.id)), share, room - taken)
        most = _limited(core, task, worker, max_running, most)
        addresses = core.retries.take(task.number, most, partial(may_retry, core, task.number, worker.id, now))
        if len(addresses):
            _lease(core, worker, task, addresses, max_running, now)
            taken += len(addresses)
    return taken


def _left_of(core: RunState, task: Task, worker: Worker, max_running: int, most: int, now: float) -> int:
    """Return how many more blocks of a task that were never tried a worker may have."""
    if core.health.streaks:
        most = int(min(most, core.health.allowance(task.number, worker.id, now)))
    return _limited(core, task, worker, max_running, most)


def _limited(core: RunState, task: Task, worker: Worker, max_running: int, most: int) -> int:
    """Return how many more blocks of a task a worker may have: of slow ones no more than it may run at once.

    Those that wait for the others would keep slots idle that blocks of another task could have.
    """
    if task.spec.num_workers is None:
        return most
    in_time = int(2 * core.settings.batch_s * max_running / _mean_s(core, task))
    return min(most, max(max_running, in_time) - core.leases.held(task.number, worker.id))


def _order(core: RunState, choices: Sequence[Choice], most: int, worker: Worker) -> list[tuple[int, int]]:
    """Return from which choice how many blocks come next, in Z-order over all of them."""
    left_s = 2 * core.settings.batch_s * max(worker.slots, 1)
    left_s -= sum(core.leases.held(one.task.number, worker.id) * _mean_s(core, one.task) for one in choices)
    least = max(worker.slots, 1) - core.leases.held_by(worker.id)
    if len(choices) == 1:
        (one,) = choices
        n = min(max(int(left_s / _mean_s(core, one.task)), least), one.left, len(one.frontier.ready))
        return [(0, n)] if n > 0 else []
    keys = [one.frontier.ready.keys(one.left) for one in choices]
    which = np.repeat(np.arange(len(choices)), [len(part) for part in keys])
    which = which[np.argsort(np.concatenate(keys), kind="stable")[:most]]
    cost = np.array([_mean_s(core, one.task) for one in choices])[which]
    which = which[: max(int(np.searchsorted(np.cumsum(cost), left_s, side="right")), least, 0)]
    return [
        (choice, int(np.count_nonzero(segment == choice)))
        for segment in _segments(which)
        for choice in np.unique(segment).tolist()
    ]


def _max_running(core: RunState, task: Task, worker: Worker) -> int | None:
    """Return how many blocks of the task the worker may run at once; None: the task's `num_workers` are all at work."""
    slots = max(worker.slots, 1)
    if task.spec.num_workers is None:
        return slots
    allotted = core.allotted[task.number]
    for other in [other for other in allotted if not core.leases.held(task.number, other)]:
        del allotted[other]
    free = task.spec.num_workers - sum(n for other, n in allotted.items() if other != worker.id)
    return min(slots, free) if free > 0 else None


def _segments(which: Ints) -> list[Ints]:
    """Cut a batch of several tasks where the task changes, or evenly where that would be too often."""
    cuts = np.flatnonzero(np.diff(which)) + 1
    if len(cuts) >= MOST_SEGMENTS:
        return [part for part in np.array_split(which, MOST_SEGMENTS) if len(part)]
    return [part for part in np.split(which, cuts) if len(part)]


def _apart(core: RunState, task: Task, addresses: Ints) -> list[Ints]:
    """Split off the blocks that are leased alone, each a batch of its own."""
    if not core.retries.alone:
        return [addresses]
    alone = np.array([(task.number, address) in core.retries.alone for address in addresses.tolist()])
    parts = [addresses[~alone], *(addresses[i : i + 1] for i in np.flatnonzero(alone))]
    return [part for part in parts if len(part)]

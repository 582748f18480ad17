"""Workers on which everything fails while others may do it, and where a block that failed is tried again.

A machine with a broken driver fails a block in milliseconds and asks for the next: it would go through a run before the
others have done their first. So for each task and worker the attempts that failed in a row are counted, and::

    a block that failed     is tried by another worker, of another machine where there is one, also if it is busy now;
                            the worker that failed it takes it back when nobody has for a while
    3 failures in a row     the worker is a suspect: one fresh block at a time, with a pause that doubles; none that
                            has failed before
    ... that others do      it is named
    a block that it does    ends all that

Nobody is held back where no other worker is at work that may run the task: then everybody runs everything. A block that
a good worker fails too says that the block is bad, and is taken off the count of who failed it first.

All of it is derived and forgotten at a restart. Its cost is that of those who fail: nothing is done where nobody does.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blockyard.core.ready.retries import Failers
from blockyard.core.state.workers import Worker, host_of
from blockyard.plan.grid import Ints
from blockyard.wire.api import Notice
from blockyard.wire.messages import BlockError

if TYPE_CHECKING:
    from blockyard.core.runstate import RunState
    from blockyard.core.state.task import Task

NOTICE = "bad_worker"
SUSPECT = 3
"""Failures in a row."""
CLEAR = 2
"""Blocks that others did and it did not, until it is named."""
PAUSE_S = 1.0
"""Before the first block that a suspect is tried with; doubled for each one that fails."""
LONGEST_PAUSE_S = 60.0
COSTLY = 10
"""Times as long, where a block that fails has no second attempt."""
PATIENCE_S = 60.0
"""A block waits for another worker so long, then the one that failed it may have it again."""
LONGEST_MESSAGE = 200


@dataclass(slots=True)
class Streak:
    """Attempts of one worker at one task that failed in a row."""

    others: int
    """Blocks of the task that were done before it began; what is done since, others have done."""
    failures: int = 0
    outdone: int = 0
    """Blocks among them that others have done."""
    probes: int = 0
    """Blocks that it was tried with since it is a suspect, and failed."""
    probing: bool = False
    """Whether it has such a block."""
    next_s: float = 0.0
    """When it may try a block again."""
    error: BlockError | None = None
    named: bool = False

    @property
    def is_suspect(self) -> bool:
        """Whether it is held back where others can do what it would."""
        return self.failures >= SUSPECT

    def pause(self, now: float, *, costly: bool) -> None:
        """Let it try the next block after a while."""
        pause_s = min(PAUSE_S * 2.0 ** min(self.probes, 10), LONGEST_PAUSE_S)
        self.next_s = now + pause_s * (COSTLY if costly else 1)


@dataclass(frozen=True, slots=True)
class Able:
    """Who may try a task's blocks again in this turn: at work or asking for it, and no suspect."""

    workers: frozenset[str]
    hosts: frozenset[str]

    def may_retry(self, worker: str, failers: Failers) -> bool:
        """Whether a worker takes what these have failed: on another machine, else another, else not the last one."""
        if worker not in self.workers:
            return False
        hosts = set(map(host_of, failers))
        if self.hosts - hosts:
            return host_of(worker) not in hosts
        return worker not in failers if self.workers.difference(failers) else worker != failers[-1]

    def any_for(self, failers: Failers) -> bool:
        """Whether there is a worker that takes it."""
        return bool(self.workers - {failers[-1]})


@dataclass(slots=True)
class Health:
    """The streaks of a run, by task and worker."""

    streaks: dict[tuple[int, str], Streak] = field(default_factory=dict)
    succeeded: Counter[int] = field(default_factory=Counter)
    """Blocks that were done since this scheduler began to lead, by task."""
    able: dict[int, Able] = field(default_factory=dict)
    """In this turn, by task; only of tasks where somebody failed."""

    def allowance(self, task: int, worker: str, now: float) -> float:
        """Return how many blocks of a task that were never tried a worker may have now."""
        streak = self.streaks.get((task, worker))
        if streak is None or not streak.is_suspect or not self.able[task].workers:
            return math.inf
        return 1 if now >= streak.next_s else 0

    def leased(self, task: Task, worker: str, now: float) -> None:
        """A worker got blocks that were never tried: a suspect gets no second one until it has shown what it does."""
        streak = self.streaks.get((task.number, worker))
        if streak is not None and streak.is_suspect:
            streak.probing = True
            streak.pause(now, costly=not task.spec.max_retries)


def done(core: RunState, task: Task, addresses: Ints, worker: Worker) -> None:
    """A worker has done blocks of a task: so it is well, and those are not who failed one of these."""
    if core.health.streaks.pop((task.number, worker.id), None) is not None:
        core.notices.drop(NOTICE, task=task.spec.id, worker=worker.id)
    for address in addresses.tolist() if core.retries.failers else ():
        for failer in core.retries.failers.get((task.number, address), ()):
            streak = core.health.streaks.get((task.number, failer))
            if streak is not None:
                streak.outdone += 1
                _name(core, task, failer, streak)


def _name(core: RunState, task: Task, worker: str, streak: Streak) -> None:
    """Name a worker of which it is clear that it is bad.

    Others did what it failed; or, where a block has one attempt only, others did what they got all that time.
    """
    others = core.health.succeeded[task.number] - streak.others if streak.probes >= CLEAR else 0
    if streak.is_suspect and not streak.named and max(streak.outdone, 0 if task.spec.max_retries else others) >= CLEAR:
        streak.named = True
        core.notices.put(_notice(task, worker, streak))


def failed(core: RunState, task: Task, address: int, worker: Worker, error: BlockError, now: float) -> None:
    """A worker has failed a block, or was seen to be killed by it."""
    health = core.health
    before = [one for one in core.retries.failers.get((task.number, address), ()) if one != worker.id]
    if before and worker.finished and (task.number, worker.id) not in health.streaks:
        for excused in filter(None, (health.streaks.get((task.number, one)) for one in before)):
            excused.failures -= not excused.named
        return
    streak = health.streaks.get((task.number, worker.id))
    if streak is None:
        streak = health.streaks[task.number, worker.id] = Streak(core.health.succeeded[task.number])
    streak.failures += 1
    streak.error = error
    if streak.failures == SUSPECT or streak.probing:
        streak.probes += streak.probing
        streak.probing = False
        streak.pause(now, costly=not task.spec.max_retries)
    _name(core, task, worker.id, streak)


def look(core: RunState, now: float) -> None:
    """Find who may take what others failed, before a turn hands out blocks; name who fails what others do."""
    health, waiting = core.health, core.retries.waiting
    health.able.clear()
    for number in {*waiting, *(number for number, _ in health.streaks)}:
        task = core.tasks[number]
        at_work = [worker for worker in core.workers.values() if _is_at_work(core, worker, task, now)]
        fit = [worker.id for worker in at_work if not _is_suspect(core, number, worker.id)]
        able = health.able[number] = Able(frozenset(fit), frozenset(map(host_of, fit)))
        for failers in [failers for failers in waiting.get(number, ()) if not able.any_for(failers)]:
            core.frontiers[number].push_back(core.retries.give_up(number, failers))


def gone(core: RunState, worker: str) -> None:
    """A worker has left for good."""
    streaks = core.health.streaks
    for key in [key for key in streaks if key[1] == worker]:
        del streaks[key]
        core.notices.drop(NOTICE, task=core.tasks[key[0]].spec.id, worker=worker)


def next_s(core: RunState, now: float) -> float:
    """Return when a suspect may try a block, or a block need wait for another worker no longer; infinite: neither."""
    tries = [streak.next_s for streak in core.health.streaks.values() if streak.is_suspect]
    waits = [since_s + PATIENCE_S for since_s in core.retries.since_s()]
    return min((at_s for at_s in (*tries, *waits) if at_s > now), default=math.inf)


def may_retry(core: RunState, task: int, worker: str, now: float, failers: Failers, since_s: float) -> bool:
    """Whether a worker takes a block that these failed and that waits since then."""
    able = core.health.able[task]
    return able.may_retry(worker, failers) or (worker in able.workers and now >= since_s + PATIENCE_S)


def _is_at_work(core: RunState, worker: Worker, task: Task, now: float) -> bool:
    """Whether a worker may run a task, and will: one that never asks for a block is not waited for."""
    heard = worker.heard_s + core.settings.patience_s > now
    ours = worker.connected and worker.slots > 0 and heard and worker.may_run(task.spec)
    return ours and (worker.want > 0 or core.leases.holds_any(worker.id))


def _is_suspect(core: RunState, task: int, worker: str) -> bool:
    streak = core.health.streaks.get((task, worker))
    return streak is not None and streak.is_suspect


def _notice(task: Task, worker: str, streak: Streak) -> Notice:
    error = streak.error
    why = f"{error.kind}: {' '.join(error.message.split())[:LONGEST_MESSAGE]}" if error is not None else "no reason"
    text = (
        f"worker {worker} fails all that it gets of task '{task.spec.id}' while others do it ({streak.failures}"
        f" attempts in a row, the last with {why}): it is given one block now and then, to see whether that is over."
        " Look at its machine, or end it"
    )
    return Notice(NOTICE, text, task=task.spec.id, worker=worker)

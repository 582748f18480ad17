"""The scheduler as a pure state machine: `handle(event, now)` takes what happened and gives what is to be done.

The caller tells it everything that arrived, then `TurnEnded`; only that one gives effects. Of those, a `CommitRecord`
comes first and must be safe before the rest is carried out (journal before speech). A turn goes: releases are applied
as they are told; then leases that ran out end, what waited for finished blocks is counted down, ready blocks are looked
for and handed out, and all that changed becomes one record.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from blockyard.core import events as ev
from blockyard.core import failfast, health
from blockyard.core.assign import assign
from blockyard.core.observer import Seconds
from blockyard.core.ready.orphans import orphan_waiters
from blockyard.core.ready.retries import judge
from blockyard.core.runstate import RunState
from blockyard.core.settings import CoreSettings
from blockyard.core.snapshots import Snapshots, load
from blockyard.core.state import journal
from blockyard.core.state.hold import RecoveryHold
from blockyard.core.state.leases import Grant
from blockyard.core.state.task import Kind, Task, Tries
from blockyard.core.state.transitions import RunCause
from blockyard.core.state.workers import Worker, lost_outcomes
from blockyard.core.turn import Turn
from blockyard.core.undo import rebuild, rerun, retry
from blockyard.plan.grid import Ints
from blockyard.spec.model import RunSpec
from blockyard.wire.api import Notice
from blockyard.wire.messages import BlockError, Outcome
from blockyard.wire.states import RunPhase

__all__ = ["CoreSettings", "Scheduler"]

MOST_STALE = 256
"""Stale releases remembered of each worker; it has fewer that were not acknowledged."""


class Scheduler(RunState):
    """What happens to a run: a door for each event, and the end of a turn."""

    def __init__(
        self, run: RunSpec, *, epoch: int = 1, settings: CoreSettings | None = None, now: float = 0.0, seed: int = 0
    ) -> None:
        """Begin the run; `now` is the time of the caller's clock, `seed` that of jitter and of lease numbers."""
        super().__init__(run, epoch=epoch, settings=settings or CoreSettings(), now=now)
        self._random = random.Random(seed)  # noqa: S311 - jitter, not secrets
        self._snapshots = Snapshots(self.settings.snapshot_records)
        self._next_expiry_s = 0.0
        self._doors: dict[type, Callable[[Any, float], None]] = {
            ev.WorkerJoined: self._worker_joined,
            ev.BlocksWanted: self._blocks_wanted,
            ev.BlocksReleased: self._blocks_released,
            ev.WorkerHeard: self._worker_heard,
            ev.WorkerDisconnected: self._worker_disconnected,
            ev.WorkerGone: self._worker_gone,
            ev.WorkerCannotStart: self._worker_cannot_start,
            ev.CodeImported: self._code_imported,
            ev.TaskRemarked: self._task_remarked,
            ev.RetryRequested: self._retry_requested,
            ev.RerunRequested: self._rerun_requested,
            ev.PauseRequested: self._pause_requested,
            ev.ResumeRequested: self._resume_requested,
            ev.CancelRequested: self._cancel_requested,
        }

    @classmethod
    def restore(
        cls,
        run: RunSpec,
        pages: Iterable[ev.Page],
        records: Iterable[tuple[int, bytes]],
        *,
        epoch: int = 1,
        settings: CoreSettings | None = None,
        now: float = 0.0,
        seed: int = 0,
    ) -> Scheduler:
        """Go on with a run from its snapshot pages and the journal records (sequence, record) that are left."""
        self = cls(run, epoch=epoch, settings=settings, now=now, seed=seed)
        loaded = load(self.tasks, pages, records)
        self.seq = loaded.seq
        self.over.load(loaded.state, loaded.reason)
        self.fail_fast.stops = loaded.stops
        self._snapshots.loaded(loaded)
        self.leases = loaded.leases
        self.hold = RecoveryHold.of(self.leases, epoch, self._random, now + self.settings.patience_s)
        for worker, seq in loaded.workers.items():
            self.workers[worker] = Worker(worker, heard_s=now, last_seq=seq, stale=loaded.stale.get(worker, {}))
        for worker in self.leases.workers() - set(self.workers):
            self.workers[worker] = Worker(worker, heard_s=now)
        for task in self.tasks:
            task.tries = loaded.tries.get(task.number, {})
            task.retries = loaded.retries.get(task.number, 0)
            self.retries.restore(task.number, task.tries.items(), self.settings)
        for grant in self.leases.grants():
            grant.inherited, grant.granted_s = True, now
            if grant.max_running:
                self.allotted[grant.task][grant.worker] = grant.max_running
        rebuild(self)
        if self.withdrawn.take_out(self.leases, lambda task, addresses: self.frontiers[task].may_run(addresses)):
            self.hold.begin(now + self.settings.patience_s)
        if self.over.is_outdated(self.tasks):
            self._change(RunCause.ASKED_ANEW)
        failfast.restored(self, now)
        if self.reason and not self.fail_fast.stops:
            self._change(RunCause.LIFTED)
        return self

    def handle(self, event: ev.Event, now: float) -> list[ev.Effect]:
        """Take one event at time `now`; `TurnEnded` gives the effects of all events since the last one, in order."""
        if isinstance(event, ev.TurnEnded):
            return self._end_turn(now)
        self._doors[type(event)](event, now)
        return []

    def store_forgot(self, now: float) -> None:
        """Lease nothing for a while (see `state/hold.py`): the store may lack the last records, or another leader's."""
        self.hold.begin(now + self.settings.patience_s)

    # --- asking ------------------------------------------------------------------------------------------------

    def whole_snapshot(self) -> Iterator[ev.Page]:
        """Return all of the durable state as of the last record given out, for a store that has lost records."""
        return self._snapshots.whole(self)

    # --- workers -----------------------------------------------------------------------------------------------

    def _worker_joined(self, event: ev.WorkerJoined, now: float) -> None:
        worker = self.workers.setdefault(event.worker, Worker(event.worker))
        worker.pool, worker.slots, worker.task, worker.own = event.pool, event.slots, event.task, event.own
        worker.connected, worker.want, worker.heard_s, worker.running = True, 0, now, ()
        self.listeners.want(worker)
        revoked = np.empty(0, np.int64)
        if event.holds is not None:
            self.hold.hear(event.holds, self.leases)
            revoked = self._reconcile(worker, np.unique(event.holds), now)
        self.turn.effects.append(ev.SendWelcome(worker.id, revoked))
        if self.fail_fast.stops and failfast.reopen(self, worker) and self.reason:
            self._change(RunCause.LIFTED)
        self.turn.joined.append(event.task)

    def _reconcile(self, worker: Worker, holds: Ints, now: float) -> Ints:
        """Free what the worker no longer holds; give what it holds but must not."""
        kept = []
        for grant in self.leases.of_worker(worker.id):
            numbers = grant.number + np.arange(len(grant.addresses))
            claimed = np.isin(numbers, holds)
            kept.append(numbers[grant.live & claimed])
            dropped = np.flatnonzero(grant.live & ~claimed)
            if len(dropped):
                self._release(worker, grant, dropped, np.full(len(dropped), Outcome.RETURNED, np.uint8), now)
        return holds if not kept else holds[~np.isin(holds, np.concatenate(kept))]

    def _blocks_wanted(self, event: ev.BlocksWanted, now: float) -> None:
        worker = self.workers.get(event.worker)
        if worker is not None and worker.connected:
            worker.want = max(event.n, 0)
            worker.heard_s = now
            self.listeners.want(worker)

    def _worker_heard(self, event: ev.WorkerHeard, now: float) -> None:
        worker = self.workers.get(event.worker)
        if worker is not None:
            worker.heard_s = now
            worker.running = event.running

    def _worker_disconnected(self, event: ev.WorkerDisconnected, now: float) -> None:  # noqa: ARG002 - a door
        worker = self.workers.get(event.worker)
        if worker is not None:
            worker.connected, worker.want = False, 0
            self.listeners.want(worker)

    def _worker_gone(self, event: ev.WorkerGone, now: float) -> None:
        worker = self.workers.get(event.worker)
        if worker is not None:
            self._lose(worker, now, killed=event.killed, reason=event.reason, ran=event.ran)
            self._forget(worker)

    def _worker_cannot_start(self, event: ev.WorkerCannotStart, now: float) -> None:  # noqa: ARG002 - a door
        worker = self.workers.get(event.worker)
        if worker is not None:
            self.unstarted.complain(worker, event.text)

    def _code_imported(self, event: ev.CodeImported, now: float) -> None:  # noqa: ARG002 - a door
        task = self.by_id.get(event.task)
        if task is not None:
            self.code.heard(event.worker, event.task, event.code, begun=task.counts[Kind.DONE] > 0)

    def _task_remarked(self, event: ev.TaskRemarked, now: float) -> None:  # noqa: ARG002 - a door
        if event.task in self.by_id:
            self.notices.put(Notice(event.kind, event.text, event.task))

    def _forget(self, worker: Worker) -> None:
        del self.workers[worker.id]
        health.gone(self, worker.id)
        self.listeners.forget(worker)
        self.unstarted.left(worker)
        self.code.left(worker.id)
        self.turn.record.workers[worker.id] = -1
        for allotted in self.allotted.values():
            allotted.pop(worker.id, None)

    def _lose(self, worker: Worker, now: float, *, killed: bool, reason: str, ran: Ints | None = None) -> None:
        """End all leases of a worker: what it ran is lost (or killed it), what it had not begun is returned."""
        outcome = Outcome.KILLED if killed else Outcome.LOST
        message = reason or f"worker {worker.id} was lost while it ran this block"
        error = BlockError(-1, "exit" if killed else "lost", message, worker=worker.id)
        for grant, positions, outcomes in lost_outcomes(worker, self.leases.of_worker(worker.id), outcome, ran):
            errors = {grant.number + int(at): error for at in positions[outcomes == outcome]}
            self._release(worker, grant, positions, outcomes, now, errors=errors)

    def _expire(self, now: float) -> None:
        """End the leases of workers that were not heard of in time."""
        if now < self._next_expiry_s:
            return
        patience = self.settings.patience_s
        following = now + patience
        for worker in list(self.workers.values()):
            deadline = worker.heard_s + patience
            if deadline > now:
                following = min(following, deadline)
                continue
            self.observer.expired(self.leases.held_by(worker.id))
            self._lose(worker, now, killed=False, reason=f"no heartbeat from worker {worker.id} for {patience:g} s")
            if not worker.connected:
                self._forget(worker)
        self._next_expiry_s = following

    # --- releases ----------------------------------------------------------------------------------------------

    def _blocks_released(self, event: ev.BlocksReleased, now: float) -> None:
        worker = self.workers.get(event.worker)
        if worker is None:
            self.observer.stale(len(event.numbers))
            self.turn.effects.append(ev.SendAck(event.worker, event.seq, len(event.numbers)))
            return
        worker.heard_s = now
        if event.seq <= worker.last_seq:  # sent again after a reconnect: it was accepted, say so again
            self.turn.effects.append(ev.SendAck(worker.id, event.seq, worker.stale.get(event.seq, 0)))
            return
        worker.last_seq = event.seq
        self.turn.record.workers[worker.id] = event.seq
        if len(event.numbers) == 1:
            numbers, rows = event.numbers, np.zeros(1, np.intp)
        else:
            numbers, rows = np.unique(event.numbers, return_index=True)
        stale = len(event.numbers) - len(numbers)
        errors = {error.number: error for error in event.errors}
        for grant, found, positions in self.leases.find(numbers):
            if grant is None or grant.worker != worker.id:
                stale += len(found)
                continue
            live = grant.live[positions]
            stale += int(np.count_nonzero(~live))
            chosen = rows[found[live]]
            seconds = None if event.seconds is None else event.seconds[chosen]
            self._release(worker, grant, positions[live], event.outcomes[chosen], now, seconds=seconds, errors=errors)
        if stale:
            self.observer.stale(stale)
            worker.stale[event.seq] = stale
            if len(worker.stale) > MOST_STALE:
                del worker.stale[next(iter(worker.stale))]
            self.turn.record.stale.setdefault(worker.id, {})[event.seq] = stale
        self.turn.effects.append(ev.SendAck(worker.id, event.seq, stale))

    def _release(
        self,
        worker: Worker,
        grant: Grant,
        positions: Ints,
        outcomes: npt.NDArray[np.uint8],
        now: float,
        *,
        seconds: npt.NDArray[np.float32] | None = None,
        errors: dict[int, BlockError] | None = None,
    ) -> None:
        """End live leases of one grant with what became of their blocks."""
        if not len(positions):
            return
        task = self.tasks[grant.task]
        addresses = grant.addresses[positions]
        self.turn.note_end(grant, positions)
        self.leases.end(grant, positions)
        same = bool((outcomes == outcomes[0]).all())
        for outcome in [int(outcomes[0])] if same else np.unique(outcomes).tolist():
            chosen = slice(None) if same else outcomes == outcome
            count = len(addresses[chosen])
            its_seconds = None if seconds is None else seconds[chosen]
            self.observer.ended(task.number, Outcome(outcome), count, its_seconds)
            if outcome in {Outcome.SUCCESS, Outcome.SKIPPED}:
                self._finished(worker, task, Outcome(outcome), addresses[chosen], its_seconds, now)
            elif outcome == Outcome.RETURNED:
                self._again(task, addresses[chosen], now)
            else:
                for position in positions[chosen].tolist():
                    error = (errors or {}).get(grant.number + position)
                    self._trouble(task, int(grant.addresses[position]), Outcome(outcome), worker, error, now)

    def _finished(
        self, worker: Worker, task: Task, outcome: Outcome, addresses: Ints, seconds: Seconds | None, now: float
    ) -> None:
        """Blocks are done, or were found done."""
        ran = outcome == Outcome.SUCCESS
        attempts = task.attempts(addresses)  # forgotten when the block is done
        voxels = task.voxels_written(addresses) if ran else 0
        self.observer.finished(task.number, worker.id, outcome, addresses, seconds, attempts, voxels, now)
        if ran:
            self.health.succeeded[task.number] += len(addresses)
            if self.health.streaks:
                health.done(self, task, addresses, worker)
        self._done(task, Kind.DONE if ran else Kind.SKIPPED, addresses)
        worker.finished += len(addresses)
        self.unstarted.works(task)
        if seconds is not None:
            learn = self.seconds.took if ran else self.seconds.skipped
            learn(task.number, seconds)

    def _done(self, task: Task, kind: Kind, addresses: Ints) -> None:
        closed = task.mark(kind, addresses, self.seq + 1)
        self.turn.note_bits(task, kind, addresses, value=True)
        self.frontiers[task.number].close(closed)
        self.turn.finished.setdefault(task.number, []).append(addresses)
        if self.fail_fast.watching:
            failfast.lift(self, (task,))  # it is not the code
        if task.tries:
            for address in addresses.tolist():
                self.turn.set_tries(task, address, None)
                self.retries.forget(task.number, address)

    def _trouble(
        self, task: Task, address: int, outcome: Outcome, worker: Worker, error: BlockError | None, now: float
    ) -> None:
        """One block was not done: again, later, or failed for good."""
        tries = task.tries.get(address, Tries())
        verdict = judge(tries, outcome, task.spec.max_retries, self.settings)
        self.turn.set_tries(task, address, verdict.tries)
        if outcome != Outcome.LOST or verdict.final:
            error = error or BlockError(-1, outcome.name.lower(), "no reason was given", worker=worker.id)
            block_id = task.grid.id_of(task.layout.index_of(address))
            self.turn.errors.append(ev.FailureNote(task.spec.id, block_id, tries.attempt, verdict.final, error))
        if failfast.is_watched(self, task):
            self.fail_fast.ended(task.number, address, outcome, worker.id, error)
        if outcome != Outcome.LOST and error is not None:
            health.failed(self, task, address, worker, error, now)
        if verdict.alone:
            self.retries.alone.add((task.number, address))
        if verdict.final:
            self._fail(task, np.array([address]))
            return
        if outcome != Outcome.LOST:
            self.turn.note_retry(task)
            self.retries.failed(task.number, address, worker.id)
        if verdict.backoff_s > 0:
            wait_s = verdict.backoff_s * self._random.uniform(0.5, 1.0)
            self.retries.delay(task.number, address, now + wait_s)
        else:
            self._again(task, np.array([address]), now)

    def _again(self, task: Task, addresses: Ints, now: float) -> None:
        """Blocks are ready again; those that failed wait for another worker."""
        rest = self.retries.set_apart(task.number, addresses, now)
        if len(rest):
            self.frontiers[task.number].push_back(rest)

    def _fail(self, task: Task, addresses: Ints) -> None:
        closed = task.mark(Kind.FAILED, addresses, self.seq + 1)
        self.turn.note_bits(task, Kind.FAILED, addresses, value=True)
        self.frontiers[task.number].close(closed)
        orphan_waiters(task, task.layout.indices(addresses), self.seq + 1, self._orphaned)

    def _orphaned(self, task: Task, addresses: Ints, closed: Ints) -> None:
        frontier = self.frontiers[task.number]
        frontier.take_out(addresses)
        frontier.close(closed)

    # --- operating ---------------------------------------------------------------------------------------------

    def _retry_requested(self, event: ev.RetryRequested, now: float) -> None:  # noqa: ARG002 - a door
        self._undo(event.task, lambda: retry(self, event))

    def _rerun_requested(self, event: ev.RerunRequested, now: float) -> None:  # noqa: ARG002 - a door
        self._undo(event.task, lambda: rerun(self, event))

    def _undo(self, task: str | None, change: Callable[[], None]) -> None:
        """Take back what is over; a run that had ended goes on when there are blocks to run again."""
        before = sum(task.unfinished for task in self.tasks)
        change()
        self.observer.undone(sum(task.unfinished for task in self.tasks) - before)
        failfast.lift(self, self.tasks if task is None else (self.by_id[task],))
        if self.reason:
            self._change(RunCause.LIFTED)
        elif any(task.unfinished for task in self.tasks):
            self._change(RunCause.UNDONE)

    def _pause_requested(self, event: ev.PauseRequested, now: float) -> None:  # noqa: ARG002 - a door
        self._change(RunCause.PAUSED)

    def _resume_requested(self, event: ev.ResumeRequested, now: float) -> None:  # noqa: ARG002 - a door
        failfast.lift(self, self.tasks)
        self._change(RunCause.RESUMED)

    def _cancel_requested(self, event: ev.CancelRequested, now: float) -> None:  # noqa: ARG002 - a door
        if self.is_over:
            return
        for worker in self.workers.values():
            numbers = []
            for grant in self.leases.of_worker(worker.id):
                live = np.flatnonzero(grant.live)
                numbers.append(grant.number + live)
                self._release(worker, grant, live, np.full(len(live), Outcome.RETURNED, np.uint8), now)
            if numbers:
                self.turn.effects.append(ev.SendRevoke(worker.id, np.concatenate(numbers)))
        failfast.lift(self, self.tasks)
        self._change(RunCause.CANCELLED)

    def _change(self, cause: RunCause, reason: str = "") -> None:
        self.over.change(cause, self.turn.record, reason)

    # --- a turn ------------------------------------------------------------------------------------------------

    def _end_turn(self, now: float) -> list[ev.Effect]:
        self._expire(now)
        for number, address in self.retries.due(now):
            self._again(self.tasks[number], np.array([address]), now)
        for number, addresses in self.turn.finished.items():
            self.frontiers[number].finished(np.concatenate(addresses))
        if self.withdrawn.grants and not self.hold.lasts(now):
            self.turn.record.ends += self.withdrawn.ended()
        again = False
        if self.state is RunPhase.RUNNING:
            failfast.look(self, now)
            if not self.hold.lasts(now):
                again = assign(self, now)
                self.turn.effects += self.listeners.due(self.by_id, self.frontiers, self.fail_fast.stops, now)
                self.unstarted.look(self.by_id, self.frontiers, self.workers, now)
            self.turn.effects += self.over.close(self.activity.closed, self.tasks, self.turn.record)
            self.activity.closed.clear()
            again |= self._stand_still(now)
        self.turn.effects += self.over.tell(self.turn.joined, self.by_id)
        self.over.seen(now)
        effects = self._commit() + self.turn.effects
        quiet_s = self.hold.ends_s if self.hold.lasts(now) else self._next_expiry_s
        wakes_s = (self._next_expiry_s, self.retries.next_s(), health.next_s(self, now), quiet_s, self._settled_s(now))
        effects.append(ev.WakeAt(min(wakes_s)))
        if again:
            effects.append(ev.ContinueTurn())
        self.turn = Turn()
        return effects

    def _stand_still(self, now: float) -> bool:
        """Pause a run in which nothing can run but what was stopped; give whether to look again at once."""
        if self.state is not RunPhase.RUNNING or not self.fail_fast.stops or self.hold.lasts(now):
            return False
        reason, again = failfast.standstill(self, now)
        if reason:
            self._change(RunCause.STOOD_STILL, reason)
        return again

    def _settled_s(self, now: float) -> float:
        """Return when a stop may be the end of the run, if that is to come."""
        settled_s = self.fail_fast.settled_s(self.settings) if self.state is RunPhase.RUNNING else now
        return settled_s if settled_s > now else math.inf

    # --- the record --------------------------------------------------------------------------------------------

    def _commit(self) -> list[ev.Effect]:
        if not self.turn.changed:
            return []
        self.seq += 1
        pages, drop_below = self._snapshots.due(self)
        record = journal.encode(self.turn.record)
        return [ev.CommitRecord(self.seq, record, tuple(self.turn.errors), pages, drop_below)]

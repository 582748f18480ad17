"""A run in one process: the real core, simulated workers, and a plain model of what must be true, compared each turn.

`World.tell` gives an event to the core and to the model; `World.turn` ends a turn, checks every effect against the
oracle and the model, and delivers it to the simulated workers. Nothing reaches the workers, nor the model's idea of
what is safe, before the commit of the turn is in the journal; so a crash may come between any two steps.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from unittest import mock

import numpy as np
from hypothesis import strategies as st
from moves import Moves
from oracle import Name, Oracle, box_of

from blockyard.core import events as ev
from blockyard.core.scheduler import CoreSettings, Scheduler
from blockyard.plan.requests import numbered_alike
from blockyard.spec.model import RoiSpec, RunSpec, Target
from blockyard.views.observed import ObservedRun
from blockyard.wire.messages import Outcome

TROUBLE = {Outcome.FAILED, Outcome.FATAL, Outcome.KILLED, Outcome.LOST}


# --- tuning: the core's sizes are for millions of blocks; small ones take the same paths on small grids ---------------

SIZES = {
    "blockyard.core.ready.frontier.MOST_OPEN": (1, 3, 2048),
    "blockyard.core.ready.frontier.MOST_READY": (2, 12, 32768),
    "blockyard.core.ready.frontier.WIDE": (1, 8, 4096),
    "blockyard.core.ready.frontier.DENSE": (1, 64, 10**6),
    "blockyard.core.ready.frontier.REGION_AT_ONCE": (4, 50, 2**20),
    "blockyard.core.ready.orphans.WIDE": (1, 8, 4096),
    "blockyard.core.assign.FEWEST_READY": (1, 64),
    "blockyard.core.assign.MOST_SEGMENTS": (1, 2, 16),
    "blockyard.core.state.layout.FEWEST_CHUNKS_BITS": (0, 2, 4, 8),
    "blockyard.core.snapshots.PAGES_A_COMMIT": (1, 2, 16),
    "blockyard.plan.levels.PAIRS_AT_ONCE": (1, 16, 2**18),
    "blockyard.plan.zorder.TABLE_ENTRIES": (1, 2**18),
}
PAGE_BITS = (64, 65536)
Sizes = dict[str, int]


@st.composite
def sizes(draw: st.DrawFn) -> Sizes:
    """Draw the usual sizes, or small ones here and there."""
    if draw(st.booleans()):
        return {}
    drawn = {name: draw(st.sampled_from(values)) for name, values in SIZES.items()}
    bits = draw(st.sampled_from(PAGE_BITS))
    drawn |= {"blockyard.core.state.bitmap.PAGE_BITS": bits, "blockyard.core.state.bitmap.PAGE_BYTES": bits // 8}
    return drawn | {"blockyard.core.snapshots.PAGE_BITS": bits}


@contextmanager
def with_sizes(chosen: Sizes):
    """Put these sizes in place of the module constants."""
    with ExitStack() as stack:
        for name, value in chosen.items():
            stack.enter_context(mock.patch(name, value))
        yield


settings_of_the_core = st.builds(
    CoreSettings,
    looks_a_turn=st.sampled_from((1, 2, 16)),
    snapshot_records=st.sampled_from((2, 5, 2048)),
    kills=st.integers(1, 3),
    losses_alone=st.sampled_from((1, 3)),
    losses=st.sampled_from((3, 20)),
    retry_backoff_s=st.sampled_from((0.0, 0.0, 1.0)),
)


# --- the model -------------------------------------------------------------------------------------------------------


@dataclass
class Known:
    """A worker as the scheduler must know it."""

    pool: str
    slots: int
    task: str | None
    own: bool
    connected: bool
    heard_s: float
    want: int = 0
    last_seq: int = 0
    running: tuple[int, ...] = ()
    max_running: dict[str, int] = field(default_factory=dict)
    stale: dict[int, int] = field(default_factory=dict)
    """How many leases of a release were stale, by its sequence, where any was: said again when it is sent again."""


@dataclass
class Model:
    """What must be true of the run, spelled out."""

    leased: dict[int, tuple[str, Name]] = field(default_factory=dict)
    done: set[Name] = field(default_factory=set)
    skipped: set[Name] = field(default_factory=set)
    failed: set[Name] = field(default_factory=set)
    tries: dict[Name, Counter[Outcome]] = field(default_factory=dict)
    not_before_s: dict[Name, float] = field(default_factory=dict)
    """Backoffs: the block is not leased before."""
    retries: Counter[str] = field(default_factory=Counter)
    workers: dict[str, Known] = field(default_factory=dict)
    state: str = "running"
    notes: list[tuple[str, int, int, bool]] = field(default_factory=list)
    """(task, block id, attempt, final) of the trouble of this turn."""
    acks: list[tuple[str, int, int]] = field(default_factory=list)
    """(worker, seq, stale) due this turn."""
    outside: dict[str, set[Name]] = field(default_factory=lambda: {"done": set(), "skipped": set(), "failed": set()})
    """What became of blocks of an earlier request that are none of the run's now."""
    withdrawn: dict[int, tuple[str, Name]] = field(default_factory=dict)
    """Leases that another request has made wrong, until nobody can run their blocks any more."""

    def copy(self) -> Model:
        """A copy that shares nothing that changes."""
        return Model(
            self.leased.copy(),
            self.done.copy(),
            self.skipped.copy(),
            self.failed.copy(),
            {name: tries.copy() for name, tries in self.tries.items()},
            self.not_before_s.copy(),
            self.retries.copy(),
            {
                name: replace(known, max_running=known.max_running.copy(), stale=known.stale.copy())
                for name, known in self.workers.items()
            },
            self.state,
            self.notes.copy(),
            self.acks.copy(),
            {what: names.copy() for what, names in self.outside.items()},
            self.withdrawn.copy(),
        )


@dataclass
class SimWorker:
    """A worker process as it sees itself."""

    id: str
    pool: str
    slots: int
    task: str | None
    own: bool
    held: dict[int, Name] = field(default_factory=dict)
    unacked: dict[int, ev.BlocksReleased] = field(default_factory=dict)
    seq: int = 0
    connected: bool = False
    dead: bool = False


class World:
    """Core, model, workers and journal of one run."""

    def __init__(self, run: RunSpec, settings: CoreSettings | None = None, oracle: Oracle | None = None) -> None:
        self.run = run
        self.oracle = oracle or Oracle(run)
        self.settings = settings or CoreSettings()
        self.now = 0.0
        self.core = Scheduler(run, settings=self.settings)
        self.observed = ObservedRun(self.core)
        self.moves = Moves(self.core)
        self.epoch = 1
        self.model = Model()
        self.safe = self.model.copy()
        self.workers: dict[str, SimWorker] = {}
        self.records: dict[int, bytes] = {}
        self.pages: dict[str, ev.Page] = {}
        self.over: str | None = None
        self.leases_in_order: list[Name] = []
        self.highest_number = 0
        self.delivered: set[int] = set()
        """Lease numbers that some worker has heard of."""
        self.starved = 0
        self.asked_again = False
        self.quiet_until_s = 0.0
        """Nothing is leased before."""
        self.orphans: set[Name] = set()
        self._orphans_of: frozenset[Name] = frozenset()

    # --- telling -----------------------------------------------------------------------------------------------

    def tell(self, event: ev.Event) -> None:
        """Give an event to core and model."""
        assert self.core.handle(event, self.now) == [], "only TurnEnded gives effects"
        self.moves.heard(event)
        match event:
            case ev.WorkerJoined():
                self._joined(event)
            case ev.BlocksWanted():
                known = self.model.workers.get(event.worker)
                if known and known.connected:
                    known.want, known.heard_s = event.n, self.now
            case ev.BlocksReleased():
                self._released(event)
            case ev.WorkerHeard():
                known = self.model.workers.get(event.worker)
                if known:
                    known.heard_s, known.running = self.now, tuple(number for number, _ in event.running)
            case ev.WorkerDisconnected():
                known = self.model.workers.get(event.worker)
                if known:
                    known.connected, known.want = False, 0
            case ev.WorkerGone():
                self._lost(event.worker, killed=event.killed, forget=True, ran=event.ran)
            case ev.RetryRequested():
                self._retry(event.task, event.roi)
            case ev.RerunRequested():
                self._rerun(event.task, event.roi)
            case ev.PauseRequested():
                if self.model.state == "running":
                    self.model.state = "paused"
            case ev.ResumeRequested():
                if self.model.state in {"paused", "cancelled"}:
                    self.model.state = "running"
                    self.over = None
            case ev.CancelRequested():
                if self.model.state not in {"done", "failed", "cancelled"}:
                    self.model.leased.clear()
                    self.model.state = "cancelled"

    def _joined(self, event: ev.WorkerJoined) -> None:
        known = self.model.workers.get(event.worker)
        last_seq = known.last_seq if known else 0
        max_running = known.max_running if known else {}
        stale = known.stale if known else {}
        self.model.workers[event.worker] = Known(
            event.pool, event.slots, event.task, event.own, True, self.now, 0, last_seq, (), max_running, stale
        )
        if event.holds is not None:
            holds = set(event.holds.tolist())
            for number, (worker, _) in list(self.model.leased.items()):
                if worker == event.worker and number not in holds:
                    del self.model.leased[number]

    def _released(self, event: ev.BlocksReleased) -> None:
        known = self.model.workers.get(event.worker)
        if known is None:
            self.model.acks.append((event.worker, event.seq, len(event.numbers)))
            return
        known.heard_s = self.now
        if event.seq <= known.last_seq:
            self.model.acks.append((event.worker, event.seq, known.stale.get(event.seq, 0)))
            return
        known.last_seq = event.seq
        stale = 0
        for number, outcome in zip(event.numbers.tolist(), event.outcomes.tolist(), strict=True):
            worker, name = self.model.leased.get(number, (None, None))
            if worker == event.worker:
                del self.model.leased[number]
                self._came_of(name, Outcome(outcome))
            else:
                stale += 1
        if stale:
            known.stale[event.seq] = stale
        self.model.acks.append((event.worker, event.seq, stale))

    def _came_of(self, name: Name, outcome: Outcome) -> None:
        """What one release means for its block."""
        model = self.model
        assert name not in model.done | model.failed, f"{name} was leased although it had ended"
        if outcome in {Outcome.SUCCESS, Outcome.SKIPPED}:
            model.done.add(name)
            if outcome == Outcome.SKIPPED:
                model.skipped.add(name)
            model.tries.pop(name, None)
            return
        if outcome == Outcome.RETURNED:
            return
        tries = model.tries.setdefault(name, Counter())
        attempt = self.attempt(name)
        tries[outcome] += 1
        limits = {
            Outcome.FAILED: self.oracle.tasks[name[0]].spec.max_retries + 1,
            Outcome.FATAL: 1,
            Outcome.KILLED: self.settings.kills,
            Outcome.LOST: self.settings.losses,
        }
        final = tries[outcome] >= limits[outcome]
        if outcome != Outcome.LOST or final:
            model.notes.append((*name, attempt, final))
        if final:
            model.failed.add(name)
            return
        if outcome != Outcome.LOST:
            model.retries[name[0]] += 1
        model.not_before_s[name] = self.now + 0.5 * self._backoff(outcome, tries)

    def _backoff(self, outcome: Outcome, tries: Counter[Outcome]) -> float:
        """The wait before the next attempt: doubled each time; for losses from the one on that sets the block alone."""
        settings = self.settings
        if outcome == Outcome.LOST:
            again = tries[outcome] - settings.losses_alone
            return min(2.0**again, settings.longest_backoff_s) if again >= 0 else 0.0
        return min(settings.retry_backoff_s * 2.0 ** (tries[outcome] - 1), settings.longest_backoff_s)

    def attempt(self, name: Name) -> int:
        """The number of the block's next attempt."""
        tries = self.model.tries.get(name, Counter())
        return 1 + tries[Outcome.FAILED] + tries[Outcome.KILLED]

    def _lost(self, worker: str, *, killed: bool, forget: bool, ran: ev.Ids | None = None) -> None:
        """A worker's leases end. What it ran is lost: as `ran` or it said last, else the first for each slot."""
        known = self.model.workers.get(worker)
        if known is None:
            return
        mine = sorted(number for number, (holder, _) in self.model.leased.items() if holder == worker)
        said = set(known.running).intersection(mine) or set(mine[: max(known.slots, 1)])
        charged = said if ran is None else set(ran.tolist())
        for number in mine:
            _, name = self.model.leased.pop(number)
            if number in charged:
                self._came_of(name, Outcome.KILLED if killed else Outcome.LOST)
        if forget:
            del self.model.workers[worker]

    def is_silent(self, known: Known) -> bool:
        """Whether its leases are over because it was not heard of."""
        return known.heard_s + self.settings.patience_s <= self.now

    def _expire(self) -> None:
        for worker, known in list(self.model.workers.items()):
            if self.is_silent(known):
                self._lost(worker, killed=False, forget=not known.connected)

    def _retry(self, task: str | None, roi: RoiSpec | None) -> None:
        model = self.model
        for name in list(model.failed):
            if task not in {None, name[0]}:
                continue
            if roi is None or self.oracle.block(name).write.meets(box_of(roi)):
                model.failed.discard(name)
                model.tries.pop(name, None)
                model.not_before_s.pop(name, None)
                if model.state in {"done", "failed"}:
                    model.state = "running"
                    self.over = None

    def _rerun(self, task: str | None, roi: RoiSpec | None) -> None:
        """The blocks that write into the ROI and all that waits for them, directly or not; their leases end."""
        model = self.model
        asked = {
            name
            for name in self.oracle.waits_for
            if task in {None, name[0]} and (roi is None or self.oracle.block(name).write.meets(box_of(roi)))
        }
        undone = asked | self.oracle.orphans_of(asked)
        self._undo_outside(undone, task, roi)
        model.done -= undone
        model.skipped -= undone
        model.failed -= undone
        for name in undone:
            model.tries.pop(name, None)
            model.not_before_s.pop(name, None)
        model.leased = {number: lease for number, lease in model.leased.items() if lease[1] not in undone}
        if self.finals() != set(self.oracle.waits_for) and model.state in {"done", "failed"}:
            model.state = "running"  # where all that was asked for is orphaned, nothing has changed
            self.over = None

    def _undo_outside(self, undone: set[Name], task: str | None, roi: RoiSpec | None) -> None:
        """Blocks of an earlier request are undone as those of the run are: they were done after what is undone."""
        outside = self.model.outside
        there = outside["done"] | outside["failed"]
        if not there:
            return
        whole = Oracle(RunSpec(self.run.pipeline))
        gone = {
            name
            for name in there
            if task in {None, name[0]} and (roi is None or whole.block(name).write.meets(box_of(roi)))
        }
        reached = undone | gone
        known = there | set(self.oracle.waits_for)
        while more := {name for name in known if whole.waits_for[name] & reached} - reached:
            reached |= more
        undone |= reached & set(self.oracle.waits_for)
        for name in reached & outside["failed"]:
            self.model.tries.pop(name, None)
        for names in outside.values():
            names.difference_update(reached)

    # --- a turn ------------------------------------------------------------------------------------------------

    def turn(self, *, crash: str | None = None) -> int:
        """End a turn; give how many blocks were leased. `crash` is ``before`` or ``after`` the commit, or None."""
        leased = 0
        for _ in range(10_000):
            effects = self.core.handle(ev.TurnEnded(), self.now)
            if crash == "before":
                self.restart()
                return 0
            leased += self._take(effects, deliver=crash is None)
            if crash == "after":
                self.restart()
                return leased
            if not any(isinstance(effect, ev.ContinueTurn) for effect in effects):
                self.check_nobody_starves()
                return leased
        raise AssertionError("the core asks for another turn again and again")

    def _take(self, effects: list[ev.Effect], *, deliver: bool) -> int:
        self._expire()
        if self.now >= self.quiet_until_s:
            self.model.withdrawn.clear()
        self._commit(effects)
        self._check_acks(effects)
        leased = 0
        for effect in effects:
            if isinstance(effect, ev.SendLeases):
                leased += len(effect.blocks)
                self._leases(effect, deliver=deliver)
            elif deliver:
                self._deliver(effect)
        for worker in {effect.worker for effect in effects if isinstance(effect, ev.SendLeases)}:
            self.model.workers[worker].want = 0  # a grant answers the whole question
        finished = self.finals() == set(self.oracle.waits_for)
        if self.model.state == "running" and finished:
            self.model.state = "failed" if self.model.failed or self.all_orphans() else "done"
        overs = [effect.state for effect in effects if isinstance(effect, ev.AnnounceRunOver)]
        if overs:
            assert set(overs) == {self.model.state}
            self.over = self.model.state
        if self.model.state in {"done", "failed", "cancelled"}:
            assert self.over == self.model.state, "the end of the run is announced"
        self.check()
        self.safe = self.model.copy()
        return leased

    def _commit(self, effects: list[ev.Effect]) -> None:
        commits = [effect for effect in effects if isinstance(effect, ev.CommitRecord)]
        assert len(commits) <= 1
        notes = []
        if commits:
            assert effects[0] is commits[0], "journal before speech"
            commit = commits[0]
            assert commit.seq == max([*self.records, *(page.seq for page in self.pages.values()), 0]) + 1
            self.records[commit.seq] = commit.record
            self.pages |= {page.key: page for page in commit.pages}
            for seq in [seq for seq in self.records if seq < commit.drop_below]:
                del self.records[seq]
            notes = [(note.task, note.block_id, note.attempt, note.final) for note in commit.errors]
        assert sorted(notes) == sorted(self.model.notes), "each failed attempt is noted once"
        if self.model.notes or any(isinstance(effect, ev.SendLeases) for effect in effects):
            assert commits, "what happened is committed"
        self.model.notes = []

    def _check_acks(self, effects: list[ev.Effect]) -> None:
        acks = [(effect.worker, effect.seq, effect.stale) for effect in effects if isinstance(effect, ev.SendAck)]
        assert acks == self.model.acks
        self.model.acks = []

    def _deliver(self, effect: ev.Effect) -> None:
        worker = self.workers.get(getattr(effect, "worker", ""))
        if worker is None or not worker.connected:
            return
        match effect:
            case ev.SendAck():
                for seq in [seq for seq in worker.unacked if seq <= effect.seq]:
                    del worker.unacked[seq]
            case ev.SendWelcome(_, revoked) | ev.SendRevoke(_, revoked):
                for number in revoked.tolist():
                    worker.held.pop(number, None)

    def _leases(self, effect: ev.SendLeases, *, deliver: bool) -> None:
        """Check a grant block by block, in the order in which it is to run."""
        model, known = self.model, self.model.workers[effect.worker]
        spec = self.oracle.tasks[effect.task].spec
        assert model.state == "running", "nothing is leased while paused or over"
        assert self.now >= self.quiet_until_s, "nothing is leased while blocks of an earlier request may run"
        assert known.connected
        assert not self.is_silent(known), f"{effect.worker} was not heard of for longer than a lease lasts"
        assert (spec.pool, spec.worker is not None) == (known.pool, known.own)
        assert known.task in {None, effect.task}
        assert effect.number > self.highest_number, "a number never names two leases"
        self.highest_number = effect.number + len(effect.blocks) - 1
        assert 0 < len(effect.blocks) <= known.want, "no more than it wants"
        known.want -= len(effect.blocks)
        names = [(effect.task, block_id) for block_id in effect.blocks.tolist()]
        for position, name in enumerate(names):
            self._check_leasable(name)
            assert effect.attempts.get(position, 1) == self.attempt(name)
            if model.tries.get(name, Counter())[Outcome.LOST] >= self.settings.losses_alone:
                assert len(names) == 1, "a block that keeps losing its workers is leased alone"
            model.leased[effect.number + position] = effect.worker, name
            self.leases_in_order.append(name)
        assert bool(effect.max_running) == (spec.num_workers is not None)
        if effect.max_running:
            known.max_running[effect.task] = effect.max_running
        worker = self.workers[effect.worker]
        if deliver and worker.connected:
            numbered = {effect.number + position: name for position, name in enumerate(names)}
            worker.held |= numbered
            self.delivered |= set(numbered)

    def _check_leasable(self, name: Name) -> None:
        model = self.model
        assert name in self.oracle.waits_for, "only blocks of the run"
        assert name not in model.done | model.failed | self.all_orphans(), f"{name} has ended"
        assert self.oracle.waits_for[name] <= model.done, f"{name} must wait for others"
        assert model.not_before_s.get(name, 0.0) <= self.now, f"{name} must wait for the end of its backoff"
        for _, other in model.leased.values():
            assert not self.oracle.conflict(name, other), f"{name} and {other} must not run at once"

    # --- invariants --------------------------------------------------------------------------------------------

    def all_orphans(self) -> set[Name]:
        """Blocks that wait for a failed one."""
        if self.asked_again:  # what was done under another request may wait for what fails now
            return self._orphans_but_done()
        if self._orphans_of != self.model.failed:
            self._orphans_of = frozenset(self.model.failed)
            self.orphans = self.oracle.orphans_of(self.model.failed)
        return self.orphans

    def _orphans_but_done(self) -> set[Name]:
        orphans, walk = set(), list(self.model.failed)
        while walk:
            found = self.oracle.waited_for_by[walk.pop()] - self.model.done - self.model.failed - orphans
            orphans |= found
            walk += found
        return orphans

    def finals(self) -> set[Name]:
        """Blocks that have ended."""
        return self.model.done | self.model.failed | self.all_orphans()

    def ready(self) -> list[Name]:
        """Blocks that may be leased, the next one first."""
        leased = {name for _, name in self.model.leased.values()}
        return self.oracle.ready(self.model.done, leased | self.model.failed)

    def check(self) -> None:
        """Compare the status of every task with the model."""
        self.moves.check()
        model = self.model
        if self.observed.core is not self.core:
            self.observed = ObservedRun(self.core)
        status = self.observed.status(self.now)
        assert status.state == model.state
        ready = Counter(name[0] for name in self.ready())
        leased = Counter(name[0] for _, name in model.leased.values())
        assert [task.id for task in status.tasks] == list(self.run.numbered or self.oracle.order)
        for task in status.tasks:
            mine = self.oracle.run_blocks.get(task.id, ())
            assert task.total == len(mine)
            assert task.leased == leased[task.id]
            assert task.skipped == count(model.skipped, task.id)
            assert task.done == count(model.done, task.id) - task.skipped
            assert task.failed == count(model.failed, task.id)
            assert task.orphaned == count(self.all_orphans(), task.id)
            assert task.ready <= ready[task.id], "found ready is ready"
            assert task.retries == model.retries[task.id]
            counted = task.pending + task.ready + task.leased + task.done + task.skipped + task.failed + task.orphaned
            assert task.total == counted
            assert min(task.pending, task.ready) >= 0
            self._check_num_workers(task.id)

    def _check_num_workers(self, task: str) -> None:
        """What the workers that hold blocks of the task may run at once is within `num_workers`."""
        limit = self.oracle.tasks[task].spec.num_workers if task in self.oracle.tasks else None
        if limit is None:
            return
        held = Counter(worker for worker, name in self.model.leased.values() if name[0] == task)
        running = {worker: min(n, self.model.workers[worker].max_running.get(task, 0)) for worker, n in held.items()}
        assert sum(running.values()) <= limit, f"{task} may run {limit} at once, but {running} may"

    def check_nobody_starves(self) -> None:
        """After a turn no idle worker waits for blocks while one is ready that it may run (but for backoffs)."""
        if self.model.state != "running" or self.core.hold.lasts(self.now):
            return
        holders = {worker for worker, _ in self.model.leased.values()}
        idle = [
            worker
            for worker, known in self.model.workers.items()
            if known.connected and known.want and worker not in holders and not self.is_silent(known)
        ]
        if not idle:
            return
        for name in self.ready():
            spec = self.oracle.tasks[name[0]].spec
            if self.model.not_before_s.get(name, -math.inf) > self.now - self.settings.longest_backoff_s:
                continue  # it may still await the end of a backoff
            if spec.num_workers is not None and any(other[0] == name[0] for _, other in self.model.leased.values()):
                continue
            fitting = [worker for worker in self.model.workers if self.fits(worker, name[0])]
            at_work = [w for w in fitting if self.model.workers[w].want or w in holders]
            for worker in [worker for worker in idle if worker in fitting]:
                if len(at_work) > 1 and self.may_be_held_back(worker, name):
                    continue  # another, at work, may have it before
                raise AssertionError(f"{worker} waits while {name} is ready")

    def fits(self, worker: str, task: str) -> bool:
        """Whether a worker that is there may run a task."""
        known, spec = self.model.workers[worker], self.oracle.tasks[task].spec
        ours = (spec.pool, spec.worker is not None) == (known.pool, known.own) and known.task in {None, task}
        return ours and known.connected and not self.is_silent(known)

    def may_be_held_back(self, worker: str, name: Name) -> bool:
        """Whether a worker fails all that it gets of a task, or a block has been tried and had better go elsewhere."""
        streak = self.core.health.streaks.get((self.core.by_id[name[0]].number, worker))
        return self.attempt(name) > 1 or (streak is not None and streak.is_suspect)

    # --- crashes -----------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """The scheduler is gone; a successor goes on from the journal. Connections break."""
        self.epoch += 1
        self.core = self.replayed()
        self.moves = Moves(self.core)
        self.model = self.safe.copy()
        self.model.not_before_s.clear()  # backoffs are not kept
        self.over = None
        holders = {worker for worker, _ in self.model.leased.values()}
        for worker, known in list(self.model.workers.items()):
            known.connected, known.want, known.heard_s, known.running = False, 0, self.now, ()
            if worker not in holders and not known.last_seq:
                del self.model.workers[worker]
            else:  # pools and slots come back with the worker
                known.slots = 1
        for worker in self.workers.values():
            worker.connected = False

    def ask(self, targets: tuple[Target, ...] | None) -> None:
        """The scheduler is gone; its successor is asked for something else of the same pipeline."""
        self.run = numbered_alike(self.run, RunSpec(self.run.pipeline, targets))
        self.oracle = Oracle(self.run)
        self.asked_again = True
        model = self.safe
        for what in ("done", "skipped", "failed"):
            names = getattr(model, what) | model.outside[what]
            setattr(model, what, {name for name in names if name in self.oracle.waits_for})
            model.outside[what] = names - getattr(model, what)
        waits_for = self.oracle.waits_for
        leased = model.leased | model.withdrawn
        model.leased = {n: (w, name) for n, (w, name) in leased.items() if waits_for.get(name, {("", 0)}) <= model.done}
        model.withdrawn = {n: lease for n, lease in leased.items() if n not in model.leased}
        # Who runs one of the others stops within that time.
        self.quiet_until_s = self.now + self.settings.patience_s if model.withdrawn else 0.0
        self.restart()
        for worker, _ in leased.values():
            self.model.workers.setdefault(worker, Known("", 1, None, False, False, self.now))
        finished = self.finals() == set(self.oracle.waits_for)
        stands = "running" if not finished else "failed" if self.model.failed else "done"
        if self.model.state in {"done", "failed"} and self.model.state != stands:
            self.model.state = "running"

    def replayed(self) -> Scheduler:
        """What the journal makes of a new scheduler."""
        return Scheduler.restore(
            self.run,
            list(self.pages.values()),
            sorted(self.records.items()),
            epoch=self.epoch,
            settings=self.settings,
            now=self.now,
        )

    def check_replay(self) -> None:
        """Replaying the journal gives the state that the living scheduler has (call it between turns)."""
        other = self.replayed()
        assert durable(other) == durable(self.core)

    # --- workers -----------------------------------------------------------------------------------------------

    def join(self, worker: SimWorker) -> None:
        """Say hello, for the first time or again: with all that it holds or released unheard; then release again."""
        self.workers[worker.id] = worker
        worker.connected = True
        holds = [*worker.held, *(n for release in worker.unacked.values() for n in release.numbers.tolist())]
        self.tell(
            ev.WorkerJoined(
                worker.id, worker.pool, worker.slots, worker.task, worker.own, np.array(sorted(holds), np.int64)
            )
        )
        for release in worker.unacked.values():
            self.tell(release)

    def release(self, worker: SimWorker, outcomes: dict[int, Outcome], seconds: float | None = None) -> None:
        """Release leases that the worker holds; unheard if it is not connected (sent when it is again)."""
        worker.seq += 1
        event = ev.BlocksReleased(
            worker.id,
            worker.seq,
            np.array(list(outcomes), np.int64),
            np.array([int(outcome) for outcome in outcomes.values()], np.uint8),
            None if seconds is None else np.full(len(outcomes), seconds, np.float32),
        )
        for number in outcomes:
            worker.held.pop(number, None)
        worker.unacked[worker.seq] = event
        if worker.connected:
            self.tell(event)


def count(names: Iterable[Name], task: str) -> int:
    """How many of them are of a task."""
    return sum(name[0] == task for name in names)


def durable(core: Scheduler) -> dict:
    """All of the state that must outlive a scheduler, in comparable form."""
    leases = {}
    for grant in core.leases.grants():
        for position in np.flatnonzero(grant.live).tolist():
            leases[grant.number + position] = grant.worker, grant.task, int(grant.addresses[position])
    return {
        "seq": core.seq,
        "state": core.state,
        "leases": leases,
        "next": core.hold.granted_up_to(core.leases),
        "bits": [{kind: bitmap.bytes.tobytes() for kind, bitmap in task.bits.items()} for task in core.tasks],
        "tries": [dict(task.tries) for task in core.tasks],
        "retries": [task.retries for task in core.tasks],
        "released": {worker.id: (worker.last_seq, worker.stale) for worker in core.workers.values() if worker.last_seq},
    }

"""The core against everything that can happen to it: late and repeated releases, lost workers, crashes of its own.

A hypothesis state machine: after each step the status of the core equals that of the model; after each turn the
journal, replayed, gives the state of the living core; and in the end the run can always be finished.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from simulated_run import SimWorker, Sizes, World, settings_of_the_core, sizes, with_sizes

from blockyard.core import events as ev
from blockyard.core.settings import CoreSettings
from blockyard.spec.model import RoiSpec, RunSpec
from blockyard.testing.strategies import runs
from blockyard.wire.messages import Outcome

pytestmark = pytest.mark.timeout(900)  # many cases, on a machine that may be busy

OUTCOMES = (
    (Outcome.SUCCESS,),
    (Outcome.SUCCESS, Outcome.SUCCESS, Outcome.SKIPPED, Outcome.RETURNED),
    (Outcome.FAILED, Outcome.SUCCESS, Outcome.RETURNED, Outcome.KILLED),
    (Outcome.FAILED, Outcome.FATAL, Outcome.LOST, Outcome.KILLED),
    (Outcome.LOST,),
)
LEASE_OVER_S = 66.0
seeds = st.integers(0, 2**16)


class Cluster(RuleBasedStateMachine):
    """A scheduler, its journal, its successors, and workers that misbehave."""

    @initialize(run=runs(most_tasks=3, largest_grid=30), core=settings_of_the_core, chosen=sizes())
    def begin(self, run: RunSpec, core: CoreSettings, chosen: Sizes) -> None:
        self.sizes = with_sizes(chosen)
        self.sizes.__enter__()
        self.world = World(run, core)
        tasks = self.world.oracle.tasks.values()
        self.kinds = sorted({(task.spec.pool, task.spec.worker is not None) for task in tasks})
        self.settled = True
        """Whether nothing was told since the last turn."""
        self.old: list[ev.BlocksReleased] = []
        for n, (pool, own) in enumerate(self.kinds):
            self.world.join(SimWorker(f"w{n}", pool, 2, None, own))

    # --- workers -----------------------------------------------------------------------------------------------

    def some_worker(self, seed: int, *, connected: bool | None = None) -> SimWorker | None:
        """Pick a living worker."""
        workers = [w for w in self.world.workers.values() if not w.dead and connected in {None, w.connected}]
        return random.Random(seed).choice(workers) if workers else None

    def tell(self, event: ev.Event) -> None:
        self.settled = False
        self.world.tell(event)

    @rule(seed=seeds, slots=st.integers(1, 3))
    def a_worker_joins(self, seed: int, slots: int) -> None:
        rng = random.Random(seed)
        pool, own = rng.choice(self.kinds)
        task = rng.choice([None, None, None, *self.world.oracle.order])
        self.settled = False
        self.world.join(SimWorker(f"w{len(self.world.workers)}", pool, slots, task, own))

    @rule(seed=seeds, n=st.integers(0, 9))
    def a_worker_wants(self, seed: int, n: int) -> None:
        if worker := self.some_worker(seed, connected=True):
            self.tell(ev.BlocksWanted(worker.id, n))

    @rule(n=st.integers(1, 9))
    def all_workers_want(self, n: int) -> None:
        for worker in self.world.workers.values():
            if worker.connected:
                self.tell(ev.BlocksWanted(worker.id, n))

    @rule(seed=seeds, kinds=st.sampled_from(OUTCOMES), seconds=st.sampled_from((None, 0.0001, 3.0)))
    def a_worker_releases(self, seed: int, kinds: tuple[Outcome, ...], seconds: float | None) -> None:
        """Heard if it is connected; else it keeps the release and sends it when it is again."""
        worker = self.some_worker(seed)
        if worker is None or not worker.held:
            return
        rng = random.Random(seed)
        numbers = rng.sample(list(worker.held), rng.randint(1, len(worker.held)))
        self.settled = False
        self.world.release(worker, {number: rng.choice(kinds) for number in numbers}, seconds)
        self.old.append(worker.unacked[worker.seq])

    @rule(seed=seeds, kinds=st.sampled_from(OUTCOMES))
    def all_work(self, seed: int, kinds: tuple[Outcome, ...]) -> None:
        """Everybody gets blocks, in batches soon, and releases some of them: the rest stays leased."""
        self.everybody_wants_and_a_turn_ends()
        rng = random.Random(seed)
        for worker in [worker for worker in self.world.workers.values() if worker.held]:
            numbers = rng.sample(list(worker.held), rng.randint(1, len(worker.held)))
            self.world.release(worker, {number: rng.choice(kinds) for number in numbers}, 0.0001)
            self.old.append(worker.unacked[worker.seq])
        self.a_turn_ends()

    @rule(seed=seeds)
    def a_release_is_sent_again(self, seed: int) -> None:
        if self.old:
            event = random.Random(seed).choice(self.old)
            if self.world.workers[event.worker].connected:
                self.tell(event)

    @rule(seed=seeds)
    def a_worker_releases_what_is_not_its_own(self, seed: int) -> None:
        """Leases of others, ended ones, unknown ones and some of its own, one of them twice: only its own count."""
        worker = self.some_worker(seed, connected=True)
        if worker is None:
            return
        rng = random.Random(seed)
        own = list(worker.held)[:2]
        numbers = rng.choices([0, 2**62, *sorted(self.world.delivered)], k=4) + own + own[:1]
        rng.shuffle(numbers)
        worker.seq += 1
        outcomes = np.full(len(numbers), Outcome.SUCCESS, np.uint8)
        event = ev.BlocksReleased(worker.id, worker.seq, np.array(numbers, np.int64), outcomes)
        worker.unacked[worker.seq] = event
        for number in numbers:
            worker.held.pop(number, None)
        self.tell(event)

    @rule(seed=seeds, busy=st.booleans())
    def a_heartbeat_is_heard(self, seed: int, busy: bool) -> None:
        if worker := self.some_worker(seed, connected=True):
            running = tuple((number, 1.0) for number in sorted(worker.held)[: worker.slots]) if busy else ()
            self.tell(ev.WorkerHeard(worker.id, running))

    @rule(seed=seeds)
    def a_connection_breaks(self, seed: int) -> None:
        if worker := self.some_worker(seed, connected=True):
            worker.connected = False
            self.tell(ev.WorkerDisconnected(worker.id))

    @rule(seed=seeds)
    def a_worker_comes_back(self, seed: int) -> None:
        if worker := self.some_worker(seed, connected=False):
            self.settled = False
            self.world.join(worker)

    @rule(seed=seeds, killed=st.booleans(), known=st.booleans())
    def a_worker_is_seen_to_die(self, seed: int, killed: bool, known: bool) -> None:
        """Where it is known which blocks it ran: none or some of its own, and one that is not."""
        if worker := self.some_worker(seed):
            rng = random.Random(seed)
            ran = np.array([2**62, *rng.sample(list(worker.held), rng.randint(0, len(worker.held)))], np.int64)
            worker.dead, worker.connected = True, False
            worker.held.clear()
            self.tell(ev.WorkerGone(worker.id, killed=killed, ran=ran if known else None))

    @rule(seed=seeds)
    def a_worker_dies_unseen(self, seed: int) -> None:
        if worker := self.some_worker(seed):
            worker.dead = True
            worker.held.clear()
            if worker.connected:
                worker.connected = False
                self.tell(ev.WorkerDisconnected(worker.id))

    # --- the operator ------------------------------------------------------------------------------------------

    @rule()
    def paused(self) -> None:
        self.tell(ev.PauseRequested())

    @rule()
    def resumed(self) -> None:
        self.tell(ev.ResumeRequested())

    @precondition(lambda self: self.world.model.failed)
    @rule(seed=seeds)
    def retry_is_asked_for(self, seed: int) -> None:
        self.tell(ev.RetryRequested(*self.some_region(seed)))

    @precondition(lambda self: len(self.world.model.done) > 3)
    @rule(seed=seeds)
    def rerun_is_asked_for(self, seed: int) -> None:
        self.tell(ev.RerunRequested(*self.some_region(seed)))

    def some_region(self, seed: int) -> tuple[str | None, RoiSpec | None]:
        """All, a task, or a small ROI of a task."""
        rng = random.Random(seed)
        name = rng.choice(self.world.oracle.order)
        block = rng.choice(list(self.world.oracle.tasks[name].blocks.values()) or [None])
        if block is None or rng.random() < 0.3:
            return rng.choice([None, name]), None
        shape = tuple(e - b for b, e in zip(block.write.begin, block.write.end, strict=True))
        return name, RoiSpec(block.write.begin, shape)

    @precondition(lambda self: self.world.highest_number > 10)
    @rule(seed=st.integers(0, 3))
    def cancelled(self, seed: int) -> None:
        if seed == 3:
            self.tell(ev.CancelRequested())

    # --- time, turns and crashes -------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((0.01, 1.0, 30.0, LEASE_OVER_S)))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds

    @rule()
    def a_turn_ends(self) -> None:
        self.world.turn()
        self.settled = True

    @rule()
    def everybody_wants_and_a_turn_ends(self) -> None:
        self.all_workers_want(5)
        self.a_turn_ends()

    @rule(when=st.sampled_from(("before", "after")))
    def the_scheduler_crashes_in_a_turn(self, when: str) -> None:
        """Before the commit, what it was told is lost; after it, what it would have said is."""
        self.world.turn(crash=when)
        self.settled = True

    @rule()
    def the_scheduler_is_replaced_between_turns(self) -> None:
        self.world.turn()
        self.world.restart()
        self.settled = True

    # --- always ------------------------------------------------------------------------------------------------

    @invariant()
    def the_status_is_that_of_the_model(self) -> None:
        self.world.check()

    @invariant()
    def the_journal_gives_the_same_state(self) -> None:
        if self.settled:
            self.world.check_replay()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.finish()
        finally:
            self.sizes.__exit__(None, None, None)

    def finish(self) -> None:
        """Whatever happened: with workers that work the run ends, each block done, failed or orphaned."""
        world = self.world
        world.tell(ev.ResumeRequested())
        for pool, own in self.kinds:
            world.join(SimWorker(f"w{len(world.workers)}", pool, 2, None, own))
        for _ in range(50 + 12 * len(world.oracle.waits_for)):
            for worker in world.workers.values():
                if worker.dead:
                    continue
                if not worker.connected:
                    world.join(worker)
                world.tell(ev.BlocksWanted(worker.id, 8))
            leased = world.turn()
            if world.over:
                break
            held = [worker for worker in world.workers.values() if worker.held]
            for worker in held:
                world.release(worker, dict.fromkeys(worker.held, Outcome.SUCCESS))
            if not leased and not held:
                world.now += 20.0
        assert world.over in {"done", "failed"}, "the run never ends"
        world.check_replay()
        model = world.model
        assert model.done | model.failed | world.all_orphans() == set(world.oracle.waits_for)


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=max(settings().max_examples, 100), stateful_step_count=40)

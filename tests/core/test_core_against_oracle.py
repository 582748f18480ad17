"""The core leases exactly the blocks of the oracle, each when it may run, and counts as the oracle counts."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import Name, Oracle
from simulated_run import SimWorker, Sizes, World, settings_of_the_core, sizes, with_sizes

from blockyard.core import events as ev
from blockyard.core.scheduler import CoreSettings
from blockyard.spec.model import RunSpec
from blockyard.testing.strategies import runs
from blockyard.wire.messages import Outcome

pytestmark = pytest.mark.timeout(900)  # many cases, on a machine that may be busy


class Fates:
    """What becomes of each attempt at each block: a share of them skips, fails a few times, or for good."""

    def __init__(self, oracle: Oracle, rng: random.Random, share: float) -> None:
        self.skipped: set[Name] = set()
        self.flaky: dict[Name, int] = {}
        self.doomed: dict[Name, Outcome] = {}
        for name in oracle.names():
            if rng.random() < share:
                retries = oracle.tasks[name[0]].spec.max_retries
                kind = rng.choice(("skipped", "flaky", "failed", "fatal"))
                if kind == "skipped":
                    self.skipped.add(name)
                elif kind == "flaky":
                    self.flaky[name] = rng.randint(0, retries)
                else:
                    self.doomed[name] = Outcome.FAILED if kind == "failed" else Outcome.FATAL

    def of(self, name: Name, attempt: int) -> Outcome:
        """What becomes of an attempt (from 1)."""
        if name in self.doomed:
            return self.doomed[name]
        if attempt <= self.flaky.get(name, 0):
            return Outcome.FAILED
        return Outcome.SKIPPED if name in self.skipped else Outcome.SUCCESS


class Driver:
    """Workers that come, ask and release at random, until the run is over."""

    def __init__(self, world: World, fates: Fates, rng: random.Random) -> None:
        self.world, self.fates, self.rng = world, fates, rng
        self.seconds = rng.choice((None, 0.0001, 0.01, 3.0))
        self.kinds = sorted(
            {(task.spec.pool, task.spec.worker is not None) for task in world.oracle.tasks.values()}
            | {("default", False)}
        )

    def newcomer(self, pool: str, *, own: bool, task: str | None = None, slots: int | None = None) -> SimWorker:
        """A worker joins."""
        slots = slots or self.rng.randint(1, 3)
        worker = SimWorker(f"w{len(self.world.workers)}", pool, slots, task, own)
        self.world.join(worker)
        return worker

    def step(self) -> None:
        """Something happens."""
        workers = list(self.world.workers.values())
        deed = self.rng.random()
        if deed < 0.1 or not workers:
            pool, own = self.rng.choice(self.kinds)
            task = self.rng.choice([None, None, *self.world.oracle.order])
            self.newcomer(pool, own=own, task=task)
        elif deed < 0.4:
            self.world.tell(ev.BlocksWanted(self.rng.choice(workers).id, self.rng.randint(0, 9)))
        elif deed < 0.7:
            self.release_some(self.rng.choice(workers))
        else:
            self.world.now += self.rng.random() / 10
            self.world.turn()

    def release_some(self, worker: SimWorker, *, everything: bool = False) -> None:
        """Release some of what it holds, in any order."""
        numbers = list(worker.held)
        if not everything:
            numbers = [number for number in numbers if self.rng.random() < 0.6]
        self.rng.shuffle(numbers)
        if numbers:
            outcomes = {number: self.outcome(worker.held[number]) for number in numbers}
            self.world.release(worker, outcomes, self.seconds)

    def outcome(self, name: Name) -> Outcome:
        """What becomes of a leased block now."""
        return self.fates.of(name, self.world.attempt(name))

    def drain(self) -> None:
        """Let workers of every kind finish the run; fails if it gets stuck."""
        for pool, own in self.kinds:
            self.newcomer(pool, own=own)
        idle = 0
        while self.world.over is None:
            for worker in self.world.workers.values():
                self.world.tell(ev.BlocksWanted(worker.id, 1 + self.rng.randint(0, 9)))
            leased = self.world.turn()
            held = sum(len(worker.held) for worker in self.world.workers.values())
            for worker in self.world.workers.values():
                self.release_some(worker, everything=self.rng.random() < 0.8)
            idle = 0 if leased or held else idle + 1
            self.world.now += 0.05 if leased or held else 5.0
            assert idle < 20, "stuck: workers want blocks, none is leased, and the run is not over"


def drive(run: RunSpec, seed: int, share: float, settings: CoreSettings, steps: int) -> World:
    """Run it to the end with random workers."""
    rng = random.Random(seed)
    world = World(run, settings)
    driver = Driver(world, Fates(world.oracle, rng, share), rng)
    for _ in range(steps):
        if world.over is None:
            driver.step()
    driver.drain()
    done, failed, orphaned = world.oracle.ends(driver.fates.doomed)
    assert (world.model.done, world.model.failed, world.all_orphans()) == (done, failed, orphaned)
    assert world.model.skipped == driver.fates.skipped & done
    assert world.over == ("failed" if failed else "done")
    attempts = {name: 1 + driver.fates.flaky.get(name, 0) for name in done}
    for name in failed:
        retries = world.oracle.tasks[name[0]].spec.max_retries
        attempts[name] = 1 if driver.fates.doomed[name] == Outcome.FATAL else 1 + retries
    leases = {name: world.leases_in_order.count(name) for name in set(world.leases_in_order)}
    assert leases == attempts, "each block is leased once an attempt"
    return world


@given(
    run=runs(),
    seed=st.integers(0, 2**32 - 1),
    share=st.sampled_from((0.0, 0.02, 0.1, 0.5)),
    settings=settings_of_the_core,
    chosen=sizes(),
    steps=st.sampled_from((0, 20, 100)),
)
def test_any_run_with_any_workers_ends_as_the_oracle_says(
    run: RunSpec, seed: int, share: float, settings: CoreSettings, chosen: Sizes, steps: int
):
    """Same blocks, each done once, never two conflicting at once, never early, never stuck, all counts exact."""
    with with_sizes(chosen):
        drive(run, seed, share, settings, steps)


@given(run=runs(), seed=st.integers(0, 2**32 - 1), share=st.sampled_from((0.0, 0.1)))
def test_one_worker_of_one_slot_gets_the_ready_block_with_the_lowest_key(run: RunSpec, seed: int, share: float):
    """With everything looked at, the next block is the ready one with the lowest Morton code; ties by task, then id."""
    tasks = tuple(
        msgspec.structs.replace(task, pool="default", function="tests:process", worker=None)
        for task in run.pipeline.tasks
    )
    run = RunSpec(msgspec.structs.replace(run.pipeline, tasks=tasks), run.targets)
    rng = random.Random(seed)
    with with_sizes({"blockyard.core.assign.FEWEST_READY": 10**9}):
        world = World(run, CoreSettings(looks_a_turn=10**9))
        driver = Driver(world, Fates(world.oracle, rng, share), rng)
        worker = driver.newcomer("default", own=False, slots=1)
        world.turn()
        while world.over is None:
            expected = world.ready()[0]
            world.tell(ev.BlocksWanted(worker.id, 1))
            assert world.turn() == 1
            assert world.leases_in_order[-1] == expected
            driver.release_some(worker, everything=True)
            world.turn()

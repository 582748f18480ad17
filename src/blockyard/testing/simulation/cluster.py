"""The cluster of one simulated run: who there is, what goes wrong when, and until when."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial

import msgspec

from blockyard.core.scheduler import Scheduler
from blockyard.core.settings import CoreSettings
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec
from blockyard.testing.simulation.clock import Clock, Process
from blockyard.testing.simulation.history import BrokenPromiseError, History
from blockyard.testing.simulation.network import Connection, End
from blockyard.testing.simulation.own import Listener
from blockyard.testing.simulation.scheduler import SchedulerProcess
from blockyard.testing.simulation.store import MOST_FORGOTTEN, Store
from blockyard.testing.simulation.worker import WorkerProcess

MOST_STEPS = 400_000
LONGEST_S = 600.0
"""A run must have ended by then; faults end at `Faults.until_s`."""
DELAY_S = 0.003
OWN = 0.25
"""Share of the tasks that have a worker of the user's own."""
LATE_S = 3.0
SICK = 0.25
"""Share of the clusters with a worker that fails all that it gets."""
KINDS = (
    *("kill worker", "freeze worker", "drain worker", "cut", "half-open", "slow", "duplicate"),
    *("kill scheduler", "freeze scheduler", "store away", "store forgets", "store forgets, leader dies"),
)
"""What goes wrong; beside these, commands to the store and its answers are lost."""


@dataclass(frozen=True, slots=True)
class Faults:
    """How often what goes wrong, in events per virtual second over the cluster, until a time."""

    until_s: float = 30.0
    per_s: float = 1.0
    loses_answers: float = 0.03


class Crashed(Exception):  # noqa: N818 - a fact
    """A process was killed at this point: what it would have done next it does not do."""


class Cluster:
    """Schedulers, workers and a store; what it does follows from the seed alone."""

    def __init__(self, seed: int, faults: Faults | None = None, run: RunSpec | None = None) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
        self.faults = faults or Faults()
        self.clock = Clock()
        self._aside = random.Random(-1 - seed)  # noqa: S311 - the same; what it draws changes no history of other faults
        self.run = run or some_own(random_run(self.rng), self._aside)
        self.sick = ""
        """The worker, in all its lives, that fails each block at once; "": none does."""
        if run is None and self.faults.per_s > 0 and self._aside.random() < SICK:
            self.sick = "w0"
            self.run = patient(self.run)
        self.lock_s, self.heartbeat_s = 1.5, 0.5
        self.settings = CoreSettings(
            lease_s=4.0,
            grace_s=0.5,
            snapshot_records=self.rng.choice([5, 50, 2048]),
            batch_s=self.rng.choice([0.05, 1.0]),
            fail_fast=True,
            fail_fast_settle_s=1.0,
            retry_backoff_s=0.1,
        )
        self.block_s = self.rng.choice([0.01, 0.1, 0.1, 0.5, 0.5, 2.0])
        self.loses_answers = self.faults.loses_answers
        self.workers_stop = True
        """False: workers ignore that their leases ended (a mutant)."""
        self.speaks_first = False
        """True: schedulers speak before they commit (a mutant)."""
        self.keeps_quiet = True
        """False: a successor of a store that may have forgotten leases at once (a mutant)."""
        self.ended: str | None = None
        self.history = History(Scheduler(self.run))
        self.store = Store(self.history.stored)
        self.addresses = [f"scheduler-{n}" for n in range(self.rng.randint(1, 2))]
        self.schedulers: dict[str, SchedulerProcess] = {}
        self.workers: list[WorkerProcess] = []
        self.counts: dict[str, int] = {}
        self.points = 0
        """Points passed: before and after each command to the store and each send."""
        self.crash_at = -1
        """The point at which its process is killed."""

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        return self.ended is not None

    def connect(self, one: End, other: End) -> Connection:
        """Connect two ends."""
        return Connection(self.rng, DELAY_S, one, other)

    def run_ended(self, state: str) -> None:
        """A scheduler announced the end."""
        self.history.ended(state)
        self.ended = state

    def go(self) -> None:
        """Run to the end. Raises BrokenPromiseError."""
        for address in self.addresses:
            self.schedulers[address] = SchedulerProcess(self, address)
        names = [f"w{n}" for n in range(self.rng.randint(1, 4))]
        if self.sick:  # it has the run to itself for a while; then somebody comes who can do it
            self.count("sick worker")
            for name in [*names[1:], "well"]:
                self.clock.at(self._aside.uniform(0, LATE_S), partial(self._come, name))
            names = names[:1]
        self.workers = [WorkerProcess(self, name) for name in names]
        own = [task.id for task in self.run.pipeline.tasks if task.worker is not None]
        self.workers += [Listener(self, f"{task}-{n}", task) for task in own for n in range(2)]
        self._next_fault()
        steps = 0
        while not self.is_over:
            steps += 1
            if not self._step() or self.clock.now > LONGEST_S or steps > MOST_STEPS:
                done = f"{len(self.history.done)} of {self.history.total}"
                raise BrokenPromiseError(f"P5: stuck at {self.clock.now:.1f} s with {done} blocks done")

    def _come(self, name: str) -> None:
        self.workers.append(WorkerProcess(self, name))

    def _step(self) -> bool:
        try:
            return self.clock.step()
        except Crashed:
            return True

    def point(self, process: Process) -> None:
        """Pass a point; kill the process here if this is the one. Raises Crashed."""
        self.points += 1
        if self.points == self.crash_at and process.alive:
            process.die()
            raise Crashed

    # --- faults ------------------------------------------------------------------------------------------------

    def _next_fault(self) -> None:
        if self.faults.per_s > 0:
            self.clock.at(self.clock.now + self.rng.expovariate(self.faults.per_s), self._fault)

    def _fault(self) -> None:
        if self.clock.now > self.faults.until_s or self.is_over:
            self.loses_answers = 0.0
            return
        kind = self.rng.choice(KINDS)
        self.count(kind)
        worker = self.rng.choice(self.workers)
        scheduler = self.rng.choice(list(self.schedulers.values()))
        match kind:
            case "kill worker" if worker.alive:
                worker.die()
            case "freeze worker" if worker.alive:
                worker.freeze(self.rng.expovariate(1 / 3))
            case "drain worker" if worker.alive and not worker.frozen:
                worker.drain()
            case "cut" | "half-open" if worker.alive:
                worker.cut(silently=kind == "half-open")
            case "slow" if worker.alive:
                worker.slow(self.rng.expovariate(1 / 2))
            case "duplicate" if worker.alive:
                worker.repeats = True
            case "kill scheduler" if scheduler.alive:
                scheduler.die()
            case "freeze scheduler" if scheduler.alive:
                scheduler.freeze(self.rng.expovariate(1 / 2))
            case "store away" if self.store.up:
                self.store.up = False
                self.clock.at(self.clock.now + self.rng.expovariate(1.0), self._store_back)
            case "store forgets" | "store forgets, leader dies" if self.store.up:
                self._forget(leader_dies=kind != "store forgets")
            case _:
                pass
        self._next_fault()

    def _forget(self, *, leader_dies: bool) -> None:
        """The store is started again from an older file, perhaps on the machine that took its leader along."""
        leader = next((s for s in self.schedulers.values() if s.claim.identity == self.store.now.writer), None)
        self.store.forget(self.rng.randint(1, MOST_FORGOTTEN))
        self.history.forgot(self.store.now.seq)
        if leader_dies and leader is not None and leader.alive:
            leader.die()

    def count(self, kind: str) -> None:
        """Count a fault."""
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def _store_back(self) -> None:
        self.store.up = True


def random_run(rng: random.Random) -> RunSpec:
    """Draw a small run: one to three chained tasks in one or two dimensions, with halos."""
    ndim = rng.randint(1, 2)
    tasks: list[TaskSpec] = []
    for n in range(rng.randint(1, 3)):
        write = [rng.randint(2, 5) for _ in range(ndim)]
        below = [rng.randint(0, 4) for _ in range(ndim)]
        above = [rng.randint(0, 4) for _ in range(ndim)]
        blocks = [rng.randint(2, 12 if ndim == 1 else 5) for _ in range(ndim)]
        total = [b * w + lo + hi for b, w, lo, hi in zip(blocks, write, below, above, strict=True)]
        read = [lo + w + hi for lo, w, hi in zip(below, write, above, strict=True)]
        tasks.append(
            TaskSpec(
                id=f"t{n}",
                function="simulated:block",
                total_roi=RoiSpec(tuple(-lo for lo in below), tuple(total)),
                read_roi=RoiSpec(tuple(-lo for lo in below), tuple(read)),
                write_roi=RoiSpec((0,) * ndim, tuple(write)),
                fit=rng.choice(["valid", "overhang", "shrink"]),
                read_write_conflict=rng.random() < 0.7,
                requires=(f"t{n - 1}",) if n else (),
            )
        )
    return RunSpec(PipelineSpec(name="simulated", tasks=tuple(tasks)))


def patient(run: RunSpec) -> RunSpec:
    """Let blocks be tried for as long as it takes: where all are away but the sick worker, it gets them."""
    tasks = tuple(msgspec.structs.replace(task, max_retries=10**6) for task in run.pipeline.tasks)
    return msgspec.structs.replace(run, pipeline=msgspec.structs.replace(run.pipeline, tasks=tasks))


def some_own(run: RunSpec, rng: random.Random) -> RunSpec:
    """Have a worker of the user's own, one that drives a Client, in place of the function of some tasks."""
    tasks = (
        msgspec.structs.replace(task, function=None, worker=task.function) if rng.random() < OWN else task
        for task in run.pipeline.tasks
    )
    return msgspec.structs.replace(run, pipeline=msgspec.structs.replace(run.pipeline, tasks=tuple(tasks)))


def simulate(seed: int, faults: Faults | None = None, *, crash_at: int = -1) -> Cluster:
    """Run one faulty history to its end; give the cluster. Raises BrokenPromiseError that names the seed.

    With `crash_at` a process is also killed at that of the history's points.
    """
    cluster = Cluster(seed, faults)
    cluster.crash_at = crash_at
    try:
        cluster.go()
    except BrokenPromiseError as error:
        where = f", killed at point {crash_at}" if crash_at > 0 else ""
        raise BrokenPromiseError(f"seed {seed}{where}: {error}") from error
    return cluster


def crash_everywhere(seed: int) -> int:
    """Run a history without faults, then once for each of its points, killed there; give how many there are."""
    quiet = Faults(per_s=0.0, loses_answers=0.0)
    points = simulate(seed, quiet).points
    for point in range(1, points + 1):
        simulate(seed, quiet, crash_at=point)
    return points

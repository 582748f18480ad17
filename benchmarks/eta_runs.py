"""Simulated runs of which the end is known: the real core in virtual time, with workers that only take time.

Each scenario is a run of 20 minutes to two hours. Every `LOOK_EVERY_S` the status is kept, as a user would see it.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from blockyard.core import events as ev
from blockyard.core.scheduler import CoreSettings, Scheduler
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec
from blockyard.views.observed import ObservedRun
from blockyard.wire.api import RunStatus
from blockyard.wire.messages import Outcome

LOOK_EVERY_S = 10.0
HEARTBEAT_S = 2.0
"""How often a turn ends when nothing else happens."""
NEVER_S = 1e9


@dataclass
class Look:
    """What was known at a moment."""

    now_s: float
    status: RunStatus
    finished: dict[str, list[float]]
    """When each block was finished, by task."""


@dataclass
class Scenario:
    """What a run is made of; functions of chance are bound to the seed."""

    run: RunSpec
    slots: int
    seconds: Callable[[str, tuple[int, ...], random.Random], float]
    """How long a block takes, by task and index."""
    first_times: float = 1.0
    """The first block of each slot takes so many times longer: it loads a model."""
    arrive_s: float = 0.0
    """Workers come one after another, in so many seconds."""
    events: list[tuple[float, str, int]] = field(default_factory=list)
    """(share of blocks that are done, what happens, how many): ``slots``, ``restart``, ``pause``."""


def task(name: str, shape: tuple[int, ...], *, halo: int = 0, conflict: bool = False, requires: str = "") -> TaskSpec:
    """Give a task of a grid of this shape."""
    write = RoiSpec((0,) * len(shape), (10,) * len(shape))
    read = RoiSpec((-halo,) * len(shape), (10 + 2 * halo,) * len(shape))
    total = RoiSpec((-halo,) * len(shape), tuple(10 * n + 2 * halo for n in shape))
    return TaskSpec(
        id=name,
        function="nothing:nothing",
        total_roi=total,
        read_roi=read,
        write_roi=write,
        read_write_conflict=conflict,
        requires=(requires,) if requires else (),
    )


class Replay:
    """One run from begin to end."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.random = random.Random(seed)
        self.now = 0.0
        self.core = Scheduler(scenario.run, settings=CoreSettings(lease_s=NEVER_S))
        self.observed = ObservedRun(self.core)
        self.total = sum(t.total for t in self.core.tasks)
        self.records: list[tuple[int, bytes]] = []
        self.pages: dict[str, ev.Page] = {}
        self.finished: dict[str, list[float]] = {t.spec.id: [] for t in self.core.tasks}
        self.ends: list[tuple[float, int, str]] = []
        """(when, lease, worker); a heap."""
        self.took: dict[int, tuple[str, float]] = {}
        """Task and seconds of each lease."""
        self.seqs: dict[str, int] = {}
        self.leaving: set[str] = set()
        self.fresh: set[str] = set()
        self.due = list(scenario.events)
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.looks: list[Look] = []
        for n in range(scenario.slots):
            self.later.append((n * scenario.arrive_s / scenario.slots, self.join))

    def join(self) -> None:
        """A worker of one slot comes."""
        name = f"w{len(self.seqs)}"
        self.seqs[name] = 0
        self.fresh.add(name)
        self.core.handle(ev.WorkerJoined(name), self.now)
        self.core.handle(ev.BlocksWanted(name, 1), self.now)

    def run(self) -> list[Look]:
        """Run to the end; give what was seen on the way."""
        turn_s = look_s = 0.0
        while not self.core.is_over:
            self.now = min([turn_s, *(when for when, _ in self.later), *(when for when, _, _ in self.ends[:1])])
            turn_s = self.now + HEARTBEAT_S
            for when, what in [one for one in self.later if one[0] <= self.now]:
                self.later.remove((when, what))
                what()
            while self.ends and self.ends[0][0] <= self.now:
                self.release(*heapq.heappop(self.ends))
            self.happen()
            self.turn()
            if self.now >= look_s and self.core.state == "running":
                look_s = self.now + LOOK_EVERY_S
                finished = {name: list(times) for name, times in self.finished.items()}
                self.looks.append(Look(self.now, self.observed.status(self.now), finished))
        return self.looks

    def turn(self) -> None:
        effects = self.core.handle(ev.TurnEnded(), self.now)
        self.observed.turned(self.now)
        for effect in effects:
            if isinstance(effect, ev.CommitRecord):
                self.records.append((effect.seq, effect.record))
                self.pages |= {page.key: page for page in effect.pages}
            elif isinstance(effect, ev.SendLeases):
                for position, block in enumerate(effect.blocks.tolist()):
                    task_ = self.core.by_id[effect.task]
                    seconds = self.scenario.seconds(effect.task, task_.grid.index_of(block), self.random)
                    if effect.worker in self.fresh:
                        self.fresh.discard(effect.worker)
                        seconds *= self.scenario.first_times
                    self.took[effect.number + position] = (effect.task, seconds)
                    heapq.heappush(self.ends, (self.now + seconds, effect.number + position, effect.worker))

    def release(self, _when: float, number: int, worker: str) -> None:
        name, seconds = self.took.pop(number)
        self.finished[name].append(self.now)
        self.seqs[worker] += 1
        numbers, outcomes = np.array([number]), np.array([Outcome.SUCCESS], np.uint8)
        took = np.array([seconds], np.float32)
        self.core.handle(ev.BlocksReleased(worker, self.seqs[worker], numbers, outcomes, took), self.now)
        if worker in self.leaving:
            self.core.handle(ev.WorkerGone(worker), self.now)
        else:
            self.core.handle(ev.BlocksWanted(worker, 1), self.now)

    def happen(self) -> None:
        done = sum(map(len, self.finished.values())) / self.total
        while self.due and done >= self.due[0][0]:
            _, what, n = self.due.pop(0)
            if what == "slots":
                for _ in range(n):
                    self.join()
                self.leaving |= set(list(self.seqs)[:-n]) if n < 0 else set()
            elif what == "restart":
                self.restart()
            else:
                self.core.handle(ev.PauseRequested(), self.now)
                self.later.append((self.now + n, lambda: self.core.handle(ev.ResumeRequested(), self.now)))

    def restart(self) -> None:
        """Another scheduler takes over from what is in the store; the workers go on and come back."""
        self.turn()
        self.core = Scheduler.restore(
            self.scenario.run,
            self.pages.values(),
            self.records,
            epoch=2,
            settings=CoreSettings(lease_s=NEVER_S),
            now=self.now,
        )
        self.observed = ObservedRun(self.core)
        busy = {worker: number for _, number, worker in self.ends}
        for worker in self.seqs:
            if worker not in self.leaving or worker in busy:
                holds = np.array([busy[worker]] if worker in busy else [], np.int64)
                self.core.handle(ev.WorkerJoined(worker, holds=holds), self.now)
                self.core.handle(ev.BlocksWanted(worker, 0 if worker in busy else 1), self.now)


# ----- scenarios ------------------------------------------------------------------------------------------------------


def varied(mean_s: float, spread: float) -> Callable[[str, tuple[int, ...], random.Random], float]:
    """Give log-normal times with this mean and this standard deviation of the logarithm."""
    middle = math.log(mean_s) - spread**2 / 2
    return lambda _task, _index, rng: rng.lognormvariate(middle, spread)


def pipeline(*tasks: TaskSpec) -> RunSpec:
    return RunSpec(PipelineSpec(name="eta", tasks=tasks))


def one(rng: random.Random, **fields: object) -> Scenario:
    """Give a run of one task: 30 to 80 rounds of 4 to 16 slots, blocks of 10 to 60 s."""
    slots = rng.choice((4, 8, 16))
    side = rng.randint(8, 10) if slots < 16 else rng.randint(10, 13)
    run = pipeline(task("t", (side, side, side)))
    return Scenario(run, slots, varied(rng.uniform(10, 60), rng.uniform(0.1, 0.6)), **fields)


def steady(rng: random.Random) -> Scenario:
    return one(rng)


def warming(rng: random.Random) -> Scenario:
    """Workers come one after another, and each loads a model first."""
    return one(rng, first_times=rng.uniform(3, 8), arrive_s=rng.uniform(200, 900))


def doubled(rng: random.Random) -> Scenario:
    scenario = one(rng)
    scenario.events = [(0.5, "slots", scenario.slots)]
    return scenario


def halved(rng: random.Random) -> Scenario:
    scenario = one(rng)
    scenario.events = [(0.5, "slots", -(scenario.slots // 2))]
    return scenario


def slow_corner(rng: random.Random) -> Scenario:
    """An eighth of the volume takes 2 to 5 times as long; it is any corner, so it comes early, late or between."""
    scenario = one(rng)
    corner = [rng.random() < 0.5 for _ in range(3)]
    times, seconds = rng.uniform(2, 5), scenario.seconds
    (shape,) = (Scheduler(scenario.run).tasks[0].grid.shape,)

    def slower(name: str, index: tuple[int, ...], chance: random.Random) -> float:
        inside = all((2 * i >= n) == high for i, n, high in zip(index, shape, corner, strict=True))
        return seconds(name, index, chance) * (times if inside else 1)

    scenario.seconds = slower
    return scenario


def chain(rng: random.Random) -> Scenario:
    """Three tasks, each reads the one before with a halo; one of them has conflicts."""
    side = rng.randint(5, 7)
    shape = (side, side, side)
    tasks = (
        task("a", shape),
        task("b", shape, halo=rng.choice((2, 5)), conflict=rng.random() < 0.5, requires="a"),
        task("c", (side // 2, side, side), halo=2, requires="b"),
    )
    means = {name: varied(rng.uniform(8, 50), 0.3) for name in "abc"}
    return Scenario(
        pipeline(*tasks), rng.choice((4, 8, 16)), lambda name, index, chance: means[name](name, index, chance)
    )


def restarted(rng: random.Random) -> Scenario:
    return one(rng, events=[(rng.uniform(0.2, 0.6), "restart", 0)])


def paused(rng: random.Random) -> Scenario:
    return one(rng, events=[(rng.uniform(0.2, 0.6), "pause", rng.randint(120, 900))])


SCENARIOS = {
    "steady": steady,
    "warming up": warming,
    "workers doubled half-way": doubled,
    "workers halved half-way": halved,
    "slow corner": slow_corner,
    "chain of three tasks": chain,
    "restart of the scheduler": restarted,
    "paused for a while": paused,
}


def replay(name: str, seed: int) -> tuple[list[Look], float]:
    """Run a scenario; give what was seen, and when it ended."""
    scenario = SCENARIOS[name](random.Random(f"{name} {seed}"))
    one_run = Replay(scenario, seed)
    looks = one_run.run()
    assert one_run.core.state == "done"
    return looks, one_run.now

"""Scaling down costs no block: the real core, our costs, and the order in which a ReplicaSet picks its victims."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from blockyard.core import events as ev
from blockyard.core.scheduler import Scheduler
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec
from blockyard.wire.messages import Outcome
from blockyard_scheduler.scaling.cluster import Pod
from blockyard_scheduler.scaling.config import PoolScaling
from blockyard_scheduler.scaling.costs import Costs
from blockyard_scheduler.scaling.decide import PoolScaler

STEP_S = 5.0
BLOCKS = 300


def run_of(rng):
    """Blocks in one dimension, with or without a halo."""
    halo = rng.choice([0, 1])
    total, read = RoiSpec((-halo,), (BLOCKS + 2 * halo,)), RoiSpec((-halo,), (1 + 2 * halo,))
    task = TaskSpec(
        id="t", function="json:dumps", total_roi=total, read_roi=read, write_roi=RoiSpec((0,), (1,)),
        read_write_conflict=halo > 0,
    )  # fmt: skip
    return RunSpec(PipelineSpec(name="r", tasks=(task,)))


@dataclass
class Agent:
    """The worker in one pod, of one slot."""

    pod: str
    node: int
    ready_s: float
    cost: int = 0
    restarts: int = 0
    seq: int = 0
    queue: list = field(default_factory=list)
    """Leases that have not begun: (number, block)."""
    running: tuple | None = None
    """(number, begun, ends)."""
    draining: bool = False

    @property
    def id(self):
        return f"{self.pod}-7-00000000"


def victims(agents, n, now):
    """The pods that a ReplicaSet removes first, where all are assigned, running and ready.

    The lower deletion cost, more pods of it on the same node, ready for a shorter time (in powers of two), more
    restarts, younger (kubernetes/pkg/controller/controller_utils.go, ActivePodsWithRanks).
    """
    on_node = Counter(agent.node for agent in agents)

    def rank(agent):
        age = max(now - agent.ready_s, 1.0)
        return agent.cost, -on_node[agent.node], int(np.log2(age)), -agent.restarts, -agent.ready_s

    return sorted(agents, key=rank)[:n]


class Cluster:
    """A pool of pods around a core."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.core = Scheduler(run_of(self.rng))
        self.scaler = PoolScaler(PoolScaling("d", max=12))
        self.costs = Costs()
        self.agents, self.replicas, self.made, self.now = [], 1, 0, 0.0
        self.started, self.busy_victims, self.removed = Counter(), 0, 0

    def go(self):
        while not self.core.is_over:
            assert self.now < 50_000
            self.now += STEP_S
            self.scale()
            for agent in list(self.agents):
                self.work(agent)
            for effect in self.core.handle(ev.TurnEnded(), self.now):
                if isinstance(effect, ev.SendLeases):
                    (agent,) = [agent for agent in self.agents if agent.id == effect.worker]
                    agent.queue += [(effect.number + n, int(b)) for n, b in enumerate(effect.blocks)]

    def scale(self):
        if self.rng.random() < 0.02:  # a person, now and then
            self.replicas = self.rng.randint(1, 12)
        self.scaler.observe(self.replicas, self.now)
        if self.scaler.note.person and self.rng.random() < 0.1:
            self.scaler.asked(None)
        runnable = self.core.leases.count_by_task.get(0, 0) + self.core.ready_count(0)
        target = self.scaler.target(runnable, self.now, over=False)
        alive = [agent for agent in self.agents if not agent.draining]
        shrinks = target is not None and target < self.replicas
        busy_s = {agent.pod: self.now - agent.running[1] for agent in alive if agent.running}
        pods = [Pod(agent.pod, "default", "Running", cost=agent.cost) for agent in alive]
        for pod, cost in list(self.costs.changes(pods, busy_s, self.now, at_once=shrinks)):
            next(agent for agent in alive if agent.pod == pod.name).cost = cost
            self.costs.note(pod.name, cost)
        if target is not None and target != self.replicas:
            self.scaler.setting(target, self.now)
            self.replicas = target
        self.reconcile(alive, counted=shrinks)

    def reconcile(self, alive, *, counted):
        """What the ReplicaSet does; `counted`: the scheduler asked for it."""
        for _ in range(self.replicas - len(alive)):
            self.made += 1
            agent = Agent(f"p{self.made}", self.rng.randint(0, 3), self.now, restarts=self.rng.choice([0, 0, 2]))
            self.agents.append(agent)
            self.core.handle(ev.WorkerJoined(agent.id, slots=1), self.now)
        for agent in victims(alive, len(alive) - self.replicas, self.now) if len(alive) > self.replicas else ():
            idle = sum(a.running is None for a in alive)
            if counted:
                self.removed += 1
                self.busy_victims += agent.running is not None and idle >= len(alive) - self.replicas
            agent.draining = True
            self.release(agent, [number for number, _ in agent.queue], Outcome.RETURNED)
            agent.queue.clear()

    def work(self, agent):
        if agent.running and agent.running[2] <= self.now:
            self.release(agent, [agent.running[0]], Outcome.SUCCESS, self.now - agent.running[1])
            agent.running = None
        if agent.draining and agent.running is None:
            self.core.handle(ev.WorkerGone(agent.id, reason="drained"), self.now)
            self.agents.remove(agent)
            return
        if agent.running is None and agent.queue:
            number, block = agent.queue.pop(0)
            self.started[block] += 1
            agent.running = number, self.now, self.now + self.rng.uniform(5.0, 120.0)
        running = ((agent.running[0], self.now - agent.running[1]),) if agent.running else ()
        self.core.handle(ev.WorkerHeard(agent.id, running), self.now)
        if not agent.queue and not agent.draining:
            self.core.handle(ev.BlocksWanted(agent.id, 2), self.now)

    def release(self, agent, numbers, outcome, seconds=0.0):
        if numbers:
            agent.seq += 1
            outcomes = np.full(len(numbers), outcome, np.uint8)
            took = np.full(len(numbers), seconds, np.float32)
            self.core.handle(ev.BlocksReleased(agent.id, agent.seq, np.array(numbers), outcomes, took), self.now)


def test_scaling_down_costs_no_block():
    """Whoever scales, and whenever, each block is begun once; what the scheduler removes is idle if it can be."""
    removed = 0
    for seed in range(40):
        cluster = Cluster(seed)
        cluster.go()
        assert cluster.core.state == "done", seed
        assert set(cluster.started.values()) == {1}, seed
        assert len(cluster.started) == BLOCKS, seed
        assert cluster.busy_victims == 0, seed
        removed += cluster.removed
    assert removed > 40

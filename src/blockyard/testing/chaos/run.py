"""One disturbed run: an undisturbed one to compare with, faults by plan, then the verdict."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from blockyard.core.scheduler import Scheduler
from blockyard.local.serial import run_serially
from blockyard.testing.chaos.aof import records
from blockyard.testing.chaos.cluster import SLOTS, Cluster, Times
from blockyard.testing.chaos.evidence import Evidence
from blockyard.testing.chaos.follow import Follower
from blockyard.testing.chaos.pipeline import make_arrays, pipeline
from blockyard.testing.chaos.plan import Plan, draw
from blockyard.testing.chaos.tally import tally
from blockyard.testing.chaos.verdict import Verdict, differences, recoveries
from blockyard.testing.order import beside_which, waits_of

BLOCK_S = 0.05
BUSY = 0.7
"""Share of the time that slots are thought to be at work, so that the blocks last about as long as the faults."""
PATIENCE_S = 120.0
"""After the last fault the run must end, and must not stand still for so long before it does."""
MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Chaos:
    """What to disturb, and how much."""

    plan: Plan
    n_schedulers: int = 2
    n_agents: int = 3
    times: Times = field(default_factory=Times)

    @property
    def side(self) -> int:
        """Blocks on each axis of each of the two tasks."""
        blocks = self.plan.seconds * self.n_agents * SLOTS * BUSY / BLOCK_S
        return max(math.ceil(math.sqrt(blocks / 2)), 6)


def wreak(chaos: Chaos, folder: Path, say: Callable[[str], None] = lambda _: None) -> Verdict:
    """Run the pipeline undisturbed and disturbed in `folder`, and compare; `say` takes what happens."""
    reference, disturbed = folder / "undisturbed", folder / "disturbed"
    for place in (reference, disturbed):
        place.mkdir(parents=True)
        make_arrays(place, chaos.side)
    say(f"{2 * chaos.side**2:,} blocks, once undisturbed ...")
    run_serially(pipeline(reference, chaos.side, 0.0))
    say(f"... and with faults for {chaos.plan.seconds:g} s")
    spec = pipeline(disturbed, chaos.side, BLOCK_S)
    counts: Counter[str] = Counter()
    upset_s: list[float] = []

    def happened(kind: str, at_s: float) -> None:
        counts[kind] += 1
        if kind.endswith(("scheduler", "Redis")):
            upset_s.append(at_s)

    with (
        Cluster(spec, folder / "cluster", chaos.n_schedulers, chaos.n_agents, chaos.times, happened) as cluster,
        Follower(cluster.redis.url) as follower,
    ):
        disturb(cluster, follower, chaos.plan, say)
    recovery_s = recoveries(upset_s, follower.grew_s)
    return judge(chaos.plan, Scheduler(spec), folder, counts, recovery_s, finished=follower.over)


def disturb(cluster: Cluster, follower: Follower, plan: Plan, say: Callable[[str], None]) -> None:
    """Do the faults while there are blocks left, then wait for the end."""
    while not follower.grew_s:  # faults begin when blocks do
        cluster.look_after(time.monotonic() + 0.05)
    began = time.monotonic()
    for fault in draw(plan, cluster.times.lease_s):
        cluster.look_after(began + fault.at_s)
        if follower.over:
            break
        cluster.strike(fault)
    cluster.settle()
    say("no more faults; waiting for the end")
    settled_s = time.monotonic()
    while not follower.over and time.monotonic() < max(settled_s, follower.grew_s[-1]) + PATIENCE_S:
        cluster.look_after(time.monotonic() + 0.1)


def judge(
    plan: Plan,
    core: Scheduler,
    folder: Path,
    faults: Counter[str],
    recovery_s: tuple[float, float],
    *,
    finished: bool,
) -> Verdict:
    """Hold what was written down in `folder` against the promises; `core` is one of the same run."""
    waits = waits_of(core)
    evidence = Evidence.read(folder / "disturbed/evidence")
    counted = tally(records(folder / "cluster/redis"), core)
    overlaps = [
        f"{o.second.name} began {o.first.last_s - o.second.began_s:.3f} s before the last sign of {o.first.name}"
        for o in evidence.overlaps(beside_which(waits))
    ]
    early = [f"{execution.name} before {name}" for execution, name in evidence.too_early(waits)]
    different = [
        f"{name}/{file}"
        for name in ("soft.zarr", "swept.zarr")
        for file in differences(folder / "undisturbed" / name, folder / "disturbed" / name)
    ]
    return Verdict(
        seed=plan.seed,
        seconds=plan.seconds,
        finished=finished,
        faults=dict(faults),
        blocks=len(waits),
        executions=len(evidence.executions),
        lost=len(waits.keys() - counted.done.keys()),
        counted_twice=sum(n > 1 for n in counted.done.values()),
        failed=len(counted.failed),
        misplaced_records=counted.misplaced,
        overlaps=overlaps[:MOST_SHOWN],
        too_early=early[:MOST_SHOWN],
        different_files=different[:MOST_SHOWN],
        wasted_s=evidence.wasted_s(),
        worked_s=sum(e.last_s - e.began_s for e in evidence.executions),
        recovery_median_s=recovery_s[0],
        recovery_p99_s=recovery_s[1],
    )

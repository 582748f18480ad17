"""The loop that looks at the cluster and scales the pools; whatever the API server does, the run goes on.

Every few seconds, while this scheduler leads: look at the Deployments and pods, tell the core of workers whose pods are
gone, decide (`decide.py`), keep the note in Redis, mark what would cost most to delete, scale. An error is shown in the
status and in the metrics, and the next look comes later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from blockyard.core.events import Event, WorkerGone
from blockyard.core.scheduler import Scheduler
from blockyard.core.status import PoolStatus
from blockyard.spec.errors import SpecError, nearest
from blockyard_scheduler.leadership import Leadership
from blockyard_scheduler.scaling.cluster import Cluster, ClusterError, Deployment, Pod
from blockyard_scheduler.scaling.config import Scaling
from blockyard_scheduler.scaling.costs import Costs
from blockyard_scheduler.scaling.decide import Note, PoolScaler
from blockyard_scheduler.scaling.departures import Departures, pod_of
from blockyard_scheduler.scaling.rights import rules
from blockyard_scheduler.store import Refused, Store, Uncertain, until_answered

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
LONGEST_PAUSE_S = 60.0
MOST_DOUBLINGS = 10
MOST_REASONS = 5


class Turns(Protocol):
    """The loop of the leader, as far as scaling needs it."""

    core: Scheduler

    def tell(self, event: Event) -> None:
        """Take an event into the next turn."""


class Notes:
    """What is kept of the pools between schedulers, in Redis."""

    def __init__(self, store: Store, leadership: Leadership) -> None:
        """Keep it in `store`, as the leader that `leadership` knows."""
        self._store = store
        self._leadership = leadership

    async def read(self) -> dict[str, Note]:
        """Give what is kept, by pool."""
        kept = await self._store.read_notes()
        return {pool: msgspec.msgpack.decode(note, type=Note) for pool, note in kept.items()}

    async def write(self, pool: str, note: Note) -> None:
        """Keep a note. Raises Refused where another leads, Uncertain where Redis does not answer."""
        await self._store.write_note(self._leadership.identity, pool, msgspec.msgpack.encode(note))


@dataclass(slots=True)
class _Seen:
    """A pool as it was seen last."""

    deployment: Deployment
    pods: list[Pod]


class Autoscaler:
    """The pools of one release."""

    def __init__(self, scaling: Scaling, cluster: Cluster, turns: Turns, notes: Notes) -> None:
        """Scale nothing yet."""
        self.actions: Counter[tuple[str, str]] = Counter()
        """Changes of size by pool and direction."""
        self._scaling = scaling
        self._cluster = cluster
        self._turns = turns
        self._notes = notes
        self._scalers: dict[str, PoolScaler] = {}
        self._seen: dict[str, _Seen] = {}
        self._errors: dict[str, str] = {}
        """The last error by pool, while it lasts."""
        self._costs = Costs()
        self._departures = Departures()
        self._bell = asyncio.Event()
        self._asked: dict[str, int | None] = {}
        """What a person asked for through us, by pool; None: that the scheduler decides."""
        self.at_rest = asyncio.Event()
        """Set when the run is over and all is as it should be then."""

    # --- the loop ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look and scale for ever. Raises Refused when another leads."""
        await self._preflight()
        await self._begin()
        failures = 0
        while True:
            self._bell.clear()
            wait_s = await self._looked()
            failures = min(failures + 1, MOST_DOUBLINGS) if self._errors else 0
            backoff_s = min(LOOK_EVERY_S * 2.0**failures, LONGEST_PAUSE_S)
            pause_s = max(backoff_s * random.uniform(0.8, 1.2), wait_s)  # noqa: S311 - so that releases do not beat as one
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._bell.wait()

    async def _looked(self) -> float:
        """Look once, whatever happens: a fault of ours or of the client's must not end the run."""
        try:
            return await self._look()
        except Refused:
            raise
        except Exception as error:
            log.exception("scaling failed by a fault of ours; it is tried again")
            self._errors[""] = f"scaling failed by a fault of ours ({type(error).__name__}: {error})"
            return 0.0

    async def _preflight(self) -> None:
        """Say which rights are missing, before they are missed."""
        try:
            missing = await self._cluster.missing()
        except (ClusterError, SpecError) as error:
            log.warning("which rights this scheduler has could not be asked (%s)", error)
            return
        if missing:
            log.warning(
                "the Role of this scheduler lacks rules in namespace %s; without them workers are not scaled:\n%s",
                self._scaling.namespace,
                rules(missing),
            )

    async def _begin(self) -> None:
        kept = await until_answered(self._notes.read)
        self._scalers = {name: PoolScaler(pool, kept.get(name)) for name, pool in self._scaling.pools.items()}

    async def _look(self) -> float:
        """Look at everything once and act; give how long the API server wants to be left alone."""
        wait_s = 0.0
        pods = await self._tried("", self._cluster.pods())
        if pods is not None:
            self._take_pods(pods)
        for name in self._scalers:
            try:
                await self._look_at(name, pods)
                self._errors.pop(name, None)
            except ClusterError as error:
                self._note_error(name, error)
                wait_s = max(wait_s, error.wait_s)
            except Uncertain as error:  # Redis is away: nothing is scaled that could not be noted
                self._note_error(name, ClusterError(str(error)))
        if self._turns.core.is_over and not self._errors:
            self.at_rest.set()
        else:
            self.at_rest.clear()
        return wait_s

    async def _tried(self, pool: str, call: Awaitable[list[Pod]]) -> list[Pod] | None:
        try:
            found = await call
        except ClusterError as error:
            self._note_error(pool, error)
            return None
        self._errors.pop(pool, None)
        return found

    def _note_error(self, pool: str, error: ClusterError) -> None:
        if self._errors.get(pool) != str(error):
            log.warning("scaling%s: %s", f" pool '{pool}'" if pool else "", error)
        self._errors[pool] = str(error)

    def _take_pods(self, pods: list[Pod]) -> None:
        known = [(worker.id, worker.connected) for worker in self._turns.core.workers.values()]
        for worker, killed, reason in self._departures.look(pods, known):
            self._turns.tell(WorkerGone(worker, killed=killed, reason=reason))

    async def _look_at(self, name: str, pods: list[Pod] | None) -> None:
        now, scaler = time.monotonic(), self._scalers[name]
        deployment = await self._cluster.deployment(name)
        ours = [pod for pod in pods or [] if pod.pool == name]
        self._seen[name] = _Seen(deployment, ours)
        before = scaler.note
        scaler.observe(deployment.replicas, now)
        if scaler.note.person and not before.person:
            log.info(
                "pool '%s' was scaled to %d by somebody else, who keeps it until 'blockyard scale %s --auto'",
                name,
                deployment.replicas,
                name,
            )
        asked = name in self._asked
        person = self._asked.pop(name, None)
        if asked and person is None:
            scaler.automate()
        over = self._turns.core.is_over
        target = person if person is not None else scaler.target(self._runnable(name), now, over=over)
        if person is not None or (target is not None and target != deployment.replicas):
            assert target is not None
            await self._scale(name, target, deployment.replicas, person=person is not None, over=over, pods=ours)
        elif scaler.note != before:
            await self._notes.write(name, scaler.note)
        if target is None:
            await self._mark(ours, now)

    async def _scale(self, name: str, target: int, replicas: int, *, person: bool, over: bool, pods: list[Pod]) -> None:
        now, scaler = time.monotonic(), self._scalers[name]
        by_person = person or scaler.note.person
        note = scaler.setting(target, now, person=by_person and not over, ended=over and not person)
        await self._notes.write(name, note)
        if target < replicas:
            await self._mark(pods, now, at_once=True)
        await self._cluster.scale(name, target, replicas)
        if target != replicas:
            self.actions[name, "up" if target > replicas else "down"] += 1
            log.info("pool '%s': %d workers asked for, %d before", name, target, replicas)

    async def _mark(self, pods: Iterable[Pod], now: float, *, at_once: bool = False) -> None:
        """Keep the deletion costs of pods roughly true."""
        for pod, cost in self._costs.changes(pods, self._busy_s(), now, at_once=at_once):
            await self._cluster.set_cost(pod, cost)
            self._costs.note(pod.name, cost)

    def _busy_s(self) -> dict[str, float]:
        """Give for each pod that holds blocks how long the longest of them runs."""
        core, found = self._turns.core, dict[str, float]()
        for worker in core.workers.values():
            if core.leases.held_by(worker.id):
                longest = max((seconds for _, seconds in worker.running), default=0.0)
                pod = pod_of(worker.id)
                found[pod] = max(found.get(pod, 0.0), longest)
        return found

    def _runnable(self, pool: str) -> int:
        """Count the blocks of the pool's tasks that run or could run now."""
        core = self._turns.core
        leased = sum(core.leases.count_by_task.get(task.number, 0) for task in core.tasks if task.spec.pool == pool)
        if core.state != "running":
            return leased
        return leased + sum(core.ready_count(task.number) for task in core.tasks if task.spec.pool == pool)

    # --- what others ask ---------------------------------------------------------------------------------------

    def ask(self, pool: str, workers: int | None) -> None:
        """Scale to so many for a person, or (None) decide again. Raises SpecError for a pool that there is not."""
        if pool not in self._scaling.pools:
            raise SpecError(f"there is no pool '{pool}'{nearest(pool, self._scaling.pools)}")
        self._asked[pool] = workers
        self._bell.set()

    async def log_of(self, worker: str) -> tuple[str, str]:
        """Give the pod of a worker, and the last lines of its log. Raises ClusterError where they can't be had."""
        pod = pod_of(worker)
        return pod, await self._cluster.log(pod)

    async def rested(self) -> None:
        """Return when the run is over and all pools are as they should be then."""
        await self.at_rest.wait()

    def look_now(self) -> None:
        """Do not wait for the next look: the run has ended, or goes on."""
        self._bell.set()

    def status(self) -> list[PoolStatus]:
        """Describe the pools."""
        return [self._describe(name) for name in self._scaling.pools]

    def _describe(self, name: str) -> PoolStatus:
        pool, seen, scaler = self._scaling.pools[name], self._seen.get(name), self._scalers.get(name)
        desired = 0 if self._turns.core.is_over else (scaler or PoolScaler(pool)).wanted(self._runnable(name))
        error = self._errors.get(name) or self._errors.get("", "")
        decides = scaler.decides if scaler else ("auto" if pool.autoscale else "nobody")
        if seen is None:
            return PoolStatus(pool=name, desired=desired, decides=decides, error=error)
        troubles = Counter(pod.trouble for pod in seen.pods if pod.trouble)
        reasons = [*seen.deployment.troubles, *(_times(text, n) for text, n in troubles.most_common(MOST_REASONS))]
        return PoolStatus(
            pool=name,
            desired=desired,
            replicas=seen.deployment.replicas,
            ready=seen.deployment.ready,
            pending=sum(pod.phase == "Pending" for pod in seen.pods),
            decides=decides,
            reasons=reasons,
            error=error,
        )


def _times(text: str, n: int) -> str:
    return text if n == 1 else f"{n} pods: {text}"

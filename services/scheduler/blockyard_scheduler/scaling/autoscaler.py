"""The loop that looks at the cluster and scales the pools; whatever the API server does, the run goes on.

Every few seconds, while this scheduler leads: look at the Deployments and pods, tell the core of workers whose pods are
gone, decide (`decide.py`), keep the note in Redis, mark what would cost most to delete, scale. An error is shown in the
status and in the metrics, and what failed is tried again later (`api_errors.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

import msgspec

from blockyard.core.events import Event, WorkerGone
from blockyard.core.scheduler import Scheduler
from blockyard.spec.errors import BlockyardError, SpecError, nearest
from blockyard.wire.api import PodLogs, PoolStatus
from blockyard.wire.states import RunPhase
from blockyard_scheduler.leadership import Leadership
from blockyard_scheduler.scaling.api_errors import ApiErrors
from blockyard_scheduler.scaling.block_log import BlockLogs, is_about
from blockyard_scheduler.scaling.cluster import Cluster, ClusterError, Deployment, Pod
from blockyard_scheduler.scaling.config import Scaling
from blockyard_scheduler.scaling.costs import Costs
from blockyard_scheduler.scaling.decide import Note, PoolScaler
from blockyard_scheduler.scaling.departures import Departures, pod_of
from blockyard_scheduler.scaling.rights import rules
from blockyard_scheduler.store.redis import Refused, Store, Uncertain, until_answered

log = logging.getLogger(__name__)

T = TypeVar("T")

LOOK_EVERY_S = 5.0
ASK_S = 6.0
"""Longest that a person who asks for a number waits for an answer; shorter than their client's patience."""
MOST_REASONS = 5
SLOW = "the Kubernetes API is slow to answer"


class TurnLoop(Protocol):
    """The loop of the leader, as far as scaling needs it."""

    @property
    def core(self) -> Scheduler:
        """The run."""

    @property
    def dismissed(self) -> bool:
        """Whether the workers were told to leave although the run is not over."""

    def tell(self, event: Event) -> None:
        """Take an event into the next turn."""


class Notes:
    """What is kept of the pools between schedulers, in Redis."""

    def __init__(self, store: Store, leadership: Leadership) -> None:
        """Keep it in `store`, as the leader that `leadership` knows."""
        self._store = store
        self._leadership = leadership

    @property
    def rewrites(self) -> int:
        """How often all of the run was written again, since Redis had lost something."""
        return self._store.rewrites

    async def read(self) -> dict[str, Note]:
        """Return what is kept, by pool; without what a version wrote that kept something else."""
        found = {}
        for pool, note in (await self._store.read_notes()).items():
            try:
                found[pool] = msgspec.msgpack.decode(note, type=Note)
            except (msgspec.DecodeError, ValueError, RecursionError) as error:
                log.warning("what is kept of pool '%s' can't be read, and is not used: %s", pool, error)
        return found

    async def write(self, pool: str, note: Note) -> None:
        """Keep a note. Raises Uncertain where Redis does not answer, or does not know us as the leader.

        That may be because it forgot us: whether another leads is for the leadership to find out.
        """
        try:
            await self._store.write_note(self._leadership.identity, pool, msgspec.msgpack.encode(note))
        except Refused as error:
            raise Uncertain(f"Redis did not keep what is known of pool '{pool}': {error}") from error


@dataclass(slots=True)
class _Seen:
    """A pool as it was seen last."""

    deployment: Deployment
    pods: list[Pod]


class Autoscaler:
    """The pools of one release."""

    def __init__(self, scaling: Scaling, cluster: Cluster, turns: TurnLoop, notes: Notes) -> None:
        """Scale nothing yet."""
        self.actions: Counter[tuple[str, str]] = Counter()
        """Changes of size by pool and direction."""
        self._scaling = scaling
        self._cluster = cluster
        self._turns = turns
        self._notes = notes
        self._scalers: dict[str, PoolScaler] = {}
        self._kept: dict[str, Note | None] = {}
        """The note of each pool that is in Redis."""
        self._rewrites = 0
        """How often the run had been written again when that was so."""
        self._seen: dict[str, _Seen] = {}
        self._api_errors = ApiErrors()
        self._logs = BlockLogs(cluster, scaling.namespace)
        self._costs = Costs()
        self._departures = Departures()
        self._bell = asyncio.Event()
        self._deciding = asyncio.Lock()
        """Held from looking at a pool until it is scaled: nobody decides on what was true before."""
        self._read = asyncio.Event()
        """Set when the notes of earlier schedulers are known."""
        self.at_rest = asyncio.Event()
        """Set when the run is over and all is as it should be then."""

    # --- the loop ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look and scale for ever."""
        await self._begin()
        await self._preflight()
        while True:
            self._bell.clear()
            await self._looked()
            pause_s = LOOK_EVERY_S * random.uniform(0.8, 1.2)  # noqa: S311 - so that releases do not beat as one
            pause_s = max(pause_s, self._api_errors.quiet_until_s - time.monotonic())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._bell.wait()

    async def _looked(self) -> None:
        """Look once, whatever happens: a fault of ours or of the client's must not end the run."""
        try:
            await self._look()
        except Exception as error:
            log.exception("scaling failed by a fault of ours; it is tried again")
            ours = BlockyardError(f"scaling failed by a fault of ours ({type(error).__name__}: {error})")
            self._api_errors.failed("look", "", ours, time.monotonic())
        else:
            self._api_errors.over("look", "")

    async def _preflight(self) -> None:
        """Say which rights are missing, before they are missed."""
        try:
            missing = await self._cluster.missing()
        except (ClusterError, SpecError) as error:
            log.warning("which rights this scheduler has could not be asked (%s)", error)
            return
        if missing:
            log.warning(
                "the Role of this scheduler lacks rules in namespace %s; the run goes on without what needs them:\n%s",
                self._scaling.namespace,
                rules(missing),
            )

    async def _begin(self) -> None:
        kept = await until_answered(self._notes.read)
        self._rewrites = self._notes.rewrites
        self._kept = {name: kept.get(name) for name in self._scaling.pools}
        self._scalers = {name: PoolScaler(pool, self._kept[name]) for name, pool in self._scaling.pools.items()}
        self._read.set()

    async def _look(self) -> None:
        """Look at everything once and act, as far as the API server may be asked now."""
        pods = await self._pods()
        if pods is not None:
            self._take_pods(pods)
        rests = True
        for name in self._scalers:
            if not self._api_errors.due("scale", name, time.monotonic()):
                rests = False
                continue
            async with self._deciding:
                rests &= await self._tend(name, pods)
        if rests and self._over:
            self.at_rest.set()
        else:
            self.at_rest.clear()

    async def _pods(self) -> list[Pod] | None:
        found = await self._tried("pods", "", self._cluster.pods)
        return None if found is None else await self._explained(found)

    async def _explained(self, pods: list[Pod]) -> list[Pod]:
        """Add the last warning about each pod that is pending and does not say why: a volume, a sandbox."""
        silent = {pod.name for pod in pods if pod.phase == "Pending" and not pod.trouble}
        warnings = await self._tried("events", "", self._cluster.warnings) if silent else None
        if warnings is None:
            return pods
        return [replace(pod, trouble=warnings.get(pod.name, "")) if pod.name in silent else pod for pod in pods]

    async def _tried(self, what: str, pool: str, call: Callable[[], Awaitable[T]]) -> T | None:
        """Ask for `what`, where that is due; None where it is not, or could not be done."""
        if not self._api_errors.due(what, pool, time.monotonic()):
            return None
        try:
            found = await call()
        except ClusterError as error:
            self._failed(what, pool, error)
            return None
        self._api_errors.over(what, pool)
        return found

    def _failed(self, what: str, pool: str, error: ClusterError | Uncertain) -> None:
        wait_s = error.wait_s if isinstance(error, ClusterError) else 0.0
        self._api_errors.failed(what, pool, error, time.monotonic(), wait_s=wait_s)

    def _take_pods(self, pods: list[Pod]) -> None:
        known = [(worker.id, worker.connected) for worker in self._turns.core.workers.values()]
        for worker, killed, reason in self._departures.look(pods, known):
            self._turns.tell(WorkerGone(worker, killed=killed, reason=reason))

    async def _tend(self, name: str, pods: list[Pod] | None) -> bool:
        """Look at a pool and scale it, if it can be done; `pods` of all pools, None: they could not be listed.

        Gives whether it was done, knowing that the run is over.
        """
        try:
            over = await self._scale_as_needed(name, [pod for pod in pods or [] if pod.pool == name])
        except (ClusterError, Uncertain) as error:  # Uncertain: Redis is away, and nothing is done that is not noted
            if isinstance(error, ClusterError) and error.gone:
                self._seen.pop(name, None)
            self._failed("scale", name, error)
            return False
        self._api_errors.over("scale", name)
        return over

    async def _scale_as_needed(self, name: str, pods: list[Pod]) -> bool:
        """Scale a pool; give whether that was for a run that is over. It may end while the API is asked: look again."""
        now, scaler = time.monotonic(), self._scalers[name]
        deployment = await self._cluster.deployment(name)
        self._seen[name] = _Seen(deployment, pods)
        by_person, over = scaler.note.person, self._over
        scaler.observe(deployment.replicas, now, uid=deployment.uid)
        if scaler.note.person and not by_person:
            log.info(
                "pool '%s' was scaled to %d by somebody else, who keeps it until 'blockyard scale %s --auto'",
                name,
                deployment.replicas,
                name,
            )
        target = scaler.target(self._runnable(name), now, over=over)
        if target is not None and target != deployment.replicas:
            await self._scale(name, target, deployment, pods, over=over)
        else:
            await self._keep(name, scaler.note)
            if not over:
                await self._mark(name, pods)
        return over

    async def _scale(self, name: str, target: int, deployment: Deployment, pods: list[Pod], *, over: bool) -> None:
        replicas, scaler = deployment.replicas, self._scalers[name]
        await self._keep(name, scaler.setting(target, time.monotonic(), ended=over))
        if target < replicas:
            await self._mark(name, pods, at_once=True)
        await self._cluster.scale(name, target, replicas)
        self.actions[name, "up" if target > replicas else "down"] += 1
        why = f"{self._runnable(name):,} blocks run or could run"
        why = "a person asked for them" if scaler.note.person else "the run is over" if over else why
        message = f"pool '{name}': {target:,} workers asked for, {replicas:,} before; {why}"
        log.info("%s", message)
        await self._tell(name, deployment.uid, message)

    async def _tell(self, pool: str, uid: str, message: str) -> None:
        """Leave an Event; nothing depends on it."""
        await self._tried("telling", pool, partial(self._cluster.tell, pool, uid, message))

    async def _keep(self, name: str, note: Note) -> None:
        """Keep a note in Redis, if it is not there yet: a successor goes on from it."""
        if self._notes.rewrites != self._rewrites:  # Redis had lost the run, and notes are not written again with it
            self._rewrites, self._kept = self._notes.rewrites, dict.fromkeys(self._kept)
        if note != self._kept[name]:
            await self._notes.write(name, note)
            self._kept[name] = note

    async def _mark(self, pool: str, pods: Iterable[Pod], *, at_once: bool = False) -> None:
        """Keep the deletion costs of pods roughly true; a pool is scaled although they could not be set."""
        now = time.monotonic()
        if not self._api_errors.due("costs", pool, now):
            return
        try:
            for pod, cost in self._costs.changes(pods, self._busy_s(), now, at_once=at_once):
                await self._cluster.set_cost(pod, cost)
                self._costs.note(pod.name, cost)
                self._api_errors.over("costs", pool)
        except ClusterError as error:
            self._failed("costs", pool, error)

    @property
    def _over(self) -> bool:
        """Whether no worker is of use any more, nor will be while this scheduler lives."""
        return self._turns.core.is_over or self._turns.dismissed

    def _busy_s(self) -> dict[str, float]:
        """Return for each pod that holds blocks how long the longest of them runs."""
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
        if core.state is not RunPhase.RUNNING:
            return leased
        stopped = core.fail_fast.stops
        ours = (task.number for task in core.tasks if task.spec.pool == pool and task.number not in stopped)
        return leased + sum(core.ready_count(number) for number in ours)

    # --- what others ask ---------------------------------------------------------------------------------------

    async def ask(self, pool: str, workers: int | None) -> str:
        """Scale to so many for a person, or (None) decide again; returns when that is noted, and tried once.

        Gives why it could not be done yet; "" where it is. Raises SpecError for a pool that there is not, ClusterError
        where nothing was changed.
        """
        if pool not in self._scaling.pools:
            raise SpecError(f"there is no pool '{pool}'{nearest(pool, self._scaling.pools)}")
        asked = noted = False
        try:
            async with asyncio.timeout(ASK_S):
                await self._read.wait()
                async with self._deciding:
                    note, asked = self._scalers[pool].asked(workers), True
                    await self._keep(pool, note)
                    noted = True
                    await self._tend(pool, await self._pods())
        except (TimeoutError, Uncertain) as error:
            if not asked:
                raise ClusterError(
                    f"pool '{pool}' could not be scaled, and nothing was changed: the Kubernetes API or Redis is slow"
                    " to answer; ask again"
                ) from None
            self._failed("scale", pool, ClusterError(SLOW) if noted else Uncertain(_unkept(error)))
        self._bell.set()
        return self._api_errors.why_not("scale", pool)

    async def logs_of(self, pool: str, task: str, block: int, workers: Sequence[str], attempts: int) -> PodLogs:
        """Find what a block of `pool` wrote, in any of its `attempts`; `workers`: that had it, the latest first."""
        pods = await self._pods() or []
        return await self._logs.find(is_about(task, block), workers, [p for p in pods if p.pool == pool], attempts)

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
        desired = 0 if self._over else (scaler or PoolScaler(pool)).wanted(self._runnable(name))
        error = self._api_errors.of(name)
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


def _unkept(error: TimeoutError | Uncertain) -> str:
    """Say what becomes of a number that was asked for, where Redis did not say that it keeps it."""
    why = str(error) or "it is slow to answer"
    return f"Redis has not kept this yet ({why}); this scheduler scales when it has, another that takes over may not"

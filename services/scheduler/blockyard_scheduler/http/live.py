"""Server-sent events: the run once a second, to all who listen, made once for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Sequence

import msgspec
from tornado.iostream import StreamClosedError

from blockyard.core.runstate import RunState
from blockyard.views.describe import running_blocks
from blockyard.wire.api import Notice, PoolStatus, RunningBlock, RunStatus, Straggler, TaskStatus, WorkerStatus
from blockyard_scheduler.http.api import Api, DeniedError, Run
from blockyard_scheduler.jobs import cancel
from blockyard_scheduler.throughput import Throughput

EVERY_S = 1.0
MOST_LISTENERS = 64
MOST_WORKERS = 100
"""Workers sent one by one; pools say all of them."""
MOST_SORTED = 1000
"""Of more than so many the first are sorted: 6 ms."""
MOST_RUNNING = 8
"""Blocks sent of each of them."""
MOST_STRAGGLERS = 20
YOUNG_S = 60.0
"""The samples of a run that is younger go with every event,"""
THROUGHPUT_EVERY = 5
"""later with every fifth, and with a listener's first and last."""

_NUMBERED = re.compile(r"(\D*)(\d*)")


class PoolWorkers(msgspec.Struct, kw_only=True):
    """The workers of one pool."""

    pool: str
    connected: int
    lost: int
    """Workers that are known and not connected: their leases run on for a while."""
    slots: int
    busy: int
    leases: int
    finished: int


class WorkerLive(WorkerStatus, kw_only=True):
    """One worker, and what it runs."""

    running: list[RunningBlock]
    """The first of its blocks, those that run longest first, as of its last heartbeat."""
    held: dict[str, int]
    """Leases by task."""


class Live(msgspec.Struct, kw_only=True):
    """What the page shows of a run, once a second; for its size no matter how many workers there are."""

    run: str
    state: str
    epoch: int
    seq: int
    """Sequence of the last record: where it is the same, nothing has changed."""
    elapsed_s: float
    eta_s: float | None
    eta_p10_s: float | None
    eta_p90_s: float | None
    quiet_s: float
    tasks: list[TaskStatus]
    pools: list[PoolWorkers]
    kubernetes: list[PoolStatus]
    """Pools that the scheduler scales there."""
    workers: list[WorkerLive]
    """The first of them, by name."""
    n_workers: int
    stragglers: list[Straggler]
    leases_expired: int
    stale_releases: int
    notices: list[Notice] = []
    throughput: Throughput | None = None


def live_of(status: RunStatus, core: RunState, now: float) -> Live:
    """Return the run as the page shows it."""
    shown = status.workers[:MOST_SORTED]  # so that this takes as long however many there are
    shown = sorted(shown, key=lambda worker: _natural(worker.id))[:MOST_WORKERS]
    return Live(
        run=status.run,
        state=status.state,
        epoch=status.epoch,
        seq=core.seq,
        elapsed_s=status.elapsed_s,
        eta_s=status.eta_s,
        eta_p10_s=status.eta_p10_s,
        eta_p90_s=status.eta_p90_s,
        quiet_s=status.quiet_s,
        tasks=status.tasks,
        pools=pools_of(status.workers),
        kubernetes=status.pools,
        workers=[_worker(worker, core, now) for worker in shown],
        n_workers=len(status.workers),
        stragglers=status.stragglers[:MOST_STRAGGLERS],
        leases_expired=status.leases_expired,
        stale_releases=status.stale_releases,
        notices=status.notices,
    )


def _natural(name: str) -> tuple[tuple[str, int], ...]:
    """Return what to sort names by so that worker 10 comes after worker 9."""
    return tuple((text, int(number or 0)) for text, number in _NUMBERED.findall(name))


def _worker(worker: WorkerStatus, core: RunState, now: float) -> WorkerLive:
    running = running_blocks(core, worker.id, now)[:MOST_RUNNING]
    held = {task.spec.id: core.leases.held(task.number, worker.id) for task in core.tasks}
    held = {task: n for task, n in held.items() if n}
    return WorkerLive(**msgspec.structs.asdict(worker), running=running, held=held)


def pools_of(workers: list[WorkerStatus]) -> list[PoolWorkers]:
    """Add workers up by pool."""
    pools: dict[str, PoolWorkers] = {}
    for worker in workers:
        pool = pools.get(worker.pool)
        if pool is None:
            pool = pools[worker.pool] = PoolWorkers(
                pool=worker.pool, connected=0, lost=0, slots=0, busy=0, leases=0, finished=0
            )
        pool.leases += worker.leases
        pool.finished += worker.finished
        if worker.connected:
            pool.connected += 1
            pool.slots += worker.slots
            pool.busy += worker.busy
        else:
            pool.lost += 1
    return sorted(pools.values(), key=lambda pool: pool.pool)


class Broadcast:
    """Makes the event of each second once, when the first listener asks for it."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._made: tuple[int, str] = (-1, "")
        """Second and state of the run of the events at hand."""
        self._event: dict[bool, bytes] = {}

    def event(self, *, throughput: bool) -> bytes | None:
        """Return the event of this second; None when this scheduler does not lead any more."""
        turns = self._run.turns
        if turns is None:
            return None
        made = int(time.monotonic() / EVERY_S), turns.core.state
        if made != self._made:
            self._made, self._event = made, {}
        if throughput not in self._event:
            status = self._run.status()
            assert status is not None  # it leads
            live = live_of(status, turns.core, time.monotonic())
            live.throughput = self._run.throughput() if throughput else None
            self._event[throughput] = b"event: run\ndata: " + msgspec.json.encode(live) + b"\n\n"
        return self._event[throughput]


class Events(Api):
    """Tells of the run until the listener leaves."""

    def initialize(self, run: Run, guard: object, broadcast: Broadcast) -> None:  # type: ignore[override]
        """Take what makes the events (called by tornado)."""
        super().initialize(run, guard)  # type: ignore[arg-type]
        self.broadcast = broadcast
        self._left = asyncio.Event()

    def on_connection_close(self) -> None:
        """Stop telling (called by tornado)."""
        self._left.set()

    async def get(self) -> None:
        """Send events."""
        if self.run.listeners >= MOST_LISTENERS:
            raise DeniedError(503, f"{MOST_LISTENERS} pages are open on this run already; close one")
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("X-Accel-Buffering", "no")  # a proxy is not to collect them
        self.run.listeners += 1
        try:
            await self._tell()
        finally:
            self.run.listeners -= 1

    async def _tell(self) -> None:
        number = 0
        over, began_s = self.turns.run_stopped, self.turns.core.started_s
        with contextlib.suppress(StreamClosedError):
            while True:
                young = time.monotonic() - began_s < YOUNG_S
                event = self.broadcast.event(throughput=young or number % THROUGHPUT_EVERY == 0)
                if event is None:
                    return
                self.write(event)
                await self.flush()
                # The end is told at once: a scheduler that ends with its run is gone before the second is.
                ended = over.is_set()
                await _first_of([self._left, *([] if ended else [over])], EVERY_S)
                number = 0 if over.is_set() != ended else number + 1
                if self._left.is_set():
                    return


async def _first_of(events: Sequence[asyncio.Event], most_s: float) -> None:
    """Return when one of the events is set, or the time is over."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=most_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel(waiting)

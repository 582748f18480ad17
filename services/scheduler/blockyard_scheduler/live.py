"""Server-sent events: the run once a second, to all who listen, made once for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import time

import msgspec
from tornado.iostream import StreamClosedError

from blockyard.core.status import PoolStatus, RunStatus, Straggler, TaskStatus, WorkerStatus
from blockyard_scheduler.http import Api, DeniedError, Run
from blockyard_scheduler.throughput import Throughput

EVERY_S = 1.0
MOST_LISTENERS = 64
MOST_WORKERS = 100
"""Workers sent one by one; pools say all of them."""
MOST_STRAGGLERS = 20
THROUGHPUT_EVERY = 5
"""The samples go with every fifth event, and with a listener's first."""


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
    workers: list[WorkerStatus]
    """The first of them."""
    stragglers: list[Straggler]
    leases_expired: int
    stale_releases: int
    throughput: Throughput | None = None


def live_of(status: RunStatus, seq: int) -> Live:
    """Give the run as the page shows it."""
    return Live(
        run=status.run,
        state=status.state,
        epoch=status.epoch,
        seq=seq,
        elapsed_s=status.elapsed_s,
        eta_s=status.eta_s,
        eta_p10_s=status.eta_p10_s,
        eta_p90_s=status.eta_p90_s,
        quiet_s=status.quiet_s,
        tasks=status.tasks,
        pools=pools_of(status.workers),
        kubernetes=status.pools,
        workers=status.workers[:MOST_WORKERS],
        stragglers=status.stragglers[:MOST_STRAGGLERS],
        leases_expired=status.leases_expired,
        stale_releases=status.stale_releases,
    )


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
        self.listeners = 0
        self._number = -1
        self._event: dict[bool, bytes] = {}

    def event(self, *, throughput: bool) -> bytes | None:
        """Give the event of this second; None when this scheduler does not lead any more."""
        number = int(time.monotonic() / EVERY_S)
        if number != self._number:
            self._number, self._event = number, {}
        if throughput not in self._event:
            status = self._run.status()
            if status is None or self._run.turns is None:
                return None
            live = live_of(status, self._run.turns.core.seq)
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
        if self.broadcast.listeners >= MOST_LISTENERS:
            raise DeniedError(503, f"{MOST_LISTENERS} pages are open on this run already; close one")
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("X-Accel-Buffering", "no")  # a proxy is not to collect them
        self.broadcast.listeners += 1
        try:
            await self._tell()
        finally:
            self.broadcast.listeners -= 1

    async def _tell(self) -> None:
        number = 0
        with contextlib.suppress(StreamClosedError):
            while (event := self.broadcast.event(throughput=number % THROUGHPUT_EVERY == 0)) is not None:
                self.write(event)
                await self.flush()
                number += 1
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(EVERY_S):
                        await self._left.wait()
                if self._left.is_set():
                    return

"""One scheduler process, from its first look at Redis to its last word.

Start-up, main and shutdown read top to bottom::

    start up    Redis reachable and fit -> listen -> wait for the lock -> load the run -> open the gate
    main        turns, renewal of the lock, ticks; until SIGTERM, the run's end, or another leader
    shut down   accept no more -> leave the status behind -> free the lock -> close
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer

from blockyard.arrays.warn import warnings_before
from blockyard.core.scheduler import Scheduler
from blockyard.leader.peer import Door
from blockyard.leader.turn import Turns
from blockyard.plan.plan_warnings import PLAN_WARNING
from blockyard.plan.summary import run_warnings
from blockyard.record.measures import Measures
from blockyard.spec.errors import StoreError
from blockyard.spec.model import PipelineSpec
from blockyard.views.observed import ObservedRun
from blockyard.wire.api import Explanation, FailureStatus, Notice, RunStatus
from blockyard.wire.messages import KNOWN, Outcome, Welcome
from blockyard.wire.report import status_report
from blockyard.wire.states import RunPhase
from blockyard_scheduler.files import ADDRESS, FAILURES, RUN, STATUS, Address, write_json
from blockyard_scheduler.historian import Historian
from blockyard_scheduler.http.routes import http_server
from blockyard_scheduler.jobs import cancel
from blockyard_scheduler.leadership import Leadership
from blockyard_scheduler.loading import load_run
from blockyard_scheduler.meter import Meter
from blockyard_scheduler.metrics import registry_of
from blockyard_scheduler.resume import resumed
from blockyard_scheduler.scaling.autoscaler import Autoscaler, Notes
from blockyard_scheduler.scaling.cluster import Cluster
from blockyard_scheduler.settings import Settings
from blockyard_scheduler.sockets import listen, most_connections
from blockyard_scheduler.store.failures import failure_statuses
from blockyard_scheduler.store.redis import Store
from blockyard_scheduler.throughput import Recorder, Throughput
from blockyard_scheduler.tls import Certificate
from blockyard_scheduler.tornado_server import BlockServer
from blockyard_scheduler.turns import TurnLoop

log = logging.getLogger(__name__)

REDIS_PATIENCE_S = 5.0
"""How long Redis may take to answer at start-up."""
TICK_S = 0.5
REPORT_S = 10.0
LINGER_S = 10.0
"""How long a scheduler that ends with its run waits for the workers to take that in."""
LAST_LOOK_S = 1.0
"""How long it waits for open pages to ask for the map as it is at the end."""
WARNINGS_S = 5.0
"""How long looking at the arrays that parameters name may take at the start."""
CLOSING_S = 3.0
"""How long each step of shutdown may take that needs somebody else: all of them less than the 30 s that a pod gets."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Why the service ended, when it ended well."""

    state: str
    """Of the run."""
    by_itself: bool
    """Because the run is over, not because of a signal."""


class SchedulerService:
    """The service; also what its servers ask (the run behind HTTP and metrics)."""

    def __init__(self, settings: Settings) -> None:
        """Do nothing yet.

        Raises StoreError for a Redis URL that is none, SpecError for a certificate or a cluster that is none.
        """
        self.settings = settings
        self.run_spec = settings.run
        self.meter = Meter([task.id for task in settings.run.pipeline.tasks])
        self.loop_lag_s = 0.0
        self.listeners = 0
        self._recorder = Recorder()
        self._quiet = False
        self._noticed: list[Notice] = []
        self.store_durable = True
        self.turns: TurnLoop | None = None
        """Takes the turns while this scheduler leads, and has read the run."""
        self.historian: Historian | None = None
        """Keeps the record of the run, once it is loaded."""
        self.scaler: Autoscaler | None = None
        """Scales the workers, while this scheduler leads and where it was told to."""
        self._cluster = Cluster(settings.scaling) if settings.scaling is not None else None
        self._name = settings.run.pipeline.name
        self._store = Store(settings.redis_url, self._name, password=settings.redis_password)
        self.leadership = Leadership(self._store, lock_s=settings.lock_s, address="", clock=time.monotonic)
        self._certificate = Certificate(settings.tls_cert, settings.tls_key) if settings.tls_cert else None
        self.door = Door(self.leadership.claim, settings.token)
        self._blocks = BlockServer(
            self.door,
            meter=self.meter,
            lease_s=settings.lease_s,
            most=most_connections(),
            certificate=self._certificate,
        )
        self._http: HTTPServer | None = None
        self._http_port = -1
        self._port = 0
        self._stop = asyncio.Event()

    async def run(self) -> Ended:
        """Live until the end. Raises StoreError, with a sentence, for an end that nobody asked for."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        try:
            if not await self._start_up():
                return Ended("waiting", by_itself=False)
            return await self._main()
        finally:
            await self._shut_down()

    # --- start-up ----------------------------------------------------------------------------------------------

    async def _start_up(self) -> bool:
        """Listen, come to lead, and load the run; False when a signal came first."""
        await self._store.wait_reachable(REDIS_PATIENCE_S)
        warnings = await self._store.check()
        for warning in warnings:
            log.warning("%s", warning)
        self.store_durable = not any("appendonly" in warning for warning in warnings)
        before = await self._store.read_spec() if not self.settings.fresh else None
        if before is not None:  # refused now, not when the lock is free
            resumed(before, self.settings.run, accept_changes=self.settings.accept_changes)
        self._listen()
        lead = asyncio.create_task(self._come_to_lead(), name="lead")
        try:
            await self._first_of([lead])
            return lead.done()
        finally:
            await cancel([lead])

    def _listen(self) -> None:
        settings = self.settings
        self._port = listen(self._blocks, settings.host, settings.port, "--port")
        self.leadership.claim.address = settings.address(self._port)
        if settings.http_port >= 0:
            certificate = self._certificate if settings.http_tls else None
            self._http = http_server(
                self,
                registry_of(self),
                token=settings.token,
                host=settings.http_host,
                open_metrics=not settings.metrics_token,
                certificate=certificate,
            )
            self._http_port = listen(self._http, settings.http_host, settings.http_port, "--http-port")
        log.info(
            "listening for workers on %s:%d%s, %s on port %d",
            settings.host,
            self._port,
            " (TLS)" if self._certificate is not None else "",
            "HTTPS" if settings.http_tls else "HTTP",
            self._http_port,
        )

    async def _come_to_lead(self) -> None:
        """Wait for the lock, then load the run and open the gate."""
        await self.leadership.acquire()
        keep = asyncio.create_task(self.leadership.keep(), name="lock")  # reading a large run takes long
        try:
            core = await load_run(self.settings, self._store, self.leadership)
            self.run_spec = core.run
            observed = ObservedRun(core, self.settings.history_blocks)
            self.historian = Historian(observed.record.history, core.code, self._store, self.leadership.identity)
            await self.historian.load()
            await self._warn(core)  # before anybody sees that we lead, while the lock is renewed
        finally:
            await cancel([keep])
        settings = self.settings
        welcome = Welcome(
            software=version("blockyard"),
            run=self._name,
            epoch=self.leadership.epoch,
            heartbeat_s=settings.heartbeat_s,
            lease_s=settings.lease_s,
            grace_s=settings.grace_s,
            pipeline=self.run_spec.pipeline,
            knows=KNOWN,
        )
        self.turns = TurnLoop(
            Turns(core, self.leadership.claim, welcome),
            observed,
            self._store,
            self.leadership,
            meter=self.meter,
            flush=self._blocks.flush,
            clock=time.monotonic,
        )
        self.leadership.loop = self.turns
        self._blocks.lead(self.turns)
        log.info("leading run '%s' in epoch %d, from record %d on", self._name, self.leadership.epoch, core.seq)
        if settings.run_dir is not None:
            if not settings.is_local:  # whose folder has it from who started the run
                write_json(settings.run_dir / RUN, settings.run)
            write_json(settings.run_dir / ADDRESS, self._address())
        if self._http is not None:
            with contextlib.suppress(StoreError):  # nothing depends on it
                await self._store.write_page(settings.page(self._port, self._http_port))

    async def _warn(self, core: Scheduler) -> None:
        """Say what `plan` would warn of, in the log and for as long as the run lasts."""
        loop = asyncio.get_running_loop()
        looked = loop.run_in_executor(None, warnings_before, core.run, self.settings.home)
        try:
            warnings = await asyncio.wait_for(looked, WARNINGS_S)
        except TimeoutError:  # a file system that hangs is no reason to lead late
            warnings = run_warnings(core.run)
        for number, warning in enumerate(warnings):
            core.notices.put(Notice(PLAN_WARNING, warning.text, warning.task), number)
            log.warning("%s", warning.text)
        self._noticed = core.notices.listed()

    def _address(self) -> Address:
        settings = self.settings
        return Address(
            host=settings.host,
            port=self._port,
            http_host=settings.http_reached_as(self._port),
            http_port=self._http_port,
            pid=os.getpid(),
            run=self._name,
            epoch=self.leadership.epoch,
        )

    # --- main --------------------------------------------------------------------------------------------------

    async def _main(self) -> Ended:
        assert self.turns is not None
        jobs: list[Awaitable[Any]] = [self.turns.run(), self.leadership.keep(), self._tick(), self._report()]
        if self.historian is not None:
            jobs.append(self.historian.run())
        if self._cluster is not None and self.settings.scaling is not None:
            notes = Notes(self._store, self.leadership)
            self.scaler = Autoscaler(self.settings.scaling, self._cluster, self.turns, notes)
            jobs.append(self.scaler.run())
        if self.settings.exit_when_done:
            jobs.append(self._await_end(self.turns))
        tasks = [asyncio.ensure_future(job) for job in jobs]
        try:
            await self._first_of(tasks)
            if self._stop.is_set():  # what has arrived is decided and committed before we go
                await self._within(self.turns.turned(), "the last turn")
        finally:
            await cancel(tasks)
        return Ended(self.turns.core.state, by_itself=self.turns.core.has_stopped)

    async def _first_of(self, jobs: Iterable[asyncio.Future[Any]]) -> None:
        """Return when a signal came or one of the jobs ended; raise what it raised."""
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            done, _ = await asyncio.wait([*jobs, stop], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel([stop])
        for job in done:
            job.result()

    async def _await_end(self, turns: TurnLoop) -> None:
        """Return when the run is over and the workers have left, or had the time to."""
        await turns.run_stopped.wait()
        log.info("run '%s' is %s", self._name, f"over: {turns.core.state}" if turns.core.is_over else "paused")
        if not turns.core.is_over:
            turns.dismiss()
            if self.scaler is not None:
                self.scaler.look_now()
        try:
            async with asyncio.timeout(LINGER_S):
                await self._blocks.deserted()
        except TimeoutError:
            log.info("%d workers have not left; not waiting for them", self._blocks.n_connections)
        if self.listeners:
            await asyncio.sleep(LAST_LOOK_S)
        if self.scaler is not None:
            await self._within(self.scaler.rested(), "scaling the pools to zero")

    async def _tick(self) -> None:
        """Measure how late the loop is, and look after what has no event of its own."""
        worst: list[float] = []
        was_over = False
        while True:
            due_s = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            worst = [*worst[-19:], time.monotonic() - due_s]
            self.loop_lag_s = max(worst)
            self._blocks.drop_silent()
            if self._certificate is not None:
                self._certificate.refresh()
            if self.turns is not None:
                if self.scaler is not None and self.turns.core.is_over != was_over:
                    was_over = not was_over
                    self.scaler.look_now()
                self.meter.take_durations(self.turns.observed.record.measures.durations)
                self._record_throughput(self.turns.observed.record.measures)
                self._note_quiet(self.turns.core.hold.left_s(time.monotonic()))
                self._log_notices(self.turns.core.notices.listed())

    def _log_notices(self, notices: list[Notice]) -> None:
        """Say in the log what is new of what a person should know."""
        for notice in notices:
            if notice not in self._noticed:
                log.warning("%s", notice.text)
        self._noticed = notices

    def _note_quiet(self, left_s: float) -> None:
        """Say in the log when the quiet time begins and when it is over."""
        if (left_s > 0) == self._quiet:
            return
        self._quiet = left_s > 0
        if self._quiet:
            log.warning(
                "Redis at %s may have forgotten leases: nothing is leased for %.0f s, until each worker has said what"
                " it holds or has stopped",
                self._store.place,
                left_s,
            )
        else:
            log.info("every lease of earlier schedulers is known or over: blocks are leased again")

    async def _report(self) -> None:
        """Write the status report into the log, every 10 s and when the run is over."""
        assert self.turns is not None
        while True:
            over = self.turns.run_stopped.is_set()
            try:
                async with asyncio.timeout(REPORT_S):
                    await (asyncio.sleep(REPORT_S) if over else self.turns.run_stopped.wait())
            except TimeoutError:
                pass
            if not over and (status := self.status()) is not None:
                log.info("%s", status_report(status))

    # --- shutdown ----------------------------------------------------------------------------------------------

    async def _shut_down(self) -> None:
        """Leave what others need behind and close; each step for itself, since Redis may be gone."""
        turns, self.turns = self.turns, None
        self._blocks.lead(None)
        await self._blocks.close()
        if self._cluster is not None:
            self._cluster.close()
        if self.historian is not None:
            await self._within(self.historian.keep(all_pages=True), "keeping the record of the last blocks")
        if turns is not None and self.settings.run_dir is not None:
            await self._within(self._leave_files(turns, self.settings.run_dir), "writing the run's last status")
        await self._within(self.leadership.resign(), "freeing the lock")
        if self._http is not None:
            self._http.stop()
            await self._within(self._http.close_all_connections(), "closing HTTP")
        await self._within(self._store.close(), "closing the connections to Redis")

    async def _within(self, step: Awaitable[Any], what: str) -> None:
        try:
            async with asyncio.timeout(CLOSING_S):
                await step
        except (TimeoutError, StoreError, OSError) as error:
            log.warning("%s failed (%s)", what, error or "no time left")

    async def _leave_files(self, turns: TurnLoop, folder: Path) -> None:
        """Write failures first: the status says that the run has ended."""
        try:
            failures = await self._failures(turns.core, None)
        finally:
            (folder / ADDRESS).unlink(missing_ok=True)
        write_json(folder / FAILURES, failures)
        status = turns.observed.status(time.monotonic())
        if not turns.core.has_stopped:
            status.state = RunPhase.STOPPED  # the file outlives us: "running" would be a lie as soon as it is read
        write_json(folder / STATUS, status)

    # --- what the servers ask ----------------------------------------------------------------------------------

    @property
    def pipeline(self) -> PipelineSpec:
        """The pipeline that runs."""
        return self.run_spec.pipeline

    @property
    def pools(self) -> tuple[str, ...]:
        """All pools of the pipeline."""
        return tuple(dict.fromkeys(task.pool for task in self.pipeline.tasks))

    @property
    def ready(self) -> bool:
        """Whether this scheduler does its part: it leads and Redis answers, or it stands by."""
        if not self.leadership.epoch:
            return bool(self.leadership.leader)
        return self.turns is not None and self.leadership.holds()

    @property
    def scale_actions(self) -> Counter[tuple[str, str]]:
        """How often the size of a pool was changed, by pool and direction, since this scheduler leads."""
        return self.scaler.actions if self.scaler is not None else Counter()

    @property
    def kubernetes_requests(self) -> Counter[tuple[str, str]]:
        """How often the Kubernetes API was asked, by verb and code."""
        return self._cluster.requests if self._cluster is not None else Counter()

    @property
    def n_connections(self) -> int:
        """How many peers are connected."""
        return self._blocks.n_connections

    @property
    def n_store_errors(self) -> int:
        """How often Redis did not do what was asked."""
        return self._store.errors_seen

    @property
    def voxels(self) -> dict[str, int]:
        """How many voxels done blocks wrote, by task, since this scheduler leads."""
        return self.turns.observed.record.measures.voxels if self.turns is not None else {}

    @property
    def outcomes(self) -> dict[tuple[str, Outcome], int]:
        """How many leases ended how, by task, since this scheduler leads."""
        return self.turns.observed.record.measures.by_outcome if self.turns is not None else {}

    def status(self) -> RunStatus | None:
        """Return the run, or None while this scheduler does not lead."""
        if self.turns is None:
            return None
        self.meter.take_durations(self.turns.observed.record.measures.durations)
        status = self.turns.observed.status(time.monotonic())
        if self.scaler is not None:
            status.pools = self.scaler.status()
        return status

    def throughput(self) -> Throughput:
        """Return how fast the run went since this scheduler leads."""
        if self.turns is not None:
            self._record_throughput(self.turns.observed.record.measures)
        return self._recorder.give()

    def _record_throughput(self, measures: Measures) -> None:
        finished = {task_id: measures.finished_blocks(task_id) for task_id in measures.ids}
        self._recorder.add(finished, measures.voxels, time.monotonic())

    async def leaders_page(self) -> str:
        """Return the address of the page of the scheduler that leads; "" while that is not known."""
        try:
            return await self._store.read_page()
        except StoreError:
            return ""

    def explain(self, task: str, block_id: int) -> Explanation:
        """Say why a block is in the state it is in. Only while this scheduler leads."""
        assert self.turns is not None
        return self.turns.observed.explain(task, block_id, time.monotonic())

    async def failures(self, task: str | None = None) -> list[FailureStatus]:
        """Return the failed attempts that are kept, of one task or of all."""
        return [] if self.turns is None else await self._failures(self.turns.core, task)

    async def failures_of(self, task: str, block_id: int) -> list[FailureStatus]:
        """Return the failed attempts of one block that are kept."""
        if self.turns is None:
            return []
        return failure_statuses(self.turns.core, await self._store.failures_of(task, block_id))

    async def _failures(self, core: Scheduler, task: str | None) -> list[FailureStatus]:
        notes = await self._store.failures()
        ours = [note for note in notes if task in (None, note.task)]
        return await asyncio.to_thread(failure_statuses, core, ours)  # there may be hundreds of thousands

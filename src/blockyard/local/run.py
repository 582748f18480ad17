"""A whole run on this machine, as processes: Redis, scheduler, and an agent with slots for each pool.

The folder of a run::

    run.json         what runs (RunSpec)              scheduler.json   where the scheduler listens, while it does
    redis/           the state, append-only           status.json      the last status, once the run has ended
    logs/            one file a process and slot      failures.json    failed blocks with their errors
    token            0600, new for each start         functions/       closures, pickled for the worker processes

Everything listens on loopback or on a unix socket, and everything is a `Child`: it ends with this process, however this
one ends. A scheduler, agent or Redis that dies is started again, so that a run goes on; how often is bounded.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from blockyard.arrays.declare import declared_arrays, make_declared
from blockyard.arrays.warn import warnings_before
from blockyard.client.control import Control
from blockyard.local.child import Child
from blockyard.local.departed import is_gone, speak_for
from blockyard.local.folder import RunFolder, claim_folder
from blockyard.local.preflight import FunctionCheck
from blockyard.local.redis import EmbeddedRedis, Fsync
from blockyard.local.result import RunResult
from blockyard.local.services import LOOPBACK, ONCE, Service, Services, environment_of_services
from blockyard.spec.errors import BlockyardError, ConnectError, SpecError, StoreError
from blockyard.spec.functions import PICKLE
from blockyard.spec.model import RunSpec
from blockyard.spec.validate import code_references
from blockyard.wire.api import RunStatus
from blockyard.wire.states import RunPhase

REDIS_RESTARTS = 5
DEPARTED_LOOKS = 60
"""How often to look for workers that are gone before their lease time has to do."""
STEADY_S = 60.0
"""A process that lived this long has its restarts counted anew."""
BAD_INPUT = 2
"""Exit status of a service that was given something it can't use; its last line of log says what."""
CANNOT_START = 3
"""Exit status of an agent whose slots, or whose user's own worker, can't be started; its last line of log says why."""
REACH_S = 15.0
"""After so long a person is told why an agent has not joined."""
AGAIN_S = 60.0
"""And again after so long."""
STALLED_EVERY_S = 0.5
"""How often to look, once an agent has given up, whether anything else can still run."""
DRAIN_S = 600.0
"""Most that running blocks get to finish after the first Ctrl-C; agents have a limit of their own (`drain_s`)."""
CLOSE_S = 15.0
"""Most that agents and their slots get to end when the run is over: user code may have something to close."""
ABORT_S = 3.0


@dataclass(slots=True)
class LocalRun:
    """A run on this machine: `with LocalRun(run, folder) as it: it.wait()`.

    Entering starts all processes, leaving ends them: at once after an error, after the blocks that are running when
    Ctrl-C was pressed (a second Ctrl-C ends them too). The state stays in `folder`, and a LocalRun of the same pipeline
    and folder goes on from there.
    """

    run: RunSpec
    folder: Path
    workers: int | None = None
    """Slots of each pool; None: what the tasks' `num_workers` ask for, else one for each processor."""
    fresh: bool = False
    accept_changes: bool = False
    keep_going: bool = False
    """Try all blocks of a task, also where its first attempts all failed alike."""
    module_path: Sequence[str] = ()
    work_dir: Path | None = None
    """Where blocks run, so that relative paths begin there; None: where this process does."""
    redis_url: str = ""
    """A running Redis to use instead of an embedded one."""
    fsync: Fsync = "always"
    keep_serving: bool = False
    """Start no agents, and keep the scheduler when the run has ended: to ask or steer a run that is over."""
    keep_result: bool = False
    """Leave the folder's files as they were: for who only looks."""
    command: str = ""
    """What a person types to go on with the run, and where (see `blockyard.cli.find`); kept in its folder."""
    hurried: bool = False
    """Set when a person asked twice to stop: then nothing is waited for."""
    say: Callable[[str], None] = field(default=lambda _: None)
    """Takes what a person should know: a process that was started again."""

    _files: RunFolder = field(init=False)
    _redis: EmbeddedRedis | None = field(default=None, init=False)
    _scheduler: Service | None = field(default=None, init=False)
    _agents: list[Service] = field(default_factory=list, init=False)
    _ended: queue.SimpleQueue[Child] = field(default_factory=queue.SimpleQueue, init=False)
    _port: int = field(default=0, init=False)
    """The block server's, from before it listens and over its restarts."""
    _port_holders: list[socket.socket] = field(default_factory=list, init=False)
    """Keep the ports of block server and HTTP, so that workers and an open page find a scheduler started again."""
    _http: tuple[str, int] | None = field(default=None, init=False)
    _refused: bool = field(default=False, init=False)
    _redis_restarts_left: int = field(default=REDIS_RESTARTS, init=False)
    _departed_due_s: float | None = field(default=None, init=False)
    """When to look for workers that are gone."""
    _departed_looks: int = field(default=0, init=False)
    _stalled_due_s: float | None = field(default=None, init=False)
    """When to look whether the run can go on without the agents that have given up."""

    def __post_init__(self) -> None:
        self._files = RunFolder(self.folder)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(drain=isinstance(error, KeyboardInterrupt) and not self.hurried)

    # --- what the owner calls ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything. Raises BlockyardError, and leaves nothing behind, where that can't be done."""
        try:
            self._start()
        except BaseException as error:
            self._refused = True
            self.stop()
            if isinstance(error, OSError):  # a disk that is full, most often
                raise StoreError(
                    f"the run cannot start in {self.folder}: {error.strerror or error} ({error.filename or 'a file'})"
                ) from error
            raise

    def wait(self, timeout_s: float | None = None) -> RunResult | None:
        """Look after the processes until the run has ended, or for `timeout_s`; give the result, or None before it.

        Raises BlockyardError where a process ends again and again.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            if (result := self._look_after(until)) is not None:
                return result
            if until is not None and time.monotonic() >= until:
                return None

    def stop(self, *, drain: bool = False) -> None:
        """End all processes; with `drain`, let blocks that are running finish. Harmless when called again."""
        try:
            self._stop_agents(drain=drain)
            if self._scheduler is not None and self._scheduler.child is not None:
                self._scheduler.child.stop(timeout_s=5.0)
        finally:  # a second Ctrl-C ends here, at once
            for service in [*self._agents, *([self._scheduler] if self._scheduler else [])]:
                if service.child is not None:
                    service.child.kill()
            self._files.close(put_back=self._refused or self.keep_result)
            if self._redis is not None:
                self._redis.stop()
            for holder in self._port_holders:
                holder.close()
            if self._refused:
                self._files.remove_if_made()

    @property
    def address(self) -> str:
        """HOST:PORT of the block server."""
        return f"{LOOPBACK}:{self._port}"

    @property
    def http_url(self) -> str:
        """Address of page, API and metrics; "" where the run was over before it served them."""
        return f"http://{self._http[0]}:{self._http[1]}" if self._http else ""

    @property
    def page_url(self) -> str:
        """Address of the page for a person: a browser keeps what stands behind '#' to itself, and the page takes it."""
        return f"{self.http_url}/#token={self._files.token}" if self._http else ""

    def status(self) -> RunStatus | None:
        """Ask how far the run is; None while the scheduler does not answer."""
        control = self.control()
        if control is None:
            return None
        try:
            return control.status()
        except ConnectError:
            return None

    def control(self) -> Control | None:
        """Return the control calls of the run; None where it was over before it served them."""
        return Control(self.http_url, self._files.token) if self.http_url else None

    # --- starting ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start all that can start side by side, since each takes a while to import what it needs."""
        _try_loopback()
        declared = None if self.keep_serving else declared_arrays(self.run, self.work_dir or Path.cwd())
        begun = (self.folder / "run.json").exists()
        if declared is not None:
            self.run = declared.run
            if begun and declared.new and not (self.fresh or self.accept_changes):
                raise SpecError(
                    f"run '{self.run.pipeline.name}' was begun, and the array '{declared.new[0].path}' that it writes"
                    " is gone with what finished blocks had written; put it back, or start over with --fresh"
                )
        claim_folder(self.folder)
        self._redis = EmbeddedRedis(self.folder / "redis", self.fsync, ended=self._ended.put)
        with self._checked_functions() as functions:
            if self.redis_url:
                self._redis.take_folder()
            else:
                self._redis.start()
            self._files.open(self.run, self.command)
            self._port, http_port = self._reserve_port(), self._reserve_port()
            services = Services(
                self.run, self.folder, self._port, http_port, self.workers, self.module_path, self.work_dir
            )
            self._scheduler = services.scheduler(self.redis_url or self._redis.url, *self._scheduler_flags())
            if not self.redis_url:
                self._redis.wait_ready()
            self._begin(self._scheduler)
            if functions is not None:
                for sentence in functions.finish(self.say):
                    self.say(f"warning: {sentence}")
        if declared is not None:
            make_declared(declared, self.say, again=begun and self.fresh)
        for warning in [] if self.keep_serving else warnings_before(self.run, self.work_dir or Path.cwd()):
            self.say(f"warning: {warning.text}")
        self._agents = [] if self.keep_serving else services.agents()
        for agent in self._agents:
            self._begin(agent)
        self._await_scheduler(self._scheduler)
        if not self.keep_result:
            self._files.begin()
        self._look_for_departed()

    def _reserve_port(self) -> int:
        """Return a free port that the scheduler can listen on, now and when it is started again.

        On Linux two sockets that both allow it may be bound to one port while only one listens, so ours keeps the port
        from everybody who asks for any; elsewhere it is closed again.
        """
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((LOOPBACK, 0))
        self._port_holders.append(holder)
        port: int = holder.getsockname()[1]
        if sys.platform != "linux":
            holder.close()
        return port

    def _scheduler_flags(self) -> list[str]:
        asked = {
            "--exit-when-done": not self.keep_serving,
            "--fresh": self.fresh,
            "--accept-changes": self.accept_changes,
            "--keep-going": self.keep_going,
        }
        return [flag for flag, wanted in asked.items() if wanted]

    def _checked_functions(self) -> AbstractContextManager[FunctionCheck | None]:
        """Check that workers can import the user's functions; nothing to check where all of them are pickled."""
        references = [reference for task in self.run.pipeline.tasks for _, reference in code_references(task)]
        if self.keep_serving or all(reference.startswith(PICKLE) for reference in references):
            return contextlib.nullcontext()
        return FunctionCheck(self.run.pipeline, list(self.module_path), environment_of_services(), self.work_dir)

    def _begin(self, service: Service) -> None:
        service.due_s = None
        service.started_s = time.monotonic()
        service.reach_due_s = service.started_s + REACH_S if service.tasks else None
        service.child = Child(
            service.name,
            service.argv,
            environment=service.environment,
            log=service.log,
            term_s=1.0,  # when we are gone there is nobody left to hand a block back to
            ended=self._ended.put,
        )

    def _await_scheduler(self, scheduler: Service) -> None:
        """Return when the scheduler has written where it listens."""
        assert scheduler.child is not None
        while not scheduler.child.wait(0.005):
            self._revive_redis()  # or the scheduler waits for it for ever
            with contextlib.suppress(OSError, msgspec.DecodeError, ValueError):
                address = msgspec.json.decode((self.folder / "scheduler.json").read_bytes())
                if address["pid"] == scheduler.child.pid:
                    self._http = address["http_host"], address["http_port"]
                    return
        if self._files.result() is not None:  # it was over already
            return
        if scheduler.child.status == BAD_INPUT:
            raise BlockyardError(scheduler.last_sentence)
        raise BlockyardError(
            f"the scheduler ended at once ({scheduler.ending}): {scheduler.last_sentence}; see {scheduler.log}"
        )

    # --- looking after -----------------------------------------------------------------------------------------

    def _look_after(self, until: float | None) -> RunResult | None:
        """Wait for one end of a process or one restart that is due."""
        dues = [*(agent.due_s for agent in self._agents), *(agent.reach_due_s for agent in self._agents)]
        dues += [self._departed_due_s, self._stalled_due_s, until]
        wake = min((due for due in dues if due is not None), default=None)
        child = None
        with contextlib.suppress(queue.Empty):
            child = self._ended.get(timeout=None if wake is None else max(wake - time.monotonic(), 0))
        if child is not None and (result := self._take_end(child)) is not None:
            return result
        for service in self._agents:
            if service.due_s is not None and time.monotonic() >= service.due_s:
                self._begin(service)
        if self._departed_due_s is not None and time.monotonic() >= self._departed_due_s:
            self._speak_for_departed()
        for agent in self._agents:
            if agent.reach_due_s is not None and time.monotonic() >= agent.reach_due_s:
                self._look_for(agent)
        if self._stalled_due_s is not None and time.monotonic() >= self._stalled_due_s:
            return self._stalled()
        return None

    def _look_for(self, agent: Service) -> None:
        """Say why an agent has not reached the scheduler in time; its name for it has its process id."""
        agent.reach_due_s = None
        status = self.status()
        child = agent.child
        if child is None or not child.alive or (status is not None and status.is_over):
            return
        if status is None:
            self.say(f"the scheduler of this run does not answer; the last of its log: {self._last_of_scheduler}")
        elif not any(f"-{child.pid}-" in worker.id for worker in status.workers):
            self.say(f"{agent.name} has not joined the run for {REACH_S:g} s: {agent.last_sentence} (see {agent.log})")
        else:
            return
        agent.reach_due_s = time.monotonic() + AGAIN_S

    @property
    def _last_of_scheduler(self) -> str:
        return self._scheduler.last_sentence if self._scheduler is not None else "nothing"

    def _stalled(self) -> RunResult | None:
        """Return how far the run is where nothing is left that an agent would run: others have given up."""
        self._stalled_due_s = time.monotonic() + STALLED_EVERY_S
        control = self.control()
        status = self.status()
        if control is None or status is None or status.is_over:
            return None
        lost = {task for agent in self._agents if agent.gave_up for task in agent.tasks}
        if any(task.leased or (task.ready and not task.stopped and task.id not in lost) for task in status.tasks):
            return None
        status.state = RunPhase.STOPPED
        return RunResult(RunPhase.STOPPED, status, tuple(control.failures().failures))

    def _speak_for_departed(self) -> None:
        """Hand back what workers hold that are gone: those of a run that was killed, and agents that were."""
        status = self.status()
        holders = [worker for worker in status.workers if worker.leases and not worker.connected] if status else []
        left = [
            worker
            for worker in holders
            if not (is_gone(worker.id) and speak_for(worker, self.address, self._files.token))
        ]
        self._departed_looks -= 1
        again = (left or status is None) and self._departed_looks > 0  # what an agent started ends a moment after it
        self._departed_due_s = time.monotonic() + 0.3 if again else None

    def _look_for_departed(self) -> None:
        self._departed_looks = DEPARTED_LOOKS
        self._departed_due_s = time.monotonic()

    def _take_end(self, child: Child) -> RunResult | None:
        if self._scheduler is not None and child is self._scheduler.child:
            return self._take_end_of_scheduler(self._scheduler, child)
        for agent in self._agents:
            if child is agent.child:
                self._plan_restart(agent, child)
        self._revive_redis()
        return None

    def _revive_redis(self) -> None:
        """Start Redis again where it has ended: same socket, same password, all that was committed."""
        if self._redis is None or self.redis_url or self._redis.alive():
            return
        if self._redis_restarts_left == 0:
            raise BlockyardError(
                f"the embedded Redis of this run ended {REDIS_RESTARTS + 1} times: {self._redis.last_words}; see"
                f" {self._redis.log}. Finished blocks are kept: run it again to go on"
            )
        self._redis_restarts_left -= 1
        self.say(f"Redis ended; starting it again from its file (see {self._redis.log})")
        self._redis.restart()

    def _take_end_of_scheduler(self, scheduler: Service, child: Child) -> RunResult | None:
        if (result := self._files.result()) is not None:
            return result
        if child.status == BAD_INPUT:
            raise BlockyardError(scheduler.last_sentence)
        self._spend_restart(scheduler)
        self._revive_redis()
        scheduler.argv = [flag for flag in scheduler.argv if flag not in ONCE]
        self._begin(scheduler)
        return None

    def _plan_restart(self, agent: Service, child: Child) -> None:
        """Start an agent again in a moment, unless the run is over by then (agents leave when it is)."""
        if child.status == BAD_INPUT:
            raise BlockyardError(agent.last_sentence)
        if child.status == CANNOT_START:
            agent.gave_up = True
            self.say(agent.last_sentence)
            self._stalled_due_s = time.monotonic()
            return
        if child.status != 0:
            self._spend_restart(agent)
        elif (status := self.status()) is not None and status.is_over:
            return
        self._look_for_departed()
        agent.due_s = time.monotonic() + 0.5 * 2 ** min(agent.restarts - agent.restarts_left, 4)

    def _spend_restart(self, service: Service) -> None:
        if time.monotonic() - service.started_s > STEADY_S:
            service.restarts_left = service.restarts
        if service.restarts_left == 0:
            raise BlockyardError(
                f"{service.name} of this run ended {service.restarts + 1} times, at last with {service.ending}:"
                f" {service.last_sentence}; see {service.log}. Finished blocks are kept: run it again to go on"
            )
        service.restarts_left -= 1
        self.say(f"{service.name} ended ({service.ending}); starting it again (see {service.log})")

    # --- ending ------------------------------------------------------------------------------------------------

    def _stop_agents(self, *, drain: bool) -> None:
        children = [agent.child for agent in self._agents if agent.child is not None]
        for child in children:  # where the run is over they are leaving, or never joined: then this is no harm
            child.terminate()
        patience_s = DRAIN_S if drain else CLOSE_S if self._files.token and self._files.result() else ABORT_S
        until = time.monotonic() + patience_s
        for child in children:
            if not child.wait(max(until - time.monotonic(), 0)):
                child.kill()


def _try_loopback() -> None:
    """Raise ConnectError where nobody on this machine could reach our processes: they would wait for ever."""
    try:
        with socket.create_server((LOOPBACK, 0)) as listener, socket.create_connection(listener.getsockname(), 5.0):
            pass
    except OSError as error:
        raise ConnectError(
            f"this machine does not reach itself at {LOOPBACK} ({error.strerror or error}), and the processes of a run"
            " speak over that; in a sandbox or a network namespace: ip link set lo up (or run with --serial)"
        ) from error

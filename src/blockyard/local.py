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
import os
import queue
import re
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from blockyard.child import Child
from blockyard.client.control import Control
from blockyard.core.status import RunStatus
from blockyard.departed import is_gone, speak_for
from blockyard.embedded import EmbeddedRedis, Fsync
from blockyard.plan.grid import Grid
from blockyard.plan.requests import run_boxes, volume
from blockyard.preflight import FunctionCheck
from blockyard.result import RunResult, read_result
from blockyard.spec.errors import BlockyardError, ConnectError
from blockyard.spec.functions import PICKLE
from blockyard.spec.model import RunSpec, TaskSpec
from blockyard.spec.settings import SETTINGS
from blockyard.spec.validate import code_references

LOOPBACK = "127.0.0.1"
RESULT_FILES = ("status.json", "failures.json")
ENDED = ("done", "failed", "cancelled")
SCHEDULER_RESTARTS = 5
REDIS_RESTARTS = 5
AGENT_RESTARTS = 10
DEPARTED_LOOKS = 60
"""How often to look for workers that are gone before their lease time has to do."""
STEADY_S = 60.0
"""A process that lived this long has its restarts counted anew."""
BAD_INPUT = 2
"""Exit status of a service that was given something it can't use; its last line of log says what."""
TUNABLE = {"lease_s", "grace_s", "heartbeat_s", "lock_s", "recycle_after", "drain_s", "log_format", "log_level"}
"""Settings whose variables (``BLOCKYARD_LEASE_S``) also reach the services of a local run; others are ours to give."""
DRAIN_S = 600.0
"""Most that running blocks get to finish after the first Ctrl-C; agents have a limit of their own (`drain_s`)."""
_PREFIX = re.compile(r"^([\d:,. -]+(DEBUG|INFO|WARNING|ERROR|CRITICAL)\s+|blockyard (worker|scheduler): )")
"""What stands before the message in a line of a service's log."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(slots=True)
class _Service:
    """One process of the run, and how to start it again."""

    name: str
    argv: list[str]
    environment: Mapping[str, str]
    log: Path
    restarts_left: int
    restarts: int
    child: Child | None = None
    started_s: float = 0.0
    due_s: float | None = None
    """When to start it again."""


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
    module_path: Sequence[str] = ()
    redis_url: str = ""
    """A running Redis to use instead of an embedded one."""
    fsync: Fsync = "always"
    keep_serving: bool = False
    """Start no agents, and keep the scheduler when the run has ended: to ask or steer a run that is over."""
    keep_result: bool = False
    """Leave status.json and failures.json as they were: for who only looks."""
    command: str = ""
    """What a person types to go on with the run; kept in its folder."""
    hurried: bool = False
    """Set when a person asked twice to stop: then nothing is waited for."""
    say: Callable[[str], None] = field(default=lambda _: None)
    """Takes what a person should know: a process that was started again."""

    _blocks: dict[str, int] = field(default_factory=dict, init=False)
    """Blocks of this run, by task."""
    _redis: EmbeddedRedis | None = field(default=None, init=False)
    _scheduler: _Service | None = field(default=None, init=False)
    _agents: list[_Service] = field(default_factory=list, init=False)
    _ended: queue.SimpleQueue[Child] = field(default_factory=queue.SimpleQueue, init=False)
    _port: int = field(default=0, init=False)
    """The block server's, from before it listens and over its restarts."""
    _port_holder: socket.socket | None = field(default=None, init=False)
    _http: tuple[str, int] | None = field(default=None, init=False)
    _refused: bool = field(default=False, init=False)
    _made_folder: Path | None = field(default=None, init=False)
    """The topmost folder that was made for this run."""
    _token: str = field(default="", init=False)
    _redis_restarts_left: int = field(default=REDIS_RESTARTS, init=False)
    _departed_due_s: float | None = field(default=None, init=False)
    """When to look for workers that are gone."""
    _departed_looks: int = field(default=0, init=False)

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
        except BaseException:
            self._refused = True
            self.stop()
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
            self._tidy_folder()
            if self._redis is not None:
                self._redis.stop()
            if self._port_holder is not None:
                self._port_holder.close()
            if self._refused and self._made_folder is not None:
                shutil.rmtree(self._made_folder, ignore_errors=True)

    def _tidy_folder(self) -> None:
        """Remove what is of use only while a run lives; after a start that was refused, put back what was there."""
        if not self._token:  # the folder was never ours
            return
        for name in ("token", "scheduler.json"):
            with contextlib.suppress(OSError):
                (self.folder / name).unlink()
        if self._refused or self.keep_result:
            self._put_back()

    @property
    def address(self) -> str:
        """HOST:PORT of the block server."""
        return f"{LOOPBACK}:{self._port}"

    @property
    def http_url(self) -> str:
        """Address of page, API and metrics; "" where the run was over before it served them."""
        return f"http://{self._http[0]}:{self._http[1]}" if self._http else ""

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
        """Give the control calls of the run; None where it was over before it served them."""
        return Control(self.http_url, self._token) if self.http_url else None

    # --- starting ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start all that can start side by side, since each takes a while to import what it needs."""
        self._made_folder = _first_missing(self.folder)
        with self._checked_functions() as functions:
            self._redis = EmbeddedRedis(self.folder / "redis", self.fsync, ended=self._ended.put)
            if self.redis_url:
                self._redis.take_folder()
            else:
                self._redis.start()
            self._write_files()
            self._port_holder, self._port = _reserve_port()
            self._blocks = _count_blocks(self.run)
            self._scheduler = self._scheduler_service()
            if not self.redis_url:
                self._redis.wait_ready()
            self._begin(self._scheduler)
            if functions is not None:
                functions.finish()
        if not self.keep_serving:
            self._agents = [*self._pool_agents(), *self._own_worker_agents()]
            for agent in self._agents:
                self._begin(agent)
        self._await_scheduler()
        if not self.keep_result:
            self._drop_set_aside()
        self._look_for_departed()

    def _checked_functions(self) -> AbstractContextManager[FunctionCheck | None]:
        """Check that workers can import the user's functions; nothing to check where all of them are pickled."""
        references = [reference for task in self.run.pipeline.tasks for _, reference in code_references(task)]
        if self.keep_serving or all(reference.startswith(PICKLE) for reference in references):
            return contextlib.nullcontext()
        return FunctionCheck(self.run.pipeline, list(self.module_path), self._environment())

    def _write_files(self) -> None:
        self._token = secrets.token_hex(24)
        (self.folder / "logs").mkdir(exist_ok=True)
        self._set_aside()
        with contextlib.suppress(FileNotFoundError):
            (self.folder / "scheduler.json").unlink()
        _write_private(self.folder / "token", self._token.encode())
        _write_private(self.folder / "run.json", msgspec.json.format(msgspec.json.encode(self.run)))
        if self.command:
            _write_private(self.folder / "command", self.command.encode())
        needed = {ref for task in self.run.pipeline.tasks for _, ref in code_references(task)}
        for path in (self.folder / "functions").glob("*.pkl"):
            if f"{PICKLE}{path}" not in needed:  # of an earlier call from a script that has changed
                path.unlink()

    def _set_aside(self) -> None:
        """Take the files of the run before out of the way; a start that is refused puts them back."""
        for name in RESULT_FILES:
            with contextlib.suppress(FileNotFoundError):
                (self.folder / name).replace(self.folder / f"{name}.before")

    def _put_back(self) -> None:
        for name in RESULT_FILES:
            with contextlib.suppress(FileNotFoundError):
                (self.folder / f"{name}.before").replace(self.folder / name)

    def _drop_set_aside(self) -> None:
        for name in RESULT_FILES:
            with contextlib.suppress(FileNotFoundError):
                (self.folder / f"{name}.before").unlink()

    def _scheduler_service(self) -> _Service:
        argv = [sys.executable, "-m", "blockyard_scheduler", "--run-spec", str(self.folder / "run.json")]
        argv += ["--host", LOOPBACK, "--port", str(self._port), "--http-port", "0", *self._common_flags()]
        if not self.keep_serving:
            argv += ["--exit-when-done"]
        if self.fresh:
            argv += ["--fresh"]
        if self.accept_changes:
            argv += ["--accept-changes"]
        url = self.redis_url or (self._redis.url if self._redis else "")
        environment = self._environment() | {"BLOCKYARD_REDIS_URL": url}  # not a flag: `ps` shows those to everybody
        return self._service("scheduler", argv, environment, SCHEDULER_RESTARTS)

    def _pool_agents(self) -> list[_Service]:
        """Give an agent for each pool that has blocks to run, with no more slots than those."""
        pools: dict[str, list[TaskSpec]] = {}
        for task in self.run.pipeline.tasks:
            if task.worker is None and self._blocks[task.id]:
                pools.setdefault(task.pool, []).append(task)
        return [
            self._agent(f"pool-{pool}", pool, min(self._slots(tasks), sum(self._blocks[task.id] for task in tasks)))
            for pool, tasks in pools.items()
        ]

    def _own_worker_agents(self) -> list[_Service]:
        """Give an agent for each task with a worker of the user's own."""
        own = [task for task in self.run.pipeline.tasks if task.worker is not None and self._blocks[task.id]]
        return [
            self._agent(f"task-{task.id}", task.pool, self.workers or task.num_workers or 1, task.id) for task in own
        ]

    def _agent(self, name: str, pool: str, slots: int, task: str = "") -> _Service:
        argv = [sys.executable, "-m", "blockyard_worker", "--scheduler", self.address, "--pool", pool]
        argv += ["--slots", str(slots), "--http-port", "-1", "--log-dir", str(self.folder / "logs")]
        argv += [*self._common_flags(), *(["--task", task] if task else [])]
        if self.module_path:
            argv += ["--module-path", os.pathsep.join(self.module_path)]
        threads = str(max(1, processors() // slots))  # libraries that start a thread per processor in every slot
        environment = dict.fromkeys(THREAD_VARIABLES, threads) | self._environment()
        return self._service(name, argv, environment, AGENT_RESTARTS)

    def _slots(self, tasks: Sequence[TaskSpec]) -> int:
        asked = [task.num_workers or processors() for task in tasks]
        if self.workers is not None:
            return self.workers
        return min(sum(asked), max(*asked, processors()))

    def _common_flags(self) -> list[str]:
        return ["--token-file", str(self.folder / "token"), "--run-dir", str(self.folder)]

    def _environment(self) -> dict[str, str]:
        ours = {setting.variable for setting in SETTINGS if setting.field not in TUNABLE}
        return {name: value for name, value in os.environ.items() if name not in ours} | {"PYTHONUNBUFFERED": "1"}

    def _service(self, name: str, argv: list[str], environment: Mapping[str, str], restarts: int) -> _Service:
        return _Service(name, argv, environment, self.folder / "logs" / f"{name}.log", restarts, restarts)

    def _begin(self, service: _Service) -> None:
        service.due_s = None
        service.started_s = time.monotonic()
        service.child = Child(
            service.name,
            service.argv,
            environment=service.environment,
            log=service.log,
            term_s=1.0,  # when we are gone there is nobody left to hand a block back to
            ended=self._ended.put,
        )

    def _await_scheduler(self) -> None:
        """Return when the scheduler has written where it listens."""
        scheduler = self._scheduler
        assert scheduler is not None
        assert scheduler.child is not None
        while True:
            if scheduler.child.wait(0.005):
                self._take_end_of_start(scheduler)
                return
            with contextlib.suppress(OSError, msgspec.DecodeError):
                address = msgspec.json.decode((self.folder / "scheduler.json").read_bytes())
                if address["pid"] == scheduler.child.pid:
                    self._http = address["http_host"], address["http_port"]
                    return

    def _take_end_of_start(self, scheduler: _Service) -> None:
        """The scheduler ended before it was seen to listen: the run is over already, or it can't be run."""
        assert scheduler.child is not None
        if self._read_result() is not None:
            return
        if scheduler.child.status == BAD_INPUT:
            raise BlockyardError(last_sentence(scheduler.log))
        raise BlockyardError(
            f"the scheduler ended at once ({_ending(scheduler.child)}): {last_sentence(scheduler.log)};"
            f" see {scheduler.log}"
        )

    # --- looking after -----------------------------------------------------------------------------------------

    def _look_after(self, until: float | None) -> RunResult | None:
        """Wait for one end of a process or one restart that is due."""
        dues = [*(agent.due_s for agent in self._agents), self._departed_due_s, until]
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
        return None

    def _speak_for_departed(self) -> None:
        """Hand back what workers hold that are gone: those of a run that was killed, and agents that were."""
        status = self.status()
        holders = [worker for worker in status.workers if worker.leases and not worker.connected] if status else []
        left = [
            worker for worker in holders if not (is_gone(worker.id) and speak_for(worker, self.address, self._token))
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
                f"the embedded Redis of this run ended {REDIS_RESTARTS + 1} times; see {self._redis.log}. Finished"
                " blocks are kept: run it again to go on"
            )
        self._redis_restarts_left -= 1
        self.say(f"Redis ended; starting it again from its file (see {self._redis.log})")
        self._redis.restart()

    def _take_end_of_scheduler(self, scheduler: _Service, child: Child) -> RunResult | None:
        if (result := self._read_result()) is not None:
            return result
        if child.status == BAD_INPUT:
            raise BlockyardError(last_sentence(scheduler.log))
        self._spend_restart(scheduler, child)
        self._revive_redis()
        scheduler.argv = [flag for flag in scheduler.argv if flag not in {"--fresh", "--accept-changes"}]
        self._begin(scheduler)
        return None

    def _plan_restart(self, agent: _Service, child: Child) -> None:
        """Start an agent again in a moment, unless the run is over by then (agents leave when it is)."""
        if child.status == BAD_INPUT:
            raise BlockyardError(last_sentence(agent.log))
        if child.status != 0:
            self._spend_restart(agent, child)
        self._look_for_departed()
        agent.due_s = time.monotonic() + 0.5 * 2 ** min(agent.restarts - agent.restarts_left, 5)

    def _spend_restart(self, service: _Service, child: Child) -> None:
        if time.monotonic() - service.started_s > STEADY_S:
            service.restarts_left = service.restarts
        if service.restarts_left == 0:
            raise BlockyardError(
                f"{service.name} of this run ended {service.restarts + 1} times, at last with {_ending(child)}:"
                f" {last_sentence(service.log)}; see {service.log}. Finished blocks are kept: run it again to go on"
            )
        service.restarts_left -= 1
        self.say(f"{service.name} ended ({_ending(child)}); starting it again (see {service.log})")

    # --- ending ------------------------------------------------------------------------------------------------

    def _stop_agents(self, *, drain: bool) -> None:
        children = [agent.child for agent in self._agents if agent.child is not None]
        for child in children:  # where the run is over they are leaving, or never joined: then this is no harm
            child.terminate()
        until = time.monotonic() + (DRAIN_S if drain else 3.0)
        for child in children:
            if not child.wait(max(until - time.monotonic(), 0)):
                child.kill()

    def _read_result(self) -> RunResult | None:
        """Give the result that this run's scheduler wrote, if the run has ended (a stopped one leaves a status too)."""
        result = read_result(self.folder)
        return result if result is not None and result.status.state in ENDED else None


def _count_blocks(run: RunSpec) -> dict[str, int]:
    """Give the number of blocks of each task that a run wants."""
    grids = {task.id: Grid.of(task) for task in run.pipeline.tasks}
    boxes = run_boxes(run, grids)
    return {task_id: sum(volume(box) for box in boxes.get(task_id, ())) for task_id in grids}


def _first_missing(folder: Path) -> Path | None:
    """Give the topmost of a folder and its parents that does not exist."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    return missing[-1] if missing else None


def _reserve_port() -> tuple[socket.socket, int]:
    """Give a socket bound to a free port, and the port, which the scheduler can listen on.

    On Linux two sockets that both allow it may be bound to one port while only one listens, so ours keeps the port from
    everybody who asks for any; elsewhere it is closed again.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind((LOOPBACK, 0))
    port: int = holder.getsockname()[1]
    if sys.platform != "linux":
        holder.close()
    return holder, port


def processors() -> int:
    """Give the number of processors this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def last_sentence(log: Path) -> str:
    """Give the last line of a log, without what stands before its message."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return "no log"
    return _PREFIX.sub("", lines[-1].strip()) if lines else "nothing in its log"


def _write_private(path: Path, data: bytes) -> None:
    """Write a file of mode 0600 in one step."""
    part = path.with_name(path.name + ".part")
    with contextlib.suppress(FileNotFoundError):
        part.unlink()
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    part.replace(path)


def _ending(child: Child) -> str:
    """Say how a process ended."""
    status = child.status
    if status is not None and status < 0:
        return f"signal {-status}"
    return f"exit status {status}"

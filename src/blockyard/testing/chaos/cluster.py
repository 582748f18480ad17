"""Redis, schedulers and agents as processes of this machine; each that dies is started again, as a cluster would."""

from __future__ import annotations

import contextlib
import os
import queue
import random
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from blockyard.local.child import Child
from blockyard.local.redis import EmbeddedRedis
from blockyard.local.services import LOOPBACK, environment_of_services
from blockyard.spec.model import RunSpec
from blockyard.spec.module_path import python_of
from blockyard.testing.chaos.plan import Fault

SLOTS = 2
TOKEN = secrets.token_hex(24)
PROCESSES = Path("/proc")


@dataclass(frozen=True, slots=True)
class Times:
    """Settings of scheduler and workers, in seconds: short, so that hundreds of faults fit into minutes."""

    lease_s: float = 3.0
    grace_s: float = 0.5
    heartbeat_s: float = 0.3
    lock_s: float = 1.0


@dataclass(slots=True)
class _Member:
    """One process, and how to start it again."""

    name: str
    argv: list[str]
    child: Child | None = None


@dataclass(slots=True)
class Cluster:
    """`with Cluster(...) as cluster: cluster.strike(fault)`; leaving ends every process."""

    run: RunSpec
    folder: Path
    n_schedulers: int
    n_agents: int
    times: Times = field(default_factory=Times)
    happened: Callable[[str, float], None] = field(default=lambda _what, _at: None)
    """Takes each fault when it is done, with the monotonic time."""

    redis: EmbeddedRedis = field(init=False)
    _schedulers: list[_Member] = field(default_factory=list, init=False)
    _agents: list[_Member] = field(default_factory=list, init=False)
    _frozen: dict[int, float] = field(default_factory=dict, init=False)
    """When to let a process go on, by its id."""
    _due: list[tuple[float, _Member]] = field(default_factory=list, init=False)
    """When to start a process again."""
    _redis_due_s: float | None = field(default=None, init=False)
    _ended: queue.SimpleQueue[Child] = field(default_factory=queue.SimpleQueue, init=False)
    _restarting: threading.Thread | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "run.json").write_bytes(msgspec.json.encode(self.run))
        # Every record of the run stays in its file, to be counted in the end, however long the run is.
        self.redis = EmbeddedRedis(self.folder / "redis", more={"auto-aof-rewrite-percentage": "0"})
        self.redis.start()
        self.redis.wait_ready()
        ports = [free_port() for _ in range(self.n_schedulers)]
        self._schedulers = [_Member(f"scheduler-{n}", self._scheduler(port)) for n, port in enumerate(ports)]
        # A worker knows one scheduler by address; the others it learns from those that wait.
        self._agents = [_Member(f"agent-{n}", self._agent(ports[n % len(ports)])) for n in range(self.n_agents)]
        for member in [*self._schedulers, *self._agents]:
            self._begin(member)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pid in list(self._frozen):
            _signal(pid, signal.SIGCONT)
        if self._restarting is not None:
            self._restarting.join()
        for member in [*self._agents, *self._schedulers]:
            if member.child is not None:
                member.child.terminate()
        for member in [*self._agents, *self._schedulers]:
            if member.child is not None:
                member.child.stop(timeout_s=5.0)
        self.redis.stop()

    # --- faults ------------------------------------------------------------------------------------------------

    def strike(self, fault: Fault) -> None:
        """Do one fault to one of those that are there; where there is none, nothing."""
        what, whom = fault.kind.split(" ")
        victims = sorted(self._pids(whom))
        if not victims:
            return
        pid = victims[fault.victim % len(victims)]
        if what == "kill":
            _signal(pid, signal.SIGKILL)
            self._frozen.pop(pid, None)
        else:
            _signal(pid, signal.SIGSTOP)
            self._frozen[pid] = max(self._frozen.get(pid, 0.0), time.monotonic() + fault.frozen_s)
        self.happened(fault.kind, time.monotonic())

    def look_after(self, until: float) -> None:
        """Until then, let go on what was frozen long enough and start again what has died."""
        while True:
            now = time.monotonic()
            for pid in [pid for pid, due in self._frozen.items() if due <= now]:
                del self._frozen[pid]
                _signal(pid, signal.SIGCONT)
            for row in [row for row in self._due if row[0] <= now]:
                self._due.remove(row)
                self._begin(row[1])
            self._look_after_redis(now)
            if now >= until:
                return
            with contextlib.suppress(queue.Empty):
                self._note_end(self._ended.get(timeout=min(0.02, until - now)))

    def settle(self) -> None:
        """Let everything go on that was frozen: there are no more faults."""
        for pid in self._frozen:
            self._frozen[pid] = 0.0

    def _note_end(self, child: Child) -> None:
        for member in [*self._schedulers, *self._agents]:
            if member.child is child:
                self._due.append((time.monotonic() + _away_s(), member))

    @property
    def _redis_restarts(self) -> bool:
        return self._restarting is not None and self._restarting.is_alive()

    def _look_after_redis(self, now: float) -> None:
        """Start it again from its file, beside everything else: reading the file takes a moment."""
        if self._redis_restarts:
            return
        if self._redis_due_s is None and not self.redis.alive():
            self._redis_due_s = now + _away_s()
        if self._redis_due_s is not None and now >= self._redis_due_s:
            self._redis_due_s = None
            self._restarting = threading.Thread(target=self.redis.restart, name="Redis")
            self._restarting.start()

    # --- processes ---------------------------------------------------------------------------------------------

    def _pids(self, whom: str) -> Iterator[int]:
        if whom == "Redis":
            if self.redis.alive() and not self._redis_restarts and self.redis.pid is not None:
                yield self.redis.pid
            return
        for member in self._schedulers if whom == "scheduler" else self._agents:
            if member.child is not None and member.child.alive:
                yield from _slots_of(member.child.pid) if whom == "slot" else [member.child.pid]

    def _begin(self, member: _Member) -> None:
        member.child = Child(
            member.name,
            member.argv,
            environment=environment_of_services() | {"BLOCKYARD_REDIS_URL": self.redis.url, "BLOCKYARD_TOKEN": TOKEN},
            log=self.folder / f"{member.name}.log",
            term_s=1.0,
            ended=self._ended.put,
        )

    def _scheduler(self, port: int) -> list[str]:
        times = self.times
        argv = python_of("blockyard_scheduler", "--run-spec", str(self.folder / "run.json"))
        argv += ["--host", LOOPBACK, "--port", str(port), "--http-port", "-1"]
        argv += ["--lease-s", str(times.lease_s), "--grace-s", str(times.grace_s)]
        return [*argv, "--heartbeat-s", str(times.heartbeat_s), "--lock-s", str(times.lock_s)]

    def _agent(self, port: int) -> list[str]:
        argv = python_of("blockyard_worker", "--scheduler", f"{LOOPBACK}:{port}", "--http-port", "-1")
        return [*argv, "--slots", str(SLOTS), "--drain-s", "1"]


def _away_s() -> float:
    """Draw how long what has died stays away."""
    return random.uniform(0.1, 1.0)  # noqa: S311 - nobody is to be kept from guessing it


def _slots_of(agent: int) -> list[int]:
    """Return the slots of an agent: its descendants that run user code."""
    found, waiting = [], [agent]
    while waiting:
        pid = waiting.pop()
        try:
            children = [
                int(child)
                for task in (PROCESSES / str(pid) / "task").iterdir()
                for child in (task / "children").read_text().split()
            ]
        except OSError:  # it has just ended
            continue
        waiting += children
        found += [child for child in children if b"blockyard_worker.slot" in _command_line(child)]
    return found


def _command_line(pid: int) -> bytes:
    try:
        return (PROCESSES / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
        os.kill(pid, number)


def free_port() -> int:
    """Return a port of loopback that nobody has just now."""
    with socket.socket() as holder:
        holder.bind((LOOPBACK, 0))
        port: int = holder.getsockname()[1]
        return port

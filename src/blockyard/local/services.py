"""Which processes a local run starts, and with what: command lines, environments, numbers of slots."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from blockyard.local.child import Child
from blockyard.plan.grid import Grid
from blockyard.plan.requests import run_boxes, volume
from blockyard.spec.model import RunSpec, TaskSpec
from blockyard.spec.module_path import absolute_python_path, join_folders, python_of
from blockyard.spec.settings import SETTINGS

LOOPBACK = "127.0.0.1"
SCHEDULER_RESTARTS = 5
AGENT_RESTARTS = 6
TUNABLE = {"lease_s", "grace_s", "retry_backoff_s", "heartbeat_s", "lock_s", "recycle_after", "drain_s"}
TUNABLE |= {"log_format", "log_level", "metrics_token"}
"""Settings whose variables (``BLOCKYARD_LEASE_S``) also reach the services of a local run; others are ours to give."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
ONCE = ("--fresh", "--accept-changes")
"""Flags that are meant for the first start of a scheduler only."""
_PREFIX = re.compile(r"^(\| |[\d:,. -]+(DEBUG|INFO|WARNING|ERROR|CRITICAL)\s+|blockyard (worker|scheduler): )")
"""What stands before the message in a line of a service's log."""


@dataclass(slots=True)
class Service:
    """One process of a run, how to start it again, and how often that may still be done."""

    name: str
    argv: list[str]
    environment: Mapping[str, str]
    log: Path
    restarts: int
    restarts_left: int
    child: Child | None = None
    started_s: float = 0.0
    due_s: float | None = None
    """When to start it again."""
    reach_due_s: float | None = None
    """Of an agent: when to look whether it has joined."""
    tasks: tuple[str, ...] = ()
    """Of an agent: whose blocks it runs."""
    gave_up: bool = False
    """Whether it can't start what should run them."""

    @property
    def ending(self) -> str:
        """How its process ended."""
        status = self.child.status if self.child else None
        return f"signal {-status}" if status is not None and status < 0 else f"exit status {status}"

    @property
    def last_sentence(self) -> str:
        """The last line of its log, without what stands before the message."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            return "no log"
        return _PREFIX.sub("", lines[-1].strip()) if lines else "nothing in its log"


@dataclass(frozen=True, slots=True)
class Services:
    """Makes the services of a run; `folder` is the run's, `port` that of the block server."""

    run: RunSpec
    folder: Path
    port: int
    http_port: int
    workers: int | None = None
    module_path: Sequence[str] = ()
    work_dir: Path | None = None

    def scheduler(self, redis_url: str, *flags: str) -> Service:
        """Return the scheduler, with more flags than the usual ones."""
        argv = python_of("blockyard_scheduler", "--run-spec", str(self.folder / "run.json"))
        argv += ["--host", LOOPBACK, "--port", str(self.port), "--http-port", str(self.http_port)]
        argv += [*self._common_flags(), *self._work_dir_flags(), *flags]
        # On a machine with other users they all reach loopback. `ps` shows flags to everybody, so Redis' is a variable.
        environment = {"BLOCKYARD_METRICS_TOKEN": "1"} | environment_of_services() | {"BLOCKYARD_REDIS_URL": redis_url}
        return self._service("scheduler", argv, environment, SCHEDULER_RESTARTS)

    def _work_dir_flags(self) -> list[str]:
        return [] if self.work_dir is None else ["--work-dir", str(self.work_dir)]

    def agents(self) -> list[Service]:
        """Return an agent for each pool that has blocks to run, and for each task with a worker of the user's own."""
        blocks = count_blocks(self.run)
        busy = [task for task in self.run.pipeline.tasks if blocks[task.id]]
        pools: dict[str, list[TaskSpec]] = {}
        for task in busy:
            if task.worker is None:
                pools.setdefault(task.pool, []).append(task)
        agents = [
            self._agent(f"pool-{pool}", pool, slots_of(tasks, blocks, self.workers), tasks)
            for pool, tasks in pools.items()
        ]
        own = [task for task in busy if task.worker is not None]
        return agents + [
            self._agent(f"task-{task.id}", task.pool, self.workers or task.num_workers or 1, [task]) for task in own
        ]

    def _agent(self, name: str, pool: str, slots: int, tasks: Sequence[TaskSpec]) -> Service:
        argv = python_of("blockyard_worker", "--scheduler", f"{LOOPBACK}:{self.port}", "--pool", pool)
        argv += ["--slots", str(slots), "--http-port", "-1", "--log-dir", str(self.folder / "logs")]
        own = [task.id for task in tasks if task.worker is not None]
        argv += [*self._common_flags(), *(["--task", own[0]] if own else [])]
        if self.module_path:
            argv += ["--module-path", join_folders(self.module_path)]
        argv += self._work_dir_flags()
        threads = str(max(1, processors() // slots))  # for libraries that start a thread per processor in every slot
        environment = dict.fromkeys(THREAD_VARIABLES, threads) | environment_of_services()
        agent = self._service(name, argv, environment, AGENT_RESTARTS)
        agent.tasks = tuple(task.id for task in tasks)
        return agent

    def _common_flags(self) -> list[str]:
        return ["--token-file", str(self.folder / "token"), "--run-dir", str(self.folder)]

    def _service(self, name: str, argv: list[str], environment: Mapping[str, str], restarts: int) -> Service:
        return Service(name, argv, environment, self.folder / "logs" / f"{name}.log", restarts, restarts)


def environment_of_services() -> dict[str, str]:
    """Return the environment of this process without the settings that a local run gives itself."""
    ours = {setting.variable for setting in SETTINGS if setting.field not in TUNABLE}
    environment = {name: value for name, value in os.environ.items() if name not in ours} | {"PYTHONUNBUFFERED": "1"}
    absolute_python_path(environment)
    return environment


def count_blocks(run: RunSpec) -> dict[str, int]:
    """Return the number of blocks of each task that a run wants."""
    grids = {task.id: Grid.of(task) for task in run.pipeline.tasks}
    boxes = run_boxes(run, grids)
    return {task_id: sum(volume(box) for box in boxes.get(task_id, ())) for task_id in grids}


def slots_of(tasks: Sequence[TaskSpec], blocks: Mapping[str, int], workers: int | None = None) -> int:
    """Return the slots of a pool: `workers`, else what each of its tasks asks for, since all may run at once.

    Tasks that ask for nothing share the processors of the machine. None has more than it has blocks.
    """
    if workers is not None:
        return min(workers, sum(blocks[task.id] for task in tasks))
    asked = sum(min(task.num_workers, blocks[task.id]) for task in tasks if task.num_workers is not None)
    shared = sum(blocks[task.id] for task in tasks if task.num_workers is None)
    return asked + min(processors(), shared)


def processors() -> int:
    """Return the number of processors this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

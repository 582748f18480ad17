"""A run in this process, block by block, for debugging: the real core and nothing else.

No Redis, no scheduler process, no workers: an exception of a block function arrives where the run was started, with
its traceback, and a breakpoint stops it. The order of blocks is that of a run with one worker.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from blockyard.arrays.declare import declared_arrays, make_declared
from blockyard.arrays.warn import warnings_before
from blockyard.client import interrupts
from blockyard.client.calls import SKIPPED, BlockFailedError, Call, block_call, describe_exception, failure_of
from blockyard.client.context import name_task, serial_context
from blockyard.client.forked import OneProcess
from blockyard.core import events as ev
from blockyard.core.scheduler import CoreSettings, Scheduler
from blockyard.local.result import RunResult
from blockyard.plan.grid import Grid
from blockyard.spec.block import Block, GridOfRun
from blockyard.spec.errors import SpecError
from blockyard.spec.model import RunSpec, TaskSpec
from blockyard.spec.user_code import check_functions
from blockyard.spec.validate import validate_run
from blockyard.views.observed import ObservedRun
from blockyard.wire.api import FailureStatus, RunStatus
from blockyard.wire.messages import BlockError, Outcome

log = logging.getLogger("blockyard")

REPORT_EVERY_S = 10.0
NEVER_S = 1e9
"""A debugger may stop a block for a night; its lease must not run out."""


def run_serially(
    run: RunSpec,
    *,
    calls: Mapping[str, Callable[[TaskSpec], Call]] | None = None,
    report: Callable[[RunStatus], None] | None = None,
    say: Callable[[str], None] = log.warning,
) -> RunResult:
    """Run every block here, one after another; give how it ended.

    What a block function raises is raised here and ends the run; a block that failed in another way (its function
    returned 1, or a coroutine) is tried again as often as its task says. `calls` has what makes the call of a block
    of a task, where that is not what its specification says. `say` takes the warnings of the plan,
    and `report` the status every 10 s, between blocks. Raises SpecError for a task with a worker of its own, which
    needs a scheduler to connect to, and for functions that cannot be imported, or not be called as they will be.
    """
    validate_run(run)
    for task in run.pipeline.tasks:
        if task.worker is not None:
            raise SpecError(
                f"task '{task.id}' has a worker of its own, '{task.worker}', which connects to a scheduler; a serial"
                " run has none. Run it without serial, or give the task a function of a block"
            )
    declared = declared_arrays(run, Path.cwd())
    run = declared.run
    named = tuple(task for task in run.pipeline.tasks if task.id not in (calls or {}))
    check_functions(msgspec.structs.replace(run.pipeline, tasks=named), ())
    make_declared(declared, say)
    for warning in warnings_before(run, Path.cwd()):
        say(f"warning: {warning.text}")
    with serial_context():
        return _SerialRun(run, calls or {}, report).run_all()


def _as_failure(error: BaseException) -> BaseException:
    """Return what ends a run for `error`: a block's sys.exit() or KeyboardInterrupt is no end of the program."""
    by_code = isinstance(error, SystemExit | KeyboardInterrupt) and not interrupts.is_from_outside(error)
    return BlockFailedError(*describe_exception(error)) if by_code else error


class _SerialRun:
    """The loop around the core: one worker for each pool, which takes one block at a time."""

    def __init__(
        self, run: RunSpec, calls: Mapping[str, Callable[[TaskSpec], Call]], report: Callable[[RunStatus], None] | None
    ) -> None:
        self._tasks = {task.id: task for task in run.pipeline.tasks}
        self._grids = {task.id: GridOfRun(Grid.of(task), run.pipeline.name) for task in run.pipeline.tasks}
        self._report = report
        self._made = calls
        self._calls: dict[str, Call] = {}
        self._failures: list[FailureStatus] = []
        self._skipped_s = 0.0
        """Time that a run with workers would have waited (for a backoff) and this one has not."""
        self._next_report_s = time.monotonic() + REPORT_EVERY_S
        self._core = Scheduler(run, settings=CoreSettings(lease_s=NEVER_S), now=self._now())
        self._observed = ObservedRun(self._core)
        self._releases: dict[str, int] = {}

    def run_all(self) -> RunResult:
        for pool in dict.fromkeys(task.pool for task in self._tasks.values()):
            self._core.handle(ev.WorkerJoined(pool, pool=pool), self._now())
            self._core.handle(ev.BlocksWanted(pool, 1), self._now())
        while True:
            now = self._now()
            effects = self._core.handle(ev.TurnEnded(), now)
            self._observed.turned(now)
            self._note_failures(effects)
            for effect in effects:
                if isinstance(effect, ev.SendLeases):
                    self._run_leases(effect)
            if self._core.is_over:
                return self._result()
            if not any(isinstance(effect, ev.SendLeases | ev.ContinueTurn) for effect in effects):
                self._skip_wait(effects)

    def _run_leases(self, leases: ev.SendLeases) -> None:
        name_task(leases.task)
        for position, block_id in enumerate(leases.blocks.tolist()):
            number = leases.number + position
            block = Block(
                self._grids[leases.task], leases.task, block_id, leases.attempts.get(position, 1), lease=number
            )
            started_s = time.monotonic()
            outcome, failure = self._run_block(block)
            errors = () if failure is None else (BlockError(number, failure.kind, str(failure)),)
            self._release(leases.worker, number, outcome, time.monotonic() - started_s, errors)
        self._core.handle(ev.BlocksWanted(leases.worker, 1), self._now())
        if self._report is not None and time.monotonic() >= self._next_report_s:
            self._next_report_s = time.monotonic() + REPORT_EVERY_S
            self._report(self._observed.status(self._now()))

    def _run_block(self, block: Block) -> tuple[Outcome, BlockFailedError | None]:
        try:
            with OneProcess():
                result = self._call(self._tasks[block.task_id])(block)
        except BaseException as error:
            where = f"in block {list(block.index)} of task '{block.task_id}': {block!r}"
            raised = _as_failure(error)
            raised.add_note(where)
            if raised is error:
                raise
            raise raised from error
        if result is SKIPPED:
            return Outcome.SKIPPED, None
        failure = failure_of(result, block.status)
        return (Outcome.SUCCESS if failure is None else Outcome.FAILED), failure

    def _call(self, task: TaskSpec) -> Call:
        if (call := self._calls.get(task.id)) is None:
            make = self._made.get(task.id)
            self._calls[task.id] = call = block_call(task, pickle_dir=None) if make is None else make(task)
        return call

    def _release(
        self, worker: str, number: int, outcome: Outcome, seconds: float, errors: tuple[BlockError, ...]
    ) -> None:
        self._releases[worker] = seq = self._releases.get(worker, 0) + 1
        self._core.handle(
            ev.BlocksReleased(
                worker,
                seq,
                np.array([number], np.int64),
                np.array([outcome], np.uint8),
                np.array([seconds], np.float32),
                errors,
            ),
            self._now(),
        )

    def _note_failures(self, effects: Iterable[ev.Effect]) -> None:
        for effect in effects:
            for note in effect.errors if isinstance(effect, ev.CommitRecord) else ():
                index = self._grids[note.task].index_of(note.block_id)
                self._failures.append(
                    FailureStatus(
                        task=note.task,
                        block_id=note.block_id,
                        index=index,
                        attempt=note.attempt,
                        final=note.final,
                        kind=note.error.kind,
                        message=note.error.message,
                    )
                )

    def _skip_wait(self, effects: Iterable[ev.Effect]) -> None:
        """Nothing can run now: go to the moment at which something can."""
        wake_s = min((effect.time_s for effect in effects if isinstance(effect, ev.WakeAt)), default=None)
        assert wake_s is not None, "no block can run, and no time will change that"
        self._skipped_s += max(wake_s - self._now(), 0.0)

    def _now(self) -> float:
        return time.monotonic() + self._skipped_s

    def _result(self) -> RunResult:
        status = self._observed.status(self._now())
        return RunResult(status.state, status, tuple(self._failures))

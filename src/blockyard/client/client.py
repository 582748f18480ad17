"""The Client: acquire and release blocks one by one, from a loop of the user's own.

    client = Client()
    while (block := client.acquire_block()) is not None:
        client.release_block(block, process(block))

    while True:
        with client.acquire_block() as block:      # an exception inside fails the block
            if block is None:
                break
            process(block)

Underneath, blocks are leased in batches where they are fast, so that a block costs no round trip, and a thread keeps
the leases alive while user code runs.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import platform
import random
import secrets
import sys
import time
import weakref
from collections import deque
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from blockyard.arrays.opened import TaskArrays
from blockyard.client import inhand, interrupts, output, remarks
from blockyard.client.acquired import AcquiredBlock, NoBlock, ProgramEndedError, ToldAgainError
from blockyard.client.calls import BlockFailedError, Checks, describe_exception, failure_of_status, load_checks
from blockyard.client.connection import SessionThread, software_version
from blockyard.client.context import Context
from blockyard.client.pace import Pace
from blockyard.client.statement import called_by_with
from blockyard.plan.grid import Grid
from blockyard.spec.block import Block, GridOfRun
from blockyard.spec.errors import BlockyardError, ConnectError, FatalBlockError, LeaseLostError, SpecError, nearest
from blockyard.spec.model import TaskSpec
from blockyard.spec.randomness import Source, seed_for
from blockyard.wire.happenings import (
    BlocksGranted,
    Happening,
    Joined,
    LeasesLost,
    LeasesRevoked,
    RefusedForGood,
    RunEnded,
    TaskEnded,
)
from blockyard.wire.messages import BlockError, Hello, Outcome
from blockyard.wire.session import SessionState, WorkerSession

BATCH_S = 0.2
LARGEST_BATCH = 4096
FLUSH_S = 0.05
"""How long a finished block may wait to be reported together with others."""
SLOW_S = 1.0
"""A block that runs longer gives those that wait behind it back."""
LEAVE_S = 5.0
EXIT_LEASE_LOST = 70

log = logging.getLogger("blockyard")

_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Client:
    """Blocks of one task for a loop of the user's own; safe to use from several threads."""

    def __init__(
        self,
        context: Context | None = None,
        *,
        on_lost_lease: Literal["exit", "raise"] = "exit",
        connect_s: float = 60.0,
    ) -> None:
        """Connect as `context` says, or the environment variable BLOCKYARD_CONTEXT.

        `on_lost_lease`: leases last only while a scheduler answers. When they run out another worker may begin the
        same blocks, so this process ends ("exit", status 70), or the next call raises LeaseLostError ("raise", for
        code that can be sure to write nothing then). Raises ConnectError where no scheduler takes us within
        `connect_s` seconds, and SpecError for a task that the run does not have.
        """
        self.context = Context.from_env() if context is None else context
        if self.context.get("slot"):
            raise ConnectError(
                f"Client() in task '{self.context.get('task_id')}', whose function is called with a block: the block is"
                " its own already. A function of no argument (worker: in a pipeline file) makes a Client and asks it"
                " for blocks"
            )
        self.task_id = str(_needed(self.context, "task_id"))
        self.address = f"{_needed(self.context, 'hostname')}:{_needed(self.context, 'port')}"
        self._on_lost_lease = on_lost_lease
        self._pid = os.getpid()
        if (in_hand := inhand.ours()) is not None:
            in_hand.open()
        self._in_hand = in_hand
        """Where our agent sees what we run; None without an agent."""
        self._waiting: deque[tuple[int, int, int]] = deque()
        """(lease, block id, attempt) of blocks that nobody has acquired yet."""
        self._active: dict[int, float] = {}
        """Lease to start time of the blocks that the user has."""
        self._done: list[tuple[int, int, float, BlockError | None]] = []
        self._done_since_s = 0.0
        self._pace = Pace()
        self._askers = 0
        """Threads that wait for a block."""
        self._over = self._closed = self._stopping = False
        self._error: BlockyardError | None = None
        self._task: TaskSpec | None = None
        self._grid: GridOfRun | None = None
        self._checks: Checks | None = None
        self._arrays: TaskArrays | None = None
        self.worker = self._new_id()
        hello = Hello(
            software=software_version(),
            token=self.context.token(),
            worker=self.worker,
            slots=1,
            task=self.task_id,
            own=True,
        )
        session = WorkerSession(hello, self.address, random.Random(), time.monotonic())  # noqa: S311 - jitter
        self._session = session
        self._thread = SessionThread(session, self._happened, self._running, self._turn, self.context.trust())
        self._changed = self._thread.changed
        self._thread.start()
        _clients.add(self)
        atexit.register(self._program_ends)
        try:
            self._join(connect_s)
        except BaseException:
            self.close()
            raise

    def _new_id(self) -> str:
        nonce = f"{os.getpid()}-{secrets.token_hex(4)}"
        prefix = self.context.get("worker")
        return f"{prefix}/{nonce}" if prefix else f"{platform.node() or 'host'}-{nonce}"

    def _join(self, connect_s: float) -> None:
        deadline_s = time.monotonic() + connect_s
        with self._changed:
            while self._task is None and self._error is None and not self._over:
                left = deadline_s - time.monotonic()
                if left <= 0:
                    reason = self._thread.complaint or f"no answer from {self.address}"
                    raise ConnectError(f"Client: {reason}, for {connect_s:g} s")
                self._changed.wait(left)
            if self._error is not None:
                raise self._error
        if self._task is not None:
            self._arrays = TaskArrays(self._task)
            self._checks = load_checks(self._task, self.context.get("pickle_dir"), self._arrays)

    def array(self, name: str) -> Any:
        """Return an array that the task declares in `reads` or `writes`, opened once.

        Raises SpecError where it declares none of that name, or it can't be opened.
        """
        if self._arrays is None:
            raise ConnectError("the task is over, so this client has no arrays")
        return self._arrays[name]

    # ----- acquire and release ----------------------------------------------------------------------------------

    def acquire_block(self) -> Any:
        """Return the next block, waiting until there is one; None when the task is over (or the worker is to stop).

        In a ``with`` statement the end gives `block` None too. Raises LeaseLostError after a lost lease (with
        ``on_lost_lease="raise"``) and ConnectError where the scheduler has refused us.
        """
        while True:
            lease = self._next()
            if lease is None:
                return NoBlock() if called_by_with(sys._getframe(1)) else None  # noqa: SLF001 - see statement.py
            number, block_id, attempt = lease
            assert self._grid is not None
            block = AcquiredBlock(self, self._grid, self.task_id, block_id, attempt, number)
            try:
                done = self._checks is not None and self._checks.is_done(block)
            except BlockFailedError as error:
                self._release(block, *self._failure(number, error))
                continue
            if not done:
                output.began(block)
                seed_for(block, _sources)
                return block
            self._release(block, Outcome.SKIPPED, None)

    def release_block(self, block: Block, status: Any = 0) -> None:
        """Say what became of a block: 0 or None success, any other number failure; an enum what its name says.

        A task's `after` check is run first where the block succeeded. Raises BlockyardError for a block that this
        client has not acquired, or has released already, and LeaseLostError after a lost lease.
        """
        if not self.holds(block):
            self._complain()
            raise BlockyardError(f"block {block!r} is not held by this client: it was released, or acquired elsewhere")
        block.status = status
        self.finish(block, None)

    def finish(self, block: Block, error: BaseException | None) -> None:
        """Release a block after an exception (None: as its `status` says); a with statement ends with this."""
        if error is None:
            error = failure_of_status(block.status) or self._check(block)
        if error is None:
            self._release(block, Outcome.SUCCESS, None)
        else:
            self._release(block, *self._failure(block.lease, error))

    def holds(self, block: Block) -> bool:
        """Tell whether this client has acquired `block` and not released it."""
        self._refuse_a_copy()
        with self._changed:
            return block.lease in self._active

    def _check(self, block: Block) -> Exception | None:
        if self._checks is not None:
            try:
                self._checks.confirm(block)
            except Exception as error:  # noqa: BLE001 - whatever a check raises, the attempt has failed
                return error
        return None

    def _failure(self, lease: int, error: BaseException) -> tuple[Outcome, BlockError | None]:
        """Return what `error` makes of a block."""
        if interrupts.is_from_outside(error):
            if self._stopping or not self.context.get("told"):
                return Outcome.RETURNED, None
            error = ToldAgainError()
        match error:
            case FatalBlockError():
                outcome = Outcome.FATAL
            case ProgramEndedError() | ToldAgainError():
                outcome = Outcome.KILLED
            case _:
                outcome = Outcome.FAILED
        kind, message, frames = describe_exception(error)
        return outcome, BlockError(lease, kind, message, frames, self.worker, self._log())

    def _log(self) -> str:
        return os.fsencode(str(self.context.get("log_file", ""))).decode(errors="replace")

    def _next(self) -> tuple[int, int, int] | None:
        """Wait for a lease. None: there will be no more."""
        self._complain()
        with self._changed:
            self._askers += 1
            try:
                while not self._waiting:
                    if self._over or self._closed or self._stopping:
                        return None
                    self._ask()
                    if self._done:  # a kick without a reason would wake us too, and so on: waiting must cost nothing
                        self._flush()
                        self._thread.kick()
                    self._changed.wait()
                    self._complain()
            finally:
                self._askers -= 1
            if self._stopping:
                return None
            number, block_id, attempt = self._waiting.popleft()
            self._active[number] = time.monotonic()
            if self._in_hand is not None:
                self._in_hand.take(number)
            self._ask()
            return number, block_id, attempt

    def _ask(self) -> None:
        """Want the next batch when half of one is left, so that a fast loop never waits; slow blocks one by one."""
        # A worker that crashed is started again as a careful one: block by block it is certain which one it was.
        enough = 1 if self.context.get("careful") else self._pace.blocks_in(BATCH_S, LARGEST_BATCH)
        if self._askers == 0 and (enough == 1 or len(self._waiting) > enough // 2):
            return
        missing = max(enough, self._askers) - len(self._waiting)
        if missing > self._session.wanted * 2 or (self._session.wanted == 0 and missing > 0):
            self._session.want(missing)
            self._thread.kick()

    def _release(self, block: Block, outcome: Outcome, error: BlockError | None) -> None:
        with self._changed:
            for text in remarks.take() if remarks.new else ():
                self._session.remark(self.task_id, "check_raises", text)
            now = time.monotonic()
            started = self._active.pop(block.lease, now)
            if self._in_hand is not None:
                self._in_hand.drop(block.lease)
            self._pace.saw(now - started, 1)
            output.ended(now - started)
            first = not self._done
            if first:
                self._done_since_s = now
            self._done.append((block.lease, int(outcome), now - started, error))
            if not self._waiting or now - self._done_since_s > FLUSH_S or len(self._done) >= LARGEST_BATCH:
                self._flush()
                self._thread.kick()
            elif first:
                self._thread.kick()  # so that it looks again in time

    def _flush(self) -> None:
        """Return the session what is done."""
        if not self._done:
            return
        done, self._done = self._done, []
        self._session.release(
            np.array([number for number, _, _, _ in done], np.int64),
            np.array([outcome for _, outcome, _, _ in done], np.uint8),
            np.array([seconds for _, _, seconds, _ in done], np.float32),
            [error for _, _, _, error in done if error is not None],
        )

    def _give_back(self) -> None:
        """Hand back what nobody has acquired."""
        now = time.monotonic()
        self._done_since_s = self._done_since_s if self._done else now
        self._done += [(number, int(Outcome.RETURNED), 0.0, None) for number, _, _ in self._waiting]
        self._waiting.clear()
        self._flush()

    # ----- the end ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Hand back what is not started, report the rest, say goodbye. Blocks never released count as lost."""
        self._close(None)

    def _close(self, error: BaseException | None) -> None:
        if self._closed or self.is_copy:
            return
        atexit.unregister(self._program_ends)
        with self._changed:
            self._closed = True
            self._give_back()
            self._abandon(error)
            self._flush()
            self._session.want(0)
            self._thread.kick()
            leave_by_s = time.monotonic() + LEAVE_S
            while self._session.state is SessionState.JOINED and self._session.unacked:
                if not self._changed.wait(max(leave_by_s - time.monotonic(), 0.0)):
                    break
            if self._session.state is not SessionState.OVER:
                self._session.leave("closed")
            self._changed.notify_all()
        self._thread.close()

    def _program_ends(self) -> None:
        """Close when the program ends: it is certain which blocks it had, so its end counts against them.

        They have failed with the exception that ended it, and are charged with an exit where it just ended: under an
        agent, which would have told us to stop. Elsewhere the exit may be the answer to an eviction, which costs no
        block anything. A program that is killed never comes here: its agent tells.
        """
        quit_early = ProgramEndedError() if self.context.get("worker") else None
        self._close(None if self._stopping else getattr(sys, "last_value", quit_early))

    def _abandon(self, error: BaseException | None) -> None:
        """Release what was acquired and never released, on account of `error`; None: as lost."""
        for lease, started in self._active.items():
            outcome, note = (Outcome.LOST, None) if error is None else self._failure(lease, error)
            self._done.append((lease, int(outcome), time.monotonic() - started, note))
        self._forget_active()

    def _forget_active(self) -> None:
        """What the user still has runs on no lease of ours."""
        if self._in_hand is not None:
            for lease in self._active:
                self._in_hand.drop(lease)
        self._active.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        self._close(error)

    def stop(self) -> None:
        """Have `acquire_block` give None from now on; safe in a signal handler."""
        self._stopping = True
        self._thread.kick()

    # ----- called by the threads, with the condition held -------------------------------------------------------

    def _running(self) -> list[tuple[int, float]]:
        now = time.monotonic()
        return [(number, now - started) for number, started in self._active.items()]

    def _turn(self, now: float) -> float:
        if self._stopping or any(now - started > SLOW_S for started in self._active.values()):
            self._give_back()
        if self._done and now - self._done_since_s > FLUSH_S:
            self._flush()
        return self._done_since_s + FLUSH_S + 0.001 if self._done else math.inf

    def _happened(self, happening: Happening) -> None:
        match happening:
            case Joined(welcome):
                self._learn({task.id: task for task in welcome.pipeline.tasks}, welcome.run)
            case BlocksGranted(batches):
                for batch in batches:
                    for number, block_id in zip(batch.numbers.tolist(), batch.blocks.tolist(), strict=True):
                        self._waiting.append((number, block_id, batch.attempts.get(number, 1)))
            case LeasesRevoked(numbers):
                gone = set(numbers.tolist())
                self._waiting = deque(lease for lease in self._waiting if lease[0] not in gone)
            case LeasesLost():
                self._lost()
            case RefusedForGood(reason, "distrust"):
                self._error = ConnectError(reason)
            case RefusedForGood(reason):
                self._error = ConnectError(f"the scheduler at {self.address} refused this worker: {reason}")
            case TaskEnded(task):
                self._over = self._over or task == self.task_id
            case RunEnded():
                self._over = True
            case _:
                pass

    def _learn(self, tasks: dict[str, TaskSpec], run: str) -> None:
        task = tasks.get(self.task_id)
        if task is None:
            self._error = SpecError(f"run '{run}' has no task '{self.task_id}'{nearest(self.task_id, tasks)}")
        elif task != self._task:
            self._task, self._grid = task, GridOfRun(Grid.of(task), run)
            if _code[0]:
                self._session.imported(self.task_id, _code[0])

    def _lost(self) -> None:
        """Nobody has answered for the lease time: what runs must end, what waits is forgotten."""
        had = bool(self._active)
        self._waiting.clear()
        self._forget_active()
        if not had:
            return
        sentence = f"no scheduler has answered {self.worker} for the lease time; its blocks may have been given away"
        if self._on_lost_lease == "exit":
            sys.stderr.write(f"blockyard: {sentence}, so this process ends\n")
            sys.stderr.flush()
            os._exit(EXIT_LEASE_LOST)
        self._error = LeaseLostError(sentence)

    @property
    def is_copy(self) -> bool:
        """Whether this is a forked process, which has neither the connection nor the blocks."""
        return self._pid != os.getpid()

    def _refuse_a_copy(self) -> None:
        if self.is_copy:  # before any lock: a thread that is not here may have held it
            raise BlockyardError("a Client cannot be used in a forked process; make a new Client() there")

    def _complain(self) -> None:
        self._refuse_a_copy()
        error = self._error
        if isinstance(error, LeaseLostError):
            self._error = None  # said once: the caller may go on with fresh leases
        if error is not None:
            raise error


def request_stop() -> None:
    """Have all clients of this process give None from now on; safe in a signal handler."""
    for client in list(_clients):
        client.stop()


_sources: list[Source] = []
_code = [""]


def prepare_clients(sources: list[Source], code: str) -> None:
    """Have the Clients of this process seed random generators for each block, and say which code they run."""
    _sources[:] = sources
    _code[:] = [code]


def _needed(context: Context, name: str) -> Any:
    value = context.get(name)
    if value in (None, ""):
        raise ConnectError(f"the context has no '{name}': {context!r}")
    return value

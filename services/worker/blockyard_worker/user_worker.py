"""The agent of a user's own worker: keeps processes running that lease blocks themselves.

The agent's session takes no blocks. It says how many processes it could start, and starts them when it hears that
blocks of the task are ready which no worker has taken: what a process reads in its set-up is there by then, and one
that has ended is not started again for nothing. It tells the scheduler when a process has ended (`Gone`): proof that
the leases which that process and its children took are free, and, where it ended badly, evidence against the blocks
that it had.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from blockyard.client import inhand
from blockyard.client.calls import signal_name
from blockyard.client.context import Context
from blockyard.client.inhand import InHand
from blockyard.client.output import note_last_end
from blockyard.logs import say_always
from blockyard.spec.errors import nearest
from blockyard.spec.model import TaskSpec
from blockyard.spec.module_path import python_of
from blockyard.wire.happenings import Happening, Joined, RefusedForGood, RunEnded, TaskEnded, TaskWaits
from blockyard.wire.messages import Gone, Hello, TaskBegan
from blockyard.wire.session import SessionState, WorkerSession, split_address
from blockyard_worker.agent import ACKS_S, EXIT_OK, EXIT_REFUSED, AgentSettings
from blockyard_worker.http import Facts
from blockyard_worker.link import Link
from blockyard_worker.process import ChildProcess, Exit, child_environment, output_variables
from blockyard_worker.slot_handle import SlotSettings
from blockyard_worker.slot_page import shared_fd
from blockyard_worker.starts import EXIT_CANNOT_START, FIRST_PAUSE_S, Starts, last_words, size_of
from blockyard_worker.told import Told, sent_by
from blockyard_worker.watchdog import MARK_VARIABLE
from blockyard_worker.watchdog_handle import WatchdogHandle

LAST_WORDS_S = 30.0
"""How long processes may take to end by themselves once their task is over."""
SUBMITTED = "submitted"
"""What the ids of submitted jobs begin with, in place of the agent's: it can't speak for them, nor can its end."""
NOT_A_USER_WORKER = -1
"""Exit status of `UserWorkerAgent.run` for a task without a worker of its own."""

log = logging.getLogger("blockyard.worker")


@dataclass(slots=True)
class Place:
    """One of the processes that the agent keeps running."""

    number: int
    process: ChildProcess | None = None
    prefix: str = ""
    """What the worker ids of the process begin with, without the slash."""
    log: Path | None = None
    log_from: int = 0
    """Size of the log when the process was started."""
    in_hand: InHand | None = None
    """The leases that the process runs."""
    starts: Starts = field(default_factory=Starts)
    due_s: float = 0.0
    """When a process may be started here, where none runs."""
    doomed: str = ""
    """Why we killed it: a sentence; empty where we did not."""
    told: bool = False
    """Whether the process before it was told to end in the middle of a block, while we were not."""
    careful: bool = False
    """Whether its Clients lease one block at a time, since a process before it ended badly of unknown blocks."""


class UserWorkerAgent:
    """Keeps `slots` processes of a task's own worker running until the task is over."""

    def __init__(self, hello: Hello, settings: AgentSettings, slot_settings: SlotSettings, token_file: str) -> None:
        """Begin; `hello` names the task. Must be called on a running loop; `run` does the rest.

        `token_file` is the absolute path of the token's file, which the processes read too; empty: they get the token
        in a variable of their environment.
        """
        assert hello.task is not None
        self.task_id = hello.task
        self.settings = settings
        self.token_file = token_file
        self.session = WorkerSession(
            msgspec.structs.replace(hello, slots=0),
            settings.scheduler,
            random.Random(),  # noqa: S311 - jitter
            time.monotonic(),
        )
        self.link = Link(self.session, self._happened, self.turn, settings.trust)
        self.watchdog = WatchdogHandle(hello.worker + "/")
        self.places = [Place(number) for number in range(hello.slots)]
        self.task: TaskSpec | None = None
        self.refusal = ""
        self.status = EXIT_OK
        self.ending = False
        """No process is started any more."""
        self.told = True
        """Whether the scheduler says when there is something to start a process for; older ones do not."""
        self.drained = False
        self._slot_settings = slot_settings
        self._hello = hello
        self._incarnations = 0
        self._leased = 0
        """Blocks that our processes, and programs that they started, were leased, as the scheduler said last."""
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._changed = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None

    async def run(self) -> int:
        """Work until the run is over or we are told to stop (0), or are refused for good (2)."""
        Told(self._signalled)
        linking = asyncio.create_task(self.link.run())
        try:
            self.turn()
            await self._over.wait()
            await self._end()
        finally:
            linking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await linking
            self.watchdog.close()
        if self.refusal:
            log.error("%s", self.refusal)
        return self.status

    @property
    def living(self) -> list[ChildProcess]:
        """The processes that run."""
        return [place.process for place in self.places if place.process is not None and place.process.alive]

    def facts(self) -> Facts:
        """Return what metrics and health tell of us."""
        return Facts(
            connected=self.session.state is SessionState.JOINED,
            ready=self.session.welcome is not None,
            connections=self.link.connections,
            leases=0,
            restarts=max(self._incarnations - len(self.places), 0),
            slots={"busy": len(self.living), "idle": len(self.places) - len(self.living)},
        )

    def turn(self) -> None:
        """Do all that is due now; harmless at any time."""
        now = time.monotonic()
        self.link.carry_out(self.session.tick(now))
        self._ask(now)
        self.watchdog.update(math.inf, [process.pid for process in self.living])
        self.link.flush()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        dues = [place.due_s for place in self.places if place.process is None and place.due_s > now]
        at = min([self.session.wake_at_s, *dues])
        if at < math.inf and not self._over.is_set():
            self._alarm = self._loop.call_later(max(at - now, 0.001), self.turn)

    # ----- what the scheduler says ------------------------------------------------------------------------------

    def _happened(self, happening: Happening) -> None:
        match happening:
            case Joined(welcome):
                tasks = {task.id: task for task in welcome.pipeline.tasks}
                say_always(run=welcome.run)
                self.told = TaskBegan.__struct_config__.tag in welcome.knows
                self._learn(tasks, welcome.run)
            case TaskWaits(task, leased) if task == self.task_id:
                self._begin(leased)
            case TaskEnded(task) if task == self.task_id:
                log.info("task '%s' is over", task)
                self.ending = not self.told  # else it may begin again: by a rerun, of which we would be told
            case RefusedForGood(reason):
                self._stop(EXIT_REFUSED, reason)
            case RunEnded(state):
                log.info("the run is over: %s", state)
                self._stop(EXIT_OK)
            case _:
                pass

    def _learn(self, tasks: dict[str, TaskSpec], run: str) -> None:
        task = tasks.get(self.task_id)
        if task is None:
            self._stop(EXIT_REFUSED, f"run '{run}' has no task '{self.task_id}'{nearest(self.task_id, tasks)}")
        elif task.worker is None:
            self._stop(NOT_A_USER_WORKER)
        else:
            self.task = task

    def _stop(self, status: int, refusal: str = "") -> None:
        self.ending = True
        self.status = status
        self.refusal = refusal
        self._over.set()

    # ----- processes --------------------------------------------------------------------------------------------

    def _ask(self, now: float) -> None:
        """Say how many processes could be started; start them at once where the scheduler would not answer that."""
        if self.told:
            self.session.want(0 if self.ending or self.task is None else len(self._vacant(now)))
        else:
            self._start_all(now)

    def _begin(self, leased: int) -> None:
        """There is something to do: start processes, or give up where they come to nothing each time."""
        if leased != self._leased:  # also by programs that a process started, of which we see nothing
            self._leased = leased
            for place in self.places:
                place.starts.worked()
            self._complain()
        if self.living or not all(place.starts.hopeless for place in self.places):
            self._start_all(time.monotonic())
            return
        starts = self._worst
        sentence = (
            f"{self.who} has ended {starts.failed} times in a row before its first block; the last time {starts.reason}"
        )
        self.session.cannot_start(sentence)
        self._stop(EXIT_CANNOT_START, sentence)

    @property
    def who(self) -> str:
        """What our processes are, in a sentence."""
        return f"the worker of task '{self.task_id}'"

    def _vacant(self, now: float) -> list[Place]:
        """Return the places where a process may be started."""
        return [place for place in self.places if place.process is None and place.due_s <= now]

    def _start_all(self, now: float) -> None:
        """Start a process wherever one may be started."""
        if not self.ending and self.task is not None:
            for place in self._vacant(now):
                try:
                    self._start(place)
                except OSError as error:  # no memory, no process, no file is left for another one
                    self._failed(place, f"it could not be started: {error}")

    def _start(self, place: Place) -> None:
        assert self.task is not None
        self._incarnations += 1
        place.doomed = ""
        settings = self._slot_settings
        place.prefix = mark = f"{settings.worker}/own-{place.number}.{self._incarnations}"
        log_file = None if settings.log_dir is None else settings.log_dir / f"{settings.worker}.own-{place.number}.log"
        place.log, place.log_from = log_file, size_of(log_file)
        if self.task.submits:
            place.prefix = f"{SUBMITTED}/{mark.replace('/', '-')}"
        environment = child_environment(mark, settings.module_path, settings.environ, **self._variables(place))
        if self.task.submits:
            del environment[MARK_VARIABLE]
        assert self.task.worker is not None
        page_fd = shared_fd("blockyard-in-hand", inhand.SIZE_BYTES)
        command = python_of("blockyard_worker.userloop", str(page_fd), self.task.worker)
        try:
            place.in_hand = InHand(page_fd)
            place.process = ChildProcess(
                command + ([settings.pickle_dir] if settings.pickle_dir else []),
                mark=mark,
                environment=environment,
                work_dir=settings.work_dir,
                fds=(page_fd,),
                log=log_file,
                ended=lambda exit_: self._ended(place, exit_),
            )
        finally:
            os.close(page_fd)

    def _variables(self, place: Place) -> dict[str, str]:
        """Return what a process, and the programs that it starts, are told in their environment."""
        host, port = split_address(self.session.address)
        context = Context(host, port, self.task_id, place.number, len(self.places), worker=place.prefix)
        for name, value in (
            ("token_file", self.token_file),
            ("pickle_dir", self._slot_settings.pickle_dir),
            ("log_file", place.log),
            ("careful", place.careful),
            ("told", place.told),
            *self._tls(),
        ):
            if value:
                context[name] = str(value)
        variables = context.variables() | output_variables(place.number, place.log)
        if self.session.welcome is not None:
            variables["BLOCKYARD_RUN"] = self.session.welcome.run
        if self._hello.token and not self.token_file:
            variables["BLOCKYARD_TOKEN"] = self._hello.token
        return variables

    def _tls(self) -> list[tuple[str, object]]:
        """Return what the Clients of the processes need to know of TLS."""
        trust = self.settings.trust
        return [] if trust is None else [("tls", True), ("tls_ca", trust.ca), ("tls_name", trust.name)]

    def _ended(self, place: Place, exit_: Exit) -> None:
        assert place.process is not None
        assert place.in_hand is not None
        reason = place.doomed or exit_.sentence(self.who)
        place.process = None
        self._changed.set()
        if self._has_submitted(place, exit_):
            # Its job runs under the name that this process had, so its end is proof of nothing.
            place.due_s = math.inf
            log.info("%s has submitted a job", self.who)
            self.turn()
            return
        self.session.gone(self._obituary(place, exit_, reason))
        if place.log is not None:
            note_last_end(place.log, reason)
        if not self.ending:
            log.log(logging.WARNING if exit_.bad else logging.INFO, "%s", reason)
            if place.in_hand.worked:
                place.starts.worked()
                self._complain()
            elif exit_.asked:
                place.due_s = time.monotonic() + FIRST_PAUSE_S
            else:
                self._failed(place, self._why(place, exit_))
        self.turn()

    def _has_submitted(self, place: Place, exit_: Exit) -> bool:
        """Whether a process ended well that has made no Client, of a task whose worker submits jobs."""
        assert self.task is not None
        assert place.in_hand is not None
        return self.task.submits and not exit_.bad and place.in_hand.numbers() is None

    def _why(self, place: Place, exit_: Exit) -> str:
        """Say how a process ended that had no block."""
        assert place.in_hand is not None
        how = exit_.sentence("it")
        words = place.in_hand.error or last_words(place.log, place.log_from)
        if not exit_.bad and place.in_hand.numbers() is None:
            how = "it returned without having made a Client (if it submits a job: submits: true)"
        return f"{how}{f' ({words})' if words else ''}{f'; its log: {place.log}' if place.log else ''}"

    def _failed(self, place: Place, reason: str) -> None:
        """A start came to nothing, as far as we know."""
        place.due_s = time.monotonic() + place.starts.fail(reason)
        self._complain()

    def _complain(self) -> None:
        """Tell the scheduler from the second time on: after the first it will tell us whether that was for nothing."""
        worst = self._worst
        again = worst.failed > 1
        self.session.cannot_start(f"{self.who} ends before its first block: {worst.reason}" if again else "")

    @property
    def _worst(self) -> Starts:
        return max((place.starts for place in self.places), key=lambda starts: starts.failed)

    def _obituary(self, place: Place, exit_: Exit, reason: str) -> Gone:
        """Say what the end of a process is evidence of: nothing where somebody had told it to stop."""
        assert place.in_hand is not None
        worker, ran = place.prefix + "/", place.in_hand.numbers()
        if self.drained:
            return Gone(worker, reason=reason, ran=b"")
        evidence = self._is_evidence(place, exit_, ran)
        if ran is not None:
            return Gone(worker, killed=evidence, reason=reason, ran=ran.astype("<i8").tobytes())
        # Other processes that it started leased the blocks, fast ones in batches: only of a careful one is it certain
        # which block it was.
        certain = place.careful
        place.careful = certain or evidence
        return Gone(worker, killed=evidence and certain, reason=reason)

    def _is_evidence(self, place: Place, exit_: Exit, ran: npt.NDArray[np.int64] | None) -> bool:
        """Whether an end speaks against the blocks that the process had.

        One that was told to end may be the first of all to hear of it; not so where it happens time after time.
        """
        assert place.in_hand is not None
        again, place.told = place.told, exit_.asked and (ran is None or place.in_hand.worked)
        if exit_.asked:
            return again
        return exit_.bad or bool(ran is not None and len(ran))

    # ----- leaving ----------------------------------------------------------------------------------------------

    def _signalled(self, number: int, sender: int) -> None:
        """A signal tells us to end; one that user code sent ends the process that sent it."""
        child = sent_by(self.living, sender)
        if child is None:
            self.drain()
            return
        for place in self.places:
            if place.process is child:
                place.doomed = f"user code sent {signal_name(number)} to its worker, which would have left"
                child.kill()

    def drain(self) -> None:
        """Let every process finish its block, for up to `drain_s`; a second time: kill them."""
        if self.drained:
            for process in self.living:
                process.kill()
            return
        log.info(
            "told to stop: %d processes, up to %g s to finish their blocks", len(self.living), self.settings.drain_s
        )
        self.drained = True
        for process in self.living:
            process.terminate()
        self._stop(EXIT_OK)

    async def _end(self) -> None:
        """Wait for the processes to end, kill them where that takes too long, and say goodbye."""
        patience_s = self.settings.drain_s if self.drained else LAST_WORDS_S
        if self.status != EXIT_OK:
            patience_s = 0.0
        for limit_s in (patience_s, ACKS_S):
            by_s = time.monotonic() + limit_s
            while self.living and (left := by_s - time.monotonic()) > 0:
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._changed.wait()
            for process in self.living:
                process.kill()
        if self.session.state is not SessionState.OVER:
            self.session.leave("told to stop")
        await self.link.close()

"""One slot process as its agent sees it: blocks go in over a channel, what came of them is read from its page."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from blockyard.client.context import Context
from blockyard.client.output import Section, note_end
from blockyard.spec.model import TaskSpec
from blockyard.spec.module_path import python_of
from blockyard.wire.frames import Decoder, encode
from blockyard.wire.happenings import LeaseBatch
from blockyard.wire.messages import BlockError, Outcome
from blockyard_worker.channel import (
    Failure,
    HandBack,
    HandedBack,
    Learn,
    Loaded,
    Ran,
    Ready,
    Remarked,
    Run,
    Stop,
    ToAgent,
)
from blockyard_worker.process import ChildProcess, Exit, child_environment, output_variables
from blockyard_worker.queue import Results
from blockyard_worker.slot_page import (
    MASK,
    PLACE,
    PLACES,
    SIZE_BYTES,
    STARTED,
    STATE,
    UNSET,
    WRITTEN,
    SlotPage,
    SlotState,
    shared_fd,
)
from blockyard_worker.starts import size_of

Ids: TypeAlias = npt.NDArray[np.int64]

STOP_S = 5.0
"""How long a slot may take to end when it is told to (user code may have things to close)."""

log = logging.getLogger("blockyard.worker")


@dataclass(frozen=True, slots=True)
class SlotSettings:
    """What all slots of an agent have in common."""

    worker: str
    """Worker id; marks all that the slots start."""
    module_path: Sequence[str] = ()
    work_dir: Path | None = None
    """Where user code runs; None: where the agent does."""
    pickle_dir: str | None = None
    log_dir: Path | None = None
    recycle_after: int = 0
    context: Context = field(default_factory=Context)
    """What functions of a block find, without `worker_id` and task."""
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


class SlotHandle:
    """One slot process as the agent sees it; `news` is called when its state may have changed."""

    def __init__(
        self, number: int, incarnation: int, settings: SlotSettings, news: Callable[[SlotHandle], None]
    ) -> None:
        self.number = number
        self.ready = False
        self.stopping = False
        self.exit: Exit | None = None
        self.doomed = ""
        """Why we killed it: a sentence; empty where we did not."""
        self.doomed_kind = ""
        self.handing_back = False
        self.returned: list[LeaseBatch] = []
        """Blocks that it has handed back; who takes them empties the list."""
        self.loaded: list[Loaded] = []
        """What it has imported since somebody took this."""
        self.remarks: list[Remarked] = []
        """What it has said of tasks since somebody took this."""
        self.finished = 0
        self.handed_out = 0
        self._news = news
        self._pieces: deque[tuple[int, LeaseBatch, float]] = deque()
        """(first place, blocks, when they were sent), not finished, in order of places."""
        self._end = 0
        self._failures: dict[int, Failure] = {}
        self._known: dict[str, TaskSpec] = {}
        self._loop = asyncio.get_running_loop()
        self._start(incarnation, settings)

    def _start(self, incarnation: int, settings: SlotSettings) -> None:
        mark = f"{settings.worker}/slot-{self.number}.{incarnation}"
        self.log = None if settings.log_dir is None else settings.log_dir / f"{settings.worker}.slot-{self.number}.log"
        self.log_from = size_of(self.log)
        page_fd = shared_fd("blockyard-slot-page", SIZE_BYTES)
        ours, theirs = socket.socketpair()
        try:
            self.page = SlotPage(page_fd)
            self._outcomes = np.asarray(self.page.outcomes)
            self._seconds = np.asarray(self.page.seconds)
            command = python_of("blockyard_worker.slot", str(theirs.fileno()), str(page_fd))
            self.process = ChildProcess(
                command + ([settings.pickle_dir] if settings.pickle_dir else []),
                mark=mark,
                environment=child_environment(
                    mark,
                    settings.module_path,
                    settings.environ,
                    **output_variables(self.number, self.log),
                    **_context(settings, self.number).variables(),
                ),
                work_dir=settings.work_dir,
                fds=(theirs.fileno(), page_fd),
                log=self.log,
                ended=self._ended,
            )
        finally:
            theirs.close()
            os.close(page_fd)
        ours.setblocking(False)
        self._channel = ours
        self._decoder = Decoder(ToAgent)
        self._out = bytearray()
        self._loop.add_reader(ours, self._readable)

    @property
    def how(self) -> str:
        """Say how it ended; only once it has."""
        assert self.exit is not None
        return self.doomed or self.exit.sentence("the process of the block")

    def note_end(self, batch: LeaseBatch) -> None:
        """Note beside its log that it ended while it ran the first block of `batch`."""
        if self.log is not None:
            attempt = batch.attempts.get(int(batch.numbers[0]), 1)
            begin = self.page.longs[WRITTEN]
            block = int(batch.blocks[0])
            note_end(self.log, Section(task=batch.task, block=block, attempt=attempt, begin=begin, how=self.how))

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.exit is None

    @property
    def outstanding(self) -> int:
        """Blocks it was sent and that nobody has collected."""
        return self._end - self._pieces[0][0] if self._pieces else 0

    @property
    def tasks(self) -> set[str]:
        """The tasks of the blocks it has."""
        return {batch.task for _, batch, _ in self._pieces}

    @property
    def takes_work(self) -> bool:
        """Whether it can be handed blocks."""
        return self.ready and self.alive and not (self.stopping or self.doomed or self.handing_back)

    # ----- work -------------------------------------------------------------------------------------------------

    def hand(self, task: TaskSpec, batch: LeaseBatch, run: str = "") -> None:
        """Send it blocks of one task, to run after those that it has."""
        if self._known.get(task.id) != task:
            self._known[task.id] = task
            self._send(Learn(task, run))
        place, n = self._end, len(batch)
        at, tail = place & MASK, min(n, PLACES - (place & MASK))
        self._outcomes[at : at + tail] = UNSET
        self._outcomes[: n - tail] = UNSET
        attempts = {}
        if batch.attempts:
            attempts = {j: batch.attempts[k] for j, k in enumerate(batch.numbers.tolist()) if k in batch.attempts}
        self._pieces.append((place, batch, time.monotonic()))
        self._end += n
        self.handed_out += n
        self._send(Run(batch.task, place, batch.blocks.tobytes(), attempts))

    def hand_back(self) -> None:
        """Ask for all that has not started; it comes back through `unstarted`."""
        if not self.handing_back and self.alive:
            self.handing_back = True
            self._send(HandBack())

    def collect(self, results: Results, worker: str) -> list[tuple[str, float, int]]:
        """Take what it has finished; give (task, seconds, blocks) for each piece of it."""
        paces = []
        while self._pieces:
            place, batch, sent_s = self._pieces[0]
            n = self._finished(place, len(batch))
            if n:
                places = np.arange(place, place + n) & MASK
                outcomes, seconds = self._outcomes[places], self._seconds[places]
                results.add(batch.numbers[:n], outcomes, seconds)
                for j in np.flatnonzero((outcomes == Outcome.FAILED) | (outcomes == Outcome.FATAL)).tolist():
                    results.errors.append(self._error(self._failures.pop(place + j), int(batch.numbers[j]), worker))
                paces.append((batch.task, float(seconds.sum()), n))
                self.finished += n
            self._pieces.popleft()
            if n < len(batch):
                self._pieces.appendleft((place + n, batch.part(n, len(batch)), sent_s))
                break
        return paces

    def _finished(self, place: int, n: int) -> int:
        """Return how many blocks from `place` on are finished, with their errors at hand."""
        places = np.arange(place, place + n) & MASK
        outcomes = self._outcomes[places]
        unset = outcomes == UNSET
        n = int(unset.argmax()) if unset.any() else n
        for j in np.flatnonzero((outcomes[:n] == Outcome.FAILED) | (outcomes[:n] == Outcome.FATAL)).tolist():
            if place + j not in self._failures:
                return j
        return n

    def _error(self, failure: Failure, number: int, worker: str) -> BlockError:
        log_ = os.fsencode(self.log).decode(errors="replace") if self.log is not None else ""
        return BlockError(number, failure.kind, failure.message, failure.traceback, worker, log_)

    def running(self, now: float) -> tuple[int, float, str] | None:
        """Return (lease, seconds, task) of the block that runs, also while its function is being loaded; else None."""
        state = self.page.longs[STATE]
        place = self.page.longs[PLACE]
        if not self._pieces or state not in (SlotState.RUNNING, SlotState.LOADING):
            return None
        for first, batch, sent_s in self._pieces:
            if first <= place < first + len(batch):
                if self._outcomes[place & MASK] != UNSET:
                    return None
                started = max(self.page.doubles[STARTED], sent_s)
                return int(batch.numbers[place - first]), max(now - started, 0.0), batch.task
        return None

    def is_running(self) -> bool:
        """Whether a block runs (its function is loaded)."""
        return self.page.longs[STATE] == SlotState.RUNNING

    def unstarted(self, place: int) -> list[LeaseBatch]:
        """Take back all blocks from `place` on."""
        batches = []
        while self._pieces and self._end > place:
            first, batch, sent_s = self._pieces.pop()
            cut = max(place - first, 0)
            batches.append(batch.part(cut, len(batch)))
            if cut:
                self._pieces.append((first, batch.part(0, cut), sent_s))
            self._end = first + cut
        batches.reverse()
        return batches

    def take_all(self) -> list[LeaseBatch]:
        """Take back all that has not been collected (of a slot that has ended)."""
        return self.unstarted(self._pieces[0][0]) if self._pieces else []

    def holds(self, numbers: set[int]) -> bool:
        """Whether any of these leases is with this slot."""
        return any(not numbers.isdisjoint(batch.numbers.tolist()) for _, batch, _ in self._pieces)

    # ----- the process ------------------------------------------------------------------------------------------

    def kill(self, kind: str, why: str) -> None:
        """Kill it with all that it started; `why` is a sentence."""
        if self.alive and not self.doomed:
            self.doomed, self.doomed_kind = why, kind
            self.process.kill()

    def wake(self) -> None:
        """Let it go on where it was stopped (SIGSTOP): its block would never end."""
        if self.alive and self.process.go_on():
            log.warning("slot %d was stopped by a signal; it goes on", self.number)

    def stop(self) -> None:
        """Let it end once it has done what it was sent; kill it where that takes too long."""
        if not self.stopping and self.alive:
            self.stopping = True
            self._send(Stop())
            self._loop.call_later(STOP_S, self._stop_late)

    def _stop_late(self) -> None:
        if self._pieces:
            self._loop.call_later(STOP_S, self._stop_late)
        elif self.alive:
            self.kill("stopped", "it did not end when it was told to")

    def _ended(self, exit_: Exit) -> None:
        self._read()
        self._loop.remove_reader(self._channel)
        self._loop.remove_writer(self._channel)
        self._channel.close()
        self.exit = exit_
        self._news(self)

    # ----- the channel ------------------------------------------------------------------------------------------

    def _send(self, message: Any) -> None:
        if self._channel.fileno() < 0:
            return
        idle = not self._out
        self._out += encode(message)
        if idle:
            self._write()

    def _write(self) -> None:
        with contextlib.suppress(BlockingIOError, InterruptedError):
            try:
                sent = self._channel.send(self._out)
            except OSError:  # it is dying: its end is seen soon
                sent = len(self._out)
            del self._out[:sent]
        if self._out:
            self._loop.add_writer(self._channel, self._write)
        else:
            self._loop.remove_writer(self._channel)

    def _readable(self) -> None:
        self._read()
        self._news(self)

    def _read(self) -> None:
        """Take all that it has said."""
        try:
            while data := self._channel.recv(1 << 18):
                for message in self._decoder.feed(data):
                    self._take(message)
            self._loop.remove_reader(self._channel)  # its end closed; the process' end follows
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._loop.remove_reader(self._channel)

    def _take(self, message: Any) -> None:
        if isinstance(message, Failure):
            self._failures[message.place] = message
        elif isinstance(message, Loaded):
            self.loaded.append(message)
        elif isinstance(message, Remarked):
            self.remarks.append(message)
        elif isinstance(message, Ready):
            self.ready = True
        elif isinstance(message, HandedBack):
            self.handing_back = False
            batches = self.unstarted(message.place)
            self.handed_out -= sum(map(len, batches))
            self.returned += batches
        else:
            assert isinstance(message, Ran)


def _context(settings: SlotSettings, number: int) -> Context:
    context = settings.context.copy()
    context["worker_id"] = number
    return context

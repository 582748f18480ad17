"""A slot: the process that runs user code, block after block, for as long as nothing goes wrong.

Started fresh by the agent as ``python -m blockyard_worker.slot CHANNEL_FD PAGE_FD PICKLE_DIR``. A thread reads the
channel; the main thread runs the blocks and notes on the page what it does (see `page.py`). There is no message for
a block unless it fails.

Batches wait in a queue, and the blocks of the batch that runs are one shared iterator. Taking the next block from it
and taking all that is left of it are each one step under the interpreter's lock, so the reading thread can hand back
what has not started without any lock in the loop.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from blockyard.client import interrupts, main_module, remarks
from blockyard.client.calls import Skipped, describe_exception, failure_of, load_task
from blockyard.client.context import name_task
from blockyard.client.forked import OneProcess, leave
from blockyard.client.imported import Imported
from blockyard.client.output import LOOK_S, Output
from blockyard.logs import say_always
from blockyard.plan.grid import Grid
from blockyard.spec.block import Block, GridOfRun
from blockyard.spec.errors import FatalBlockError
from blockyard.spec.model import TaskSpec
from blockyard.spec.module_path import find_user_code
from blockyard.wire.frames import Decoder, encode
from blockyard.wire.messages import Outcome
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
    ToSlot,
)
from blockyard_worker.process import process_output
from blockyard_worker.process_state import ProcessState
from blockyard_worker.slot_page import MASK, PLACE, STARTED, STATE, WRITTEN, SlotPage, SlotState

SUCCESS = int(Outcome.SUCCESS)


class Slot:
    """The two threads of a slot and what they share."""

    def __init__(self, channel: socket.socket, page: SlotPage, pickle_dir: str | None, output: Output) -> None:
        self.channel = channel
        self.page = page
        self.pickle_dir = pickle_dir
        self.tasks: dict[str, TaskSpec] = {}
        self.batches: deque[Run | Stop] = deque()
        self.arrived = threading.Semaphore(0)
        self.turning = threading.Lock()
        """Held while one batch follows another, and while blocks are handed back."""
        self.running: Iterator[tuple[int, int]] = iter(())
        self.end = 0
        """Place after the last block sent to this slot and not handed back."""
        self.sending = threading.Lock()
        self.output = output
        self.pid = os.getpid()
        self._calls: dict[str, tuple[GridOfRun, Callable[[Block], Any]]] = {}
        self._state = ProcessState()
        self._functions: dict[str, tuple[Any, ...]] = {}
        self._run_name = ""
        self._imported = Imported()
        self._named = ""
        """The task that the context of this process names."""

    def send(self, message: Any) -> None:
        """Send the agent a message, from either thread."""
        with self.sending:
            self.channel.sendall(encode(message))

    # ----- the reading thread -----------------------------------------------------------------------------------

    def read(self) -> None:
        """Take what the agent says. Its end without a word means that it is dead: so are we, and what we started."""
        decoder = Decoder(ToSlot)
        while data := self._receive():
            for message in decoder.feed(data):
                self._take(message)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    def _receive(self) -> bytes:
        try:
            return self.channel.recv(1 << 18)
        except OSError:
            return b""

    def _take(self, message: Any) -> None:
        if isinstance(message, Learn):
            if self.tasks.get(message.task.id) not in (None, message.task):
                self._calls.pop(message.task.id, None)  # a scheduler that was restarted may bring new parameters
            self.tasks[message.task.id] = message.task
            self._run_name = message.run
            say_always(run=message.run)
        elif isinstance(message, HandBack):
            self._hand_back()
        else:
            with self.turning:
                if isinstance(message, Run):
                    self.end = message.place + len(message.blocks) // 8
                self.batches.append(message)
            self.arrived.release()

    def _hand_back(self) -> None:
        with self.turning:
            unstarted = len(list(self.running))
            for batch in list(self.batches):
                if isinstance(batch, Run) and self.arrived.acquire(blocking=False):
                    self.batches.remove(batch)
                    unstarted += len(batch.blocks) // 8
            self.end -= unstarted
        self.send(HandedBack(self.end))

    # ----- the main thread --------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run batch after batch until told to stop."""
        longs = self.page.longs
        longs[STATE] = SlotState.IDLE
        self.send(Ready())
        while True:
            self.arrived.acquire()
            with self.turning:
                if not self.batches:
                    continue
                batch = self.batches.popleft()
                if isinstance(batch, Stop):
                    return
                blocks = np.frombuffer(batch.blocks, "<i8").tolist()
                self.running = zip(range(batch.place, batch.place + len(blocks)), blocks, strict=False)
            self._run_batch(batch)
            longs[STATE] = SlotState.IDLE
            self.send(Ran())

    def _run_batch(self, batch: Run) -> None:
        self._begin_writing()
        if batch.task != self._named:
            self._state.change_to(batch.task)
            name_task(batch.task)
            self._named = batch.task
            main_module.show(*self._functions.get(batch.task, ()))
        if batch.task not in self._calls:
            if not self._load(batch):
                return
            self._begin_writing()
        grid, call = self._calls[batch.task]
        longs, doubles = self.page.longs, self.page.doubles
        outcomes, seconds = self.page.outcomes, self.page.seconds
        attempts = {batch.place + at: attempt for at, attempt in batch.attempts.items()}
        task_id, clock, output, pid = batch.task, time.monotonic, self.output, self.pid
        doubles[STARTED] = started = clock()
        longs[STATE] = SlotState.RUNNING
        for place, block_id in self.running:
            output.block = block = Block(grid, task_id, block_id, attempts.get(place, 1))
            try:
                result = call(block)
                outcome = SUCCESS if result is None and block.status is None else self._judge(place, result, block)
            except BaseException as error:  # noqa: BLE001 - whatever user code raises fails its block, not the slot
                outcome = self._failed(place, error)
            at = place & MASK
            ended = clock()
            took = ended - started
            if output.spoke or took > LOOK_S:
                if os.getpid() != pid:  # a fork takes longer than that, so that other blocks need not ask
                    leave()
                if remarks.new:
                    self._remark(task_id)
                output.over()
                longs[WRITTEN] = output.written
                ended = clock()
            seconds[at] = took
            outcomes[at] = outcome
            # The next block's start is noted before its place: a reader between the two sees a block that has run for
            # too short a time, never for too long.
            doubles[STARTED] = started = ended
            longs[PLACE] = place + 1
        output.block = None

    def _begin_writing(self) -> None:
        """What has been written so far is not the next block's."""
        self.output.begin()
        self.page.longs[WRITTEN] = self.output.written

    def _load(self, batch: Run) -> bool:
        """Get a task's function; a failure fails the next block of the batch and leaves the others to be tried."""
        longs, doubles = self.page.longs, self.page.doubles
        while True:
            doubles[STARTED] = time.monotonic()
            longs[STATE] = SlotState.LOADING
            try:
                task = self.tasks[batch.task]
                with OneProcess():
                    call, functions = load_task(task, self.pickle_dir)
                self._state.imported()
                self._functions[task.id] = functions
                main_module.show(*functions)
                self._calls[task.id] = GridOfRun(Grid.of(task), self._run_name), call
                if functions and (code := self._imported.code_of(*functions)):
                    self.send(Loaded(task.id, code))
            except BaseException as error:  # noqa: BLE001 - a module may raise anything while it is imported
                place, _ = next(self.running, (-1, 0))
                if place < 0:
                    return False
                self.page.seconds[place & MASK] = time.monotonic() - doubles[STARTED]
                self.page.outcomes[place & MASK] = self._failed(place, error)
                longs[PLACE] = place + 1
            else:
                return True

    def _remark(self, task: str) -> None:
        """Tell the agent what is to be told of a task."""
        for text in remarks.take():
            self.send(Remarked(task, text))

    def _judge(self, place: int, result: object, block: Block) -> int:
        if os.getpid() != self.pid:
            leave()
        if isinstance(result, Skipped):
            return int(Outcome.SKIPPED)
        failure = failure_of(result, block.status)
        return SUCCESS if failure is None else self._failed(place, failure)

    def _failed(self, place: int, error: BaseException) -> int:
        if os.getpid() != self.pid:
            leave(error)
        if interrupts.is_from_outside(error):  # the agent knows whether all are told to end
            interrupts.end_by_it()
        self.send(Failure(place, *describe_exception(error)))
        return int(Outcome.FATAL if isinstance(error, FatalBlockError) else Outcome.FAILED)


def main(argv: list[str]) -> int:
    """Run a slot on the file descriptors that the agent passed; ``CHANNEL_FD PAGE_FD [PICKLE_DIR]``."""
    channel = socket.socket(fileno=int(argv[0]))
    channel.set_inheritable(False)
    page_fd = int(argv[1])
    page = SlotPage(page_fd)
    os.close(page_fd)
    output = process_output(os.environ)
    output.install()
    find_user_code(os.environ)
    interrupts.watch()
    main_module.take()
    slot = Slot(channel, page, argv[2] if len(argv) > 2 else None, output)
    threading.Thread(target=slot.read, name="blockyard-channel", daemon=True).start()
    slot.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

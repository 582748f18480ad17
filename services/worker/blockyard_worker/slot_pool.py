"""The agent's slots together: which block goes to which process, and what becomes of a slot that fails.

Leases wait in one queue. A slot is handed a *piece* of it, blocks of one task, and another one before the first is
done, so that it never waits for us: about 25 ms of work where blocks are fast, one block where they are slow or not
known yet. A block that turns out slow keeps no others waiting behind it: what a slot has not started is handed back
as soon as another slot has nothing to do, and to the scheduler when all are busy with slow ones.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from blockyard.client.calls import signal_name
from blockyard.client.pace import Pace
from blockyard.spec.model import TaskSpec
from blockyard.wire.happenings import LeaseBatch
from blockyard.wire.messages import BlockError, Outcome
from blockyard_worker.channel import Loaded, Remarked
from blockyard_worker.queue import Queue, Results
from blockyard_worker.slot_handle import SlotHandle, SlotSettings
from blockyard_worker.slot_page import PLACES
from blockyard_worker.starts import Starts, last_words
from blockyard_worker.told import sent_by

Ids: TypeAlias = npt.NDArray[np.int64]

PIECE_S = 0.025
"""Work in one piece: enough that handing it out costs nothing, little enough that slots share a queue fairly."""
LARGEST_PIECE = PLACES // 4
BATCH_S = 0.2
"""Work that an agent asks for, for each slot."""
LARGEST_WANT = 30_000
"""Blocks in hand for each slot, at most."""
LOOK_S = 0.05
STOPPED_S = 1.0
"""A block that takes longer may have stopped its process."""
"""How often slots with several blocks are looked at: results wait no longer than this, nor blocks behind a slow one."""
STUCK_S = 1.0
"""When every slot is busy with a block for longer than this, what waits here goes back to the scheduler."""
TOLD_S = 1.0
"""How far apart a batch system's signals reach the processes of a worker."""
MOST_TOLD = 10_000
AGAIN = "; it is not the first time with this block, and nobody told the worker to end"

log = logging.getLogger("blockyard.worker")


class SlotPool:
    """A fixed number of slots, replaced as they end; `news` is called when there may be something to collect."""

    def __init__(self, size: int, settings: SlotSettings, news: Callable[[], None]) -> None:
        self.settings = settings
        self.tasks: dict[str, TaskSpec] = {}
        self.run = ""
        """Name of the run, for the log."""
        self.queue = Queue()
        self.results = Results()
        self.closing = False
        self.draining = False
        self.restarts = 0
        self._news = news
        self._loop = asyncio.get_running_loop()
        self._paces: dict[str, Pace] = {}
        self._pace = Pace()
        self._max_running: dict[str, int] = {}
        """The most blocks of a task that may run at once here, as the scheduler said last; 0: no limit."""
        self._revoked: set[int] = set()
        self._told: set[tuple[str, int]] = set()
        """Blocks whose slot was told to end here while we were not."""
        self._doubts: dict[int, tuple[float, BlockError]] = {}
        """Lease to (seconds, error) of blocks whose slot was told to end once more: perhaps we are told, too."""
        self._incarnations = 0
        self._starts = [Starts() for _ in range(size)]
        self.trouble = ""
        """Why slots can't be started, again and again; "": they can."""
        self.slots: list[SlotHandle | None] = [None] * size
        for number in range(size):
            self._start(number)

    # ----- questions --------------------------------------------------------------------------------------------

    @property
    def living(self) -> list[SlotHandle]:
        """The slots whose processes run."""
        return [slot for slot in self.slots if slot is not None and slot.alive]

    @property
    def in_hand(self) -> int:
        """Leases that wait here or are with a slot."""
        return self.queue.size + sum(slot.outstanding for slot in self.living) + len(self._doubts)

    @property
    def groups(self) -> list[int]:
        """Process groups of the slots."""
        return [slot.process.pid for slot in self.living]

    def running(self, now: float) -> list[tuple[int, float]]:
        """Return (lease, seconds) of each block that runs."""
        found = (slot.running(now) for slot in self.living)
        return [(number, seconds) for number, seconds, _ in filter(None, found)]

    def wanted(self) -> int:
        """Return how many blocks more could be taken, or 0 while there is enough for the time being.

        More is asked for when half of what should be in hand is left, or a slot has nothing to do.
        """
        able = [slot for slot in self.living if slot.takes_work]
        if self.draining or self.closing or not able or self._stuck(time.monotonic()):
            return 0
        enough = len(able) * self._pace.blocks_in(BATCH_S, LARGEST_WANT)
        in_hand = self.in_hand
        idle = self.queue.size == 0 and any(not slot.outstanding for slot in able)
        return enough - in_hand if in_hand < enough and (idle or in_hand <= enough // 2) else 0

    @property
    def wants_news(self) -> bool:
        """Whether results should be reported at once: a slot has nothing to do, or all is to end."""
        if self.draining or self.closing:
            return True
        return not self.queue.size and any(slot.takes_work and not slot.outstanding for slot in self.living)

    def look_at_s(self, now: float) -> float:
        """Return when `step` should be called even if no slot says a word; infinite where there is no need."""
        looks = [math.inf]
        for slot in self.living:
            running = slot.running(now)
            if slot.outstanding > 1 or (slot.outstanding and not (running and slot.is_running())):
                looks.append(now + LOOK_S)
            elif running:
                _, seconds, task = running
                limit = self.tasks[task].timeout_s
                looks.append(math.inf if limit is None else now + max(limit - seconds, 0.0) + 0.001)
        if self.queue.size:
            looks.append(now + STUCK_S)
        return min(looks)

    def _stuck(self, now: float) -> bool:
        """Whether every slot is in the middle of a slow block: what waits would wait for long."""
        running = [slot.running(now) for slot in self.living]
        return bool(running) and all(block is not None and block[1] > STUCK_S for block in running)

    # ----- orders -----------------------------------------------------------------------------------------------

    def take(self, batches: Iterable[LeaseBatch]) -> None:
        """Take leases; while draining, hand them back (they were on their way when we said that we want no more)."""
        if self.draining:
            for batch in batches:
                self.results.add_same(batch.numbers, Outcome.RETURNED)
            return
        for batch in batches:
            self._max_running[batch.task] = batch.max_running
            self.queue.push([batch])

    def revoke(self, numbers: Ids) -> None:
        """Stop these blocks: nothing is reported for them."""
        self.queue.drop(numbers)
        gone = set(numbers.tolist())
        self._doubts = {number: doubt for number, doubt in self._doubts.items() if number not in gone}
        now = time.monotonic()
        for slot in self.living:
            if slot.holds(gone):
                self._revoked |= gone
                running = slot.running(now)
                if running is not None and running[0] in gone:
                    slot.kill("revoked", "the lease of the block that it ran has ended")
                else:
                    slot.hand_back()

    def abandon(self) -> None:
        """Kill what runs and forget what waits, at once: the leases are lost."""
        self.queue.clear()
        for slot in filter(None, self.slots):  # also those that have just ended
            if slot.take_all():
                slot.kill("lost", "the leases of this worker ended: no scheduler answered in time")
        self._revoked.clear()
        self._doubts.clear()

    def drain(self) -> None:
        """Take nothing more, and hand back all that has not started; what runs goes on."""
        self.draining = True
        self.results.add_same(self.queue.clear(), Outcome.RETURNED)
        self.results.add_same(np.fromiter(self._doubts, np.int64, len(self._doubts)), Outcome.RETURNED)
        self._doubts.clear()
        for slot in self.living:
            if slot.outstanding:
                slot.hand_back()

    def kill_sender(self, number: int, sender: int) -> bool:
        """Kill the slot whose user code sent us a signal; return whether one did."""
        child = sent_by((slot.process for slot in self.living), sender)
        for slot in self.living:
            if slot.process is child:
                slot.kill("signal", f"user code sent {signal_name(number)} to its worker, which would have left")
        return child is not None

    def cut_short(self) -> None:
        """Kill what still runs and hand it back."""
        for slot in self.living:
            if slot.outstanding:
                slot.kill("drained", "the worker was told to stop")

    def close(self) -> None:
        """Let all slots end; `closed` tells when they have."""
        self.closing = True
        for slot in self.living:
            if slot.outstanding:
                slot.kill("closed", "the run has ended")
            else:
                slot.stop()

    @property
    def closed(self) -> bool:
        """Whether no slot lives."""
        return not self.living

    # ----- turns ------------------------------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """Collect what is finished into `results`, enforce time limits, hand out what waits."""
        for slot in self.living:
            self._collect(slot)
            self._enforce_timeout(slot, now)
        if self._stuck(now):
            self._give_back()
        else:
            self._share(now)

    def take_results(self) -> Results:
        """Return what became of leases since the last time."""
        results, self.results = self.results, Results()
        return results

    def take_loaded(self) -> list[Loaded]:
        """Return what slots have imported since the last time."""
        found = []
        for slot in self.living:
            if slot.loaded:
                found += slot.loaded
                slot.loaded = []
        return found

    def take_remarks(self) -> list[Remarked]:
        """Return what slots have said of tasks since the last time."""
        found = []
        for slot in self.living:
            if slot.remarks:
                found += slot.remarks
                slot.remarks = []
        return found

    def _collect(self, slot: SlotHandle) -> None:
        for task, seconds, blocks in slot.collect(self.results, self.settings.worker):
            self._paces.setdefault(task, Pace()).saw(seconds, blocks)
            self._pace.saw(seconds, blocks)
        if slot.returned:
            returned, slot.returned = slot.returned, []
            self._put_back(returned)

    def _put_back(self, batches: list[LeaseBatch]) -> None:
        """Queue blocks that a slot has not started (or hand them on to the scheduler while draining)."""
        if self._revoked:
            numbers = np.fromiter(self._revoked, np.int64, len(self._revoked))
            keeps = [~np.isin(batch.numbers, numbers) for batch in batches]
            batches = [batch.only(keep) for batch, keep in zip(batches, keeps, strict=True)]
        if self.draining:
            for batch in batches:
                self.results.add_same(batch.numbers, Outcome.RETURNED)
        else:
            self.queue.push_front(batches)

    def _enforce_timeout(self, slot: SlotHandle, now: float) -> None:
        running = slot.running(now)
        if running is None or not slot.is_running():
            return
        _, seconds, task = running
        if seconds > STOPPED_S:
            slot.wake()
        limit = self.tasks[task].timeout_s
        if limit is not None and seconds > limit:
            slot.kill("timeout", f"the block ran longer than the {limit:g} s that timeout_s of task '{task}' allows")

    def _give_back(self) -> None:
        """Hand what waits back to the scheduler: other workers may be idle."""
        for slot in self.living:
            if slot.outstanding > 1:
                slot.hand_back()
        if self.queue.size:
            self.results.add_same(self.queue.clear(), Outcome.RETURNED)

    def _share(self, now: float) -> None:
        able = [slot for slot in self.living if slot.takes_work]
        slow = {slot for slot in able if (block := slot.running(now)) is not None and block[1] > LOOK_S}
        for slot in sorted(able, key=lambda slot: slot.outstanding):
            if slot not in slow:
                self._feed(slot, len(able))
        if not self.queue.size and any(not slot.outstanding for slot in able):
            for slot in slow:
                if slot.outstanding > 1:
                    slot.hand_back()

    def _feed(self, slot: SlotHandle, sharing: int) -> None:
        """Hand a slot its next pieces, unless it has enough."""
        while self.queue.size and slot.takes_work:
            task = self.queue.next_task(lambda task: self._may_run(slot, task))
            if task is None:
                return
            piece = self._paces.setdefault(task, Pace()).blocks_in(PIECE_S, LARGEST_PIECE)
            fair = -(-self.queue.size // sharing)
            if slot.outstanding > (piece if piece > 1 else 0):  # one piece runs and one waits, or one slow block
                return
            batch = self.queue.pull(task, min(piece, fair, self._left_of(slot)))
            slot.hand(self.tasks[batch.task], batch, self.run)
            if self._left_of(slot) <= 0:
                slot.stop()

    def _may_run(self, slot: SlotHandle, task: str) -> bool:
        """Whether a slot may have blocks of a task, of which only so many may run at once here."""
        most = self._max_running.get(task, 0)
        if not most or task in slot.tasks:
            return True
        return sum(task in other.tasks for other in self.living) < most

    def _left_of(self, slot: SlotHandle) -> int:
        """Return how many blocks a slot may still be handed before it is replaced."""
        most = self.settings.recycle_after
        return max(most - slot.handed_out, 0) if most else LARGEST_PIECE

    # ----- slots that end ---------------------------------------------------------------------------------------

    def _start(self, number: int) -> None:
        if self.closing:
            return
        self._incarnations += 1
        try:
            self.slots[number] = SlotHandle(number, self._incarnations, self.settings, self._heard)
        except OSError as error:  # no memory, no process, no file is left for another one
            self._start_failed(number, f"it could not be started: {error}")

    def _heard(self, slot: SlotHandle) -> None:
        # The session looks at the clock first: a slot that the watchdog killed late is not to blame.
        self._news()
        if slot.ready and self._starts[slot.number].failed:
            self._starts[slot.number].worked()
            self._complain()
        if slot.exit is not None and self.slots[slot.number] is slot:
            self._replace(slot)
            self._news()

    def _replace(self, slot: SlotHandle) -> None:
        self.slots[slot.number] = None
        self._collect(slot)
        self._account(slot)
        if self.closing:
            return
        self.restarts += 1
        if slot.ready:
            self._loop.call_later(0.0, self._start, slot.number)
            return
        assert slot.exit is not None
        words = last_words(slot.log, slot.log_from)
        how = slot.exit.sentence("it")
        log_file = f"; its log: {slot.log}" if slot.log is not None else ""
        self._start_failed(slot.number, f"{how}{f' ({words})' if words else ''}{log_file}")

    def _start_failed(self, number: int, reason: str) -> None:
        """A slot has ended before it was ready, or could not be started."""
        delay = self._starts[number].fail(reason)
        log.error("slot %d ended before it was ready: %s; trying again in %.1f s", number, reason, delay)
        self._complain()
        self._loop.call_later(delay, self._start, number)

    def _complain(self) -> None:
        worst = max(self._starts, key=lambda starts: starts.failed)
        self.trouble = f"a slot of worker {self.settings.worker} can't be started: {worst.reason}"
        if worst.failed < 2:
            self.trouble = ""
        self._loop.call_soon(self._news)

    @property
    def hopeless(self) -> bool:
        """Whether no slot runs, and none can be started."""
        return not self.living and all(starts.hopeless for starts in self._starts)

    def _account(self, slot: SlotHandle) -> None:
        """Say what became of the blocks of a slot that has ended: one may be its cause, the others never started."""
        now = time.monotonic()
        running = slot.running(now)
        left = slot.take_all()
        if running is not None:
            number, seconds, _ = running
            self._blame(slot, number, seconds, left)
            if left[0].numbers[0] == number:
                slot.note_end(left[0])
            left = [batch.part(int(batch.numbers[0] == number), len(batch)) for batch in left[:1]] + left[1:]
        self._put_back([batch for batch in left if len(batch)])

    def _blame(self, slot: SlotHandle, number: int, seconds: float, left: list[LeaseBatch]) -> None:
        if number in self._revoked:
            return
        numbers = np.array([number], np.int64)
        assert slot.exit is not None
        asked = slot.exit.asked and not slot.doomed
        if slot.doomed_kind == "drained" or (asked and self.draining):
            self.results.add_same(numbers, Outcome.RETURNED, seconds)
            return
        batch = left[0]
        block = {"task": batch.task, "block": int(batch.blocks[0])} if batch.numbers[0] == number else {}
        if asked and not self._was_told(*block.values()):
            # A batch system tells all processes at once, and ours has not heard of it yet.
            self.results.add_same(numbers, Outcome.LOST, seconds)
            return
        kind = slot.doomed_kind or ("signal" if slot.exit.status < 0 else "exit")
        message = slot.how + (AGAIN if asked else "")
        where = str(slot.log) if slot.log is not None else ""
        error = BlockError(number, kind, message, worker=self.settings.worker, log=where)
        log.warning("slot %d is replaced: %s", slot.number, message, extra={"slot": slot.number, **block})
        if asked:
            self._doubts[number] = seconds, error
            self._loop.call_later(TOLD_S, self._decide, number)
            return
        self.results.add_same(numbers, Outcome.FAILED if slot.doomed_kind == "timeout" else Outcome.KILLED, seconds)
        self.results.errors.append(error)

    def _was_told(self, *block: Any) -> bool:
        """Whether this block's slot was told to end before, while we were not; note that it was."""
        known = block in self._told
        if len(self._told) >= MOST_TOLD:
            self._told.clear()
        self._told.add(block)
        return known

    def _decide(self, number: int) -> None:
        """By now we would have been told to end like the slot, had it been a batch system."""
        if (doubt := self._doubts.pop(number, None)) is not None:
            seconds, error = doubt
            self.results.add_same(np.array([number], np.int64), Outcome.KILLED, seconds)
            self.results.errors.append(error)
            self._news()

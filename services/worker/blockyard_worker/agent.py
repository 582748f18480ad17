"""The agent: one process that holds the connection, the leases and the slots of a worker.

All rules of the protocol are in `blockyard.wire.session.WorkerSession`, all rules about slots in `SlotPool`. Here bytes
and times are carried between the two, one *turn* at a time: whatever arrives, from the scheduler or from a slot, ends
in `turn`, which looks at the clock, collects what is finished, says what there is to say, and sets the next alarm.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import platform
import random
import secrets
import time
from dataclasses import dataclass, replace

import numpy as np

from blockyard.client.context import Context
from blockyard.client.tls import Trust
from blockyard.logs import say_always
from blockyard.wire.happenings import (
    BlocksGranted,
    Happening,
    Joined,
    LeasesLost,
    LeasesRevoked,
    RefusedForGood,
    ReleaseSafe,
    RunEnded,
    TaskEnded,
)
from blockyard.wire.messages import Hello, Outcome
from blockyard.wire.session import SessionState, WorkerSession, split_address
from blockyard_worker.http import Facts
from blockyard_worker.link import Link
from blockyard_worker.slot_handle import SlotSettings
from blockyard_worker.slot_pool import SlotPool
from blockyard_worker.starts import EXIT_CANNOT_START
from blockyard_worker.told import Told
from blockyard_worker.watchdog_handle import WatchdogHandle

ACKS_S = 5.0
"""How long a draining agent waits for its last acknowledgements before it leaves anyway."""
REPORT_S = 0.05
"""Time between two reports of finished blocks; slower blocks than this are reported as they finish."""
CLOSE_S = 10.0
"""How long slots may take to end when the run is over; longer than a slot's own limit."""

EXIT_OK = 0
EXIT_REFUSED = 2

log = logging.getLogger("blockyard.worker")


def new_worker_id() -> str:
    """Return an id for this process that no other process ever has: ``host-pid-nonce``."""
    return f"{platform.node() or 'host'}-{os.getpid()}-{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What an agent is told on its command line."""

    scheduler: str
    drain_s: float = 25.0
    give_up_s: float = math.inf
    """How long to go without a scheduler before leaving."""
    trust: Trust | None = None
    """How to connect by TLS; None: without."""


class Agent:
    """A worker for tasks with a function or a command."""

    def __init__(self, hello: Hello, settings: AgentSettings, slot_settings: SlotSettings) -> None:
        """Begin: start watchdog and slots. Must be called on a running loop; `run` does the rest."""
        self.settings = settings
        self.session = WorkerSession(hello, settings.scheduler, random.Random(), time.monotonic())  # noqa: S311 - jitter
        self.link = Link(self.session, self._happened, self.turn, settings.trust)
        self.watchdog = WatchdogHandle(hello.worker + "/")
        host, port = split_address(settings.scheduler)
        context = Context.of_slot(host, port, hello.slots, hello.worker)
        self.slot_pool = SlotPool(hello.slots, replace(slot_settings, context=context), self.turn)
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.refusal = ""
        self.status = EXIT_OK
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self._leave_by_s = math.inf
        self._report_at_s = 0.0
        self._heard_s = time.monotonic()

    async def run(self) -> int:
        """Work until the run is over (0), we are told to stop (0), or the scheduler refuses us for good (2)."""
        Told(self._told)
        linking = asyncio.create_task(self.link.run())
        try:
            self.turn()
            await self._over.wait()
            await self._close()
        finally:
            linking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await linking
            self.watchdog.close()
        if self.refusal:
            log.error("%s", self.refusal)
        return self.status

    async def _close(self) -> None:
        self.slot_pool.close()
        await self.link.close()
        give_up_s = time.monotonic() + CLOSE_S
        while not self.slot_pool.closed and time.monotonic() < give_up_s:
            self._over.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await self._over.wait()

    def facts(self) -> Facts:
        """Return what metrics and health tell of us."""
        living = self.slot_pool.living
        busy = sum(slot.outstanding > 0 for slot in living)
        starting = sum(not slot.ready for slot in living)
        return Facts(
            connected=self.session.state is SessionState.JOINED,
            ready=self.session.welcome is not None,
            connections=self.link.connections,
            leases=self.slot_pool.in_hand,
            restarts=self.slot_pool.restarts,
            slots={"starting": starting, "idle": len(living) - busy - starting, "busy": busy},
            outcomes={outcome.name.lower(): count for outcome, count in self.outcomes.items()},
        )

    # ----- turns ------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Do all that is due now; harmless at any time."""
        now = time.monotonic()
        self.link.carry_out(self.session.tick(now, self.slot_pool.running(now)))
        self.slot_pool.step(now)
        for loaded in self.slot_pool.take_loaded():
            self.session.imported(loaded.task, loaded.code)
        for remark in self.slot_pool.take_remarks():
            self.session.remark(remark.task, "check_raises", remark.text)
        self._report(now)
        self._consider_giving_up(now)
        self._consider_despair()
        self._ask()
        self._consider_leaving(now)
        self.watchdog.update(self.session.deadline_s, self.slot_pool.groups)
        self.link.flush()
        self._set_alarm(now)

    def _report(self, now: float) -> None:
        """Say what is finished, at most every `REPORT_S`; at once where a slot waits, for it may make blocks ready.

        Without a pause each acknowledgement would end in a turn, and that in a report: 500 a second of blocks of 1 ms.
        """
        if not self.slot_pool.results or (now < self._report_at_s and not self.slot_pool.wants_news):
            return
        self._report_at_s = now + REPORT_S
        results = self.slot_pool.take_results()
        outcomes = np.concatenate(results.outcomes)
        self.session.release(np.concatenate(results.numbers), outcomes, np.concatenate(results.seconds), results.errors)
        for outcome, count in enumerate(np.bincount(outcomes, minlength=len(Outcome)).tolist()):
            self.outcomes[Outcome(outcome)] += count

    def _ask(self) -> None:
        """Say how many blocks could be taken; a small change is not worth a message while it stands."""
        if self.slot_pool.draining or self.slot_pool.closing:
            self.session.want(0)
            return
        wanted, standing = self.slot_pool.wanted(), self.session.wanted
        if wanted > standing and (wanted <= 16 or wanted >= 2 * standing):
            self.session.want(wanted)

    def _consider_giving_up(self, now: float) -> None:
        """Leave when no scheduler was there for too long: a batch system wants its place back after a run's end."""
        if self.session.state is SessionState.JOINED:
            self._heard_s = now
        elif now >= self._heard_s + self.settings.give_up_s and not self.slot_pool.draining:
            log.warning("no scheduler at %s for %g s; leaving", self.session.address, self.settings.give_up_s)
            self.drain()

    def _consider_despair(self) -> None:
        """Leave when no slot can be started: who looks after us knows better when to try again."""
        self.session.cannot_start(self.slot_pool.trouble)
        if self.slot_pool.hopeless and not self.slot_pool.closing and not self._over.is_set():
            self.refusal, self.status = self.slot_pool.trouble, EXIT_CANNOT_START
            if self.session.state is not SessionState.OVER:
                self.session.leave(self.refusal)
            self._over.set()

    def _set_alarm(self, now: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        give_up_at_s = math.inf if self.slot_pool.draining else self._heard_s + self.settings.give_up_s
        at = min(self.session.wake_at_s, self.slot_pool.look_at_s(now), self._leave_by_s, give_up_at_s)
        if at < math.inf and not self._over.is_set():
            self._alarm = self._loop.call_later(max(at - now, 0.001), self.turn)

    # ----- what the scheduler says ------------------------------------------------------------------------------

    def _happened(self, happening: Happening) -> None:
        match happening:
            case Joined(welcome):
                self.slot_pool.tasks = {task.id: task for task in welcome.pipeline.tasks}
                self.slot_pool.run = welcome.run
                say_always(run=welcome.run)
                log.info("joined run '%s' at %s (epoch %d)", welcome.run, self.session.address, welcome.epoch)
            case BlocksGranted(batches):
                self.slot_pool.take(batches)
            case LeasesRevoked(numbers):
                self.slot_pool.revoke(numbers)
            case LeasesLost(numbers):
                log.error("%d leases are lost: no scheduler answered in time; what ran is killed", len(numbers))
                self.slot_pool.abandon()
            case RefusedForGood(reason):
                self.refusal, self.status = reason, EXIT_REFUSED
                self._over.set()
            case RunEnded(state):
                log.info("the run is over: %s", state)
                self._over.set()
            case ReleaseSafe() | TaskEnded():
                pass

    # ----- leaving ----------------------------------------------------------------------------------------------

    def _told(self, number: int, sender: int) -> None:
        """A signal tells us to end; one that user code sent ends the slot that sent it."""
        if not self.slot_pool.kill_sender(number, sender):
            self.drain()

    def drain(self) -> None:
        """Stop asking, hand back what is not started, let blocks finish for `drain_s`; a second time: at once."""
        now = time.monotonic()
        if self.slot_pool.draining:
            self._cut_short()
            return
        log.info("told to stop: %d blocks in hand, up to %g s to finish", self.slot_pool.in_hand, self.settings.drain_s)
        self.slot_pool.drain()
        self._leave_by_s = now + self.settings.drain_s + ACKS_S
        self._loop.call_later(self.settings.drain_s, self._cut_short)
        self.turn()

    def _cut_short(self) -> None:
        self.slot_pool.cut_short()
        self._leave_by_s = min(self._leave_by_s, time.monotonic() + ACKS_S)
        self.turn()

    def _consider_leaving(self, now: float) -> None:
        if not self.slot_pool.draining or self._over.is_set():
            return
        idle = not self.slot_pool.in_hand
        if (idle and self.session.settled) or now >= self._leave_by_s:
            if self.session.state is not SessionState.OVER:
                self.session.leave("told to stop")
            self._over.set()

"""The loop that decides: journal before speech.

A turn takes all that arrived, lets the core decide, commits what was decided in one command, and only then speaks. What
arrives while Redis writes waits for the next turn, so a slow disk makes turns larger, not fewer blocks::

    sessions --tell()--> arrived --+                                  +--> sessions
    HTTP     --ask()-------------->| core.handle()... TurnEnded | commit | speak
    timer (WakeAt) --------------->+                                  +--> timer
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from blockyard.core import convert
from blockyard.core.events import (
    AnnounceRunOver,
    AnnounceTaskOver,
    BlocksReleased,
    BlocksWanted,
    CommitRecord,
    ContinueTurn,
    Effect,
    Event,
    FailureNote,
    RerunRequested,
    RetryRequested,
    SendAck,
    SendLeases,
    SendRevoke,
    SendTaskBegan,
    SendWelcome,
    TurnEnded,
    WakeAt,
    WorkerDisconnected,
    WorkerGone,
    WorkerHeard,
    WorkerJoined,
)
from blockyard.core.scheduler import Scheduler
from blockyard.spec.errors import ProtocolError, StoreError
from blockyard.wire.frames import encode
from blockyard.wire.messages import Ack, Revoke, RunOver, TaskBegan, TaskOver, Welcome
from blockyard_scheduler.leadership import Leadership
from blockyard_scheduler.meter import Meter
from blockyard_scheduler.store.redis import Forgot, Store

log = logging.getLogger(__name__)

ENDING = "this scheduler ends, and does not know whether that was done; ask the next one"
HEARTBEATS_S = 0.25
"""Nobody waits for what a heartbeat changes: all that come in this time are one turn, or part of an earlier one."""
SHORTEST_NAP_S = 0.001
"""A timer that is due at once still lets the loop serve its sockets first."""


class Voice(Protocol):
    """How the loop speaks to one worker: its session."""

    welcomed: bool
    unheard: int

    def send(self, frames: Sequence[bytes]) -> None:
        """Send frames in this order; a closed session drops them."""

    def drop(self, reason: str) -> None:
        """Close the session, because of a sentence for the log."""


class Turns:
    """The core, the journal and the voices of one leader. `clock` gives monotonic seconds."""

    def __init__(
        self,
        core: Scheduler,
        store: Store,
        leadership: Leadership,
        *,
        meter: Meter,
        welcome: Welcome,
        clock: Callable[[], float],
    ) -> None:
        """Take the core of a run that this scheduler leads; `welcome` is what every worker is told, but for its own."""
        self.core = core
        self.known: set[str] = {worker.id for worker in core.status(clock()).workers}
        """Workers that the core may know, also while they are not connected."""
        self._store = store
        self._leadership = leadership
        self._meter = meter
        self._welcome = welcome
        self._clock = clock
        self._arrived: list[tuple[Event, Voice | None]] = []
        self._asked: list[asyncio.Future[None]] = []
        self._ended = False
        self._forgotten = False
        self._bell = asyncio.Event()
        self._bell.set()  # the first turn scans what is ready
        self._voices: dict[str, Voice] = {}
        self._leaving: list[tuple[str, Voice, str]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tasks_over = self._find_tasks_over()
        self.run_over = asyncio.Event()
        """Set when the run is over and the workers were told."""
        self.run_stopped = asyncio.Event()
        """Set when nothing will run unless a person does something: it is over, or paused for a reason."""
        self.dismissed = False
        """Whether the workers were told to leave although the run is not over."""

    # --- from outside ------------------------------------------------------------------------------------------

    def tell(self, event: Event, voice: Voice | None = None) -> None:
        """Take an event, from a session if `voice` is given, into the next turn."""
        self._arrived.append((event, voice))
        if voice is not None:
            voice.unheard += 1
        if isinstance(event, WorkerHeard):
            self._wake_at(self._clock() + HEARTBEATS_S)
        else:
            self._bell.set()

    def redis_forgot(self) -> None:
        """Write all of the run again, before anything else is said: Redis was seen to have lost some of it."""
        self._forgotten = True
        self._bell.set()

    async def ask(self, event: Event) -> None:
        """Take an event and return when what it changed is safe in Redis."""
        self.tell(event)
        await self.turned()

    async def turned(self) -> None:
        """Return when all that arrived until now was decided and committed. Raises StoreError when it never will."""
        if self._ended:
            raise StoreError(ENDING)
        future = asyncio.get_running_loop().create_future()
        self._asked.append(future)
        self._bell.set()
        await future

    async def run(self) -> None:
        """Take turns for ever. Raises Refused (store) when this leader must end; nothing is said after it."""
        try:
            while True:
                await self._bell.wait()
                self._bell.clear()
                if not await self._turn():
                    await asyncio.sleep(0)  # a turn without a commit must not starve the sockets
        finally:
            if self._timer is not None:
                self._timer.cancel()
            _fail(self._asked)
            self._ended = True

    # --- one turn ----------------------------------------------------------------------------------------------

    async def _turn(self) -> bool:
        """Take one turn; give whether something was committed."""
        arrived, self._arrived = self._arrived, []
        asked, self._asked = self._asked, []
        try:
            now = self._clock()
            effects: list[Effect] = []
            for event, voice in arrived:
                effects += self._handle(event, voice, now)
            effects += self.core.handle(TurnEnded(), now)
            committed = await self._commit(effects)
            self._speak(effects)
            self._part()
        except BaseException:
            _fail(asked)
            raise
        for event, _ in arrived:
            if isinstance(event, (RetryRequested, RerunRequested)):
                self._tasks_over = self._find_tasks_over()
        for future in asked:
            if not future.done():
                future.set_result(None)
        self._note_end()
        return committed

    def _handle(self, event: Event, voice: Voice | None, now: float) -> list[Effect]:
        if voice is not None:
            voice.unheard -= 1
            if isinstance(event, WorkerJoined):
                self._hear_from(event.worker, voice)
            elif isinstance(event, WorkerDisconnected):
                if self._voices.get(event.worker) is not voice:
                    return []  # the worker is back on a newer connection, or has left for good
                del self._voices[event.worker]
        if isinstance(event, BlocksReleased):
            self._meter.released(event)
        elif isinstance(event, BlocksWanted):
            self._meter.wanted(event.worker, event.n, now)
        elif isinstance(event, WorkerGone):
            self._forget(event)
        try:
            return self.core.handle(event, now)
        except ProtocolError as error:
            if voice is None:
                raise
            voice.drop(str(error))
            return []

    def _hear_from(self, worker: str, voice: Voice) -> None:
        """From now on the worker is spoken to on this connection, and no more on an older one."""
        old = self._voices.get(worker)
        if old is not None and old is not voice:
            old.drop(f"worker {worker} is back on a new connection")
        self._voices[worker] = voice
        self.known.add(worker)

    def _forget(self, event: WorkerGone) -> None:
        self._meter.gone(event.worker)
        self.known.discard(event.worker)
        if (voice := self._voices.get(event.worker)) is not None:
            self._leaving.append((event.worker, voice, event.reason or "it left"))

    def _part(self) -> None:
        """Close the sessions of those who left, now that they have got their last acknowledgements."""
        for worker, voice, reason in self._leaving:
            if self._voices.get(worker) is voice:
                del self._voices[worker]
            voice.drop(reason)
        self._leaving.clear()

    async def _commit(self, effects: Sequence[Effect]) -> bool:
        """Return when all records are safe and the lock is surely ours; give whether there were records."""
        committed = False
        for effect in effects:
            if isinstance(effect, CommitRecord):
                began_s = self._clock()
                try:
                    await self._store.commit(self._leadership.identity, effect)
                except Forgot as error:
                    await self._write_all(str(error), effect.errors)
                self._meter.commits.add(self._clock() - began_s)
                self._meter.noted(effect.errors)
                committed = True
        self._meter.turns += 1
        if self._forgotten:
            await self._write_all("Redis lost records of this run", ())
            committed = True
        # Also after a commit: a Redis that went back behind a successor's time takes the record of a leader that slept.
        if any(not isinstance(effect, (WakeAt, ContinueTurn)) for effect in effects):
            await self._leadership.confirmed()
        return committed

    async def _write_all(self, why: str, notes: Sequence[FailureNote]) -> None:
        """Make Redis hold all that we know, the record last given out included, and nothing else."""
        log.warning("%s; nobody else leads, so all of the run is written again, as of record %d", why, self.core.seq)
        lead, began_s = self._leadership, self._clock()
        if not lead.holds():  # another may have led meanwhile, of whom Redis has nothing left
            self.core.store_forgot(began_s)
        run, seq, pages = self.core.run, self.core.seq, self.core.whole_snapshot
        await self._store.rewrite(
            lead.identity, lead.address, lead.lock_s, run, seq, pages, notes, vouch=lead.vouches()
        )
        self._forgotten = False
        lead.confirm(began_s)
        log.warning("all of the run is in Redis again, after %.2f s", self._clock() - began_s)

    # --- speech ------------------------------------------------------------------------------------------------

    def _speak(self, effects: Iterable[Effect]) -> None:
        """Carry out all but the commits: one write for each worker, broadcasts encoded once."""
        said: dict[str, list[msgspec.Struct]] = {}
        leases: dict[str, list[SendLeases]] = {}
        to_all: list[bytes] = []
        for effect in effects:
            match effect:
                case SendLeases():
                    leases.setdefault(effect.worker, []).append(effect)
                case SendAck():
                    said.setdefault(effect.worker, []).append(Ack(effect.seq, effect.stale))
                case SendWelcome():
                    said.setdefault(effect.worker, []).extend(self._welcomed(effect))
                case SendRevoke():
                    numbers = effect.numbers.astype(convert.IDS).tobytes()
                    said.setdefault(effect.worker, []).append(Revoke(numbers))
                case SendTaskBegan():
                    said.setdefault(effect.worker, []).append(TaskBegan(effect.task, effect.leased))
                case AnnounceTaskOver() if effect.task not in self._tasks_over:
                    self._tasks_over.add(effect.task)
                    to_all.append(encode(TaskOver(effect.task)))
                case AnnounceRunOver() if not self.run_over.is_set():
                    to_all.append(encode(RunOver(effect.state)))
                case WakeAt():
                    self._wake_at(effect.time_s)
                case ContinueTurn():
                    self._bell.set()
                case _:
                    pass  # committed, or announced before and told to newcomers with their welcome
        now = self._clock()
        for worker, batch in leases.items():
            self._meter.leased(batch, now)
            said.setdefault(worker, []).append(convert.grants(batch))
        for worker, messages in said.items():
            if (voice := self._voices.get(worker)) is not None:
                voice.send([encode(message) for message in messages])
        if to_all:
            for voice in list(self._voices.values()):
                voice.send(to_all)

    def _welcomed(self, effect: SendWelcome) -> list[msgspec.Struct]:
        """Return the welcome, and what was announced before this worker came."""
        if (voice := self._voices.get(effect.worker)) is not None:
            voice.welcomed = True
        revoked = effect.revoked.astype(convert.IDS).tobytes()
        messages: list[msgspec.Struct] = [msgspec.structs.replace(self._welcome, revoked=revoked)]
        messages += [TaskOver(task) for task in sorted(self._tasks_over)]
        if self.core.is_over:
            messages.append(RunOver(self.core.state))
        return messages

    def _find_tasks_over(self) -> set[str]:
        return {task.id for task in self.core.status(self._clock()).tasks if task.over}

    def _note_end(self) -> None:
        for event, holds in ((self.run_over, self.core.is_over), (self.run_stopped, self.core.has_stopped)):
            if holds:
                event.set()
            else:
                event.clear()

    def dismiss(self) -> None:
        """Tell all workers to leave, although the run is not over: this scheduler ends with a run that is paused."""
        self.dismissed = True
        for voice in list(self._voices.values()):
            voice.send([encode(RunOver(self.core.state))])

    # --- the timer ---------------------------------------------------------------------------------------------

    def _wake_at(self, time_s: float) -> None:
        """Ring the bell then, or earlier."""
        loop = asyncio.get_running_loop()
        when_s = loop.time() + max(time_s - self._clock(), SHORTEST_NAP_S)
        if self._timer is not None:
            if self._timer.when() <= when_s:
                return
            self._timer.cancel()
        self._timer = loop.call_at(when_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._bell.set()


def _fail(futures: Iterable[asyncio.Future[None]]) -> None:
    """Tell those who wait that the answer will not come."""
    for future in futures:
        if not future.done():
            future.set_exception(StoreError(ENDING))
            future.exception()  # whoever waited may be gone, and then nobody takes it

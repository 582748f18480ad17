"""The loop that takes turns: `blockyard.leader.turn` decides what is done, here it is done with Redis and sockets."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable

from blockyard.core.events import Event, WorkerCannotStart
from blockyard.core.scheduler import Scheduler
from blockyard.leader.peer import Peer
from blockyard.leader.turn import AwaitLock, Commit, Rewrite, Speak, Step, Turns
from blockyard.spec.errors import StoreError
from blockyard.views.observed import ObservedRun
from blockyard_scheduler.leadership import Leadership
from blockyard_scheduler.meter import Meter
from blockyard_scheduler.store.redis import Forgot, Store

log = logging.getLogger(__name__)

ENDING = "this scheduler ends, and does not know whether that was done; ask the next one"
SHORTEST_NAP_S = 0.001
"""A timer that is due at once still lets the loop serve its sockets first."""


class TurnLoop:
    """Takes the turns of one leader. `clock` gives monotonic seconds; `flush` writes what a peer has to say."""

    def __init__(
        self,
        turns: Turns,
        observed: ObservedRun,
        store: Store,
        leadership: Leadership,
        *,
        meter: Meter,
        flush: Callable[[Peer], None],
        clock: Callable[[], float],
    ) -> None:
        """Take the turns of a run that this scheduler leads."""
        self.turns = turns
        self.observed = observed
        """What the run looks like to others."""
        self.run_stopped = asyncio.Event()
        """Set when nothing will run unless a person does something: it is over, or paused for a reason."""
        self._store = store
        self._leadership = leadership
        self._meter = meter
        self._flush = flush
        self._clock = clock
        self._asked: list[asyncio.Future[None]] = []
        self._ended = False
        self._bell = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self.arm()

    @property
    def core(self) -> Scheduler:
        """The run."""
        return self.turns.core

    # --- from outside ------------------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """Take an event into the next turn."""
        self.turns.tell(event, self._clock())
        self.arm()

    def redis_forgot(self) -> None:
        """Write all of the run again, before anything else is said: Redis was seen to have lost some of it."""
        self.turns.store_forgot("Redis lost records of this run")
        self._leadership.changed.set()
        self.arm()

    @property
    def dismissed(self) -> bool:
        """Whether the workers were told to leave although the run is not over."""
        return self.turns.dismissed

    def dismiss(self) -> None:
        """Tell all workers to leave, although the run is not over."""
        for peer in self.turns.dismiss():
            self._flush(peer)

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

    def arm(self) -> None:
        """Take the next turn when it is due; call after peers or events have told something."""
        due_s = self.turns.due_s
        if due_s == math.inf:
            return
        loop = asyncio.get_running_loop()
        if due_s == -math.inf:
            self._bell.set()
            return
        when_s = loop.time() + max(due_s - self._clock(), SHORTEST_NAP_S)
        if self._timer is not None:
            if self._timer.when() <= when_s:
                return
            self._timer.cancel()
        self._timer = loop.call_at(when_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._bell.set()

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
        """Take one turn; return whether something was written."""
        asked, self._asked = self._asked, []
        turns, began_s = self.turns, self._clock()
        try:
            step = turns.begin(began_s)
            while not isinstance(step, Speak):
                step = await self._carried_out(step)
            now = self._clock()
            for peer in turns.speak():
                self._flush(peer)
        except BaseException:
            _fail(asked)
            raise
        for event in turns.events:
            if isinstance(event, WorkerCannotStart):
                said = f"says: {event.text}" if event.text else "works now"
                log.warning("worker %s %s", event.worker, said, extra={"worker": event.worker})
        self.observed.turned(began_s)
        self._meter.turned(turns.events, turns.effects, began_s, now)
        for future in asked:
            if not future.done():
                future.set_result(None)
        if turns.core.has_stopped:
            self.run_stopped.set()
        else:
            self.run_stopped.clear()
        self.arm()
        return turns.committed

    async def _carried_out(self, step: Step) -> Step:
        """Do what a turn wants done, and return what it wants then."""
        began_s = self._clock()
        match step:
            case Commit(record):
                try:
                    await self._store.commit(self._leadership.identity, record)
                except Forgot as error:
                    return self.turns.forgot(str(error), self._clock())
                self._meter.commits.add(self._clock() - began_s)
                return self.turns.stored(self._clock())
            case Rewrite():
                await self._write_all(step)
                return self.turns.rewritten(step.asked_s, self._clock())
            case AwaitLock():
                await self._leadership.changed_since(began_s)
        return self.turns.look(self._clock())

    async def _write_all(self, step: Rewrite) -> None:
        log.warning("%s; nobody else leads, so all of the run is written again, as of record %d", step.why, step.seq)
        claim = self._leadership.claim
        await self._store.rewrite(
            claim.identity, claim.address, claim.lock_s, step.run, step.seq, step.pages, step.notes, vouch=step.vouch
        )
        log.warning("all of the run is in Redis again, after %.2f s", self._clock() - step.asked_s)


def _fail(futures: Iterable[asyncio.Future[None]]) -> None:
    """Tell those who wait that the answer will not come."""
    for future in futures:
        if not future.done():
            future.set_exception(StoreError(ENDING))
            future.exception()  # whoever waited may be gone, and then nobody takes it

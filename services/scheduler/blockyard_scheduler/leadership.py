"""Who leads: a lock in Redis that expires, renewed at a third of its time.

The lock only decides who *tries*; what protects the run is that every commit checks the writer's identity in the same
script that writes. All words need the lock to be fresh all the same. From the echo of a heartbeat, which Redis never
saw, a worker counts its lease, and a successor may have begun to count it down. And a Redis that went back behind a
successor's time takes the record of a leader that slept meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Callable
from functools import partial

from blockyard_scheduler.process import is_dead, name_of
from blockyard_scheduler.store.redis import FIRST_PAUSE_S, Forgot, Held, Refused, Store, Uncertain, until_answered

log = logging.getLogger(__name__)


class Leadership:
    """One scheduler's claim to lead one run. `clock` gives monotonic seconds."""

    def __init__(self, store: Store, *, lock_s: float, address: str, clock: Callable[[], float]) -> None:
        """Claim nothing yet; `address` is where workers reach this scheduler."""
        self.lock_s = lock_s
        self.address = address
        self.leader = ""
        """Address of the scheduler that leads while this one waits."""
        self.epoch = 0
        """0: this one does not lead."""
        self.waited = False
        """Whether a living leader was seen before this one came to lead."""
        self.redis_forgot = False
        """Whether Redis is known to have forgotten the leader before this one."""
        self.vouches: Callable[[], bool] = lambda: False
        """Whether Redis holds all that there is to know of the run, so that a later restart of it can be seen."""
        self.lapsed: Callable[[], None] = lambda: None
        """Called when the lock had expired and another may have led meanwhile, of whom Redis has nothing left."""
        self.forgot: Callable[[], None] | None = None
        """Called when Redis is seen to have forgotten us while nobody else leads; None: that is an error."""
        self._seen_epoch = 0
        self._store = store
        self._clock = clock
        self._nonce = secrets.token_hex(8)
        self._process = name_of(os.getpid())
        self._renewed_s = float("-inf")
        self._renewed = asyncio.Event()

    @property
    def identity(self) -> str:
        """What Redis knows this leader by."""
        return f"{self.epoch}:{self._nonce}"

    def holds(self) -> bool:
        """Whether the lock is surely ours at this moment."""
        return self._clock() - self._renewed_s <= self.lock_s

    async def confirmed(self) -> None:
        """Return when the lock is surely ours; `keep` ends first when it is another's."""
        while not self.holds():
            self._renewed.clear()
            await self._renewed.wait()

    async def acquire(self) -> None:
        """Return when this scheduler leads.

        A dead leader's lock is freed at once where its death can be seen from here; it expires within `lock_s`.
        """
        first_s = self._clock()
        forgot_s: float | None = None
        while True:
            asked_s = self._clock()
            answer = await until_answered(
                lambda: self._store.take_lock(self._nonce, self.address, self.lock_s, self._seen_epoch, self._process)
            )
            if not isinstance(answer, Held):
                self.epoch, self._renewed_s = answer, asked_s
                return
            if is_dead(answer.process):
                log.info("the scheduler that led this run (epoch %d) is dead: its lock is freed", answer.epoch)
                await until_answered(partial(self._store.free_lock, answer.identity))
                continue
            if answer.forgot:
                forgot_s = asked_s if forgot_s is None else forgot_s
                self._await_rewrite(asked_s - forgot_s)
            else:
                forgot_s = None
                self._note_leader(answer, first_s)
            await asyncio.sleep(min(self.lock_s / 5, answer.left_s + FIRST_PAUSE_S))

    def _note_leader(self, held: Held, first_s: float) -> None:
        self._seen_epoch = max(self._seen_epoch, held.epoch)
        if self.leader != held.address:
            self.leader = held.address
            log.info("waiting: the scheduler at %s leads this run", self.leader or "an unknown address")
        # A lock that outlives its own time is being renewed: somebody lives.
        self.waited = self.waited or self._clock() - first_s > 1.5 * self.lock_s

    def _await_rewrite(self, waited_s: float) -> None:
        """Redis forgot: leave its living leader the time to notice, and lead only when none comes."""
        if waited_s > 2 * self.lock_s:
            log.warning("Redis has forgotten epoch %d of this run, and no leader writes it again", self._seen_epoch)
            self._seen_epoch = 0
            self.redis_forgot = True

    async def keep(self) -> None:
        """Renew the lock for ever. Raises Refused when another leads."""
        pause_s = self.lock_s / 3
        failing = False
        while True:
            await asyncio.sleep(pause_s)
            asked_s = self._clock()
            pause_s = self.lock_s / 3
            try:
                unbroken = await self._store.renew_lock(self.identity, self.lock_s, vouch=self.vouches())
            except Uncertain as error:
                if not failing:  # once for each time that Redis is away
                    log.warning("the lock could not be renewed (%s); trying again", error)
                failing = True
                pause_s = min(FIRST_PAUSE_S * 5, self.lock_s / 3)
            except Forgot:
                if self.forgot is None:
                    raise
                self.forgot()
            else:
                if not unbroken:
                    self.lapsed()
                if failing:
                    log.warning("the lock is renewed again")
                failing = False
                self.confirm(asked_s)

    def confirm(self, asked_s: float) -> None:
        """Redis took what only the leader may say; it was asked at `asked_s`."""
        self._renewed_s = asked_s
        self._renewed.set()

    async def resign(self) -> None:
        """Let a standby lead at once; harmless when this one never led."""
        if self.epoch:
            self._renewed_s = float("-inf")
            try:
                await self._store.free_lock(self.identity)
            except (Uncertain, Refused) as error:
                log.info("the lock is left to expire (%s)", error)

"""Coming to lead and going on leading: `blockyard.leader.claim` with a real Redis and a real clock."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from blockyard.leader.claim import Claim, Held
from blockyard_scheduler.process import is_dead, name_of
from blockyard_scheduler.store.redis import Forgot, Refused, Store, Uncertain, until_answered

if TYPE_CHECKING:
    from blockyard_scheduler.turns import TurnLoop

log = logging.getLogger(__name__)


class Leadership:
    """Asks Redis for the lock, and to renew it. `clock` gives monotonic seconds."""

    def __init__(self, store: Store, *, lock_s: float, address: str, clock: Callable[[], float]) -> None:
        """Claim nothing yet; `address` is where workers reach this scheduler."""
        self.claim = Claim(secrets.token_hex(8), lock_s=lock_s, address=address)
        self.loop: TurnLoop | None = None
        """Who is told that Redis forgot; None while the run is being read."""
        self.changed = asyncio.Event()
        """Set when the lock was renewed, or there is another reason to look again whether it is ours."""
        self._store = store
        self._clock = clock
        self._process = name_of(os.getpid())

    @property
    def epoch(self) -> int:
        """The leader's counter; 0: this one does not lead."""
        return self.claim.epoch

    @property
    def leader(self) -> str:
        """Address of the scheduler that leads while this one waits."""
        return self.claim.leader

    @property
    def identity(self) -> str:
        """What Redis knows this leader by."""
        return self.claim.identity

    def holds(self) -> bool:
        """Return whether the lock is surely ours at this moment."""
        return self.claim.holds(self._clock())

    async def changed_since(self, now: float) -> None:
        """Return when there is a reason to look whether the lock is ours: at once where it was at `now`."""
        if not self.claim.holds(now):
            self.changed.clear()
            await self.changed.wait()

    async def acquire(self) -> None:
        """Return when this scheduler leads.

        A dead leader's lock is freed at once where its death can be seen from here; it expires within its time.
        """
        claim = self.claim
        while True:
            asked_s = self._clock()
            answer = await until_answered(
                lambda: self._store.take_lock(claim.nonce, claim.address, claim.lock_s, claim.seen_epoch, self._process)
            )
            if not isinstance(answer, Held):
                claim.took(answer, asked_s)
                return
            if is_dead(answer.process):
                log.info("the scheduler that led this run (epoch %d) is dead: its lock is freed", answer.epoch)
                await until_answered(partial(self._store.free_lock, answer.identity))
                continue
            leader, seen_epoch = claim.leader, claim.seen_epoch
            pause_s = claim.held(answer, asked_s, self._clock())
            if claim.leader != leader:
                log.info("waiting: the scheduler at %s leads this run", claim.leader or "an unknown address")
            if claim.seen_epoch < seen_epoch:
                log.warning("Redis has forgotten epoch %d of this run, and no leader writes it again", seen_epoch)
            await asyncio.sleep(pause_s)

    async def keep(self) -> None:
        """Renew the lock for ever. Raises Refused when another leads."""
        pause_s = self.claim.renewal_s
        failing = False
        while True:
            await asyncio.sleep(pause_s)
            asked_s, loop = self._clock(), self.loop
            pause_s = self.claim.renewal_s
            vouch = loop is not None and loop.turns.vouches(asked_s)
            try:
                unbroken = await self._store.renew_lock(self.identity, self.claim.lock_s, vouch=vouch)
            except Uncertain as error:
                if not failing:  # once for each time that Redis is away
                    log.warning("the lock could not be renewed (%s); trying again", error)
                failing = True
                pause_s = self.claim.retry_s
            except Forgot:
                if loop is None:
                    raise
                loop.redis_forgot()
            else:
                if not unbroken and loop is not None:
                    loop.turns.lapsed(self._clock())
                if failing:
                    log.warning("the lock is renewed again")
                failing = False
                self.claim.confirm(asked_s)
                self.changed.set()

    async def resign(self) -> None:
        """Let a standby lead at once; harmless when this one never led."""
        if self.epoch:
            self.claim.resign()
            try:
                await self._store.free_lock(self.identity)
            except (Uncertain, Refused) as error:
                log.info("the lock is left to expire (%s)", error)

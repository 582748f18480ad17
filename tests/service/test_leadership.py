"""When a standby leads, by the clock of a Redis and a leader that exist in virtual time."""

import asyncio
import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual_time import in_virtual_time

from blockyard.leader.claim import Held
from blockyard_scheduler.leadership import Leadership
from blockyard_scheduler.store.redis import Refused, Uncertain

TAKEOVER_S = 3.0
"""Promised: so long after the lock of a leader that is gone has expired, another leads."""
ROUNDING_S = 1e-9
"""The virtual clock adds up its sleeps."""


class Lock:
    """The lock in Redis, as a store gives it; Redis does not answer in the times `away`."""

    def __init__(self, clock, away=()):
        self.clock = clock
        self.away = away
        self.expires_s = -math.inf
        self.epoch = 0
        self.identity = ""

    def _asked(self):
        if any(begin <= self.clock() < end for begin, end in self.away):
            raise Uncertain("no answer")

    async def take_lock(self, nonce, address, lock_s, seen_epoch, process):
        self._asked()
        now_s = self.clock()
        if now_s <= self.expires_s:  # as Redis has it
            return Held("there:1", self.epoch, self.expires_s - now_s, self.identity)
        self.epoch += 1
        self.identity, self.expires_s = f"{self.epoch}:{nonce}", now_s + lock_s
        return self.epoch

    async def renew_lock(self, identity, lock_s, *, vouch=False):
        self._asked()
        if identity != self.identity:
            raise Refused("another scheduler leads")
        unbroken = self.clock() <= self.expires_s
        self.expires_s = self.clock() + lock_s
        return unbroken

    async def free_lock(self, identity):
        self._asked()
        if identity == self.identity:
            self.expires_s = -math.inf


def leadership(lock, lock_s, name):
    return Leadership(lock, lock_s=lock_s, address=f"{name}:1", clock=lock.clock)


lock_times = st.floats(0.5, 60.0)


@given(lock_s=lock_times, led_s=st.floats(0.0, 200.0), standby_s=st.floats(0.0, 200.0))
def test_another_leads_soon_after_the_lock_expires_and_not_before(lock_s, led_s, standby_s):
    """Whenever the leader is gone and since whenever the standby waits, however long the lock."""

    async def job(clock):
        lock = Lock(clock)
        old, new = (leadership(lock, lock_s, name) for name in ("old", "new"))
        await old.acquire()
        renewing = asyncio.ensure_future(old.keep())

        async def stand_by():
            await asyncio.sleep(standby_s)
            await new.acquire()
            return clock()

        waiting = asyncio.ensure_future(stand_by())
        await asyncio.sleep(led_s)
        assert not waiting.done()
        renewing.cancel()
        expires_s = lock.expires_s
        leads_s = await waiting
        assert new.epoch == 2
        return expires_s, leads_s

    expires_s, leads_s = in_virtual_time(job)
    earliest = max(expires_s, standby_s)
    assert earliest - ROUNDING_S <= leads_s <= earliest + TAKEOVER_S


@given(lock_s=lock_times, away_s=st.floats(0.0, 100.0))
def test_another_leads_soon_after_a_redis_that_was_away_answers(lock_s, away_s):
    """Also where the lock expired while nobody could be asked."""

    async def job(clock):
        lock = Lock(clock, away=[(0.1, 0.1 + away_s)])
        await leadership(lock, lock_s, "old").acquire()
        await leadership(lock, lock_s, "new").acquire()
        return max(lock_s, 0.1 + away_s), clock()

    earliest, leads_s = in_virtual_time(job)
    assert earliest - ROUNDING_S <= leads_s <= earliest + TAKEOVER_S


@pytest.mark.parametrize("lock_s", [1.0, 5.0, 60.0])
def test_a_leader_that_resigns_is_followed_soon(lock_s):
    """Nobody waits for its lock to expire."""

    async def job(clock):
        lock = Lock(clock)
        old, new = (leadership(lock, lock_s, name) for name in ("old", "new"))
        await old.acquire()
        waiting = asyncio.ensure_future(new.acquire())
        await asyncio.sleep(lock_s / 2)
        await old.resign()
        resigned_s = clock()
        await waiting
        return resigned_s, clock()

    resigned_s, leads_s = in_virtual_time(job)
    assert leads_s <= resigned_s + max(lock_s / 5, TAKEOVER_S)


@given(lock_s=lock_times, frozen_s=st.floats(0.0, 200.0))
def test_a_leader_knows_by_itself_when_its_lock_may_be_anothers(lock_s, frozen_s):
    """It holds what it renewed less than a lock's time ago, and hears of its successor with the next renewal."""

    async def job(clock):
        lock = Lock(clock)
        old, new = (leadership(lock, lock_s, name) for name in ("old", "new"))
        await old.acquire()
        waiting = asyncio.ensure_future(new.acquire())
        await asyncio.sleep(frozen_s)  # it renews nothing
        assert not (old.holds() and new.epoch)
        assert old.holds() == (frozen_s <= lock_s)
        await waiting
        assert not old.holds()
        with contextlib.suppress(TimeoutError), pytest.raises(Refused):
            async with asyncio.timeout(lock_s):
                await old.keep()

    in_virtual_time(job)

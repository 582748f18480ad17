"""A Redis that lost what it had confirmed, under a leader that lives: nothing is lost, and nothing counts twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time

import numpy as np
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from scheduler_rig import Worker, beating, pack, run_of, serving, settings_of, task, until, work_off

from blockyard.core.events import CommitRecord, FailureNote, Page
from blockyard.local.redis import EmbeddedRedis
from blockyard.testing.chaos.aof import files
from blockyard.wire.messages import Ack, BlockError, Bye
from blockyard_scheduler.service import SchedulerService
from blockyard_scheduler.store import redis as store_module
from blockyard_scheduler.store.keys import Keys
from blockyard_scheduler.store.redis import Forgot, Held, Refused, Store


@pytest.fixture
def own_redis(tmp_path):
    """A server that this test alone may kill and rob of its memory."""
    with EmbeddedRedis(tmp_path / "redis", fsync="everysec") as server:
        yield server


class Past:
    """A Redis, and the state it once had."""

    def __init__(self, server, file):
        self._server, self._file = server, file
        self._size = file.stat().st_size

    @classmethod
    async def of(cls, server):
        """Remember what the server has in its file, all that it confirmed until now included."""
        (file,) = files(server.folder)
        marker = secrets.token_bytes(16)
        async with Redis.from_url(server.url) as redis:
            await redis.set("marker", marker)
        await until(lambda: marker in file.read_bytes())
        return cls(server, file)

    async def come_back(self, size=None):
        """kill -9, cut the file back, start again."""
        os.kill(self._server.pid, signal.SIGKILL)
        await until(lambda: not self._server.alive())
        os.truncate(self._file, self._size if size is None else size)
        await asyncio.get_running_loop().run_in_executor(None, self._server.restart)


@pytest.mark.parametrize("emptied", [False, True])
def test_a_living_leader_writes_all_of_the_run_again(own_redis, run_name, emptied):
    """Redis goes back, or is emptied, while workers hold leases: they are released, and each block counts once."""

    async def main():
        settings = settings_of(run_of(run_name, task(blocks=40)), own_redis.url)
        async with serving(settings) as service, Worker(service) as worker, Worker(service, "other") as other:
            await worker.join()
            await other.join()
            past = await Past.of(own_redis)
            first, done = await worker.take(4)
            await worker.released(first)
            held, running = await worker.take(4)
            theirs, also_running = await other.take(4)
            await past.come_back(0 if emptied else None)
            assert await worker.released(held) == Ack(2)
            assert await other.released(theirs) == Ack(1)
            assert service._store.rewrites == 1
            ran, state = await work_off(worker)
            assert state == "done"
            assert sorted(done + running + also_running + ran) == list(range(40))
        async with serving(settings) as again:  # what was written again is what a successor finds
            assert (again.status().state, again.status().tasks[0].done) == ("done", 40)

    asyncio.run(main())


@pytest.mark.parametrize("emptied", [False, True])
def test_an_idle_leader_notices_too(own_redis, run_name, emptied):
    """Nothing is to be committed: the renewal of the lock finds it, so a successor has all of the run."""

    async def main():
        settings = settings_of(run_of(run_name, task(blocks=6)), own_redis.url)
        async with serving(settings) as service, Worker(service) as worker:
            await worker.join()
            past = await Past.of(own_redis)
            numbers, blocks = await worker.take(2)
            await worker.released(numbers)
            held, running = await worker.take(1)
            await past.come_back(0 if emptied else None)
            await until(lambda: service._store.rewrites == 1)
        async with serving(settings) as successor:
            assert successor.status().tasks[0].done == len(blocks)
            async with Worker(successor, holds=pack(held)) as worker:
                welcome = await worker.join()
                assert welcome.revoked == b""
                worker.seq = 1
                assert await worker.released(held) == Ack(2)
                ran, state = await work_off(worker)
                assert sorted(blocks + running + ran) == list(range(6))
                assert state == "done"

    asyncio.run(main())


def on_store(url, name, test):
    async def main():
        store = Store(url, name)
        try:
            epoch = await store.take_lock("a", "here:1", 60.0)
            await test(store, f"{epoch}:a")
        finally:
            await store.close()

    asyncio.run(main())


def pages(n=5, seq=9):
    return [Page(f"0:0:{at}", seq, bytes([at]) * 10) for at in range(n)]


def test_the_state_that_redis_has_stays_until_all_pages_are_there(redis_url, run_name, monkeypatch):
    """A leader that dies while it writes the run again leaves the older run, not a mixture."""
    monkeypatch.setattr(store_module, "LOAD_PAGES", 2)

    class Died(Exception):
        pass

    def dying():
        yield from pages(4)
        raise Died

    async def test(store, me):
        await store.commit(me, CommitRecord(1, b"old", (), (Page("head", 1, b"old"),)))
        with pytest.raises(Died):
            await store.rewrite(me, "here:1", 60.0, run_of(run_name), 9, dying)
        assert [page async for piece in store.pages() for page in piece] == [Page("head", 1, b"old")]
        assert await store.last_seq() == 1
        note = FailureNote("work", 3, 1, True, BlockError(1, "ValueError", "bad"))
        await store.rewrite(me, "here:1", 60.0, run_of(run_name), 9, pages, [note])  # what died had laid aside is gone
        found = [page async for piece in store.pages() for page in piece]
        assert sorted(found, key=lambda page: page.key) == pages()
        assert [record async for piece in store.records() for record in piece] == []
        assert await store.failures() == [note]
        await store.commit(me, CommitRecord(10, b"next"))
        assert await store.last_seq() == 10

    on_store(redis_url, run_name, test)


def test_who_does_not_lead_any_more_rewrites_nothing(redis_url, run_name):
    """Another took the lock of the Redis that forgot: its run is left alone."""

    async def test(store, me):
        await store.commit(me, CommitRecord(1, b"mine"))
        await store.free_lock(me)
        await store.take_lock("b", "there:2", 60.0)
        with pytest.raises(Refused):
            await store.rewrite(me, "here:1", 60.0, run_of(run_name), 9, pages)
        assert await store.last_seq() == 1

    on_store(redis_url, run_name, test)


def test_a_redis_that_went_back_to_an_earlier_leader_is_known_for_that(redis_url, run_name):
    """The writer it names led before us: it forgot; a writer we never heard of leads now."""

    async def test(store, me):
        await store.commit(me, CommitRecord(1, b"first"))
        keys = Keys.of(run_name)
        await store.free_lock(me)
        second = Store(redis_url, run_name)
        epoch = await second.take_lock("b", "there:2", 60.0)
        assert isinstance(epoch, int)
        try:
            async with Redis.from_url(redis_url) as redis:
                await redis.delete(keys.lock)
                await redis.hset(keys.head, mapping={"writer": me, "seq": 0})
                with pytest.raises(Forgot, match="0 as the last record"):
                    await second.renew_lock(f"{epoch}:b", 60.0)
                with pytest.raises(Forgot):
                    await second.commit(f"{epoch}:b", CommitRecord(2, b"second"))
                await second.rewrite(f"{epoch}:b", "there:2", 60.0, run_of(run_name), 2, pages)
                with pytest.raises(Refused):
                    await store.renew_lock(me, 60.0)
                await redis.delete(keys.lock)
                await redis.hset(keys.head, "writer", "2:stranger")
                with pytest.raises(Refused):
                    await second.renew_lock(f"{epoch}:b", 60.0)
        finally:
            await second.close()

    on_store(redis_url, run_name, test)


def test_a_standby_leaves_an_emptied_redis_to_its_living_leader(redis_url, run_name):
    """Below the epoch it has seen nobody is made leader; without a leader for long, somebody is."""

    async def test(store, me):
        epoch = int(me.split(":")[0])
        async with Redis.from_url(redis_url) as redis:
            await redis.delete(*await redis.keys(Keys.of(run_name).prefix + "*"))
        assert await store.take_lock("b", "there:2", 60.0, epoch) == Held("", forgot=True)
        assert await store.take_lock("b", "there:2", 60.0) == 1

    on_store(redis_url, run_name, test)


async def dies(service):
    """End a scheduler as `kill -9` does, in this process: nothing is said, written or freed any more."""
    service._shut_down = service._store.close  # the lock stays, as do the files
    await service._blocks.close()
    service.life.cancel()
    await asyncio.gather(service.life, return_exceptions=True)
    service._http.stop()


@contextlib.asynccontextmanager
async def leading(settings):
    """A scheduler that leads, and is not ended in order."""
    service = SchedulerService(settings)
    service.life = asyncio.ensure_future(service.run())
    await until(lambda: service.turns is not None or service.life.done())
    yield service
    await dies(service)


async def vouched(server, run_name):
    """Return when a leader has noted which start of Redis holds all that it knows."""
    async with Redis.from_url(server.url) as redis, asyncio.timeout(50):
        while not await redis.hget(Keys.of(run_name).head, "server"):  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(0.01)


def test_a_leader_that_dies_with_a_redis_that_forgets_leaves_no_ghosts(own_redis, run_name, caplog):
    """Its successor leases nothing for lease and grace; what is known goes on, all else is revoked and runs again."""

    async def main():
        settings = settings_of(run_of(run_name, task(blocks=20)), own_redis.url, lease_s=3.0, grace_s=0.5, lock_s=1.0)
        async with leading(settings) as service, Worker(service) as worker, Worker(service, "other") as other:
            await worker.join()
            await other.join()
            known, known_blocks = await worker.take(1)
            await vouched(own_redis, run_name)
            past = await Past.of(own_redis)
            ghosts, _ = await other.take(3)
        await past.come_back()
        began_s = time.monotonic()
        async with serving(settings) as successor:
            assert successor.status().quiet_s > 0
            async with (
                Worker(successor, holds=pack(known)) as worker,
                Worker(successor, "other", holds=pack(ghosts)) as it,
            ):
                assert np.frombuffer((await it.join()).revoked, "<i8").tolist() == sorted(ghosts)
                assert (await worker.join()).revoked == b""
                assert await it.released(ghosts) == Ack(1, len(ghosts))
                assert await worker.released(known) == Ack(1)
                assert successor.status().tasks[0].done == 1
                async with beating(worker, it):  # on a busy machine it lasts longer than a silent worker is kept
                    _, first = await it.take(1)
                assert time.monotonic() - began_s > 3.5
                it.say(Bye("done"))
                ran, state = await work_off(worker)
                assert sorted(known_blocks + ran) == list(range(20))
                assert set(first) <= set(ran)
                assert state == "done"
        assert any("may have forgotten leases" in message for message in caplog.messages)

    asyncio.run(main())


@pytest.mark.parametrize("fsync", ["always", "everysec"])
def test_a_takeover_waits_only_where_something_can_be_lost(tmp_path, run_name, fsync):
    """Redis is killed with its leader: with `always` it keeps all; a mere restart of the scheduler loses nothing."""

    async def main():
        with EmbeddedRedis(tmp_path / "redis", fsync=fsync) as server:
            settings = settings_of(run_of(run_name, task(blocks=4)), server.url, lock_s=1.0)
            async with leading(settings) as service, Worker(service) as worker:
                await worker.join()
                await worker.released((await worker.take(1))[0])
                await vouched(server, run_name)
            async with leading(settings) as service:
                assert service.status().quiet_s == 0
                await until(service.leadership.holds)
            past = await Past.of(server)
            await past.come_back()
            async with leading(settings) as service:
                assert (service.status().quiet_s > 0) == (fsync == "everysec")
                assert service.status().tasks[0].done == 1
            async with leading(settings) as service:  # nobody vouched for it while it was quiet
                assert (service.status().quiet_s > 0) == (fsync == "everysec")

    asyncio.run(main())


def test_a_leader_whose_lock_lapsed_over_a_restart_of_a_forgetful_redis_says_so(tmp_path, run_name):
    """Another may have led meanwhile, of whom the older file has nothing: the renewal takes the lock, and warns."""

    async def main():
        with EmbeddedRedis(tmp_path / "redis", fsync="everysec") as server:
            store, keys = Store(server.url, run_name), Keys.of(run_name)
            await store.check()
            me = f"{await store.take_lock('a', 'here:1', 60.0)}:a"
            await store.write_spec(me, run_of(run_name), fresh=False)
            assert await store.renew_lock(me, 60.0, vouch=True)
            past = await Past.of(server)
            await past.come_back()
            async with Redis.from_url(server.url) as redis:
                await until_answers(redis)
                assert await store.renew_lock(me, 60.0)  # nobody can have had the lock
                await redis.delete(keys.lock)
                assert not await store.renew_lock(me, 60.0, vouch=True)
                assert await redis.get(keys.lock) == me.encode()
                assert await store.may_have_forgotten()
            await store.close()

    asyncio.run(main())


async def until_answers(redis):
    """Return when a server that was started again takes commands; the first may meet the connection that broke."""
    async with asyncio.timeout(50):
        while True:
            with contextlib.suppress(RedisError):
                await redis.ping()
                return


def test_an_earlier_leader_that_went_on_is_not_overwritten(redis_url, run_name):
    """Redis forgets the second leader; the first wakes and goes on. The second, which knows less, must end (P2)."""

    async def main():
        run = run_of(run_name, task())
        first, second = Store(redis_url, run_name), Store(redis_url, run_name)
        try:
            one = f"{await first.take_lock('a', 'here:1', 60.0)}:a"
            await first.write_spec(one, run, fresh=False)
            await first.last_seq()
            await first.commit(one, CommitRecord(1, b"r1"))
            await first.free_lock(one)
            two = f"{await second.take_lock('b', 'there:2', 60.0)}:b"
            assert await second.last_seq() == 1
            async with Redis.from_url(redis_url) as redis:  # as it was before the second came
                await redis.hset(first.keys.head, mapping={"writer": one, "before": ""})
                await redis.delete(first.keys.lock)
            await first.rewrite(one, "here:1", 60.0, run, 2, pages)
            await first.free_lock(one)
            with pytest.raises(Refused):
                await second.renew_lock(two, 60.0)
            with pytest.raises(Refused):
                await second.commit(two, CommitRecord(2, b"r2"))
            with pytest.raises(Refused):
                await second.rewrite(two, "there:2", 60.0, run, 1, pages)
        finally:
            await first.close()
            await second.close()

    asyncio.run(main())

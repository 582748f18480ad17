"""A Redis that somebody fills, locks, demotes or robs while a run goes on: nothing is lost, or it is said."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError
from scheduler_rig import FaultyRedis, Worker, run_of, serving, settings_of, task, until, work_off

from blockyard.local.redis import EmbeddedRedis
from blockyard.spec.errors import StoreError
from blockyard_scheduler.store.keys import Keys
from blockyard_scheduler.store.redis import Store

BLOCKS = 60


@pytest.fixture
def own_redis(tmp_path):
    """A server that this test alone may trouble."""
    with EmbeddedRedis(tmp_path / "redis") as server:
        yield server


def settings_for(run_name, url, **fields):
    return settings_of(run_of(run_name, task(blocks=BLOCKS)), url, **({"lock_s": 1.0} | fields))


async def assert_whole(settings):
    """What a successor finds: each block counted once."""
    async with serving(settings) as successor:
        assert (successor.status().state, successor.status().tasks[0].done) == ("done", BLOCKS)


@contextlib.asynccontextmanager
async def in_the_middle(settings):
    """A run of which some blocks are done and some are held; at the end the rest is run, and all of it looked at."""
    async with serving(settings) as service, Worker(service) as worker:
        await worker.join()
        numbers, done = await worker.take(5)
        await worker.released(numbers)
        held, running = await worker.take(3)
        yield service
        await worker.released(held)
        ran, state = await work_off(worker)
        assert (sorted(done + running + ran), state) == (list(range(BLOCKS)), "done")


@pytest.mark.parametrize("lost", ["log", "pages", "spec", "schema", "head", "epoch", "lock"])
def test_a_key_that_is_lost_is_written_again(own_redis, run_name, lost):
    """Deleted by a person, or evicted: the leader sees it with the next renewal of its lock, and has all of it."""

    async def main():
        settings, keys = settings_for(run_name, own_redis.url), Keys.of(run_name)
        async with Redis.from_url(own_redis.url) as redis:
            async with in_the_middle(settings) as service:
                epoch = int(await redis.get(keys.epoch))
                if lost == "pages":  # which are there when a run is longer, or was written again
                    await redis.flushall()
                    await until(lambda: service._store.rewrites == 1)
                before = service._store.rewrites
                await redis.delete(getattr(keys, lost))
                if lost in ("log", "pages", "spec", "schema", "head"):
                    await until(lambda: service._store.rewrites > before)
            await assert_whole(settings)
            assert int(await redis.get(keys.epoch)) > epoch

    asyncio.run(main())


@pytest.mark.parametrize("lost", ["log", "pages", "spec"])
def test_a_run_of_which_keys_are_lost_is_not_gone_on_with(own_redis, run_name, lost):
    """Nobody leads who knows better: a sentence, and Redis is left as it is."""

    async def main():
        settings, keys = settings_for(run_name, own_redis.url), Keys.of(run_name)
        async with in_the_middle(settings) as service:
            await service._store.rewrite(
                service.leadership.identity, "here:1", 60.0, service.run_spec, service.turns.core.seq,
                service.turns.core.whole_snapshot,
            )  # fmt: skip
        async with Redis.from_url(own_redis.url) as redis:
            await redis.delete(getattr(keys, lost))
        with pytest.raises(StoreError, match=rf"lacks keys of run '{run_name}'.*--fresh"):
            async with serving(settings):
                pass

    asyncio.run(main())


def test_a_redis_told_to_evict_loses_nothing_under_a_living_leader(own_redis, run_name):
    """`maxmemory-policy allkeys-lru` is refused at the start; set later, and memory short, what it drops comes back."""

    async def main():
        settings = settings_for(run_name, own_redis.url)
        async with Redis.from_url(own_redis.url) as redis:
            async with in_the_middle(settings) as service:
                used = int((await redis.info("memory"))["used_memory"])
                await redis.config_set("maxmemory-policy", "allkeys-lru")
                await redis.config_set("maxmemory", str(used // 2))
                await until(lambda: service._store.errors_seen > 0 or service._store.rewrites > 0)
                await redis.config_set("maxmemory", "0")
                await redis.config_set("maxmemory-policy", "noeviction")
            await assert_whole(settings)

    asyncio.run(main())


@pytest.mark.parametrize(
    "trouble",
    [
        ("CLIENT", "PAUSE", "3000", "ALL"),
        ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
        ("SCRIPT", "FLUSH"),
        ("FLUSHALL",),
        ("CONFIG", "SET", "min-replicas-to-write", "1"),
        ("CONFIG", "SET", "timeout", "1"),
        ("CONFIG", "SET", "maxmemory", "1"),
        ("CONFIG", "SET", "maxclients", "1"),
    ],
    ids=" ".join,
)
def test_a_run_outlasts_what_is_done_to_its_redis(own_redis, run_name, trouble):
    """By another client, in the middle of a run and for longer than the lock lasts."""

    async def main():
        settings = settings_for(run_name, own_redis.url)
        async with Redis.from_url(own_redis.url) as redis:
            async with in_the_middle(settings):
                before = await redis.config_get(trouble[2]) if trouble[0] == "CONFIG" else {}
                await redis.execute_command(*trouble)
                await asyncio.sleep(1.5 * settings.lock_s)
                for name, value in before.items():
                    await redis.config_set(name, value)
            await assert_whole(settings)

    asyncio.run(main())


def test_a_redis_that_cannot_save_its_snapshot_is_waited_for(own_redis, run_name):
    """As on a full disk, with `stop-writes-on-bgsave-error`, the default: -MISCONF for every write until it can."""

    async def main():
        settings = settings_for(run_name, own_redis.url)
        async with Redis.from_url(own_redis.url) as redis:
            async with in_the_middle(settings) as service:
                in_the_way = own_redis.folder / "dump.rdb"
                in_the_way.mkdir()
                await redis.config_set("save", "3600 1")
                await saved(redis, "err")
                await until(lambda: service._store.errors_seen > 0)
                in_the_way.rmdir()
                await saved(redis, "ok")
            await assert_whole(settings)

    asyncio.run(main())


async def saved(redis, status):
    """Tell Redis to write a snapshot until it has ended so."""
    async with asyncio.timeout(50):
        while (await redis.info("persistence"))["rdb_last_bgsave_status"] != status:
            with contextlib.suppress(ResponseError):  # one is being written
                await redis.execute_command("BGSAVE")
            await asyncio.sleep(0.05)


def test_a_demoted_primary_is_left_for_the_promoted_one(tmp_path, run_name):
    """Behind one address the replica is made primary: the old one takes no writes, who connects anew finds the new."""

    async def main():
        with EmbeddedRedis(tmp_path / "one") as one, EmbeddedRedis(tmp_path / "two") as two:
            async with FaultyRedis(one.url, tmp_path) as address, Redis.from_url(one.url) as old:
                settings = settings_for(run_name, address.url)
                async with in_the_middle(settings) as service, Redis.from_url(two.url) as new:
                    await new.config_set("requirepass", address.password)
                    address.target = urlsplit(two.url).path
                    await old.replicaof("127.0.0.1", "1")
                    await until(lambda: service._store.rewrites == 1)  # what was replicated: here, nothing
                await assert_whole(settings_for(run_name, address.url))

    asyncio.run(main())


def test_a_changed_password_ends_a_scheduler_with_a_sentence(own_redis, run_name):
    """No waiting cures it; with the new one the run goes on."""

    async def main():
        settings = settings_for(run_name, own_redis.url)
        with pytest.raises(StoreError, match=r"refuses us .*give user and password in --redis-url"):
            await locked_out(settings, own_redis.url)
        parts = urlsplit(own_redis.url)
        async with Redis.from_url(f"unix://:another@{parts.path}") as redis:
            await redis.config_set("requirepass", parts.password)
        async with serving(settings) as service:
            assert service.status().tasks[0].done > 0

    asyncio.run(main())


async def locked_out(settings, url):
    """Change the password in the middle of a run, and end every connection."""
    async with in_the_middle(settings) as service, Redis.from_url(url) as redis:
        await redis.config_set("requirepass", "another")
        await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await service.life


@pytest.mark.parametrize("right", ["xtrim", "rename", "evalsha", "hset"])
def test_a_user_without_a_right_is_refused_at_the_start(own_redis, run_name, right):
    """Not in the middle of a run, when the first snapshot is written: which right, in a sentence. Since Redis 7."""

    async def main():
        async with Redis.from_url(own_redis.url) as redis:
            if (await redis.info("server"))["redis_version"].startswith("6."):
                pytest.skip("Redis before 7 can't be asked what a user may do")
            await redis.execute_command("ACL", "SETUSER", "clerk", "on", ">pass", "~blockyard:*", "+@all", f"-{right}")
        store = Store(f"unix://clerk:pass@{urlsplit(own_redis.url).path}?db=0", run_name)
        try:
            with pytest.raises(StoreError, match=rf"\+{right} on|no permissions to run the '{right}' command"):
                await store.check()
        finally:
            await store.close()

    asyncio.run(main())


def test_two_runs_on_one_redis_do_not_meet(own_redis, run_name):
    """Names that are almost the same, and very long ones: each has its own leader, journal and end."""

    async def main():
        names = [run_name, run_name + "}", "{" + run_name, run_name * 40]
        async with contextlib.AsyncExitStack() as stack:
            runs = [await stack.enter_async_context(serving(settings_for(name, own_redis.url))) for name in names]
            for n, service in enumerate(runs):
                worker = await stack.enter_async_context(Worker(service))
                await worker.join()
                numbers, _ = await worker.take(1)
                for _ in range(n):
                    await worker.released(numbers)
                    numbers, _ = await worker.take(1)
            assert [service.status().tasks[0].done for service in runs] == [0, 1, 2, 3]

    asyncio.run(main())

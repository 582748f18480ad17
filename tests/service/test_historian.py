"""The record of the run in Redis: what a successor reads is what its predecessor had, each block counted once."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from redis.asyncio import Redis
from scheduler_rig import FaultyRedis, Worker, run_of, serving, settings_of, task, until, work_off

from blockyard_scheduler.store import scripts
from blockyard_scheduler.store.keys import Keys

BLOCKS = 40


def settings_for(run_name, url, **fields):
    return settings_of(run_of(run_name, task(blocks=BLOCKS)), url, **fields)


def rows_of(service):
    """What is recorded of each block and chunk."""
    history = service.turns.observed.record.history
    record, names = history.tasks[0], list(history.workers)
    by_chunk = record.sums.tolist()
    if record.rows is None:
        return by_chunk
    seen = record.rows[record.rows["code"] != 0]
    return [
        by_chunk,
        history.began_s,
        seen[["code", "attempt", "ended_ds"]].tolist(),
        [names[w] for w in seen["worker"]],
    ]


@pytest.mark.parametrize("history_blocks", [1000, 10])
def test_a_successor_reads_the_same_record(redis_url, run_name, history_blocks):
    """Block by block, or of a large task by chunk; over two restarts, so also what was read is kept."""

    async def main():
        settings = settings_for(run_name, redis_url, history_blocks=history_blocks)
        async with serving(settings) as service, Worker(service) as worker:
            await worker.join()
            numbers, _ = await worker.take(3)
            await worker.released(numbers, seconds=2.5)
            await service.historian.keep()
            recorded = rows_of(service)
        async with serving(settings) as service, Worker(service, "other") as worker:
            assert rows_of(service) == recorded
            await worker.join()
            await work_off(worker)
            await service.historian.keep()
            recorded = rows_of(service)
        async with serving(settings) as service:
            assert rows_of(service) == recorded
            assert service.turns.observed.record.history.tasks[0].sums["blocks"].sum() == BLOCKS

    asyncio.run(main())


def test_a_piece_whose_answer_is_lost_counts_once(redis_url, run_name, tmp_path):
    """The connection breaks after Redis took it: it is sent again, and Redis knows it."""

    async def main():
        async with FaultyRedis(redis_url, tmp_path) as faulty:
            async with serving(settings_for(run_name, faulty.url)) as service, Worker(service) as worker:
                await worker.join()
                await work_off(worker)
                faulty.drop_answers_to = hashlib.sha1(scripts.RECORD.encode()).hexdigest().encode()
                await until(lambda: not faulty.drop_answers_to)
                await service.historian.keep()
            async with serving(settings_for(run_name, redis_url)) as service:
                assert service.turns.observed.record.history.tasks[0].sums["blocks"].sum() == BLOCKS

    asyncio.run(main())


def test_an_emptied_redis_gets_the_record_again(redis_url, run_name):
    """Its living leader has all of it; the next piece that Redis takes brings the rest after it."""

    async def main():
        settings = settings_for(run_name, redis_url)
        async with serving(settings) as service, Worker(service) as worker:
            await worker.join()
            numbers, _ = await worker.take(3)
            await worker.released(numbers)
            await service.historian.keep()
            async with Redis.from_url(redis_url) as redis:
                await redis.delete(*await redis.keys(Keys.of(run_name).prefix + "*"))
            await work_off(worker)
            await until(lambda: service._store.rewrites == 1)
            await service.historian.keep()
            recorded = rows_of(service)
        async with serving(settings) as service:
            assert rows_of(service) == recorded

    asyncio.run(main())


def test_a_record_that_cannot_be_kept_stops_nothing(redis_url, run_name, caplog):
    """The key is somebody else's: said once, and the run goes on."""

    async def main():
        settings = settings_for(run_name, redis_url)
        async with Redis.from_url(redis_url) as redis:
            await redis.set(Keys.of(run_name).history, "not ours")
        async with serving(settings) as service, Worker(service) as worker:
            await worker.join()
            numbers, _ = await worker.take(3)
            await worker.released(numbers)
            await service.historian.keep()
            assert (await work_off(worker))[1] == "done"
            await service.historian.keep()

    asyncio.run(main())
    assert sum("is not kept" in message for message in caplog.messages) == 1

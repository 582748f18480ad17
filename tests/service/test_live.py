"""Server-sent events: the run once a second to all who listen, and how fast it went."""

from __future__ import annotations

import asyncio

import msgspec
from page_rig import grid_task, mixed
from scheduler_rig import ANSWER_S, Worker, run_of, serving, settings_of
from test_scheduler_http import on_http

from blockyard_scheduler.http.live import Live
from blockyard_scheduler.throughput import MOST_SAMPLES, Recorder


class Listener:
    """Takes server-sent events apart; a closed page is a closed connection."""

    def __init__(self, service):
        self._port = service._http_port

    async def __aenter__(self):
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(b"GET /api/v1/events HTTP/1.0\r\nHost: localhost\r\n\r\n")
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert b" 200 OK" in head
        assert b"Content-Type: text/event-stream" in head
        return self

    async def __aexit__(self, *_):
        self._writer.transport.abort()

    async def next(self):
        async with asyncio.timeout(ANSWER_S):
            event = await self._reader.readuntil(b"\n\n")
        kind, text = event.strip().split(b"\n", 1)
        assert kind == b"event: run"
        return msgspec.json.decode(text.removeprefix(b"data: "), type=Live)

    async def ended(self):
        async with asyncio.timeout(ANSWER_S):
            await self._reader.read()


def test_events_tell_the_run_until_the_listener_leaves(redis_url, run_name):
    """One after the other, with what changed; throughput with the first; nothing is left when nobody listens."""

    async def test(service, _):
        async with Worker(service, slots=10) as worker:
            await worker.join()
            async with Listener(service) as listener:
                live = await listener.next()
                assert (live.run, live.state, live.tasks[0].done) == (run_name, "running", 0)
                assert [(pool.pool, pool.connected, pool.slots) for pool in live.pools] == [("default", 1, 10)]
                assert sum(live.throughput.blocks["smooth"]) == 0
                await mixed(worker)
                while live.tasks[0].done < 5:
                    live = await listener.next()
            async with Listener(service) as listener:
                assert sum((await listener.next()).throughput.blocks["smooth"]) == 6

    on_http(run_of(run_name, grid_task(max_retries=0)), redis_url, test)


def test_a_scheduler_ends_while_somebody_listens(redis_url, run_name):
    """An open page keeps no scheduler alive."""

    async def main():
        async with serving(settings_of(run_of(run_name), redis_url)) as service:
            listener = await Listener(service).__aenter__()
            await listener.next()
        await listener.ended()
        await listener.__aexit__()

    asyncio.run(main())


def test_samples_get_coarser_as_a_run_gets_longer():
    """Never more than the most, and their sum is what was finished."""
    recorder = Recorder()
    for second in range(5000):
        recorder.add({"smooth": 3 * second, "other": second // 10}, {"smooth": 300 * second}, 100.0 + second)
    found = recorder.give()
    assert found.bucket_s == 32.0
    assert len(found.blocks["smooth"]) <= MOST_SAMPLES
    assert (sum(found.blocks["smooth"]), sum(found.blocks["other"])) == (3 * 4999, 499)
    assert (found.blocks["smooth"][1], found.voxels["smooth"][1]) == (96, 9600)
    assert sum(found.voxels["other"]) == 0


def test_a_long_silence_is_one_sample():
    """A loop that was held up, or a machine that slept, takes no time to make up for."""
    recorder = Recorder()
    recorder.add({"smooth": 0}, {}, 0.0)
    recorder.add({"smooth": 7}, {"smooth": 70}, 1e6)
    found = recorder.give()
    assert (sum(found.blocks["smooth"]), sum(found.voxels["smooth"])) == (7, 70)

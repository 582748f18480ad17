"""What the scheduler's tests share: small runs, a service in this loop, a scripted worker, and a Redis that fails."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np

from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec
from blockyard.wire.frames import Decoder, encode
from blockyard.wire.messages import (
    Ack,
    BlockError,
    Grants,
    Heartbeat,
    Hello,
    Outcome,
    Release,
    ToWorker,
    Want,
    Welcome,
)
from blockyard_scheduler.service import SchedulerService
from blockyard_scheduler.settings import Settings

ANSWER_S = 50.0
"""Longest that anything in these tests may take; nothing is concluded from it being short."""


def task(name="work", blocks=10, **fields):
    """One axis, blocks of one voxel, no halo unless said."""
    fields = {
        "function": "json:dumps",
        "total_roi": RoiSpec((0,), (blocks,)),
        "read_roi": RoiSpec((0,), (1,)),
        "write_roi": RoiSpec((0,), (1,)),
        "read_write_conflict": False,
    } | fields
    return TaskSpec(id=name, **fields)


def run_of(name, *tasks):
    return RunSpec(PipelineSpec(name=name, tasks=tasks or (task(),)))


def settings_of(run, redis_url, **fields):
    fields = {"port": 0, "http_port": 0, "lock_s": 2.0} | fields
    return Settings(run=run, redis_url=redis_url, **fields)


async def until(condition):
    """Return when something has become true that no message tells of."""
    async with asyncio.timeout(ANSWER_S):
        while not condition():  # noqa: ASYNC110 - there is no event for what a test looks at
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def serving(settings):
    """A scheduler that leads, in this loop; ended in order at the end, and its errors raised."""
    service = SchedulerService(settings)
    life = asyncio.ensure_future(service.run())
    try:
        await until(lambda: service.turns is not None or life.done())
        if life.done():
            life.result()
        service.life = life
        yield service
        service._stop.set()
        await asyncio.wait_for(life, ANSWER_S)
    finally:
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)


class Worker:
    """Says what the test says, and keeps what it hears."""

    def __init__(self, service, name="worker", token="", **hello):
        self.service, self.name = service, name
        self.hello = Hello(worker=name, token=token, **hello)
        self.seq = 0
        self._decoder = Decoder(ToWorker)
        self._heard = []

    async def __aenter__(self):
        await self.connect()
        return self

    async def __aexit__(self, *_):
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def connect(self):
        self._decoder = Decoder(ToWorker)
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.service._port)

    def say(self, *messages):
        self.writer.write(b"".join(encode(message) for message in messages))

    async def hear(self):
        """The next message; None when the scheduler has closed the connection."""
        async with asyncio.timeout(ANSWER_S):
            while not self._heard:
                data = await self.reader.read(2**16)
                if not data:
                    return None
                self._heard += self._decoder.feed(data)
        return self._heard.pop(0)

    async def hear_a(self, kind):
        """The next message of a kind; what comes before it is left out."""
        while (message := await self.hear()) is not None:
            if isinstance(message, kind):
                return message
        raise AssertionError(f"the connection was closed before a {kind.__name__} came")

    async def closed(self):
        while await self.hear() is not None:
            pass

    async def join(self):
        self.say(self.hello)
        return await self.hear_a(Welcome)

    async def take(self, n=1):
        """Ask for blocks; give the first batch that comes as (lease numbers, block ids)."""
        self.say(Want(n))
        grants = (await self.hear_a(Grants)).grants
        numbers = [g.number + j for g in grants for j in range(len(g.blocks) // 8)]
        blocks = [int(b) for g in grants for b in np.frombuffer(g.blocks, "<i8")]
        return numbers, blocks

    def release(self, numbers, outcome=Outcome.SUCCESS, seconds=0.001, message="broken"):
        self.seq += 1
        n = len(numbers)
        errors = () if outcome < Outcome.FAILED else tuple(BlockError(k, "ValueError", message) for k in numbers)
        self.say(Release(self.seq, pack(numbers), bytes([outcome] * n), np.full(n, seconds, "<f4").tobytes(), errors))

    async def released(self, numbers, outcome=Outcome.SUCCESS, **fields):
        self.release(numbers, outcome, **fields)
        return await self.hear_a(Ack)

    async def beat(self, sent_s=1.0):
        self.say(Heartbeat(sent_s))


@contextlib.asynccontextmanager
async def beating(*workers):
    """Meanwhile these workers send heartbeats."""

    async def beat():
        while True:
            for worker in workers:
                await worker.beat()
            await asyncio.sleep(0.3)

    beats = asyncio.ensure_future(beat())
    try:
        yield
    finally:
        beats.cancel()


def pack(numbers):
    return np.asarray(numbers, "<i8").tobytes()


async def work_off(worker, outcome=Outcome.SUCCESS):
    """Run blocks until the scheduler says that the run is over; give the block ids in the order they came."""
    worker.say(Want(100))
    ran = []
    while (message := await worker.hear()) is not None:
        if isinstance(message, Grants):
            for grant in message.grants:
                blocks = np.frombuffer(grant.blocks, "<i8").tolist()
                ran += blocks
                worker.release(range(grant.number, grant.number + len(blocks)), outcome)
            worker.say(Want(100))
        elif type(message).__name__ == "RunOver":
            return ran, message.state
    raise AssertionError("the connection was closed before the run was over")


class FaultyRedis:
    """Stands between a store and its Redis: holds back, drops or changes answers, or goes away."""

    def __init__(self, url, folder):
        parts = urlsplit(url)
        self.target = parts.path
        """Where who connects from now on is connected to."""
        self.password = parts.password
        self.path = Path(folder) / "faulty.sock"
        self.url = f"unix://:{parts.password}@{self.path}?db={parse_qs(parts.query).get('db', ['0'])[0]}"
        self.passing = asyncio.Event()
        self.passing.set()
        self.drop_answers_to = b""
        """Cut the connection instead of passing the answer to a command that contains this; once."""
        self.replace = (b"", b"")
        self.commands = 0
        self._open = set()
        self._server = None

    async def __aenter__(self):
        await self.appear()
        return self

    async def __aexit__(self, *_):
        self.passing.set()
        await self.vanish()

    async def appear(self):
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def vanish(self):
        """Refuse new connections and cut those there are."""
        if self._server is not None:
            self._server.close()
        self.path.unlink(missing_ok=True)
        for writer in list(self._open):
            writer.transport.abort()
        await until(lambda: not self._open)

    async def _serve(self, reader, writer):
        there_reader, there_writer = await asyncio.open_unix_connection(self.target)
        self._open.add(writer)
        cut = []
        try:
            await asyncio.wait(
                [
                    asyncio.ensure_future(self._ask(reader, there_writer, cut)),
                    asyncio.ensure_future(self._answer(there_reader, writer, cut)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            writer.transport.abort()
            there_writer.close()
            self._open.discard(writer)

    async def _ask(self, reader, there_writer, cut):
        with contextlib.suppress(OSError):
            while data := await reader.read(2**20):
                self.commands += 1
                if self.drop_answers_to and self.drop_answers_to in data:
                    self.drop_answers_to = b""
                    cut.append(True)
                there_writer.write(data)

    async def _answer(self, there_reader, writer, cut):
        with contextlib.suppress(OSError):
            while data := await there_reader.read(2**20):
                if cut:
                    return
                await self.passing.wait()
                writer.write(data.replace(*self.replace) if self.replace[0] else data)

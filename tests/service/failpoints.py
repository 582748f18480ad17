"""A run of real processes, one of which is killed at one point: before or after its n-th word to Redis or the other.

Nothing of the product knows of it. What scheduler and Redis, and worker and scheduler, say to each other passes through
this process, which counts and, when it is time, ends one of them by `kill -9`; then it is started again, as a cluster
would. In the end the journal, the output and what the blocks wrote down about themselves are held against the promises.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from blockyard.core.scheduler import Scheduler
from blockyard.local.redis import EmbeddedRedis
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec
from blockyard.testing.chaos.aof import records
from blockyard.testing.chaos.cluster import free_port
from blockyard.testing.chaos.evidence import Evidence
from blockyard.testing.chaos.tally import tally
from blockyard.testing.order import beside_which, waits_of

BLOCKS = 6
RETRIED, FAILING = ("halo", 1), ("halo", 5)
"""The first attempt of the one fails, every attempt of the other."""
LIMIT_S = 90.0
KILLED = -signal.SIGKILL
OVER = 1
"""Exit status of a scheduler whose run has failed blocks."""
STEPS = '''
import hashlib, pathlib

from blockyard.testing.chaos.evidence import Witness


class Step:
    """Writes what its own place and the blocks around it, of this task or the one before, give together."""

    def __init__(self, folder, reads):
        self.folder, self.reads = pathlib.Path(folder), reads
        self.witness = Witness(self.folder / "evidence")

    def __call__(self, block):
        self.witness.begins(block)
        name = (block.task_id, block.block_id)
        if name == ("halo", 5) or (name == ("halo", 1) and block.attempt == 1):
            raise ValueError("as told")
        around = [(n, self.read(n)) for n in range(block.block_id - 1, block.block_id + 2) if n != block.block_id]
        self.witness.writes(block)
        digest = hashlib.sha256(repr((name, around)).encode()).hexdigest()
        (self.folder / f"{block.task_id}-{block.block_id}").write_text(digest)
        self.witness.ends(block)

    def read(self, n):
        path = self.folder / f"{self.reads}-{n}"
        return path.read_text() if path.exists() else ""
'''


def run_in(folder):
    """Two chained tasks with halos, of which the first conflicts with itself."""

    def task(name, **fields):
        return TaskSpec(
            id=name,
            function="steps:Step",
            params={"folder": str(folder), "reads": "halo"},
            total_roi=RoiSpec((-1,), (BLOCKS + 2,)),
            read_roi=RoiSpec((-1,), (3,)),
            write_roi=RoiSpec((0,), (1,)),
            max_retries=1,
            **fields,
        )

    halo = task("halo", read_write_conflict=True)
    chained = task("chained", read_write_conflict=False, requires=("halo",))
    return RunSpec(PipelineSpec(name="failpoints", tasks=(halo, chained)))


Side = Literal["store", "worker", "agent"]
"""What is counted: commands of the scheduler to Redis, its frames to the worker, the worker's to it. The last kills the
agent, the others the scheduler."""


@dataclass(frozen=True)
class Point:
    """Before or after the n-th one: `after` a command it was carried out, and its answer is not heard."""

    side: Side
    n: int
    when: Literal["before", "after"]


@dataclass
class Site:
    """One run from its beginning to its end, on a Redis of its own."""

    folder: Path
    point: Point | None = None
    counts: Counter[Side] = field(default_factory=Counter)
    kills: int = 0

    async def run(self):
        """Run to the end. Raises AssertionError, with the logs, for a broken promise."""
        self.folder.mkdir()
        (self.folder / "out").mkdir()
        (self.folder / "steps.py").write_text(STEPS)
        self.spec = run_in(self.folder / "out")
        (self.folder / "run.json").write_bytes(msgspec.json.encode(self.spec))
        self._port = free_port()
        with EmbeddedRedis(self.folder / "redis", more={"auto-aof-rewrite-percentage": "0"}) as redis:
            parts = urlsplit(redis.url)
            self._redis = Path(parts.path)
            between = self._redis.with_name("store.sock")
            self._redis_url = f"unix://:{parts.password}@{between}?{parts.query}"
            store = await asyncio.start_unix_server(self._between_store, between)
            block = await asyncio.start_server(self._between_worker, "127.0.0.1", 0)
            self._block_port = block.sockets[0].getsockname()[1]
            self._children = {}
            try:
                await asyncio.wait_for(self._live(), LIMIT_S)
            except TimeoutError:
                raise AssertionError(f"{self.point}: the run did not end\n{self.last_words()}") from None
            finally:
                for child in self._children.values():
                    with contextlib.suppress(ProcessLookupError):
                        child.kill()
                    await child.wait()
                store.close()
                block.close()

    async def _live(self):
        """Start scheduler and agent, and again when they were killed, until the run is over."""
        for name in ("scheduler", "agent"):
            await self._start(name)
        agent = asyncio.ensure_future(self._look_after("agent", lambda status: status == 0))
        try:
            await self._look_after("scheduler", lambda status: status == OVER)
        finally:
            agent.cancel()
            await asyncio.gather(agent, return_exceptions=True)

    async def _look_after(self, name, ended):
        while not ended(status := await self._children[name].wait()):
            assert status == KILLED, f"{self.point}: {name} ended with {status}\n{self.last_words()}"
            await self._start(name)

    async def _start(self, name):
        # Leases are as long as an agent that was killed costs; a scheduler that was killed must not end them.
        lease_s, heartbeat_s = (1.5, 0.3) if self.point and self.point.side == "agent" else (30.0, 2.0)
        argv = ["blockyard_worker", "--scheduler", f"127.0.0.1:{self._block_port}", "--module-path", self.folder]
        if name == "scheduler":
            argv = ["blockyard_scheduler", "--run-spec", self.folder / "run.json", "--port", self._port]
            argv += ["--lease-s", lease_s, "--grace-s", 0.3, "--heartbeat-s", heartbeat_s, "--retry-backoff-s", 0.05]
            argv += ["--exit-when-done"]
        with (self.folder / f"{name}.log").open("ab") as log:
            self._children[name] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *map(str, argv), "--http-port", "-1",
                env=os.environ | {"BLOCKYARD_REDIS_URL": self._redis_url}, stdout=log, stderr=log,
            )  # fmt: skip

    def last_words(self):
        """What everybody said last."""
        return {path.name: path.read_text()[-2000:] for path in self.folder.glob("*.log")}

    # --- what passes -------------------------------------------------------------------------------------------

    async def _between_store(self, reader, writer):
        doomed = asyncio.Event()
        await self._join(
            (reader, writer),
            asyncio.open_unix_connection(self._redis),
            lambda said, on: self._pass_words("store", _command, said, on, doomed),
            lambda said, on: self._pass_answers(said, on, doomed),
        )

    async def _between_worker(self, reader, writer):
        await self._join(
            (reader, writer),
            asyncio.open_connection("127.0.0.1", self._port),
            lambda said, on: self._pass_words("agent", _frame, said, on),
            lambda said, on: self._pass_words("worker", _frame, said, on),
        )

    async def _join(self, here, connecting, forth, back):
        """Pass on what both sides of a connection say, until either ends or the point is reached."""
        try:
            there = await connecting
        except OSError:  # a scheduler that was killed is not back yet
            here[1].close()
            return
        ways = [asyncio.ensure_future(forth(here[0], there[1])), asyncio.ensure_future(back(there[0], here[1]))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for _, end in (here, there):
                end.close()

    async def _pass_words(self, side, split, reader, writer, doomed=None):
        """Pass on word by word, and kill at the point; `doomed` is set where that waits for the answer of a command."""
        held = b""
        with contextlib.suppress(OSError):
            while data := await reader.read(2**20):
                held += data
                while word := split(held):
                    held = held[len(word) :]
                    self.counts[side] += 1
                    here = self.point is not None and (self.point.side, self.point.n) == (side, self.counts[side])
                    if here and self.point.when == "before":
                        await self._kill(side)
                        return
                    if here and doomed is not None:
                        doomed.set()
                    writer.write(word)
                    if here and doomed is None:
                        await writer.drain()
                        await self._kill(side)
                        return

    async def _pass_answers(self, reader, writer, doomed):
        with contextlib.suppress(OSError):
            while data := await reader.read(2**20):
                if doomed.is_set():
                    await self._kill("store")
                    return
                writer.write(data)

    async def _kill(self, side):
        child = self._children["agent" if side == "agent" else "scheduler"]
        self.kills += 1
        child.kill()
        await child.wait()

    # --- what must be true -------------------------------------------------------------------------------------

    def output(self):
        """All that blocks wrote, by file."""
        return {path.name: path.read_bytes() for path in (self.folder / "out").iterdir() if path.is_file()}

    def check(self):
        """Each block counted once, none too early or beside another, no retry spent, no traceback."""
        core = Scheduler(self.spec)
        waits = waits_of(core)
        run = waits.keys() - _orphans(waits)
        found, about = tally(records(self.folder / "redis"), core), f"{self.point}\n{self.last_words()}"
        assert found.done == Counter(run - {FAILING}), about
        assert found.failed == {FAILING: 1}, about
        assert found.misplaced == 0, about
        evidence = Evidence.read(self.folder / "out/evidence")
        assert not list(evidence.overlaps(beside_which(waits))), about
        assert not list(evidence.too_early(waits)), about
        last = {name: max(e.attempt for e in executions) for name, executions in evidence.by_name().items()}
        assert last == {name: 2 if name in (RETRIED, FAILING) else 1 for name in run}, about
        assert "Traceback" not in (self.folder / "scheduler.log").read_text(), about


def _orphans(waits):
    """The blocks that wait, at whatever distance, for the one that fails."""
    found, before = set(), {FAILING}
    while before:
        before = {name for name, others in waits.items() if others & before} - found
        found |= before
    return found


def _frame(data):
    """The first frame of the block protocol; b"" where it is not whole yet."""
    size = 4 + int.from_bytes(data[:4], "big")
    return data[:size] if len(data) >= max(size, 4) else b""


def _command(data):
    """The first command to Redis, an array of bulk strings; b"" where it is not whole yet."""
    at = data.find(b"\r\n") + 2
    if at < 2:
        return b""
    for _ in range(int(data[1 : at - 2])):
        end = data.find(b"\r\n", at)
        if end < 0:
            return b""
        at = end + 2 + int(data[at + 1 : end]) + 2
    return data[:at] if len(data) >= at else b""

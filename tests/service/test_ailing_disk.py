"""The disk under Redis is full, or takes long: nothing is said that is not safe, and the run goes on when it can."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess

import pytest
from scheduler_rig import Worker, run_of, serving, settings_of, task, until, work_off

from blockyard.local.redis import EmbeddedRedis
from blockyard.wire.messages import Ack, RunOver

SLOW_S = 0.2


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder):
    """Leave no byte of the disk; give what to remove to have room again."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**12))
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0")
    return ballast


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is a mount, which needs root")
def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(small_disk, run_name):
    """Redis ends rather than lose what it said; the release waits, unacknowledged, and counts once there is room."""

    async def main():
        with EmbeddedRedis(small_disk / "redis") as server:
            settings = settings_of(run_of(run_name, task(blocks=40)), server.url)
            async with serving(settings) as service, Worker(service, slots=40) as worker:
                await worker.join()
                numbers, _ = await worker.take(40)
                ballast = fill(small_disk)
                while numbers and server.alive():  # the last page of its file may have room for some more
                    worker.release([numbers.pop()])
                    await asyncio.sleep(0.01)
                await until(lambda: service._store.commits_repeated > 0)
                assert numbers, "the disk was not full"
                ballast.unlink()
                await asyncio.get_running_loop().run_in_executor(None, server.restart)
                worker.release(numbers)
                acks = [await worker.hear_a(Ack) for _ in range(worker.seq)]
                assert acks == [Ack(seq) for seq in range(1, worker.seq + 1)]
                assert (await worker.hear_a(RunOver)).state == "done"

    asyncio.run(main())


@contextlib.contextmanager
def slow_fsync(pid):
    """Each fdatasync of the process takes `SLOW_S` longer."""
    delay = f"inject=fdatasync:delay_exit={int(SLOW_S * 1e6)}"
    command = ["strace", "-f", "-qq", "-e", "trace=fdatasync", "-e", delay, "-p", str(pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        try:
            yield tracer
        finally:
            tracer.terminate()


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("strace") is None,
    reason="the disk is made slow by strace (Debian's package), which needs root to trace another process",
)
def test_a_slow_disk_makes_turns_larger_and_loses_nobody(tmp_path, run_name):
    """Every answer waits for the disk; the lock and the leases are kept meanwhile, and each block counts once."""

    async def main():
        with EmbeddedRedis(tmp_path / "redis") as server:
            settings = settings_of(run_of(run_name, task(blocks=200)), server.url)
            async with serving(settings) as service, Worker(service, slots=4) as worker, Worker(service, "b") as other:
                await worker.join()
                await other.join()
                with slow_fsync(server.pid) as tracer:
                    loop = asyncio.get_running_loop()
                    assert "fdatasync" in await loop.run_in_executor(None, tracer.stderr.readline)
                    begun = service.turns.core.seq
                    ran, state = await work_off(worker)
                    turns = service.turns.core.seq - begun
                assert state == "done"
                assert service.leadership.epoch == 1
                assert service.status().stale_releases == 0
                assert sorted(ran) == list(range(200))
                assert turns < 100

    asyncio.run(main())

"""A run on each kind of Redis that we say works, reached by URL: password, database number, TLS; killed and emptied.

``BLOCKYARD_REDIS_SERVER=/path/to/redis-server`` tries another one in place of both.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess

import pytest
import trustme
from redis.asyncio import Redis
from redis.exceptions import RedisError
from scheduler_rig import ANSWER_S, Worker, run_of, serving, settings_of, task, work_off

from blockyard.local.redis import find_server
from blockyard.testing.chaos.cluster import free_port
from blockyard_scheduler.store.keys import Keys

SERVERS = [
    pytest.param(find_server, id="embedded"),
    pytest.param(
        lambda: os.environ.get("BLOCKYARD_REDIS_SERVER") or shutil.which("redis-server"),
        id="redis-server",
        marks=pytest.mark.program("redis-server"),
    ),
]
PASSWORD = "not:simple/at all"
QUOTED = "not%3Asimple%2Fat%20all"


class Server:
    """A server process with an append-only file, a password and several databases, on a TCP port of this machine."""

    def __init__(self, binary, folder, *settings):
        self.port, self._folder = free_port(), folder
        lines = ["bind 127.0.0.1", "databases 4", f'requirepass "{PASSWORD}"', f'dir "{folder}"']
        lines += ["appendonly yes", "appendfsync always", 'save ""', *settings]
        (folder / "redis.conf").write_text("\n".join(line.format(port=self.port) for line in lines) + "\n")
        self._command = [binary, folder / "redis.conf"]

    def __enter__(self):
        self.start()
        return self

    def start(self):
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def last_words(self):
        """What it said, where it has ended by itself: a server that was built without TLS, say."""
        return (self._folder / "log").read_text() if self.process.poll() is not None else ""

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __exit__(self, *_):
        self.kill()


async def answers(server, url):
    """Return when the server takes commands."""
    async with asyncio.timeout(ANSWER_S), Redis.from_url(url) as redis:
        while True:
            assert not (said := server.last_words()), said
            with contextlib.suppress(RedisError):
                return await redis.info("server")
            await asyncio.sleep(0.01)


async def a_run_survives(server, url, run_name, more=""):
    """Blocks run; the server is killed, then emptied, under its leader; in the end each block is done once."""
    info = await answers(server, url + more)
    print("version", info["redis_version"])
    async with (
        # A lock that outlives the restart of a server on a busy machine; else what it forgot would be waited for.
        serving(settings_of(run_of(run_name, task(blocks=12)), url + more, lock_s=60.0)) as service,
        Worker(service) as worker,
    ):
        await worker.join()
        numbers, done = await worker.take(3)
        server.kill()
        server.start()
        await worker.released(numbers)
        held, running = await worker.take(2)
        async with Redis.from_url(url + more) as redis:
            keys = Keys.of(run_name)
            assert (await redis.hget(keys.head, "server")).endswith(b" keeps")
            await redis.flushdb()
            await worker.released(held)
            assert service._store.rewrites == 1
            assert await redis.hget(keys.head, "seq")
        ran, state = await work_off(worker)
        assert (sorted(done + running + ran), state) == (list(range(12)), "done")
        assert service.status().quiet_s == 0


@pytest.mark.parametrize("binary", SERVERS)
def test_a_run_by_password_and_database_number(binary, tmp_path, run_name):
    """`redis://:PASSWORD@HOST:PORT/2`."""
    with Server(binary(), tmp_path, "port {port}") as server:
        asyncio.run(a_run_survives(server, f"redis://:{QUOTED}@127.0.0.1:{server.port}/2", run_name))


@pytest.mark.program("redis-server")
def test_a_run_by_tls(tmp_path, run_name):
    """`rediss://`, with the authority's file and without trust in anybody else."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    made = authority.issue_cert("127.0.0.1")
    made.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    (tmp_path / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    files = [f'tls-{what}-file "{tmp_path}/{what}.pem"' for what in ("cert", "key")]
    tls = ["port 0", "tls-port {port}", "tls-auth-clients no", f'tls-ca-cert-file "{tmp_path}/ca.pem"', *files]
    with Server(SERVERS[1].values[0](), tmp_path, *tls) as server:
        url = f"rediss://:{QUOTED}@127.0.0.1:{server.port}/1"
        asyncio.run(a_run_survives(server, url, run_name, f"?ssl_ca_certs={tmp_path}/ca.pem"))

"""TLS on both ports of a scheduler: it works, and each way to get it wrong is told in one sentence."""

import asyncio
import contextlib
import datetime as dt
import functools
import os
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from scheduler_rig import ANSWER_S, Worker, run_of, serving, settings_of, task, until, work_off

from blockyard.cli import main as cli
from blockyard.client import Client, Context, Control
from blockyard.spec.errors import ConnectError, SpecError
from blockyard.wire.messages import Refused
from blockyard_scheduler.settings import read_settings
from blockyard_scheduler.tls import Certificate

NAMES = ("localhost", "127.0.0.1")
YESTERDAY = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)


def in_a_loop(test):
    """A test as a function that runs it in a loop of its own."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        asyncio.run(test(*args, **kwargs))

    return run


class Authority:
    """Issues certificates into files."""

    def __init__(self, folder):
        self.folder = folder
        self.issuer = trustme.CA()
        self.ca = str(folder / "ca.pem")
        self.issuer.cert_pem.write_to_path(self.ca)

    def issue(self, *names, file="server", **more):
        """Give the settings of a scheduler with a new certificate for these names."""
        made = self.issuer.issue_cert(*(names or NAMES), **more)
        cert, key = self.folder / f"{file}.pem", self.folder / f"{file}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        made.private_key_pem.write_to_path(str(key))
        return {"tls_cert": str(cert), "tls_key": str(key)}


@pytest.fixture(scope="session")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def context(authority):
    return ssl.create_default_context(cafile=authority.ca)


def scheduler(run_name, redis_url, *, blocks=10, **fields):
    return serving(settings_of(run_of(run_name, task(blocks=blocks, function="builtins:repr")), redis_url, **fields))


async def started_worker(service, *flags):
    """Run ``blockyard worker`` to its end; give its exit status and what it said."""
    command = [sys.executable, "-m", "blockyard_worker", "--scheduler", f"127.0.0.1:{service._port}"]
    process = await asyncio.create_subprocess_exec(
        *command, "--http-port=-1", *flags, stderr=subprocess.PIPE, env=os.environ | {"BLOCKYARD_TOKEN": ""}
    )
    try:
        _, said = await asyncio.wait_for(process.communicate(), ANSWER_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    return process.returncode, said.decode()


class TlsWorker(Worker):
    """A scripted worker that connects by TLS."""

    def __init__(self, service, context, **hello):
        super().__init__(service, **hello)
        self.context = context

    async def connect(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.service._port, ssl=self.context)


async def client_says(service, **more):
    """What Client raises; nothing where it is taken."""

    def connect():
        context = Context("127.0.0.1", service._port, "work", **more)
        with Client(context, connect_s=ANSWER_S) as client:
            client.acquire_block()

    with pytest.raises(ConnectError) as raised:
        await asyncio.to_thread(connect)
    return str(raised.value)


@in_a_loop
async def test_a_worker_process_runs_a_pipeline_by_tls(authority, redis_url, run_name):
    """The worker's setting is one file."""
    async with scheduler(run_name, redis_url, **authority.issue()) as service:
        status, said = await started_worker(service, "--tls-ca", authority.ca)
        assert (status, service.turns.core.state) == (0, "done"), said


@in_a_loop
async def test_frames_of_many_records_arrive_in_both_directions(authority, context, redis_url, run_name):
    """A record of TLS holds 16 kB, a frame up to 16 MiB."""
    async with scheduler(run_name, redis_url, blocks=30_000, **authority.issue()) as service:
        async with TlsWorker(service, context, slots=5_000) as worker:
            await worker.join()
            ran, state = await work_off(worker)
        assert (sorted(ran), state) == (list(range(30_000)), "done")


@in_a_loop
async def test_a_client_takes_blocks_by_tls(authority, redis_url, run_name):
    """A user's own worker, whose thread reads without blocking."""

    def work(port):
        ran = 0
        with Client(Context("localhost", port, "own", tls_ca=authority.ca)) as client:
            while (block := client.acquire_block()) is not None:
                client.release_block(block, 0)
                ran += 1
        return ran

    own = task("own", blocks=20_000, function=None, worker="builtins:repr")
    settings = settings_of(run_of(run_name, own), redis_url, **authority.issue())
    async with serving(settings) as service:
        assert await asyncio.to_thread(work, service._port) == 20_000


@in_a_loop
async def test_a_worker_without_tls_is_told_what_to_give(authority, redis_url, run_name):
    """In the protocol that it speaks, and with exit status 2: trying again cannot help."""
    async with scheduler(run_name, redis_url, **authority.issue()) as service:
        status, said = await started_worker(service)
        assert (status, said.count("this scheduler wants TLS; give the worker --tls-ca")) == (2, 1), said
        assert "this scheduler wants TLS" in await client_says(service)
        assert service.meter.refused["tls"] == 2


@in_a_loop
async def test_a_worker_with_tls_is_told_that_the_scheduler_has_none(authority, redis_url, run_name):
    """Whatever OpenSSL calls that."""
    async with scheduler(run_name, redis_url) as service:
        status, said = await started_worker(service, "--tls-ca", authority.ca)
        sentence = f"the scheduler at 127.0.0.1:{service._port} cannot be trusted: it answers without TLS"
        assert (status, sentence in said) == (2, True), said
        assert sentence in await client_says(service, tls_ca=authority.ca)


@pytest.mark.parametrize(
    ("names", "more", "sentence"),
    [
        (("example.org",), {}, "its certificate is not for '127.0.0.1'"),
        ((), {"not_after": YESTERDAY}, "its certificate has expired"),
    ],
)
@in_a_loop
async def test_a_certificate_that_does_not_hold_is_named(authority, redis_url, run_name, names, more, sentence):
    """By worker, Client and command line, each in the same words."""
    fields = authority.issue(*names, **more) | {"http_tls": True}
    async with scheduler(run_name, redis_url, **fields) as service:
        status, said = await started_worker(service, "--tls-ca", authority.ca)
        assert (status, sentence in said) == (2, True), said
        assert sentence in await client_says(service, tls_ca=authority.ca)
        control = Control(f"https://127.0.0.1:{service._http_port}", tls_ca=authority.ca)
        with pytest.raises(ConnectError, match=sentence):
            await asyncio.to_thread(control.status)


@in_a_loop
async def test_a_foreign_authority_is_named_with_the_file(authority, stranger, redis_url, run_name):
    """A file given, or the system's."""
    async with scheduler(run_name, redis_url, **authority.issue()) as service:
        for flags, where in ((("--tls-ca", stranger.ca), stranger.ca), (("--tls",), "the system's certificates")):
            status, said = await started_worker(service, *flags)
            assert (status, f"from an authority that is not in {where}" in said) == (2, True), said


@in_a_loop
async def test_another_name_than_the_host_can_be_asked_for(authority, redis_url, run_name):
    """Standbys are reached by the addresses of their pods, which no certificate has."""
    async with scheduler(run_name, redis_url, **authority.issue("em-scheduler")) as service:
        status, said = await started_worker(service, "--tls-ca", authority.ca, "--tls-name", "em-scheduler")
        assert (status, service.turns.core.state) == (0, "done"), said


@in_a_loop
async def test_a_renewed_certificate_is_taken_up_by_a_running_scheduler(
    authority, stranger, context, redis_url, run_name
):
    """A half-written one is not."""
    fields = authority.issue()
    async with scheduler(run_name, redis_url, **fields) as service:
        keep = [file.read_bytes() for file in map(Path, fields.values())]
        stranger.issue(file="new")
        for name, suffix in (("tls_key", "key"), ("tls_cert", "pem")):
            async with TlsWorker(service, context) as worker:
                await worker.join()
            (authority.folder / fields[name]).write_bytes((stranger.folder / f"new.{suffix}").read_bytes())
        with pytest.raises(ssl.SSLCertVerificationError):
            await TlsWorker(service, context).connect()
        for name, blob in zip(("tls_cert", "tls_key"), keep, strict=True):
            (authority.folder / fields[name]).write_bytes(blob)
        async with TlsWorker(service, context) as worker:
            await worker.join()


@in_a_loop
async def test_peers_that_say_nothing_hold_up_neither_others_nor_the_end(authority, context, redis_url, run_name):
    """Silent before, and in the middle of, the handshake."""
    async with scheduler(run_name, redis_url, **authority.issue()) as service:
        with socket.create_connection(("127.0.0.1", service._port)) as silent:
            with socket.create_connection(("127.0.0.1", service._port)) as half:
                half.sendall(b"\x16\x03\x01")
                await until(lambda: service.n_connections == 2)
                async with TlsWorker(service, context) as worker:
                    await worker.join()
                service._stop.set()
                await asyncio.wait_for(asyncio.shield(service.life), 5.0)
            assert silent.recv(1) == b""


@in_a_loop
async def test_a_refusal_of_a_peer_without_tls_is_a_message(authority, redis_url, run_name):
    """Any language's worker can show it."""
    async with scheduler(run_name, redis_url, **authority.issue()) as service, Worker(service) as worker:
        worker.say(worker.hello)
        refused = await worker.hear_a(Refused)
        assert (refused.code, refused.again) == ("tls", False)


@in_a_loop
async def test_the_command_line_asks_by_https(authority, redis_url, run_name, capsys, monkeypatch):
    """By flag or variable; without either the system's authorities count."""
    async with scheduler(run_name, redis_url, http_tls=True, **authority.issue()) as service:
        address = f"127.0.0.1:{service._http_port}"
        assert await asyncio.to_thread(cli, ["status", f"https://{address}", "--tls-ca", authority.ca]) == 0
        assert run_name in capsys.readouterr().out
        assert await asyncio.to_thread(cli, ["status", f"https://{address}"]) == 2
        assert "from an authority that is not in the system's certificates" in capsys.readouterr().err
        assert await asyncio.to_thread(cli, ["status", address]) == 2
        assert "write https://" in capsys.readouterr().err
        monkeypatch.setenv("BLOCKYARD_TLS_CA", authority.ca)
        assert await asyncio.to_thread(cli, ["pause", f"https://{address}"]) == 0


@pytest.mark.parametrize(
    ("cert", "key", "sentence"),
    [
        ("server.pem", "", "TLS needs both files"),
        ("missing.pem", "server.key", "--tls-cert is '.*missing.pem', which cannot be read .No such file"),
        (
            "server.pem",
            "other.key",
            "--tls-key is '.*other.key', which is not the key of the certificate in '.*server.pem'",
        ),
        ("server.pem", "ca.pem", "no certificate and key"),
    ],
)
def test_files_that_cannot_be_used_are_refused_at_the_start(authority, tmp_path, cert, key, sentence):
    """Before anything listens."""
    authority.issue()
    authority.issue(file="other")
    flags = [f"--tls-{name}={tmp_path / file}" for name, file in (("cert", cert), ("key", key)) if file]
    (tmp_path / "run.yaml").write_text(PIPELINE)

    def start():
        settings = read_settings([f"--pipeline={tmp_path / 'run.yaml'}", "--redis-url=redis://x/0", *flags], {})
        Certificate(settings.tls_cert, settings.tls_key)

    with pytest.raises(SpecError, match=sentence):
        start()


def test_a_file_without_authorities_is_refused(tmp_path):
    """By the worker's settings and the Client's context alike."""
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(SpecError, match=r"--tls-ca is '.*empty.pem', which cannot be used: no certificate"):
        Context(tls_ca=str(tmp_path / "empty.pem")).trust({})
    with pytest.raises(SpecError, match="No such file"):
        Context().trust({"BLOCKYARD_TLS_CA": str(tmp_path / "missing.pem")})
    assert Context().trust({"BLOCKYARD_TLS": "false"}) is None


PIPELINE = """
name: run
tasks:
  - id: work
    function: "json:dumps"
    total_roi: {offset: [0], shape: [1]}
    read_roi: {offset: [0], shape: [1]}
    write_roi: {offset: [0], shape: [1]}
"""

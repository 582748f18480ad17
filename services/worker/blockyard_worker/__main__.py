"""``python -m blockyard_worker`` (and ``blockyard worker``): start an agent."""

from __future__ import annotations

import signal

if __name__ == "__main__" and hasattr(signal, "sigwaitinfo"):
    # Before numpy starts threads: one that does not hold these back would be given them (see `told.py`).
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))

import asyncio
import dataclasses
import math
import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from blockyard.client.connection import software_version
from blockyard.client.tls import trust
from blockyard.logs import say_always, start_logging
from blockyard.spec.errors import BlockyardError, SpecError
from blockyard.spec.module_path import split_folders
from blockyard.spec.settings import parse_settings
from blockyard.wire.messages import Hello
from blockyard.wire.session import split_address
from blockyard_worker.agent import EXIT_REFUSED, Agent, AgentSettings, new_worker_id
from blockyard_worker.http import serve
from blockyard_worker.open_files import slots_that_fit
from blockyard_worker.slot_handle import SlotSettings
from blockyard_worker.user_worker import NOT_A_USER_WORKER, UserWorkerAgent

FUNCTIONS = "functions"
"""Folder in the run's folder of a local run that holds the pickled functions of its user."""
SECRETS = ("BLOCKYARD_TOKEN",)
"""Variables that user code has no business with."""


def main(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run an agent; give its exit status: 0 run over or told to stop, 2 bad settings or refused."""
    try:
        settings = parse_settings("worker", argv, environ)
        start_logging(settings.log_format, settings.log_level)
        split_address(settings.scheduler)
        hello = make_hello(settings)
        say_always(worker=hello.worker, pool=hello.pool)
        try:
            return asyncio.run(_run(hello, settings, environ))
        except OSError as error:  # no process, no memory, no file for what an agent itself needs
            raise BlockyardError(f"a worker can't run here: {error}") from error
    except BlockyardError as error:
        print(f"blockyard worker: {error}", file=sys.stderr)  # noqa: T201 - before there is a log, and for a person
        return EXIT_REFUSED


async def _run(hello: Hello, settings: Namespace, environ: Mapping[str, str]) -> int:
    slots = slot_settings(hello.worker, settings, environ)
    trusted = trust(tls=settings.tls, ca=absolute(settings.tls_ca), name=settings.tls_name)
    agent_settings = AgentSettings(settings.scheduler, settings.drain_s, settings.give_up_s or math.inf, trusted)
    if hello.task is not None:
        own = UserWorkerAgent(hello, agent_settings, slots, token_path(settings))
        status = await _serve_and_run(own, settings)
        if status != NOT_A_USER_WORKER:
            return status
        hello = msgspec.structs.replace(hello, worker=new_worker_id())
        slots = dataclasses.replace(slots, worker=hello.worker)
        say_always(worker=hello.worker)
    return await _serve_and_run(Agent(hello, agent_settings, slots), settings)


async def _serve_and_run(agent: Agent | UserWorkerAgent, settings: Namespace) -> int:
    server = None
    if settings.http_port >= 0:
        server = serve(settings.http_host or "127.0.0.1", settings.http_port, agent.facts)
    try:
        return await agent.run()
    finally:
        if server is not None:
            server.stop()


def make_hello(settings: Namespace) -> Hello:
    """Say who we are. Raises SpecError for a token file that cannot be read."""
    return Hello(
        software=software_version(),
        token=read_token(settings),
        worker=new_worker_id(),
        pool=settings.pool,
        slots=slots_that_fit(settings.slots),
        task=settings.task or None,
    )


def slot_settings(worker: str, settings: Namespace, environ: Mapping[str, str]) -> SlotSettings:
    """Return what the slots have in common. Raises SpecError for a folder that is not there or cannot be made."""
    log_dir = Path(settings.log_dir).absolute() if settings.log_dir else None
    if log_dir is not None:
        try:
            log_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SpecError(f"--log-dir {log_dir} cannot be made: {error.strerror}") from error
    work_dir = Path(settings.work_dir).absolute() if settings.work_dir else None
    if work_dir is not None and not work_dir.is_dir():
        raise SpecError(f"--work-dir {work_dir} is no folder")
    return SlotSettings(
        worker=worker,
        module_path=split_folders(settings.module_path),
        work_dir=work_dir,
        pickle_dir=str(Path(settings.run_dir).absolute() / FUNCTIONS) if settings.run_dir else None,
        log_dir=log_dir,
        recycle_after=settings.recycle_after,
        environ={name: value for name, value in environ.items() if name not in SECRETS}
        | {"BLOCKYARD_LOG_FORMAT": settings.log_format, "BLOCKYARD_LOG_LEVEL": settings.log_level},
    )


def read_token(settings: Namespace) -> str:
    """Return the token of ``--token`` or ``--token-file``. Raises SpecError for a file that cannot be read."""
    if settings.token or not settings.token_file:
        return str(settings.token)
    try:
        return Path(settings.token_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"--token-file {settings.token_file} cannot be read: {error}") from error


def absolute(path: str) -> str:
    """Return a path that holds in any folder; nothing stays nothing."""
    return str(Path(path).absolute()) if path else ""


def token_path(settings: Namespace) -> str:
    """Return the absolute path of the token's file, or nothing where the token was given itself."""
    return "" if settings.token else absolute(settings.token_file)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

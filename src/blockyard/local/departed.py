"""Workers of a local run that are certainly gone: their blocks are free at once, not after a lease time.

A scheduler frees the blocks of a silent worker only when their leases run out, because it can't know whether something
still writes. On one machine it can be known: an agent's name holds its process id, and all that it started carries the
agent's name in its environment (see `blockyard_worker.watchdog`). Where no such process exists, nothing writes.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import socket
from pathlib import Path

from blockyard.wire.api import WorkerStatus
from blockyard.wire.frames import encode
from blockyard.wire.messages import Bye, Hello

_NAME = re.compile(r"(?P<node>.+)-(?P<pid>\d+)-[0-9a-f]+")
TIMEOUT_S = 5.0


def is_gone(worker: str, processes: Path = Path("/proc")) -> bool:
    """Whether it is certain that a worker and all that it started have ended; False where that can't be known."""
    agent = worker.split("/", maxsplit=1)[0]
    name = _NAME.fullmatch(agent)
    if name is None or name["node"] != (platform.node() or "host") or not (processes / "self").exists():
        return False
    if (processes / name["pid"]).exists():  # it, or by chance another: then the lease time has to do
        return False
    mark = f"{agent}/".encode()
    return not any(_mentions(process, mark) for process in processes.glob("[0-9]*"))


def _mentions(process: Path, mark: bytes) -> bool:
    """Whether a process was given the mark, in its environment or (the agent's guard) as an argument."""
    for name in ("cmdline", "environ"):
        with contextlib.suppress(OSError):  # it has just ended, or is another user's
            if mark in (process / name).read_bytes():
                return int(process.name) != os.getpid()
    return False


def speak_for(worker: WorkerStatus, address: str, token: str) -> bool:
    """Tell the scheduler at HOST:PORT in a gone worker's name that it holds nothing and leaves; give whether it heard.

    Its blocks are handed back as by a worker that drains: that costs them nothing.
    """
    host, _, port = address.rpartition(":")
    hello = Hello(token=token, worker=worker.id, pool=worker.pool, slots=max(worker.slots, 1), task=worker.task)
    try:
        with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as connection:
            connection.sendall(encode(hello) + encode(Bye("its processes are gone")))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):  # to its end: then the scheduler has taken both messages
                pass
    except OSError:
        return False
    return True

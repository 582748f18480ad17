"""Workers that take one block a message; prints one JSON line.

    python one_a_message.py WORKERS SECONDS [--fsync always|everysec|no]

Each worker is a process with a socket and nothing else: it releases a block and asks for one more in one write, and
waits for the grant, so every block costs a turn of the scheduler and, with ``always``, a write to disk. Timed at the
worker: from that write until the next block is there.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pipelines import local_run, pipeline
from processes import Watch

from blockyard.wire.frames import Decoder, encode
from blockyard.wire.messages import Grants, Heartbeat, Hello, Outcome, Release, ToWorker, Want, Welcome

SIDE = 200
"""8 million blocks: more than any run of this takes."""
HEARTBEAT_S = 2.0


def work(address: str, token: str, seconds: float) -> None:
    """Be one worker; print the seconds of each round trip."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        messages = incoming(connection)
        connection.sendall(encode(Hello(token=token, worker=f"bench-{os.getpid()}")))
        while not isinstance(next(messages), Welcome):
            pass
        connection.sendall(encode(Want(1)))
        number = granted(messages)
        success = bytes([Outcome.SUCCESS])
        trips: list[float] = []
        began = before = heartbeat = time.monotonic()
        while before - began < seconds:
            released = encode(Release(len(trips) + 1, np.array([number], "<i8").tobytes(), success))
            connection.sendall(released + encode(Want(1)))
            number = granted(messages)
            after = time.monotonic()
            trips.append(after - before)
            before = after
            if after - heartbeat > HEARTBEAT_S:
                connection.sendall(encode(Heartbeat(after)))
                heartbeat = after
    print(json.dumps({"began_s": began, "ended_s": before, "trips": trips}))


def incoming(connection: socket.socket):
    """Give the scheduler's messages."""
    decoder = Decoder(ToWorker)
    while data := connection.recv(1 << 16):
        yield from decoder.feed(data)


def granted(messages) -> int:
    """Wait for the next lease; give its number."""
    while not isinstance(message := next(messages), Grants):
        pass
    assert len(message.grants) == 1
    assert len(message.grants[0].blocks) == 8
    return message.grants[0].number


def measure(workers: int, seconds: float, fsync: str, folder: Path) -> dict[str, object]:
    """Run `workers` for some seconds; give the figures."""
    run = local_run(pipeline("independent", SIDE, folder), folder / "run", fsync=fsync, keep_serving=True)
    with Watch() as watch, run:
        token = (folder / "run/token").read_text()
        watch.look()
        before = watch.by_role()["scheduler"].cpu_s
        started = [
            subprocess.Popen(
                [sys.executable, __file__, "--work", run.address, token, str(seconds)], stdout=subprocess.PIPE
            )
            for _ in range(workers)
        ]
        found = [json.loads(worker.communicate()[0]) for worker in started]
        watch.look()
        cpu_s = watch.by_role()["scheduler"].cpu_s - before
    trips = sorted(trip for worker in found for trip in worker["trips"])
    blocks = len(trips)
    return {
        "blocks": blocks,
        "blocks_a_s": sum(len(worker["trips"]) / (worker["ended_s"] - worker["began_s"]) for worker in found),
        "trip_p50_us": statistics.median(trips) * 1e6,
        "trip_p99_us": trips[int(0.99 * blocks)] * 1e6,
        "scheduler_us_a_block": cpu_s / blocks * 1e6,
    }


def main() -> None:
    """Measure what the command line says, or be one of its workers."""
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], sys.argv[3], float(sys.argv[4]))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("workers", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--fsync", choices=("always", "everysec", "no"), default="always")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(arguments.workers, arguments.seconds, arguments.fsync, Path(folder))))


if __name__ == "__main__":
    main()

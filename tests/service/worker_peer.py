"""What the worker's tests share: a scripted scheduler on a real socket, and real agent processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from blockyard.spec.model import PipelineSpec, RoiSpec, TaskSpec
from blockyard.wire.frames import Decoder, encode
from blockyard.wire.messages import (
    Ack,
    BlockError,
    Bye,
    CannotStart,
    Gone,
    Grant,
    Grants,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Imported,
    Outcome,
    Release,
    Remark,
    RunOver,
    TaskBegan,
    ToScheduler,
    Want,
    Welcome,
)

LIMIT_S = 45.0
"""Longest that anything in these tests may take; nothing is concluded from it being short."""


def block_task(name="work", blocks=100, **fields):
    """One axis, blocks of one voxel."""
    unit = {"read_roi": RoiSpec((0,), (1,)), "write_roi": RoiSpec((0,), (1,))}
    total = RoiSpec((0,), (blocks,))
    return TaskSpec(id=name, total_roi=total, read_write_conflict=False, **(unit | fields))


def unpack(packed, kind="<i8"):
    return np.frombuffer(packed, kind).tolist()


@dataclass
class Result:
    """What a worker said of one block."""

    outcome: Outcome
    error: BlockError | None
    worker: str


@dataclass
class Peer:
    """One connection."""

    socket: socket.socket
    hello: Hello | None = None
    want: int = 0
    open: bool = True

    def send(self, message):
        with contextlib.suppress(OSError):
            self.socket.sendall(encode(message))


@dataclass
class FakeScheduler:
    """Leases out what it is told to, and remembers what it hears. Every wait is for a condition."""

    tasks: tuple[TaskSpec, ...]
    lease_s: float = 60.0
    heartbeat_s: float = 0.5
    answering: bool = True
    """Whether heartbeats are answered."""
    acking: bool = True
    """Whether releases are acknowledged."""
    refusal: object = None
    """A Refused to answer greetings with."""
    revoke_at_welcome: bytes = b""
    batch: int = 1000
    """The most blocks in one grant."""
    epoch: int = 1
    knows: tuple[str, ...] = ()
    """What it understands beyond the first schedulers."""
    begins: bool = False
    """Whether agents are told at once that there is something to start workers for."""
    leased_to_own: int = 0
    """What they are told that their workers were leased."""
    todo: list[tuple[str, int, int]] = field(default_factory=list)
    """(task, block, attempt) that wait for a worker that wants them."""
    results: dict[tuple[str, int], Result] = field(default_factory=dict)
    heard: list[object] = field(default_factory=list)
    """All messages, in order."""

    def __post_init__(self):
        self.changed = threading.Condition()
        self.peers = []
        self.leases = {}
        self._number = 1
        self._over = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()

    def stop(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.disconnect()
        for thread in self._threads:
            thread.join(LIMIT_S)

    # --- orders ------------------------------------------------------------------------------------------------

    def add(self, task, blocks, attempt=1):
        """Have blocks of a task leased out, in this order."""
        with self.changed:
            self.todo += [(task, block, attempt) for block in blocks]
            self._grant_all()

    def say(self, message):
        """Send a message to every worker; the end of the run also to those that come later."""
        with self.changed:
            self._over = message if isinstance(message, RunOver) else None
            for peer in self.peers:
                if peer.open and peer.hello is not None:
                    peer.send(message)

    def begin(self, leased=0, task="work"):
        """Wait until an agent could start workers of a task, and tell it to."""
        (peer, *_) = self.wait(lambda: [peer for peer in self.peers if peer.open and self._listens(peer) and peer.want])
        with self.changed:
            peer.want = 0
            peer.send(TaskBegan(task, leased))

    def disconnect(self):
        """Break every connection."""
        with self.changed:
            for peer in self.peers:
                with contextlib.suppress(OSError):
                    peer.socket.shutdown(socket.SHUT_RDWR)

    def wait(self, condition):
        """Wait until `condition()` is true; give its value."""
        deadline = time.monotonic() + LIMIT_S
        with self.changed:
            while not (value := condition()):
                if not self.changed.wait(max(deadline - time.monotonic(), 0)):
                    raise AssertionError(f"it never happened; heard {self.heard[-20:]}, results {self.results}")
            return value

    def result(self, block, task="work"):
        """Wait for the result of a block."""
        return self.wait(lambda: self.results.get((task, block)))

    def finish(self, blocks, task="work"):
        """Wait for the results of blocks; give their outcomes."""
        return [self.result(block, task).outcome for block in blocks]

    def messages(self, kind):
        """All messages of a kind so far."""
        return [message for message in self.heard if isinstance(message, kind)]

    def lease_of(self, block, task="work"):
        """Wait until a block has been leased; give the lease."""
        return self.wait(lambda: [n for n, key in self.leases.items() if key == (task, block)])[-1]

    # --- inside ------------------------------------------------------------------------------------------------

    def _accept(self):
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = Peer(connected)
            with self.changed:
                self.peers.append(peer)
            thread = threading.Thread(target=self._serve, args=(peer,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer):
        decoder = Decoder(ToScheduler)
        with peer.socket:
            while True:
                try:
                    data = peer.socket.recv(1 << 18)
                except OSError:
                    data = b""
                with self.changed:
                    if not data:
                        peer.open = False
                    for message in decoder.feed(data):
                        self.heard.append(message)
                        self._take(peer, message)
                    self._grant_all()
                    self.changed.notify_all()
                if not data:
                    return

    def _take(self, peer, message):
        match message:
            case Hello() if self.refusal is not None:
                peer.send(self.refusal)
                peer.open = False
                peer.socket.shutdown(socket.SHUT_RDWR)
            case Hello():
                peer.hello = message
                peer.send(self._welcome())
                if self._over is not None:
                    peer.send(self._over)
            case Want() if self.begins and self._listens(peer):
                peer.send(TaskBegan(peer.hello.task, self.leased_to_own))
            case Want(n):
                peer.want = n
            case Heartbeat() if self.answering:
                peer.send(HeartbeatAck(message.sent_s, self.epoch))
            case Release():
                self._released(peer, message)
            case Bye() | Gone() | Heartbeat() | CannotStart() | Imported() | Remark():
                pass

    def _welcome(self):
        pipeline = PipelineSpec(name="fake", tasks=self.tasks)
        return Welcome(
            run="fake",
            epoch=self.epoch,
            heartbeat_s=self.heartbeat_s,
            lease_s=self.lease_s,
            grace_s=1.0,
            pipeline=pipeline,
            revoked=self.revoke_at_welcome,
            knows=self.knows,
        )

    def _released(self, peer, message):
        errors = {error.number: error for error in message.errors}
        for number, outcome in zip(unpack(message.numbers), message.outcomes, strict=True):
            key = self.leases[number]
            self.results[key] = Result(Outcome(outcome), errors.get(number), peer.hello.worker)
        if self.acking:
            peer.send(Ack(message.seq))

    def _listens(self, peer):
        return peer.hello is not None and not peer.hello.slots

    def _grant_all(self):
        for peer in [peer for peer in self.peers if not self._listens(peer)]:
            while peer.open and peer.hello is not None and peer.want and (taken := self._taken_by(peer)):
                task, _, attempt = taken[0]
                packed = np.array([block for _, block, _ in taken], "<i8").tobytes()
                attempts = {} if attempt == 1 else dict.fromkeys(range(len(taken)), attempt)
                for at, (_, block, _) in enumerate(taken):
                    self.leases[self._number + at] = (task, block)
                peer.send(Grants((Grant(self._number, task, packed, attempts),)))
                self._number += len(taken)
                peer.want = 0

    def _taken_by(self, peer):
        """Take the next blocks, all of one task and attempt, that this worker may have."""
        own = {task.id: task.worker is not None for task in self.tasks}
        fits = [x for x in self.todo if own[x[0]] == peer.hello.own and peer.hello.task in (None, x[0])]
        taken = [x for x in fits if (x[0], x[2]) == (fits[0][0], fits[0][2])][: min(peer.want, self.batch)]
        for x in taken:
            self.todo.remove(x)
        return taken


class AgentProcess:
    """A worker started as users start it."""

    def __init__(self, scheduler, folder, *flags, slots=1, environ=None):
        self.folder = Path(folder)
        self.log = self.folder / "agent.log"
        command = [sys.executable, "-m", "blockyard_worker", "--scheduler", scheduler.address, "--slots", str(slots)]
        command += ["--http-port", "-1", "--module-path", str(folder), "--log-dir", str(self.folder / "logs"), *flags]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BLOCKYARD_")}
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, env=kept | (environ or {}), start_new_session=True
            )
        self.pid = self._process.pid

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self._process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            self.signal(signal.SIGTERM)
            try:
                self.exit_status()
            finally:
                self._process.kill()
                self._process.wait()

    def signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def exit_status(self):
        return self._process.wait(LIMIT_S)

    def output(self):
        return self.log.read_text()


def finish_run(scheduler, agent):
    """End the run and give the agent's exit status."""
    scheduler.say(RunOver("done"))
    return agent.exit_status()


def wait_for(condition):
    """Wait for something that no message tells of (a file, the end of a process)."""
    deadline = time.monotonic() + LIMIT_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)
    return value


def is_alive(pid):
    """Whether a process runs (a zombie does not)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"

"""A worker without blockyard's library: sockets and 60 lines of msgpack. docs/protocol.md explains what it does.

    python raw_worker.py HOST:PORT [TOKEN]

It takes every block of its pool, one after another, and gives it to `process`. It stands for a worker in any other
language; what user code it runs is its own business.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time
import uuid
from typing import Any

# ----- msgpack, as much as the protocol needs -------------------------------------------------------------------------


def pack(value: Any) -> bytes:
    """Encode None, bool, int, float, str, bytes, lists and dicts."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return b"\xd3" + struct.pack(">q", value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        return b"\xdb" + struct.pack(">I", len(value.encode())) + value.encode()
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    if isinstance(value, dict):
        pairs = b"".join(pack(key) + pack(item) for key, item in value.items())
        return b"\xdf" + struct.pack(">I", len(value)) + pairs
    return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(pack, value))


NUMBERS = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"}
NUMBERS |= {0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
# First byte to (kind, bytes of the length that follows).
SIZED = {0xC4: ("bin", 1), 0xC5: ("bin", 2), 0xC6: ("bin", 4), 0xD9: ("str", 1), 0xDA: ("str", 2), 0xDB: ("str", 4)}
SIZED |= {0xDC: ("array", 2), 0xDD: ("array", 4), 0xDE: ("map", 2), 0xDF: ("map", 4)}


def unpack(data: bytes, at: int = 0) -> tuple[Any, int]:
    """Decode the value at `at`; give it and where the next one begins."""
    first, at = data[at], at + 1
    if first < 0x80 or first >= 0xE0:
        return first - 256 * (first >= 0xE0), at
    if first in CONSTANTS:
        return CONSTANTS[first], at
    if first in NUMBERS:
        end = at + struct.calcsize(NUMBERS[first])
        return struct.unpack(NUMBERS[first], data[at:end])[0], end
    if first < 0xC0:
        kind = "map" if first < 0x90 else "array" if first < 0xA0 else "str"
        size = first & (0x1F if kind == "str" else 0x0F)
    else:
        kind, width = SIZED[first]
        size, at = int.from_bytes(data[at : at + width], "big"), at + width
    if kind in ("bin", "str"):
        raw = bytes(data[at : at + size])
        return raw if kind == "bin" else raw.decode(), at + size
    items = []
    for _ in range(size * (2 if kind == "map" else 1)):
        item, at = unpack(data, at)
        items.append(item)
    return (dict(zip(items[::2], items[1::2], strict=True)) if kind == "map" else items), at


# ----- blocks ---------------------------------------------------------------------------------------------------------


def write_roi(task: dict[str, Any], block_id: int) -> list[tuple[int, int]]:
    """Give the begin and end of what a block writes, in voxels, on each axis."""
    total, read, write = task["total_roi"], task["read_roi"], task["write_roi"]
    fit = task.get("fit", "valid")
    axes = []
    for t0, tn, r0, rn, w0, wn in zip(
        *(roi[k] for roi in (total, read, write) for k in ("offset", "shape")), strict=True
    ):
        first, last = t0 + w0 - r0, t0 + tn - (r0 + rn - w0 - wn)
        blocks = (last - first) // wn if fit == "valid" else -((first - last) // wn)
        axes.append((first, wn, max(blocks, 0), last))
    box = []
    for first, stride, blocks, last in reversed(axes):  # the last axis counts fastest
        block_id, i = divmod(block_id, blocks)
        begin = first + i * stride
        box.append((begin, min(begin + stride, last) if fit == "shrink" else begin + stride))
    return box[::-1]


def process(task: dict[str, Any], block_id: int, attempt: int) -> None:
    """Do the work of one block: here, say so. Raise to fail it."""
    print(f"{task['id']} block {block_id} attempt {attempt} writes {write_roi(task, block_id)}", flush=True)


# ----- the worker -----------------------------------------------------------------------------------------------------

SUCCESS, FAILED = 0, 2


class Worker:
    """One session with a scheduler, over as many connections as it takes."""

    def __init__(self, address: str, token: str) -> None:
        self.address = address
        self.token = token
        self.id = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.tasks: dict[str, Any] = {}
        self.queue: list[tuple[int, str, int, int]] = []  # (lease, task, block, attempt)
        self.unacked: list[dict[str, Any]] = []  # releases
        self.seq = 0
        self.over: int | None = None  # exit status
        self.buffer = b""
        self.socket = None
        self.lease_from = 0.0  # when we sent the last message that was answered
        self.beat_at = 0.0
        self.times = (2.0, 60.0)  # heartbeat_s, lease_s

    def run(self) -> int:
        delay = 0.1
        while self.over is None:
            try:
                self.connect()
                delay = 0.1
                while self.over is None:
                    self.step()
            except (OSError, ConnectionError) as error:
                print(f"{self.address}: {error}; connecting again", file=sys.stderr)
                time.sleep(delay)
                delay = min(2 * delay, 5.0)
        return self.over

    def connect(self) -> None:
        host, _, port = self.address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        greeted = time.monotonic()
        holds = [lease for lease, *_ in self.queue]
        holds += [lease for release in self.unacked for (lease,) in struct.iter_unpack("<q", release["numbers"])]
        hello = {"t": "hello", "protocol": 1, "token": self.token, "worker": self.id, "holds": ids(holds)}
        self.send(hello)
        self.receive(until="welcome")
        self.lease_from = self.beat_at = greeted
        for release in self.unacked:
            self.send(release)
        if not self.queue:
            self.send({"t": "want", "n": 1})

    def step(self) -> None:
        """Run one block, or wait for one; a heartbeat in between."""
        now = time.monotonic()
        heartbeat_s, lease_s = self.times
        if self.queue and now > self.lease_from + lease_s:
            self.queue.clear()  # another worker may begin them; the next hello says that we do not hold them
            raise ConnectionError("the leases ran out")
        if now >= self.beat_at + heartbeat_s:
            self.beat_at = now
            self.send({"t": "heartbeat", "sent_s": now, "running": []})
        self.receive(wait=0.0 if self.queue else heartbeat_s / 2)
        if self.queue and self.over is None:
            self.work(*self.queue.pop(0))

    def work(self, lease: int, task: str, block_id: int, attempt: int) -> None:
        # A block that takes longer than lease_s needs a thread or process of its own, so that heartbeats go on.
        started, outcome, errors = time.monotonic(), SUCCESS, []
        try:
            process(self.tasks[task], block_id, attempt)
        except Exception as error:  # noqa: BLE001 - whatever it raises, the block has failed
            outcome = FAILED
            errors = [{"number": lease, "kind": type(error).__name__, "message": str(error)}]
        self.seq += 1
        seconds = struct.pack("<f", time.monotonic() - started)
        release = {"t": "release", "seq": self.seq, "numbers": ids([lease]), "outcomes": bytes([outcome])}
        self.unacked.append(release | {"seconds": seconds, "errors": errors})
        self.send(self.unacked[-1])
        self.send({"t": "want", "n": 1})

    def take(self, message: dict[str, Any]) -> None:
        kind = message["t"]
        if kind == "welcome":
            self.times = message["heartbeat_s"], message["lease_s"]
            self.tasks = {task["id"]: task for task in message["pipeline"]["tasks"]}
            revoked = set(struct.iter_unpack("<q", message.get("revoked", b"")))
            self.queue = [entry for entry in self.queue if (entry[0],) not in revoked]
        elif kind == "refused":
            if message.get("leader"):
                self.address = message["leader"]
            elif not message.get("again"):
                print(message["reason"], file=sys.stderr)
                self.over = 2
            raise ConnectionError(message["reason"])
        elif kind == "grants":
            for grant in message["grants"]:
                for j, (block_id,) in enumerate(struct.iter_unpack("<q", grant["blocks"])):
                    attempt = grant.get("attempts", {}).get(j, 1)
                    self.queue.append((grant["number"] + j, grant["task"], block_id, attempt))
        elif kind == "ack":
            self.unacked = [release for release in self.unacked if release["seq"] > message["seq"]]
        elif kind == "heartbeat_ack":
            self.lease_from = max(self.lease_from, message["sent_s"])
        elif kind == "revoke":
            ended = set(struct.iter_unpack("<q", message["numbers"]))
            self.queue = [entry for entry in self.queue if (entry[0],) not in ended]
        elif kind == "run_over":
            print(f"the run is over: {message['state']}", flush=True)
            self.over = 0

    def send(self, message: dict[str, Any]) -> None:
        body = pack(message)
        self.socket.sendall(struct.pack(">I", len(body)) + body)

    def receive(self, wait: float = 10.0, until: str | None = None) -> None:
        """Take what has come, waiting `wait` seconds for it; with `until`, wait for a message of that kind."""
        while True:
            seen = self.take_frames()
            if (until in seen) or (until is None and seen) or self.over is not None:
                return
            if not select.select([self.socket], [], [], wait)[0]:
                if until is None:
                    return
                raise ConnectionError(f"no {until} within {wait:g} s")
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionError("closed by the scheduler")
            self.buffer += data

    def take_frames(self) -> set[str]:
        seen = set()
        while len(self.buffer) >= 4 and len(self.buffer) >= 4 + (size := struct.unpack(">I", self.buffer[:4])[0]):
            message, _ = unpack(self.buffer[4 : 4 + size])
            self.buffer = self.buffer[4 + size :]
            seen.add(message["t"])
            self.take(message)
        return seen


def ids(numbers: list[int]) -> bytes:
    """Give a packed array."""
    return struct.pack(f"<{len(numbers)}q", *numbers)


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    sys.exit(Worker(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else os.environ.get("BLOCKYARD_TOKEN", "")).run())

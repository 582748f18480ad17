"""A worker's side of the protocol as a pure state machine: bytes and times in, happenings and bytes out; no I/O.

The shell around it (the agent, the `Client`, a simulation) does four things::

    connect to `session.address` at `session.retry_at_s`, then call `connection_made` (or `connection_lost`)
    give what arrives to `receive(data, now)`, call `tick(now)` no later than `session.wake_at_s`
    carry out the happenings that both return, in order
    send `data_to_send()` after every call

The session knows which leases are held, which releases are not acknowledged yet (they are sent again, in order, after
a reconnect), what is wanted, and until when the leases last. That deadline counts from the moment at which the last
message that a leader answered was *sent*: the leader's own clock for the leases cannot have started earlier.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from blockyard.spec.errors import ProtocolError, SpecError
from blockyard.wire.frames import Decoder, encode
from blockyard.wire.happenings import (
    BlocksGranted,
    Disconnect,
    Happening,
    Ids,
    Joined,
    LeaseBatch,
    LeasesLost,
    LeasesRevoked,
    RefusedForGood,
    ReleaseSafe,
    RunEnded,
    TaskEnded,
    TaskWaits,
)
from blockyard.wire.messages import (
    PROTOCOL_VERSION,
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
    Refused,
    Release,
    Remark,
    Revoke,
    Running,
    RunOver,
    TaskBegan,
    TaskOver,
    ToWorker,
    Want,
    Welcome,
)

if TYPE_CHECKING:
    import random

FIRST_RETRY_S = 0.1
LONGEST_RETRY_S = 5.0
GREETING_S = 10.0
"""How long a peer may take to answer Hello before the connection is given up."""
SILENT_HEARTBEATS = 5
"""Heartbeats without an answer after which a connection counts as broken (a half-open one looks alive for hours)."""
MOST_BLOCKS_A_RELEASE = 100_000
MOST_ERRORS_A_RELEASE = 100
"""Keep a Release far below the largest frame: 13 bytes a block, and up to about 20 kB an error."""


class SessionState(enum.Enum):
    """Where a session is."""

    AWAY = "away"
    """No connection; the shell connects at `retry_at_s`."""
    GREETING = "greeting"
    """Hello is sent, nothing has been answered."""
    JOINED = "joined"
    """The leader takes our messages."""
    OVER = "over"
    """The run has ended, we left, or we were refused for good; nothing more happens."""


class Cause(enum.Enum):
    """What moves a session from state to state."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    WELCOMED = "welcomed"
    TURNED_AWAY = "turned away"
    """Refused for now: a standby answered, or trying again can help."""
    ENDED = "ended"
    """Run over, refused for good, or left."""


TRANSITIONS: dict[tuple[SessionState, Cause], SessionState] = {
    (SessionState.AWAY, Cause.CONNECTED): SessionState.GREETING,
    (SessionState.AWAY, Cause.DISCONNECTED): SessionState.AWAY,
    (SessionState.AWAY, Cause.ENDED): SessionState.OVER,
    (SessionState.GREETING, Cause.WELCOMED): SessionState.JOINED,
    (SessionState.GREETING, Cause.TURNED_AWAY): SessionState.AWAY,
    (SessionState.GREETING, Cause.DISCONNECTED): SessionState.AWAY,
    (SessionState.GREETING, Cause.ENDED): SessionState.OVER,
    (SessionState.JOINED, Cause.DISCONNECTED): SessionState.AWAY,
    (SessionState.JOINED, Cause.TURNED_AWAY): SessionState.AWAY,
    (SessionState.JOINED, Cause.ENDED): SessionState.OVER,
    (SessionState.OVER, Cause.DISCONNECTED): SessionState.OVER,
    (SessionState.OVER, Cause.ENDED): SessionState.OVER,
}
"""The whole life of a session; a row that is missing is an error that changes nothing."""


class WorkerSession:
    """One worker's session with whichever scheduler leads; it lives over any number of connections."""

    def __init__(self, hello: Hello, address: str, rng: random.Random, now: float) -> None:
        """Begin away. `hello` says who we are (its `holds` is filled in here); `address` is ``HOST:PORT``."""
        self.hello = hello
        self.home = address
        self.address = address
        self.state = SessionState.AWAY
        self.retry_at_s = now
        self.welcome: Welcome | None = None
        self.held: set[int] = set()
        """Leases granted and neither released nor lost."""
        self.unacked: deque[Release] = deque()
        """Releases that no leader has acknowledged, oldest first."""
        self.acked_from_s = -math.inf
        """When we sent the last message that a leader answered."""
        self.stale = 0
        self._rng = rng
        self._seq = 0
        self._want = 0
        self._want_sent = 0
        self._trouble = ""
        """Why what we start ends at once."""
        self._gone: deque[Gone] = deque(maxlen=256)
        self._imported: list[Imported] = []
        self._remarks: dict[tuple[str, str], Remark] = {}
        self._out: list[bytes] = []
        self._decoder = Decoder(ToWorker)
        self._greeted_s = now
        self._beat_s = -math.inf
        self._retries = 0
        self._redirects = 0
        self._leader = ""

    # ----- what the shell may ask -------------------------------------------------------------------------------

    @property
    def deadline_s(self) -> float:
        """When what we hold must have stopped; infinite while nothing is held."""
        if not self.held or self.welcome is None:
            return math.inf
        return self.acked_from_s + self.welcome.lease_s

    @property
    def wake_at_s(self) -> float:
        """Call `tick` no later than this."""
        wake = self.deadline_s
        if self.state is SessionState.GREETING:
            wake = min(wake, self._greeted_s + self._patience_s)
        elif self.state is SessionState.JOINED and self.welcome is not None:
            wake = min(wake, self._beat_s + self.welcome.heartbeat_s)
        return wake

    @property
    def settled(self) -> bool:
        """Whether nothing is held and every release is acknowledged."""
        return not self.held and not self.unacked

    @property
    def wanted(self) -> int:
        """How many blocks the scheduler has been asked for, or will be, and has not granted."""
        return self._want

    def data_to_send(self) -> bytes:
        """Return what must go out on the current connection; empties the buffer."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    # ----- connection -------------------------------------------------------------------------------------------

    def connection_made(self, now: float) -> None:
        """Greet: the first message names the worker and all that it holds (also what it released unheard)."""
        self._move(Cause.CONNECTED)
        self._decoder = Decoder(ToWorker)
        self._out.clear()
        self._greeted_s = now
        holds = np.array(sorted(self.held), np.int64).tobytes()
        holds += b"".join(release.numbers for release in self.unacked)
        self._out.append(encode(msgspec.structs.replace(self.hello, holds=holds)))

    def connection_lost(self, now: float) -> None:
        """Take note that the connection broke or could not be made; `retry_at_s` says when to try again."""
        self._move(Cause.DISCONNECTED)
        self._retry(now)

    # ----- what the worker says ---------------------------------------------------------------------------------

    def want(self, n: int) -> None:
        """Say that `n` blocks more could be taken; sent only where it changes what the scheduler believes."""
        self._want = n
        if self.state is SessionState.JOINED and n != self._want_sent:
            self._want_sent = n
            self._out.append(encode(Want(n)))

    def release(
        self,
        numbers: Ids,
        outcomes: npt.NDArray[np.uint8],
        seconds: npt.NDArray[np.float32],
        errors: Sequence[BlockError] = (),
    ) -> int:
        """Release leases; those that are no longer held are left out. Gives how many were released."""
        listed = numbers.tolist()
        if not self.held.issuperset(listed):
            keep = np.fromiter((n in self.held for n in listed), bool, len(listed))
            numbers, outcomes, seconds = numbers[keep], outcomes[keep], seconds[keep]
            listed = numbers.tolist()
        self.held.difference_update(listed)
        size = MOST_ERRORS_A_RELEASE if len(errors) > MOST_ERRORS_A_RELEASE else MOST_BLOCKS_A_RELEASE
        by_number = {error.number: error for error in errors}
        for start in range(0, len(listed), size):
            part = slice(start, start + size)
            mine = tuple(by_number[n] for n in listed[part] if n in by_number) if by_number else ()
            self._release(numbers[part], outcomes[part], seconds[part], mine)
        return len(listed)

    def gone(self, message: Gone) -> None:
        """Say that processes of a user's own worker are dead; said again after a reconnect, which is harmless."""
        self._gone.append(message)
        if self.state is SessionState.JOINED:
            self._out.append(encode(message))

    def cannot_start(self, text: str) -> None:
        """Say why what we start ends at once, or that it works now (""); said again to every new leader."""
        if text != self._trouble:
            self._trouble = text
            self._say_trouble()

    def _say_trouble(self) -> None:
        if self.state is SessionState.JOINED and self.welcome is not None and "cannot_start" in self.welcome.knows:
            self._out.append(encode(CannotStart(self._trouble)))

    def imported(self, task: str, code: str) -> None:
        """Say what code runs for a task here; each version once, and again to every new leader."""
        message = Imported(task, code)
        if message not in self._imported:
            self._imported.append(message)
            self._say_imported([message])

    def _say_imported(self, messages: Sequence[Imported]) -> None:
        if self.state is SessionState.JOINED and self.welcome is not None and "imported" in self.welcome.knows:
            self._out += [encode(message) for message in messages]

    def remark(self, task: str, kind: str, text: str) -> None:
        """Say what a person should know of a task: the first of each kind, and again to every new leader."""
        if (task, kind) not in self._remarks:
            self._remarks[task, kind] = Remark(task, kind, text)
            self._say_remarks([self._remarks[task, kind]])

    def _say_remarks(self, messages: Iterable[Remark]) -> None:
        if self.state is SessionState.JOINED and self.welcome is not None and "remark" in self.welcome.knows:
            self._out += [encode(message) for message in messages]

    def leave(self, reason: str) -> None:
        """Say goodbye: everything is released, nothing more happens."""
        if self.state is SessionState.JOINED:
            self._out.append(encode(Bye(reason)))
        self._move(Cause.ENDED)

    # ----- time -------------------------------------------------------------------------------------------------

    def tick(self, now: float, running: Sequence[tuple[int, float]] = ()) -> list[Happening]:
        """Do what is due: drop lost leases, send a heartbeat (`running`: lease and seconds of each busy slot)."""
        happenings = self._drop_overdue(now)
        if self.state is SessionState.JOINED:
            happenings += self._beat(now, running)
        return happenings

    def _drop_overdue(self, now: float) -> list[Happening]:
        """Return up what we may hold no longer, and a connection of which what arrives may be older than a lease."""
        happenings: list[Happening] = []
        if now >= self.deadline_s:
            lost = np.array(sorted(self.held), np.int64)
            self.held.clear()
            happenings.append(LeasesLost(lost))
            if self.state in (SessionState.GREETING, SessionState.JOINED):
                # Only a Hello tells the scheduler what we hold no longer.
                happenings.append(self._give_up(now, "the leases ran out; greeting the scheduler again"))
        if self.state is SessionState.GREETING and now >= self._greeted_s + self._patience_s:
            happenings.append(
                self._give_up(
                    now,
                    f"what listens at {self.address} did not answer our greeting within {self._patience_s:g} s: it is"
                    " busy, or not the port for workers of a scheduler (its HTTP port does not answer either)",
                )
            )
        elif self.state is SessionState.JOINED and self.welcome and now >= self.acked_from_s + self.welcome.lease_s:
            happenings.append(self._give_up(now, "nothing was heard for a lease's time; greeting the scheduler again"))
        return happenings

    @property
    def _patience_s(self) -> float:
        """How long we wait for a welcome: what comes later may speak of leases that have ended."""
        return GREETING_S if self.welcome is None else min(GREETING_S, self.welcome.lease_s)

    def _beat(self, now: float, running: Sequence[tuple[int, float]]) -> list[Happening]:
        assert self.welcome is not None
        if now >= self.acked_from_s + max(SILENT_HEARTBEATS * self.welcome.heartbeat_s, 1.0):
            return [self._give_up(now, f"no heartbeat was answered for {now - self.acked_from_s:.1f} s")]
        if now >= self._beat_s + self.welcome.heartbeat_s:
            self._beat_s = now
            self._out.append(encode(Heartbeat(now, tuple(Running(n, s) for n, s in running))))
        return []

    # ----- what the scheduler says ------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> list[Happening]:
        """Take bytes from the connection and give what they mean, in order."""
        # First the clock: to a process that was frozen, grants arrive whose leases have long ended.
        happenings = self._drop_overdue(now)
        if self.state in (SessionState.AWAY, SessionState.OVER):
            return happenings
        try:
            for message in self._decoder.feed(data):
                happenings += self._take(message, now)
                if self.state in (SessionState.AWAY, SessionState.OVER):
                    break
        except ProtocolError as error:
            stranger = f"what answers at {self.address} is no scheduler: it says {data[:40]!r}"
            if data.startswith(b"HTTP/"):
                stranger += " (that is HTTP; give the port for workers, --port of the scheduler)"
            happenings.append(self._give_up(now, stranger if self.state is SessionState.GREETING else str(error)))
        return happenings

    def _take(self, message: object, now: float) -> list[Happening]:
        if isinstance(message, Refused):
            return self._refused(message, now)
        if isinstance(message, Welcome):
            return self._welcomed(message, now)
        if self.state is not SessionState.JOINED:
            raise ProtocolError(f"the scheduler sent {type(message).__name__} before Welcome")
        match message:
            case Grants(grants):
                return self._granted(grants)
            case Ack(seq, stale):
                return self._acknowledged(seq, stale)
            case HeartbeatAck(sent_s, epoch):
                self._heard(sent_s, epoch, now)
            case Revoke(numbers):
                return self._revoked(numbers)
            case TaskBegan(task, leased):
                self._want = self._want_sent = 0
                return [TaskWaits(task, leased)]
            case TaskOver(task):
                return [TaskEnded(task)]
            case RunOver(state):
                self._move(Cause.ENDED)
                return [RunEnded(state)]
        return []

    def _welcomed(self, welcome: Welcome, now: float) -> list[Happening]:
        if welcome.protocol != PROTOCOL_VERSION:
            self._move(Cause.ENDED)
            sentence = (
                f"the scheduler speaks version {welcome.protocol} of the protocol, this worker {PROTOCOL_VERSION}"
            )
            return [RefusedForGood(sentence + "; install the same blockyard on both", "protocol")]
        self._move(Cause.WELCOMED)
        self.welcome = welcome
        self.acked_from_s = max(self.acked_from_s, self._greeted_s)
        self._beat_s = now
        self._retries = self._redirects = 0
        happenings: list[Happening] = [Joined(welcome), *self._revoked(welcome.revoked)]
        self._out += [encode(release) for release in self.unacked]
        self._out += [encode(gone) for gone in self._gone]
        if self._trouble:
            self._say_trouble()
        self._say_imported(self._imported)
        self._say_remarks(self._remarks.values())
        self._want_sent = 0
        self.want(self._want)
        return happenings

    def _refused(self, refused: Refused, now: float) -> list[Happening]:
        if refused.code == "standby" and refused.leader:
            self._move(Cause.TURNED_AWAY)
            self._leader = refused.leader
            self._redirects += 1
            if self._redirects <= 2 and refused.leader != self.address:
                self.address, self.retry_at_s = refused.leader, now
            else:
                self._retry(now)
            return [Disconnect(f"the scheduler that leads is {refused.leader}")]
        if refused.again or refused.code == "standby":
            self._move(Cause.TURNED_AWAY)
            self._retry(now)
            return [Disconnect(refused.reason)]
        self._move(Cause.ENDED)
        return [RefusedForGood(refused.reason, refused.code)]

    def _granted(self, grants: tuple[Grant, ...]) -> list[Happening]:
        batches = []
        for grant in grants:
            blocks = unpack_ids(grant.blocks)
            numbers = np.arange(grant.number, grant.number + len(blocks), dtype=np.int64)
            attempts = {grant.number + at: attempt for at, attempt in grant.attempts.items()}
            self.held.update(range(grant.number, grant.number + len(blocks)))
            batches.append(LeaseBatch(grant.task, numbers, blocks, attempts, grant.max_running))
        self._want = self._want_sent = 0
        return [BlocksGranted(tuple(batches))]

    def _acknowledged(self, seq: int, stale: int) -> list[Happening]:
        self.stale += stale
        while self.unacked and self.unacked[0].seq <= seq:
            self.unacked.popleft()
        return [ReleaseSafe(seq, stale)]

    def _heard(self, sent_s: float, epoch: int, now: float) -> None:
        assert self.welcome is not None
        if epoch >= self.welcome.epoch and sent_s <= now:
            self.acked_from_s = max(self.acked_from_s, sent_s)

    def _revoked(self, packed: bytes) -> list[Happening]:
        mine = self.held.intersection(unpack_ids(packed).tolist())
        self.held -= mine
        return [LeasesRevoked(np.array(sorted(mine), np.int64))] if mine else []

    # ----- inside -----------------------------------------------------------------------------------------------

    def _release(
        self,
        numbers: Ids,
        outcomes: npt.NDArray[np.uint8],
        seconds: npt.NDArray[np.float32],
        errors: tuple[BlockError, ...],
    ) -> None:
        self._seq += 1
        release = Release(
            self._seq,
            np.ascontiguousarray(numbers, "<i8").tobytes(),
            np.ascontiguousarray(outcomes, "u1").tobytes(),
            np.ascontiguousarray(seconds, "<f4").tobytes(),
            errors,
        )
        self.unacked.append(release)
        if self.state is SessionState.JOINED:
            self._out.append(encode(release))

    def _give_up(self, now: float, reason: str) -> Disconnect:
        self._move(Cause.DISCONNECTED)
        self._retry(now)
        return Disconnect(reason)

    def _retry(self, now: float) -> None:
        """Wait twice as long each time, with jitter (a thousand workers must not come back in one moment)."""
        longest = min(FIRST_RETRY_S * 2.0**self._retries, LONGEST_RETRY_S)
        self.retry_at_s = now + longest * self._rng.uniform(0.5, 1.0)
        self._retries = min(self._retries + 1, 16)
        if self._leader:  # the leader that we know of and the address we were given take turns
            self.address = self._leader if self.address == self.home else self.home

    def _move(self, cause: Cause) -> None:
        after = TRANSITIONS.get((self.state, cause))
        if after is None:
            raise ProtocolError(f"a session that is {self.state.value} cannot be {cause.value}")
        self.state = after


def unpack_ids(packed: bytes) -> Ids:
    """Return the int64 array of a packed one. Raises ProtocolError where its length is not a multiple of 8."""
    if len(packed) % 8:
        raise ProtocolError(f"a packed array of 8-byte numbers has {len(packed)} bytes")
    return np.frombuffer(packed, "<i8").astype(np.int64, copy=False)


def split_address(address: str, what: str = "--scheduler") -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``. Raises SpecError that names `what` and the value.

    >>> split_address("[::1]:8470")
    ('::1', 8470)
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise SpecError(f"{what} is '{address}', which is not HOST:PORT with a port from 1 to 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)

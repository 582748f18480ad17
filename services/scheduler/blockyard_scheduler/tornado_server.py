"""The block server: one TCP connection a worker, one read loop each, and never a word that was not decided.

The life of a session::

    connect -- Hello within 10 s --> gate open? -- yes --> WorkerJoined -- turn --> Welcome, Grants, Acks ...
        |            |                   |
        |            | no                | standby, loading
        v            v                   v
      close       Refused             Refused (with the leader's address)

Whatever a peer sends, the worst that can happen is that its own session ends: frames are measured before they are
decoded, decoded by type, checked by `convert`, and what it says is heard at the pace of the turns.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import socket
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from tornado.iostream import IOStream, StreamBufferFullError, StreamClosedError
from tornado.tcpserver import TCPServer

from blockyard.core import convert
from blockyard.core.events import WorkerDisconnected
from blockyard.spec.errors import ProtocolError, StoreError
from blockyard.spec.model import PipelineSpec
from blockyard.wire.frames import HELLO_LIMIT_BYTES, LIMIT_BYTES, Decoder, encode
from blockyard.wire.messages import (
    PROTOCOL_VERSION,
    Bye,
    CannotStart,
    Gone,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Imported,
    Refused,
    Release,
    ToScheduler,
    Want,
)
from blockyard_scheduler.leadership import Leadership
from blockyard_scheduler.meter import Meter
from blockyard_scheduler.tls import Certificate, FirstByte, encrypted
from blockyard_scheduler.turns import Turns

log = logging.getLogger(__name__)

HELLO_S = 10.0
"""A peer that has not said hello by then is refused."""
READ_BYTES = 2**18
MOST_UNREAD_BYTES = 2 * READ_BYTES + LIMIT_BYTES
UNHEARD = 64
"""Messages of one session that may wait for a turn; then nothing more is read from it until the turn is over."""
UNSENT_BYTES = 2**26
"""A worker that reads so slowly that this much waits for it is dropped."""
SILENT_LEASES = 2.0
"""A connection that was silent for so many lease times is half open: its worker is long back on another, or gone."""
SPARE_FILES = 64
"""Of the files this process may open, so many are kept for other things than workers."""


class Gate(Protocol):
    """Whether workers may come in; the service is one."""

    leadership: Leadership
    meter: Meter
    turns: Turns | None
    """None while this scheduler waits or loads."""

    @property
    def pipeline(self) -> PipelineSpec:
        """The pipeline that runs."""


class Session:
    """One connection."""

    def __init__(self, server: BlockServer, stream: IOStream, address: str) -> None:
        self.welcomed = False
        self.unheard = 0
        self.heard_s = 0.0
        self.worker = ""
        self._server = server
        self._stream = stream
        self._address = address
        self._first = FirstByte(stream.socket)
        self._decoder = Decoder(ToScheduler, HELLO_LIMIT_BYTES)

    @property
    def name(self) -> str:
        """Who this is, for a log line."""
        return f"worker {self.worker} at {self._address}" if self.worker else f"peer at {self._address}"

    # --- speaking ----------------------------------------------------------------------------------------------

    def send(self, frames: Sequence[bytes]) -> None:
        """Send frames in this order; a closed session drops them, and one that takes nothing is closed."""
        if self._stream.closed():
            return
        try:
            # The future is not awaited: the stream keeps what the peer has not read yet, up to its limit.
            self._stream.write(frames[0] if len(frames) == 1 else b"".join(frames))
        except StreamBufferFullError:
            self.drop(f"it leaves {UNSENT_BYTES} bytes unread")
        except StreamClosedError:
            pass

    def drop(self, reason: str) -> None:
        """Close the session, because of a sentence for the log."""
        if not self._stream.closed():
            log.info("%s: connection closed: %s", self.name, reason, extra={"worker": self.worker})
            self._first.forget()
            self._stream.close()

    async def _refuse(self, refused: Refused, count: str = "") -> None:
        self._server.gate.meter.refused[count or refused.code] += 1
        log.info("%s refused: %s", self.name, refused.reason)
        try:
            async with asyncio.timeout(HELLO_S):
                await self._stream.write(encode(refused))
        except (StreamClosedError, TimeoutError):
            pass

    # --- hearing -----------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Hear the peer until the connection ends."""
        try:
            messages = await self._greeted()
            while messages is not None:
                for message in messages:
                    self._hear(message)
                turns = self._server.gate.turns
                if self.unheard > UNHEARD and turns is not None:
                    await turns.turned()
                messages = self._decoder.feed(await self._read())
        except (StreamClosedError, StoreError):
            pass  # the peer left, or the scheduler ends
        except ProtocolError as error:
            log.warning("%s: connection closed: %s", self.name, error, extra={"worker": self.worker})
        finally:
            self._stream.close()
            if self.worker and (turns := self._server.gate.turns) is not None:
                turns.tell(WorkerDisconnected(self.worker), self)

    async def _read(self) -> bytes:
        data = await self._stream.read_bytes(READ_BYTES, partial=True)
        self.heard_s = asyncio.get_running_loop().time()
        return data

    async def _greeted(self) -> list[Any] | None:
        """Take the hello; give what came behind it, or None where the peer was refused."""
        messages: list[Any] = []
        try:
            async with asyncio.timeout(HELLO_S):
                if (wrong := await self._encrypt()) is not None:
                    await self._refuse(wrong, "tls")
                    return None
                while not messages:
                    messages = self._decoder.feed(await self._read())
        except TimeoutError:
            await self._refuse(Refused(f"no hello within {HELLO_S:g} s", "protocol"), "timeout")
            return None
        except ProtocolError as error:
            await self._refuse(Refused(str(error), "protocol"), "malformed")
            return None
        if (refused := self._admit(messages[0])) is not None:
            await self._refuse(refused)
            return None
        self._decoder.limit_bytes = LIMIT_BYTES
        return messages[1:]

    async def _encrypt(self) -> Refused | None:
        """Change over to TLS where this scheduler has a certificate; give why a peer that won't is refused."""
        tls = await self._first.begins_tls()
        certificate = self._server.certificate
        if certificate is None:
            return Refused("this scheduler has no TLS; connect without --tls and --tls-ca", "tls") if tls else None
        if not tls:
            return Refused("this scheduler wants TLS; give the worker --tls-ca with its authority (or --tls)", "tls")
        try:
            self._stream = stream = tuned(encrypted(self._stream, certificate))
            await stream.wait_for_handshake()
        except OSError as error:  # ssl.SSLError is one too
            log.info("%s: the TLS handshake failed: %s", self.name, getattr(error, "reason", None) or error)
            raise StreamClosedError from error
        return None

    def _admit(self, hello: Any) -> Refused | None:
        """Let a worker in, or say why not. The token comes first: a stranger learns nothing else."""
        gate = self._server.gate
        if not isinstance(hello, Hello):
            return Refused("the first message must be a hello", "protocol")
        if not hmac.compare_digest(hello.token.encode(), self._server.token.encode()):
            return Refused(
                "the token is not that of this scheduler; give the worker the same --token or --token-file", "token"
            )
        if hello.protocol != PROTOCOL_VERSION:
            return Refused(
                f"the worker speaks protocol {hello.protocol}, this scheduler {PROTOCOL_VERSION}; install the same"
                " blockyard on both",
                "protocol",
            )
        if not gate.leadership.epoch:
            leader = gate.leadership.leader
            return Refused("another scheduler leads this run", "standby", leader=leader, again=True)
        if gate.turns is None:
            return Refused("the scheduler is reading the state of the run", "busy", again=True)
        try:
            event = convert.joined(hello, gate.pipeline)
        except ProtocolError as error:
            return Refused(str(error), "pool")
        self.worker = hello.worker
        log.info("%s joined: pool %s, %d slots", self.name, hello.pool, hello.slots, extra={"worker": self.worker})
        gate.turns.tell(event, self)
        return None

    def _hear(self, message: Any) -> None:
        """Turn a message into an event. Raises ProtocolError for one that cannot be meant."""
        turns = self._server.gate.turns
        if turns is None:
            raise StreamClosedError
        match message:
            case Want():
                turns.tell(convert.wanted(self.worker, message), self)
            case Release():
                turns.tell(convert.released(self.worker, message), self)
            case Heartbeat():
                turns.tell(convert.heard(self.worker, message), self)
                leadership = self._server.gate.leadership
                # The worker counts its lease from this echo, so it is for a leader that surely leads, and only to a
                # worker that knows which of its leases are still its own.
                if self.welcomed and leadership.holds():
                    self.send([encode(HeartbeatAck(message.sent_s, leadership.epoch))])
            case Bye() | Gone():
                for event in convert.gone(self.worker, message, turns.known):
                    turns.tell(event, self)
            case CannotStart():
                event = convert.cannot_start(self.worker, message)
                log.warning("%s %s", self.name, f"says: {event.text}" if event.text else "works now")
                turns.tell(event, self)
            case Imported():
                turns.tell(convert.imported(message), self)
            case _:
                raise ProtocolError("a second hello on one connection")


AnyStream = TypeVar("AnyStream", bound=IOStream)


def tuned(stream: AnyStream) -> AnyStream:
    """Return the stream, set up as all of ours are."""
    stream.set_nodelay(True)
    stream.max_write_buffer_size = UNSENT_BYTES
    stream.max_buffer_size = MOST_UNREAD_BYTES
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return stream


class BlockServer(TCPServer):
    """Accepts workers, in and out of leadership; `gate` says what to do with them."""

    def __init__(
        self, gate: Gate, *, token: str, lease_s: float, most: int, certificate: Certificate | None = None
    ) -> None:
        """Serve at most `most` connections; `token` is what a hello must show, which may be empty on loopback."""
        super().__init__(max_buffer_size=MOST_UNREAD_BYTES)
        self.gate = gate
        self.token = token
        self.certificate = certificate
        self.most = most
        self._silent_s = SILENT_LEASES * lease_s
        self._sessions: dict[Session, asyncio.Task[Any] | None] = {}
        self._left = asyncio.Event()

    @property
    def n_connections(self) -> int:
        """How many peers are connected."""
        return len(self._sessions)

    async def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Serve one peer (called by tornado)."""
        if len(self._sessions) >= self.most:
            log.warning("a connection is closed: %d are open, and this process may open no more files", self.most)
            stream.close()
            return
        session = Session(self, tuned(stream), f"{address[0]}:{address[1]}" if len(address) > 1 else "unix socket")
        self._sessions[session] = asyncio.current_task()
        try:
            await session.serve()
        except Exception:  # one peer's fault, or ours about one peer: the others go on
            log.exception("%s: session ended by an error", session.name)
        finally:
            del self._sessions[session]
            self._left.set()

    def drop_silent(self) -> None:
        """Close connections of which nothing was heard for long."""
        now = asyncio.get_running_loop().time()
        for session in list(self._sessions):
            if session.worker and now - session.heard_s > self._silent_s:
                session.drop(f"nothing was heard for {self._silent_s:g} s")

    async def deserted(self) -> None:
        """Return when the last peer has left."""
        while self._sessions:
            self._left.clear()
            await self._left.wait()

    async def close(self) -> None:
        """Accept no more, and close all connections."""
        self.stop()
        for session in list(self._sessions):
            session.drop("the scheduler ends")
        await asyncio.gather(*(task for task in self._sessions.values() if task is not None))

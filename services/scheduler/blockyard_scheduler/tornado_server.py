"""The block server: one TCP connection a worker, one read loop each; what is said is up to `blockyard.leader.peer`."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any, TypeVar

from tornado.iostream import IOStream, StreamBufferFullError, StreamClosedError
from tornado.tcpserver import TCPServer

from blockyard.leader.peer import Door, Peer
from blockyard.spec.errors import StoreError
from blockyard.wire.frames import LIMIT_BYTES
from blockyard.wire.messages import Refused
from blockyard_scheduler.meter import Meter
from blockyard_scheduler.tls import Certificate, FirstByte, encrypted
from blockyard_scheduler.turns import TurnLoop

log = logging.getLogger(__name__)

HELLO_S = 10.0
"""A peer that has not said hello by then is refused."""
READ_BYTES = 2**18
MOST_UNREAD_BYTES = 2 * READ_BYTES + LIMIT_BYTES
UNSENT_BYTES = 2**26
"""A worker that reads so slowly that this much waits for it is dropped."""
SILENT_LEASES = 2.0
"""A connection that was silent for so many lease times is half open: its worker is long back on another, or gone."""


class Session:
    """The socket of one peer."""

    def __init__(self, server: BlockServer, stream: IOStream, address: str) -> None:
        self.peer = Peer(address, server.now())
        self.task = asyncio.current_task()
        self._server = server
        self._stream = stream
        self._first = FirstByte(stream.socket)
        self._closed = False

    # --- speaking ----------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what the peer is to be told, and close the connection if it has ended."""
        data = self.peer.take_outgoing()
        if data and not self._stream.closed():
            try:
                # The future is not awaited: the stream keeps what the peer has not read yet, up to its limit.
                self._stream.write(data)
            except StreamBufferFullError:
                self.peer.end(f"it leaves {UNSENT_BYTES} bytes unread")
            except StreamClosedError:
                pass
        if self.peer.ended and not self.peer.refused:
            self._close()

    def drop(self, reason: str) -> None:
        """Close the connection, because of a sentence for the log."""
        self.peer.end(reason)
        self._close()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        peer = self.peer
        if not self._stream.closed():
            level = logging.WARNING if peer.broke_protocol else logging.INFO
            log.log(level, "%s: connection closed: %s", peer.name, peer.ended, extra={"worker": peer.worker})
        self._first.forget()
        self._stream.close()

    async def _refuse(self) -> None:
        """Count a refusal, and give the peer the time to hear it."""
        peer = self.peer
        self._server.meter.refused[peer.refused] += 1
        log.info("%s refused: %s", peer.name, peer.ended)
        try:
            async with asyncio.timeout(HELLO_S):
                await self._stream.write(peer.take_outgoing())
        except (StreamClosedError, TimeoutError):
            pass

    # --- hearing -----------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Hear the peer until the connection ends."""
        peer, server = self.peer, self._server
        try:
            await self._greeted()
            while not peer.ended:
                if peer.overloads and server.loop is not None:
                    await server.loop.turned()
                await self._hear()
            if peer.refused:
                await self._refuse()
        except (StreamClosedError, StoreError):
            pass  # the peer left, or the scheduler ends
        finally:
            self._stream.close()
            peer.disconnected(server.door, server.now())
            server.arm()

    async def _hear(self) -> None:
        data = await self._stream.read_bytes(READ_BYTES, partial=True)
        self.peer.receive(data, self._server.door, self._server.now())
        self.flush()
        self._server.arm()

    async def _greeted(self) -> None:
        """Return when the peer was let in, or refused."""
        peer = self.peer
        try:
            async with asyncio.timeout(HELLO_S):
                await self._encrypt()
                while not peer.worker and not peer.ended:
                    await self._hear()
        except TimeoutError:
            peer.refuse(Refused(f"no hello within {HELLO_S:g} s", "protocol"), "timeout")
        if peer.worker:
            log.info("%s joined: %s", peer.name, peer.offers, extra={"worker": peer.worker})

    async def _encrypt(self) -> None:
        """Change over to TLS where this scheduler has a certificate; refuse a peer that won't."""
        tls = await self._first.begins_tls()
        certificate = self._server.certificate
        if certificate is None:
            if tls:
                self.peer.refuse(Refused("this scheduler has no TLS; connect without --tls and --tls-ca", "tls"))
            return
        if not tls:
            self.peer.refuse(
                Refused("this scheduler wants TLS; give the worker --tls-ca with its authority (or --tls)", "tls")
            )
            return
        try:
            self._stream = stream = tuned(encrypted(self._stream, certificate))
            await stream.wait_for_handshake()
        except OSError as error:  # ssl.SSLError is one too
            log.info("%s: the TLS handshake failed: %s", self.peer.name, getattr(error, "reason", None) or error)
            raise StreamClosedError from error


AnyStream = TypeVar("AnyStream", bound=IOStream)


def tuned(stream: AnyStream) -> AnyStream:
    """Return the stream, set up as all of ours are."""
    stream.set_nodelay(True)
    stream.max_write_buffer_size = UNSENT_BYTES
    stream.max_buffer_size = MOST_UNREAD_BYTES
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return stream


class BlockServer(TCPServer):
    """Accepts workers, in and out of leadership; `door` says which."""

    def __init__(
        self, door: Door, *, meter: Meter, lease_s: float, most: int, certificate: Certificate | None = None
    ) -> None:
        """Serve at most `most` connections."""
        super().__init__(max_buffer_size=MOST_UNREAD_BYTES)
        self.door = door
        self.meter = meter
        self.certificate = certificate
        self.most = most
        self.loop: TurnLoop | None = None
        """Takes the turns of which the peers are told; None while this scheduler does not lead."""
        self._silent_s = SILENT_LEASES * lease_s
        self._sessions: dict[Peer, Session] = {}
        self._left = asyncio.Event()

    @property
    def n_connections(self) -> int:
        """How many peers are connected."""
        return len(self._sessions)

    def now(self) -> float:
        """Return the time of the loop's clock, which is the one of the turns."""
        return asyncio.get_running_loop().time()

    def lead(self, loop: TurnLoop | None) -> None:
        """From now on workers come in, and are told what these turns decide; None: no more."""
        self.loop = loop
        self.door.turns = None if loop is None else loop.turns

    def arm(self) -> None:
        """See to it that what peers told is decided in time."""
        if self.loop is not None:
            self.loop.arm()

    def flush(self, peer: Peer) -> None:
        """Write what a peer is to be told; nothing where its connection is gone."""
        if (session := self._sessions.get(peer)) is not None:
            session.flush()

    async def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Serve one peer (called by tornado)."""
        if len(self._sessions) >= self.most:
            log.warning("a connection is closed: %d are open, and this process may open no more files", self.most)
            stream.close()
            return
        session = Session(self, tuned(stream), f"{address[0]}:{address[1]}" if len(address) > 1 else "unix socket")
        self._sessions[session.peer] = session
        try:
            await session.serve()
        except Exception:  # one peer's fault, or ours about one peer: the others go on
            log.exception("%s: session ended by an error", session.peer.name)
        finally:
            del self._sessions[session.peer]
            self._left.set()

    def drop_silent(self) -> None:
        """Close connections of which nothing was heard for long."""
        now = self.now()
        for session in list(self._sessions.values()):
            if session.peer.worker and now - session.peer.heard_s > self._silent_s:
                session.drop(f"nothing was heard for {self._silent_s:g} s")

    async def deserted(self) -> None:
        """Return when the last peer has left."""
        while self._sessions:
            self._left.clear()
            await self._left.wait()

    async def close(self) -> None:
        """Accept no more, and close all connections."""
        self.stop()
        for session in list(self._sessions.values()):
            session.drop("the scheduler ends")
        await asyncio.gather(*(session.task for session in self._sessions.values() if session.task is not None))

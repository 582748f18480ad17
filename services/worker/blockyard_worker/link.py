"""The connection of an agent: carries a session's bytes, and connects again whenever the session says so."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import time
from collections.abc import Callable
from typing import Any

from blockyard.client.tls import Trust, distrust
from blockyard.wire.happenings import Disconnect, Happening, RefusedForGood
from blockyard.wire.session import SessionState, WorkerSession, split_address

CONNECT_S = 10.0

log = logging.getLogger("blockyard.worker")


class Link:
    """Keeps a session connected; what happens goes to `handle`, and `turn` is called after each batch of it."""

    def __init__(
        self,
        session: WorkerSession,
        handle: Callable[[Happening], None],
        turn: Callable[[], None],
        trust: Trust | None = None,
    ) -> None:
        """Take a session that has not been connected; `trust` is how to connect by TLS, None without."""
        self.session = session
        self._trust = trust
        self.connections = 0
        self._handle = handle
        self._turn = turn
        self._transport: asyncio.Transport | None = None
        self._closed: asyncio.Future[None] | None = None
        self._complaint = ""

    async def run(self) -> None:
        """Connect, and connect again, until the session is over."""
        while self.session.state is not SessionState.OVER:
            await asyncio.sleep(max(self.session.retry_at_s - time.monotonic(), 0.0))
            if self.session.state is SessionState.AWAY:
                await self._connect()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        address = self.session.address
        host, port = split_address(address)
        self._closed = loop.create_future()
        try:
            async with asyncio.timeout(CONNECT_S):
                await loop.create_connection(lambda: Connection(self), host, port, **self._tls(host))
        except (OSError, TimeoutError) as error:
            if self.session.state is SessionState.AWAY:
                self._failed(error, address, host)
            return
        await self._closed

    def _tls(self, host: str) -> dict[str, Any]:
        """Return the arguments of a connection by TLS."""
        if self._trust is None:
            return {}
        return {"ssl": self._trust.context, "server_hostname": self._trust.server_name(host)}

    def _failed(self, error: Exception, address: str, host: str) -> None:
        """Try again, unless TLS never worked: then somebody must change a setting first."""
        reason = distrust(error, self._trust, address, host)
        if reason and self.session.welcome is None:
            self._handle(RefusedForGood(reason, "distrust"))
        self._complain(f"{reason or f'no scheduler at {address} ({_reason(error)})'}; trying again")
        self.session.connection_lost(time.monotonic())

    def _complain(self, sentence: str) -> None:
        """Log a sentence, once where it is the same as before."""
        if sentence != self._complaint:
            log.warning("%s", sentence)
            self._complaint = sentence

    # ----- called by Connection ---------------------------------------------------------------------------------

    def made(self, transport: asyncio.Transport) -> None:
        """Greet on a new connection."""
        if self.session.state is not SessionState.AWAY:
            transport.abort()
            return
        self.connections += 1
        self._transport = transport
        self.session.connection_made(time.monotonic())
        self.flush()

    def received(self, transport: asyncio.BaseTransport | None, data: bytes) -> None:
        """Take bytes."""
        if transport is not self._transport:
            return
        self.carry_out(self.session.receive(data, time.monotonic()))
        self._turn()

    def lost(self, transport: asyncio.BaseTransport | None, error: Exception | None) -> None:
        """Take note of the end of a connection (those that we ended are forgotten by then)."""
        if transport is self._transport and self._transport is not None:
            self._transport = None
            broke = f"the connection to {self.session.address} broke ({_reason(error)})"
            if self.session.state is SessionState.GREETING:
                broke = (
                    f"what listens at {self.session.address} ends the connection without an answer ({_reason(error)})"
                )
            self._complain(f"{broke}; connecting again")
            self.session.connection_lost(time.monotonic())
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)
        self._turn()

    # ----- called by the agent ----------------------------------------------------------------------------------

    def carry_out(self, happenings: list[Happening]) -> None:
        """Do what the session says, in order."""
        for happening in happenings:
            if isinstance(happening, Disconnect):
                self._complain(happening.reason)
                self._drop()
            else:
                self._handle(happening)

    def flush(self) -> None:
        """Send what the session has to say."""
        if self._transport is not None and (data := self.session.data_to_send()):
            self._transport.write(data)

    async def close(self) -> None:
        """Send the rest and close."""
        self.flush()
        transport, self._transport = self._transport, None
        if transport is not None and self._closed is not None:
            transport.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._closed

    def _drop(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()


class Connection(asyncio.Protocol):
    """One TCP connection."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send small messages at once: a release followed by a want would otherwise wait 40 ms."""
        assert isinstance(transport, asyncio.Transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport = transport
        self._link.made(transport)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        self._link.received(self._transport, data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the end on."""
        self._link.lost(self._transport, exc)


def _reason(error: BaseException | None) -> str:
    if error is None:
        return "closed by the scheduler"
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_S:g} s"
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror):
        # asyncio puts the address in place of the words, and several errors into one text
        numbers = [error.errno] if error.errno else [int(found) for found in re.findall(r"\[Errno (\d+)\]", str(error))]
        if numbers:
            return ", ".join(dict.fromkeys(map(os.strerror, numbers)))
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

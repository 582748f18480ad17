"""A session kept alive by a thread: the connection, the heartbeats and the deadline of a blocking Client.

Two threads, because one of them may wait for a name server while a lease runs out. They and the caller share the
session under one condition; whoever changes it calls `kick`.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from blockyard.client.tls import Trust, distrust
from blockyard.wire.happenings import Disconnect, Happening, RefusedForGood
from blockyard.wire.session import SessionState, WorkerSession, split_address

CONNECT_S = 5.0
LONGEST_WAIT_S = 1.0
NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def software_version() -> str:
    """Return name and version of the installed distribution."""
    try:
        return f"blockyard {version('blockyard')}"
    except PackageNotFoundError:
        return "blockyard"


class SessionThread:
    """Carries a session's bytes over sockets; `handle` gets what happens, with the condition held."""

    def __init__(
        self,
        session: WorkerSession,
        handle: Callable[[Happening], None],
        running: Callable[[], list[tuple[int, float]]],
        turn: Callable[[float], float],
        trust: Trust | None = None,
    ) -> None:
        """Take a session that has not been connected.

        `turn(now)` is called before waiting, with the condition held; it gives when it wants to be called again.
        `trust` is how to connect by TLS; None: without.
        """
        self.session = session
        self.changed = threading.Condition()
        self.complaint = ""
        """Why there is no connection: half a sentence; empty while there is one."""
        self._handle = handle
        self._running = running
        self._turn = turn
        self._trust = trust
        self._socket: socket.socket | None = None
        self._unsent = b""
        self._ending = False
        self._dropping = False
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._threads = [
            threading.Thread(target=self._carry, name="blockyard-connection", daemon=True),
            threading.Thread(target=self._watch_deadline, name="blockyard-deadline", daemon=True),
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def kick(self) -> None:
        """Have the threads look at the session again; from any thread, also from a signal handler."""
        with contextlib.suppress(OSError):  # full: it will look anyway; closed: too late
            self._wake_write.send(b"k")

    def close(self) -> None:
        """Send what there is to send, close the connection and end the threads."""
        with self.changed:
            self._ending = True
            self.changed.notify_all()
        self.kick()
        for thread in self._threads:
            thread.join(CONNECT_S + 1.0)
        if not any(thread.is_alive() for thread in self._threads):
            self._selector.close()
            self._wake_read.close()
            self._wake_write.close()

    # ----- the deadline -----------------------------------------------------------------------------------------

    def _watch_deadline(self) -> None:
        with self.changed:
            while not self._ending:
                now = time.monotonic()
                left = self.session.deadline_s - now
                if left <= 0:
                    self._carry_out(self.session.tick(now, self._running()))
                    self.changed.notify_all()
                else:
                    self.changed.wait(min(left, LONGEST_WAIT_S))

    # ----- the connection ---------------------------------------------------------------------------------------

    def _carry(self) -> None:
        while self._step():
            pass
        if self._socket is not None and self._unsent:
            with contextlib.suppress(OSError):
                self._socket.settimeout(1.0)
                self._socket.sendall(self._unsent)
        self._drop()

    def _step(self) -> bool:
        """Do what is due and wait for more; give whether to go on."""
        with self.changed:
            now = time.monotonic()
            self._carry_out(self.session.tick(now, self._running()))
            again_s = self._turn(now)
            self.changed.notify_all()
            away = self.session.state is SessionState.AWAY
            connecting = away and self.session.retry_at_s <= now
            over = self._ending or self.session.state is SessionState.OVER
            wait_s = self._wait_s(now, again_s)
        if self._dropping:
            self._drop()
        self._send()
        if over:
            return False
        if connecting:
            self._connect()
        else:
            self._receive(wait_s)
        return True

    def _wait_s(self, now: float, again_s: float) -> float:
        wake = min(self.session.wake_at_s, again_s, now + LONGEST_WAIT_S)
        if self.session.state is SessionState.AWAY:
            wake = min(wake, self.session.retry_at_s)
        return max(wake - now, 0.0)

    def _connect(self) -> None:
        address = self.session.address
        host, port = split_address(address, "the scheduler's address")
        try:
            connected = self._open(host, port)
        except OSError as error:
            with self.changed:
                self._failed(error, address, host)
                if self.session.state is SessionState.AWAY:
                    self.session.connection_lost(time.monotonic())
            return
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setblocking(False)
        self._socket = connected
        self._unsent = b""
        self._selector.register(connected, selectors.EVENT_READ)
        with self.changed:
            self.complaint = ""
            if self.session.state is SessionState.AWAY:
                self.session.connection_made(time.monotonic())

    def _open(self, host: str, port: int) -> socket.socket:
        """Return a new connection. Raises OSError (ssl.SSLError is one)."""
        connected = socket.create_connection((host, port), CONNECT_S)
        if self._trust is None:
            return connected
        try:
            return self._trust.context.wrap_socket(connected, server_hostname=self._trust.server_name(host))
        except OSError:
            connected.close()
            raise

    def _failed(self, error: OSError, address: str, host: str) -> None:
        """Keep the reason; where TLS never worked somebody must change a setting first."""
        reason = distrust(error, self._trust, address, host)
        absence = error.strerror or f"no answer within {CONNECT_S:g} s"
        self.complaint = reason or f"no scheduler at {address} ({absence})"
        if reason and self.session.welcome is None:
            self._handle(RefusedForGood(reason, "distrust"))
            self.changed.notify_all()

    def _receive(self, wait_s: float) -> None:
        for key, events in self._selector.select(wait_s):
            if key.fileobj is self._wake_read:
                with contextlib.suppress(OSError):
                    self._wake_read.recv(4096)
            elif events & selectors.EVENT_READ and self._socket is not None:
                self._read(self._socket)

    def _read(self, connected: socket.socket) -> None:
        self._read_once(connected)
        # TLS reads a record at a time, and the selector knows nothing of what OpenSSL has in hand.
        while isinstance(connected, ssl.SSLSocket) and connected is self._socket and connected.pending():
            self._read_once(connected)

    def _read_once(self, connected: socket.socket) -> None:
        try:
            data = connected.recv(1 << 18)
        except NOT_NOW:
            return
        except OSError as error:
            self._lost(error.strerror or "broken")
            return
        if not data:
            self._lost("closed by the scheduler")
            return
        with self.changed:
            self._carry_out(self.session.receive(data, time.monotonic()))
            self.changed.notify_all()

    def _send(self) -> None:
        with self.changed:
            if self._socket is None:
                return
            self._unsent += self.session.data_to_send()
        while self._unsent and self._socket is not None:
            try:
                sent = self._socket.send(self._unsent)
            except NOT_NOW:
                break
            except OSError as error:
                self._lost(error.strerror or "broken")
                return
            self._unsent = self._unsent[sent:]
        if self._socket is not None:
            writing = selectors.EVENT_WRITE if self._unsent else 0
            self._selector.modify(self._socket, selectors.EVENT_READ | writing)

    def _lost(self, reason: str) -> None:
        self._drop()
        with self.changed:
            self.complaint = f"the connection to {self.session.address} broke ({reason})"
            if self.session.state is not SessionState.AWAY:
                self.session.connection_lost(time.monotonic())

    def _drop(self) -> None:
        self._dropping = False
        connected, self._socket = self._socket, None
        if connected is not None:
            self._selector.unregister(connected)
            connected.close()

    def _carry_out(self, happenings: list[Happening]) -> None:
        for happening in happenings:
            if isinstance(happening, Disconnect):
                self.complaint = happening.reason
                self._dropping = True  # by the thread that owns the socket
            else:
                self._handle(happening)

"""TLS of the scheduler's ports: its certificate, and telling peers that speak TLS from peers that don't.

The first byte of a connection tells: a TLS handshake begins with 0x16, a frame of ours with 0x00 (no greeting is
longer than 1 MiB). So a worker without TLS is refused in the protocol that it speaks, with a sentence.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from pathlib import Path

from tornado.iostream import IOStream, SSLIOStream

from blockyard.spec.errors import SpecError

HANDSHAKE = b"\x16"

log = logging.getLogger(__name__)


class Certificate:
    """A certificate with its key, read again when the files change: they are renewed while a run of weeks goes on."""

    def __init__(self, cert: str, key: str) -> None:
        """Read both files. Raises SpecError, with a sentence, for files that cannot be used."""
        self._files = (cert, key)
        self._read = self._stamps()
        self.context = _context(cert, key)

    def refresh(self) -> None:
        """Read the files again if they changed; bad ones are logged, and the old certificate is kept."""
        stamps = self._stamps()
        if stamps == self._read:
            return
        self._read = stamps
        try:
            _context(*self._files)  # both files may not be there yet: a context is not loaded with half a pair
            self.context.load_cert_chain(*self._files)
        except (SpecError, OSError) as error:
            log.warning("the certificate changed and cannot be used; the old one is kept: %s", error)
        else:
            log.info("the certificate changed: new connections get the new one")

    def _stamps(self) -> list[tuple[int, int]]:
        try:
            return [(stat.st_mtime_ns, stat.st_ino) for stat in (Path(file).stat() for file in self._files)]
        except OSError:
            return []


def _context(cert: str, key: str) -> ssl.SSLContext:
    for flag, file in (("--tls-cert", cert), ("--tls-key", key)):
        try:
            Path(file).read_bytes()
        except OSError as error:
            raise SpecError(f"{flag} is '{file}', which cannot be read ({error.strerror})") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # A passphrase would be asked for at a terminal, where there is one.
        context.load_cert_chain(cert, key, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SpecError(f"--tls-key is '{key}', which is not the key of the certificate in '{cert}'") from None
        raise SpecError(
            f"--tls-cert '{cert}' and --tls-key '{key}' are no certificate and key (PEM, without passphrase)"
        ) from None
    return context


class FirstByte:
    """The first byte of a connection, looked at without taking it."""

    def __init__(self, connection: socket.socket) -> None:
        """Wait on a connection from which nothing reads yet."""
        self._connection = connection
        self._seen = asyncio.Event()

    async def begins_tls(self) -> bool:
        """Wait for it, and tell whether it begins a TLS handshake; False where the connection ends first."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._connection, self._seen.set)
        try:
            await self._seen.wait()
            return self._connection.recv(1, socket.MSG_PEEK) == HANDSHAKE
        except OSError:
            return False
        finally:
            self.forget()

    def forget(self) -> None:
        """Stop waiting; to be called before the connection is closed, as its number may then be another's."""
        if self._connection.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._connection)
        self._seen.set()


def encrypted(stream: IOStream, certificate: Certificate) -> SSLIOStream:
    """Take over the connection of a stream that has read nothing; the handshake is yet to be waited for.

    Raises OSError where the peer is gone.
    """
    certificate.refresh()
    connection, stream.socket = stream.socket, None  # type: ignore[assignment]  # as tornado does it itself
    wrapped = certificate.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    return SSLIOStream(wrapped)

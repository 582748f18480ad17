"""One request to the HTTP side of a scheduler: to that host and nowhere else, and never without an end.

No proxy, whatever the environment says: a scheduler is on loopback, in the cluster or next door, and what goes to a
proxy carries the run's token. No redirect is followed either, which would carry it to another host.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass

from blockyard.spec.errors import ConnectError, SpecError

WHOLE_S = 60.0
"""Most that one answer may take from its first byte to its last; that nothing comes is noticed long before."""
LONGEST_ANSWER = 2**28
PIECE_BYTES = 2**18


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whoever sent it."""

    status: int
    reason: str
    location: str
    """Where a redirect points to."""
    body: bytes


class BrokenAnswer(Exception):  # noqa: N818 - told as a sentence by who asks
    """The request was sent, and what came back has no end, or is none; says why."""

    def __init__(self, why: str, *, foreign: bool = False) -> None:
        """`foreign`: they may speak another protocol than HTTP."""
        super().__init__(why)
        self.foreign = foreign


@dataclass(frozen=True, slots=True)
class Address:
    """Where a scheduler is asked."""

    url: str
    """Without a slash at its end."""
    scheme: str
    host: str
    port: int | None
    path: str
    token: str
    """That the address holds, as that of the page does; else ""."""

    @classmethod
    def of(cls, text: str) -> Address:
        """Take HOST:PORT, a URL, or the address of the page. Raises ConnectError where it is none of them."""
        url = text if "://" in text else f"http://{text}"
        try:
            parts = urllib.parse.urlsplit(url)
            port = parts.port
            parts.path.encode("ascii")
        except ValueError as error:
            raise ConnectError(f"'{text}' is no address ({error}); give HOST:PORT or a URL") from None
        if parts.scheme not in ("http", "https"):
            raise ConnectError(f"'{text}' is not an http:// or https:// address")
        if not parts.hostname or parts.username is not None:
            wrong = "names a user; give the token with --token" if parts.hostname else "names no host"
            raise ConnectError(f"the address '{parts.hostname or text}' {wrong}")
        url = url.partition("#")[0].partition("?")[0].rstrip("/")
        token = urllib.parse.parse_qs(parts.fragment).get("token", [""])[0]
        return cls(url, parts.scheme, parts.hostname, port, parts.path.rstrip("/"), token)


def check_token(token: str) -> None:
    """Raise SpecError, without the token in it, where it can't be sent in a header."""
    if not (token.isprintable() and all(ord(letter) < 256 for letter in token)):
        raise SpecError(
            "the token has a character in it that can't be sent, such as the end of a line; give it as it is"
        )


def ask(
    address: Address,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes | None,
    *,
    timeout_s: float,
    tls: ssl.SSLContext | None,
) -> Answer:
    """Send a request and return the answer, whatever it is.

    `timeout_s`: how long to wait for a connection, and for anything to come. Raises OSError where nobody could be
    asked, BrokenAnswer where somebody was and did not answer.
    """
    connection = _connection(address, timeout_s, tls)
    with contextlib.closing(connection):
        connection.connect()
        with _until(connection.sock, max(WHOLE_S, timeout_s)) as expired:
            try:
                connection.request(method, f"{address.path}{path}", body, {**headers, "Connection": "close"})
                with connection.getresponse() as response:
                    return _answer(response, expired)
            except ssl.SSLError:
                raise
            except (OSError, http.client.HTTPException, BrokenAnswer) as error:
                why = _broken(error, timeout_s, expired=expired.is_set())
                foreign = isinstance(error, (ConnectionResetError, http.client.HTTPException))
                raise BrokenAnswer(why, foreign=foreign) from error


def _connection(address: Address, timeout_s: float, tls: ssl.SSLContext | None) -> http.client.HTTPConnection:
    if address.scheme == "https":
        return http.client.HTTPSConnection(address.host, address.port, timeout=timeout_s, context=tls)
    return http.client.HTTPConnection(address.host, address.port, timeout=timeout_s)


@contextlib.contextmanager
def _until(sock: socket.socket, longest_s: float) -> Iterator[threading.Event]:
    """End a connection after so long: a peer that sends a byte now and then would hold us for ever."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not TLS's own, which is not for another thread

    timer = threading.Timer(longest_s, expire)
    timer.daemon = True
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()


def _answer(response: http.client.HTTPResponse, expired: threading.Event) -> Answer:
    pieces, size = [], 0
    while piece := response.read(PIECE_BYTES):
        pieces.append(piece)
        size += len(piece)
        if size > LONGEST_ANSWER:
            raise BrokenAnswer(f"its answer is longer than {LONGEST_ANSWER // 2**20} MiB")
    if response.length or expired.is_set():  # then it only seems to have ended
        raise BrokenAnswer("its answer ended half way")
    return Answer(response.status, response.reason, response.headers.get("Location", ""), b"".join(pieces))


def _broken(error: Exception, timeout_s: float, *, expired: bool) -> str:
    if expired:
        return f"its answer had not ended after {max(WHOLE_S, timeout_s):g} s"
    if isinstance(error, TimeoutError):
        return f"nothing came within {timeout_s:g} s"
    if isinstance(error, http.client.IncompleteRead):
        return "its answer ended half way"
    if isinstance(error, http.client.RemoteDisconnected):
        return "it closed the connection without an answer"
    if isinstance(error, http.client.HTTPException):
        return "what it answers is not HTTP"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

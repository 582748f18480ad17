"""Frames: a length, then msgpack. Bytes in, messages out; no I/O.

>>> decoder = Decoder(ToScheduler)
>>> decoder.feed(encode(Want(3)) + encode(Want(4))[:5])
[Want(n=3)]
"""

from __future__ import annotations

from typing import Any

import msgspec

from blockyard.spec.errors import ProtocolError
from blockyard.wire.messages import ToScheduler, ToWorker, Want

__all__ = ["HELLO_LIMIT_BYTES", "LIMIT_BYTES", "Decoder", "ToScheduler", "ToWorker", "Want", "encode"]

HEADER_BYTES = 4
LIMIT_BYTES = 16 * 2**20
"""Largest frame; checked before anything is decoded."""
HELLO_LIMIT_BYTES = 2**20
"""Largest frame from a peer that has not shown its token."""

_encoder = msgspec.msgpack.Encoder()


def encode(message: msgspec.Struct) -> bytes:
    """Return the frame of one message."""
    body = _encoder.encode(message)
    return len(body).to_bytes(HEADER_BYTES, "big") + body


class Decoder:
    """Takes bytes as they come and gives the messages that are whole."""

    def __init__(self, union: Any, limit_bytes: int = LIMIT_BYTES) -> None:
        """Decode messages of `union` (`ToScheduler` or `ToWorker`), each of at most `limit_bytes`."""
        self.limit_bytes = limit_bytes
        self._buffer = bytearray()
        self._decoder = msgspec.msgpack.Decoder(union)

    def feed(self, data: bytes) -> list[Any]:
        """Add `data`; give the messages it completes. Raises ProtocolError for a frame too long or not valid."""
        buffer = self._buffer
        buffer += data
        messages = []
        at = 0
        while len(buffer) - at >= HEADER_BYTES:
            size = int.from_bytes(buffer[at : at + HEADER_BYTES], "big")
            if size > self.limit_bytes:
                raise ProtocolError(f"a frame of {size} bytes is over the limit of {self.limit_bytes}")
            if len(buffer) - at - HEADER_BYTES < size:
                break
            start = at + HEADER_BYTES
            try:
                messages.append(self._decoder.decode(memoryview(buffer)[start : start + size]))
            except (msgspec.DecodeError, ValueError, RecursionError) as error:
                raise ProtocolError(f"a frame that is not a message of the protocol: {error}") from error
            at = start + size
        del buffer[:at]
        return messages

"""The journal: one packed record for each turn that changed anything, and snapshot pages so that it stays short.

A record says what became true, not what was asked: bits set and cleared, leases granted and ended, tries, the releases
last accepted from each worker. It names blocks by address (see `layout.py`). A page holds one bitmap page, or the small
rest (`Head`), as of a sequence; replay skips for each page the records it already contains.
"""

from __future__ import annotations

import msgspec

from blockyard.core.state.task import Tries

VERSION = 1
"""Of records, pages and layout together; a store written by a newer one is refused."""


class GrantRecord(msgspec.Struct, array_like=True):
    """Leases were granted."""

    number: int
    task: int
    worker: str
    addresses: bytes
    max_running: int = 0


class EndRecord(msgspec.Struct, array_like=True):
    """Those of the leases ``number .. number + count - 1`` that were live have ended; or only those at `positions`."""

    number: int
    count: int
    positions: bytes = b""
    """Offsets from `number`, ``<u4``; empty: all."""


class BitsRecord(msgspec.Struct, array_like=True):
    """Bits of a task were set or cleared."""

    task: int
    kind: int
    value: bool
    addresses: bytes


class TriesRecord(msgspec.Struct, array_like=True):
    """What a block has cost; None: forgotten."""

    task: int
    address: int
    tries: Tries | None


class Stop(msgspec.Struct, array_like=True, frozen=True):
    """Why a task is leased no more: its first attempts all failed alike."""

    text: str
    """A sentence for a person."""
    worker: str = ""
    """The only worker that has failed, or the machine of all that have; "": they are on several."""


class Record(msgspec.Struct, array_like=True):
    """One turn."""

    grants: list[GrantRecord] = []
    ends: list[EndRecord] = []
    bits: list[BitsRecord] = []
    tries: list[TriesRecord] = []
    workers: dict[str, int] = {}
    """Last accepted release of workers; -1: the worker is forgotten."""
    state: str = ""
    retries: dict[int, int] = {}
    """Retries so far, by task."""
    stale: dict[str, dict[int, int]] = {}
    """Stale leases in accepted releases, by worker and sequence of the release."""
    reason: str = ""
    """Why the run is in `state`, where that is said."""
    stops: dict[int, Stop | None] = {}
    """Tasks that are leased no more, by number; None: leased again."""


class Head(msgspec.Struct, array_like=True):
    """All of the durable state that is not a bitmap."""

    grants: list[GrantRecord]
    next_number: int
    tries: list[TriesRecord]
    workers: dict[str, int]
    state: str
    retries: dict[int, int]
    stale: dict[str, dict[int, int]] = {}
    reason: str = ""
    stops: dict[int, Stop] = {}


_encoder = msgspec.msgpack.Encoder()
_record_decoder = msgspec.msgpack.Decoder(Record)
_head_decoder = msgspec.msgpack.Decoder(Head)


def encode(value: Record | Head) -> bytes:
    """Pack a record or head."""
    return _encoder.encode(value)


def decode_record(data: bytes) -> Record:
    """Unpack a record."""
    return _record_decoder.decode(data)


def decode_head(data: bytes) -> Head:
    """Unpack the head."""
    return _head_decoder.decode(data)

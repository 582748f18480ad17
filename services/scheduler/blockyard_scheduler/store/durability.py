"""Whether Redis may have forgotten something: what it promises, and whether it was started again since a leader's look.

A leader writes down, with each renewal of its lock that finds all of its records, which server it spoke to (the run id
that Redis draws at each start) and what that server promised. A successor that finds another run id, and no promise
that a restart keeps everything, can't know that nothing was lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class Durability(msgspec.Struct, frozen=True):
    """One start of one Redis server, as a leader saw it."""

    run_id: str = ""
    """Drawn anew at each start; "" where it is unknown."""
    keeps: bool = False
    """Whether a restart of it keeps every confirmed write: an append-only file written through, and no replica that may
    take its place without the last ones."""

    @classmethod
    def parse(cls, mark: bytes) -> Durability:
        """Read ``RUN_ID KEEPS``, as the scripts write it; an empty mark is a server of which nothing is known."""
        run_id, _, keeps = mark.decode().partition(" ")
        return cls(run_id, keeps == KEEPS)


KEEPS, FORGETS = "keeps", "forgets"
"""What a mark says of the server's promise."""


def may_have_forgotten(before: Durability, now: Durability) -> bool:
    """Whether records may be lost between a leader's last look at Redis and this one.

    >>> may_have_forgotten(Durability("a", keeps=False), Durability("a", keeps=False))  # never restarted
    False
    >>> may_have_forgotten(Durability("a", keeps=False), Durability("b", keeps=True))  # the last second was lost
    True
    >>> may_have_forgotten(Durability("a", keeps=True), Durability("b", keeps=True))  # all of it was
    False
    >>> may_have_forgotten(Durability("a", keeps=True), Durability("b", keeps=False))  # it does not read that file
    True
    >>> may_have_forgotten(Durability(), Durability("b", keeps=True))  # a run of an older version of blockyard
    False
    """
    if not now.run_id or before.run_id == now.run_id:  # a server that hides its run id can't be watched
        return False
    return not (now.keeps and (before.keeps or not before.run_id))


def promise(info: Mapping[str, Any], fsync: str | None) -> tuple[bool, list[str]]:
    """Return whether a restart keeps everything, and warnings where it does not.

    `info` is Redis' INFO, `fsync` its setting appendfsync, None where it is hidden.
    """
    if not int(info.get("aof_enabled", 0)):
        return False, ["has no append-only file (appendonly is no): a run ends with Redis"]
    if fsync is None:  # hosted ones hide CONFIG
        return False, []
    if fsync != "always":
        return False, [f"has appendfsync {fsync}, not always: a power failure can lose the last second"]
    return not int(info.get("connected_slaves", 0)), []

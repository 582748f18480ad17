"""The errors a user can meet: one base class, and every message a sentence that says what, where and which values."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BlockyardError(RuntimeError):
    """Base of all errors that blockyard raises on purpose; its text is meant for the user."""


class SpecError(BlockyardError, ValueError):
    """A task or pipeline that cannot be run as written; raised before anything runs."""

    where: tuple[str | int, ...] = ()
    """Path of the fault inside the pipeline, such as ``("tasks", 0, "write_roi")``: a loader turns it into a line."""

    @classmethod
    def at(cls, where: Iterable[str | int], message: str) -> SpecError:
        """Return the error `message` about the value at path `where`."""
        error = cls(message)
        error.where = tuple(where)
        return error


class NotImportableError(SpecError):
    """User code that this machine cannot import; the workers' machines may have what it needs."""


class ConnectError(BlockyardError):
    """A scheduler or Redis that cannot be reached, or that refused us; says the address and the reason."""


class AwayError(ConnectError):
    """Nobody answers just now, or only somebody on the way to the scheduler: it may be starting again."""


class ProtocolError(BlockyardError):
    """A peer sent what the protocol does not allow; the connection is closed, the scheduler goes on."""


class StoreError(BlockyardError):
    """Redis is not what a run needs (too old, evicting, read-only), or belongs to another leader."""


class RunFailedError(BlockyardError):
    """A run ended with failed blocks."""


class FatalBlockError(BlockyardError):
    """Raised by user code: this block has failed and trying it again cannot help; no retry is spent on it."""


class LeaseLostError(BlockyardError):
    """The worker's leases ended (no scheduler answered for the lease time), so what it computed counts for nothing."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Give ``"; did you mean 'x'?"`` for the known name closest to `name`, or the list of all, to end a sentence with.

    >>> nearest("read_roy", ["read_roi", "fit"])
    "; did you mean 'read_roi'?"
    >>> nearest("colour", ["read_roi", "fit"])
    '; known: fit, read_roi'
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(known)}" if known else ""


def brief(value: object, longest: int = 80) -> str:
    """Return ``repr(value)`` as one line that fits a sentence.

    >>> brief([1, 2])
    '[1, 2]'
    >>> brief("x" * 100, longest=12)
    "'xxxxxxxx..."
    """
    try:
        text = " ".join(repr(value).split())
    except Exception:  # noqa: BLE001 - of a class of the user's, whose own fault is told elsewhere
        text = f"a {type(value).__name__} that has no text"
    return text if len(text) <= longest else text[: longest - 3] + "..."


def article(noun: str) -> str:
    """Return a noun with its article.

    >>> article("int"), article("list")
    ('an int', 'a list')
    """
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"

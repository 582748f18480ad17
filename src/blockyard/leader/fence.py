"""What the answers of the store mean to the leader that wrote: stored, another leads, or the store forgot.

A store names the identity that may write (its *writer*) and its last record. It refuses everybody else. A refusal is
not always the end: a store that was emptied, or started again from an older file, names a writer from before us, or
none, and has not gone on since. Then nobody else leads, and the living leader writes all of the run again.
"""

from __future__ import annotations

import enum


class Verdict(enum.Enum):
    """What became of something that only the leader may do."""

    DONE = "done"
    LAPSED = "lapsed"
    """Done; but the lock had expired, and another may have led meanwhile of whom the store has nothing left."""
    FORGOT = "forgot"
    """Not done: the store lost what it had confirmed to us, and nobody else leads."""
    REFUSED = "refused"
    """Not done: another leads, or led. Say nothing more."""


class Fence:
    """What a leader knows of its place among those who wrote to the store."""

    def __init__(self) -> None:
        """Know of nobody; call `took` when the lock is ours, then `loaded` when the run was read."""
        self.safe_seq = 0
        """Of the last record of ours that the store confirmed."""
        self.taken_seq = 0
        """Of the last record of those who led before us."""
        self.before: frozenset[str] = frozenset()
        """Identities of those who led before us."""

    def took(self, before: str) -> None:
        """The lock is ours; `before` are the identities of those who led before, with spaces between them."""
        self.before = frozenset(before.split())

    def loaded(self, seq: int) -> None:
        """The run was read up to this record; we go on from there."""
        self.safe_seq = self.taken_seq = seq

    def went_back(self, writer: str, last: int) -> bool:
        """Return whether a store that names this writer and last record is one from before us, and nobody went on."""
        return (not writer or writer in self.before) and last <= self.taken_seq

    def judge_commit(self, answer: str, writer: str, last: int, seq: int) -> Verdict:
        """Judge the answer to record `seq`: ``stored``, ``already``, ``refused`` or ``out of order``."""
        if answer in {"stored", "already"}:
            self.safe_seq = seq
            return Verdict.DONE
        if answer == "refused" and not self.went_back(writer, last):
            return Verdict.REFUSED
        return Verdict.FORGOT

    @staticmethod
    def judge_renewal(answer: str, last: int, safe_seq: int) -> Verdict:
        """Judge the answer to a renewal of the lock: ``kept``, ``lapsed``, ``refused``, ``forgot`` or ``holed``.

        ``forgot`` is the store's own word for `went_back`; ``holed``: keys are missing. `safe_seq` is what was safe
        when the store was asked: a record may have become safe since.
        """
        if answer == "refused":
            return Verdict.REFUSED
        if answer in {"forgot", "holed"} or last < safe_seq:
            return Verdict.FORGOT
        return Verdict.LAPSED if answer == "lapsed" else Verdict.DONE

    def rewritten(self, seq: int) -> None:
        """All of the run is in the store again, as of this record."""
        self.safe_seq = seq

"""The store as Redis is to the scheduler: the lock, the fence of every commit, the journal and its pages."""

from __future__ import annotations

from collections.abc import Callable

from blockyard.core.events import CommitRecord, Page


class Store:
    """State that survives every process. `stored` is told of each record that was taken, once."""

    def __init__(self, stored: Callable[[bytes], None]) -> None:
        self.up = True
        self.fenced = True
        """False breaks the fence, to show that the checks find it."""
        self.epoch = 0
        self.writer = ""
        self.leader = ""
        """Address of the scheduler that took the lock last."""
        self.lock = ("", 0.0)
        self.seq = 0
        self.by = ""
        self.log: dict[int, bytes] = {}
        self.pages: dict[str, Page] = {}
        self._stored = stored

    def take(self, nonce: str, address: str, now: float, lock_s: float) -> int | None:
        """Become the leader if nobody is; give the epoch."""
        held, expires_s = self.lock
        if held and now < expires_s:
            return None
        self.epoch += 1
        self.writer = f"{self.epoch}:{nonce}"
        self.lock = (self.writer, now + lock_s)
        self.leader = address
        return self.epoch

    def renew(self, identity: str, now: float, lock_s: float) -> bool:
        """Keep the lock, or take it again where nobody led since."""
        held, expires_s = self.lock
        if self.writer != identity or (held != identity and now < expires_s):
            return False
        self.lock = (identity, now + lock_s)
        return True

    def commit(self, identity: str, commit: CommitRecord) -> str:
        """Take one record with its pages; the same again is `already`."""
        if self.writer != identity and self.fenced:
            return "refused"
        if commit.seq == self.seq and self.by == identity:
            return "already"
        if commit.seq != self.seq + 1 and self.fenced:
            return "out of order"
        self.seq, self.by = commit.seq, identity
        self.log[commit.seq] = commit.record
        self.pages.update({page.key: page for page in commit.pages})
        for seq in [seq for seq in self.log if seq < commit.drop_below]:
            del self.log[seq]
        self._stored(commit.record)
        return "stored"

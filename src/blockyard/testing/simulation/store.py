"""The store as Redis is to the scheduler: the lock, the fence of every commit, the journal and its pages.

It may also forget: be started again from an older file, as a Redis that does not write every record through.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from blockyard.core.events import CommitRecord, Page
from blockyard.leader.claim import Held
from blockyard.leader.fence import Fence

MOST_FORGOTTEN = 12
"""Changes that may be lost at once."""


@dataclass(frozen=True, slots=True)
class Contents:
    """All that is in the file; never changed, only replaced."""

    epoch: int = 0
    writer: str = ""
    before: tuple[str, ...] = ()
    """Identities of the leaders before this one."""
    leader: str = ""
    """Address of the scheduler that took the lock last."""
    lock: tuple[str, float] = ("", 0.0)
    seq: int = 0
    by: str = ""
    log: dict[int, bytes] = field(default_factory=dict)
    pages: dict[str, Page] = field(default_factory=dict)
    vouched: int = 0
    """Number of the start of which a leader last found that it had all records; 0: none."""


class Store:
    """State that survives every process. `stored` is told the sequence of each record taken, and the record."""

    def __init__(self, stored: Callable[[int, bytes], None]) -> None:
        self.up = True
        self.fenced = True
        """False breaks the fence, to show that the checks find it."""
        self.now = Contents()
        self.start = 1
        """How often it was started: Redis' run id."""
        self._past: deque[Contents] = deque(maxlen=MOST_FORGOTTEN)
        self._stored = stored

    def _change(self, after: Contents) -> None:
        self._past.append(self.now)
        self.now = after

    # --- leading -----------------------------------------------------------------------------------------------

    def take(self, nonce: str, address: str, now: float, lock_s: float, seen_epoch: int) -> int | Held:
        """Become the leader if nobody is; return the epoch, or who leads."""
        held, expires_s = self.now.lock
        if held and now < expires_s:
            return Held(self.now.leader, self.now.epoch, expires_s - now, held)
        if self.now.epoch < seen_epoch:
            return Held("", self.now.epoch, forgot=True)
        epoch = self.now.epoch + 1
        writer = f"{epoch}:{nonce}"
        before = (self.now.writer, *self.now.before) if self.now.writer else ()
        self._change(
            replace(self.now, epoch=epoch, writer=writer, before=before, lock=(writer, now + lock_s), leader=address)
        )
        if not self.now.vouched:
            self.vouch()
            self._past.clear()  # a store that knows nothing of the run at all has no promise to keep
        return epoch

    def renew(self, identity: str, fence: Fence, now: float, lock_s: float) -> str:
        """Keep the lock, or take it again where nobody led since: ``kept``, ``lapsed``, ``refused`` or ``forgot``."""
        held, expires_s = self.now.lock
        if held != identity and now < expires_s:
            return "refused"
        if self.now.writer == identity:
            self.now = replace(self.now, lock=(identity, now + lock_s))
            return "lapsed" if now >= expires_s and self.may_have_forgotten else "kept"
        return "forgot" if self._went_back(fence) else "refused"

    def vouch(self) -> None:
        """Note that a leader found all of its records."""
        if self.now.vouched != self.start:
            self._change(replace(self.now, vouched=self.start))

    @property
    def may_have_forgotten(self) -> bool:
        """Whether it was started again since a leader vouched for it."""
        return self.now.vouched != self.start

    # --- the journal -------------------------------------------------------------------------------------------

    def commit(self, identity: str, commit: CommitRecord) -> tuple[str, str, int]:
        """Take one record with its pages; return what became of it, the writer and the last record."""
        now = self.now
        if now.writer != identity and self.fenced:
            return "refused", now.writer, now.seq
        if commit.seq == now.seq and now.by == identity:
            return "already", now.writer, now.seq
        if commit.seq != now.seq + 1 and self.fenced:
            return "out of order", now.writer, now.seq
        log = {seq: record for seq, record in now.log.items() if seq >= commit.drop_below}
        log[commit.seq] = commit.record
        pages = now.pages | {page.key: page for page in commit.pages} if commit.pages else now.pages
        self._change(replace(now, seq=commit.seq, by=identity, log=log, pages=pages))
        self._stored(commit.seq, commit.record)
        return "stored", now.writer, commit.seq

    def rewrite(self, identity: str, fence: Fence, now: float, lock_s: float, whole: Contents) -> bool:
        """Replace all by what its living leader knows, if nobody else leads."""
        held, expires_s = self.now.lock
        if (held != identity and now < expires_s) or not (self.now.writer == identity or self._went_back(fence)):
            return False
        epoch = max(self.now.epoch, whole.epoch)
        lock, vouched = (identity, now + lock_s), self.now.vouched
        self._change(replace(whole, epoch=epoch, writer=identity, by=identity, lock=lock, vouched=vouched))
        return True

    def _went_back(self, fence: Fence) -> bool:
        """Whether this is a state from before a leader, and no earlier leader has gone on from it since."""
        return fence.went_back(self.now.writer, self.now.seq)

    # --- forgetting --------------------------------------------------------------------------------------------

    def forget(self, changes: int) -> None:
        """Start again, without the last changes."""
        self.start += 1
        for _ in range(min(changes, len(self._past))):
            self.now = self._past.pop()

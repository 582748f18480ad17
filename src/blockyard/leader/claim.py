"""One scheduler's claim to lead: a lock that expires, renewed at a third of its time.

The lock only decides who *tries*; what protects the run is that the store checks the writer's identity with every
commit (`fence.py`). All words need the lock to be fresh all the same. From the echo of a heartbeat, which the store
never saw, a worker counts its lease, and a successor may have begun to count it down. And a store that went back behind
a successor's time takes the record of a leader that slept meanwhile.

The life of a claim, in calls::

    to come to lead   ask the store for the lock; `took`, or `held` and ask again after the pause that it returns
    to go on leading  after `RENEWED_PARTS` of the lock's time ask the store to renew it; `confirm` or `uncertain`
    before any word   `holds(now)`
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

FIRST_PAUSE_S = 0.02
"""The shortest pause before the store is asked again."""
RENEWED_PARTS = 3
"""The lock is renewed when so manieth part of its time is over."""
PATIENT_LOCKS = 2
"""A store that forgot is left to its living leader, who may write all again, for so many times of the lock."""
LIVING_LOCKS = 1.5
"""A lock that is held for longer than this times its own time is being renewed: somebody lives."""


@dataclass(frozen=True, slots=True)
class Held:
    """The lock is another's."""

    address: str
    """Where the leader is reached."""
    epoch: int = field(default=0, compare=False)
    """The highest epoch that was counted."""
    left_s: float = field(default=math.inf, compare=False)
    """When the lock expires, unless it is renewed."""
    identity: str = field(default="", compare=False)
    """Of the leader."""
    process: str = field(default="", compare=False)
    """Name of the leader's process; "" where it is unknown."""
    forgot: bool = False
    """Nobody has the lock, but the store once counted more leaders: it forgot, and a living leader may write again."""


class Claim:
    """What one scheduler knows of who leads. Times are seconds of the caller's monotonic clock."""

    def __init__(self, nonce: str, *, lock_s: float, address: str = "") -> None:
        """Claim nothing yet; `nonce` is drawn anew for each process, `address` is where workers reach this one."""
        self.nonce = nonce
        self.lock_s = lock_s
        self.address = address
        self.leader = ""
        """Address of the scheduler that leads while this one waits."""
        self.epoch = 0
        """0: this one does not lead."""
        self.waited = False
        """Whether a living leader was seen before this one came to lead."""
        self.store_forgot = False
        """Whether the store is known to have forgotten a leader before this one."""
        self.seen_epoch = 0
        """The highest epoch that the store is known to have counted: below it nobody is made leader."""
        self._first_s: float | None = None
        self._forgot_s: float | None = None
        self._renewed_s = -math.inf

    @property
    def identity(self) -> str:
        """What the store knows this leader by."""
        return f"{self.epoch}:{self.nonce}"

    def holds(self, now: float) -> bool:
        """Return whether the lock is surely ours at this moment."""
        return now - self._renewed_s <= self.lock_s

    # --- coming to lead ----------------------------------------------------------------------------------------

    def took(self, epoch: int, asked_s: float) -> None:
        """The lock is ours; the store was asked at `asked_s`."""
        self.epoch, self._renewed_s = epoch, asked_s

    def held(self, by: Held, asked_s: float, now: float) -> float:
        """The lock is another's, or the store forgot; return for how many seconds not to ask again."""
        self._first_s = asked_s if self._first_s is None else self._first_s
        if by.forgot:
            self._forgot_s = asked_s if self._forgot_s is None else self._forgot_s
            if asked_s - self._forgot_s > PATIENT_LOCKS * self.lock_s:
                self.seen_epoch, self.store_forgot = 0, True
        else:
            self._forgot_s = None
            self.seen_epoch = max(self.seen_epoch, by.epoch)
            self.leader = by.address
            self.waited = self.waited or now - self._first_s > LIVING_LOCKS * self.lock_s
        return min(self.lock_s / 5, by.left_s + FIRST_PAUSE_S)

    # --- going on leading --------------------------------------------------------------------------------------

    @property
    def renewal_s(self) -> float:
        """Seconds from one renewal to the next."""
        return self.lock_s / RENEWED_PARTS

    @property
    def retry_s(self) -> float:
        """Seconds until the store is asked again where it is uncertain whether it renewed the lock."""
        return min(5 * FIRST_PAUSE_S, self.renewal_s)

    def confirm(self, asked_s: float) -> None:
        """The store did what only the leader may do; it was asked at `asked_s`."""
        self._renewed_s = asked_s

    def resign(self) -> None:
        """Say nothing more: another leads, or we let it."""
        self._renewed_s = -math.inf

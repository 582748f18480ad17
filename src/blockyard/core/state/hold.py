"""The quiet time: what a leader may not know that others hold.

A store that was restarted or replaced may have lost the last records of the leader before us: leases that it granted
and releases that it acknowledged. Workers still run those blocks, and to us these seem to be free, or what they wait
for seems to be undone. So nothing is leased until every such lease has surely ended: a worker stops what it runs one
lease time after the last word that a leader answered, and no leader before us answers any more. Until then workers
greet us: leases that the journal knows go on, all others are revoked (what such a block waited for may be forgotten).

Two things say that the store may have forgotten: its shell knows that it is not the same as before, or a worker holds a
lease that was never granted as far as the journal knows. To see the second, each leader counts its leases from a number
of its own, by its epoch and by chance (an emptied store counts epochs anew), so no number ever names two leases.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from blockyard.core.state.leases import Leases
from blockyard.plan.grid import Ints

SPAN = 2**32
"""Numbers of leases for each epoch: more than one leader ever grants."""


@dataclass(slots=True)
class RecoveryHold:
    """Whether a leader must hold back, and until when (seconds of the caller's clock)."""

    ends_s: float = 0.0
    """When every lease of an earlier leader has ended, unless its worker has greeted us."""
    known: int = 1
    """As far as the journal knows, no lease from this number on was granted before us."""
    first: int = 1
    """Number of the first lease that we grant."""
    begun: bool = False
    """Whether the store may have forgotten something."""

    @classmethod
    def of(cls, leases: Leases, epoch: int, rng: random.Random, ends_s: float) -> RecoveryHold:
        """Begin to lead with these leases, and to count from a number of our own."""
        known = leases.next_number
        leases.next_number = max(known, epoch * SPAN) + rng.randrange(SPAN // 4)
        return cls(ends_s, known, leases.next_number)

    def granted_up_to(self, leases: Leases) -> int:
        """Return the number that follows the last lease that was ever granted."""
        return self.known if leases.next_number == self.first else leases.next_number

    def begin(self, ends_s: float) -> None:
        """Hold back until then."""
        self.begun, self.ends_s = True, ends_s

    def lasts(self, now: float) -> bool:
        """Whether nothing may be leased yet."""
        return self.begun and now < self.ends_s

    def left_s(self, now: float) -> float:
        """Return for how much longer nothing may be leased."""
        return self.ends_s - now if self.lasts(now) else 0.0

    def hear(self, holds: Ints, leases: Leases) -> None:
        """Take note of the leases that a worker says it holds; a number far beyond ours is no lease of anybody's."""
        unknown = (holds >= self.known) & ((holds < self.first) | (holds >= leases.next_number))
        self.begun = self.begun or bool((unknown & (holds < self.first + SPAN)).any())

"""Leases that another request has made wrong: their blocks are outside the run, or wait for blocks that are not done.

They are over for us: whoever holds one is told so when it greets us, and its release is stale. But it may run the block
until then, beside one that conflicts with it. So nothing is leased for as long as a lease can last (see `hold.py`), and
only then the journal says that these have ended: a successor in the meantime finds them and waits too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from blockyard.core.state.journal import EndRecord
from blockyard.core.state.leases import Grant, Leases
from blockyard.core.state.task import Bools
from blockyard.plan.grid import Ints


@dataclass(slots=True)
class Withdrawn:
    """Such leases, until nobody can run their blocks any more."""

    grants: list[Grant] = field(default_factory=list)
    """Live where they are such leases."""

    def take_out(self, leases: Leases, may_run: Callable[[int, Ints], Bools]) -> bool:
        """Take them out of what is leased; give whether there are any.

        `may_run` says of addresses of a task, by its number, which are blocks of the run that wait for nothing.
        """
        for grant in leases.grants():
            wrong = ~may_run(grant.task, grant.addresses)
            if (grant.live & wrong).any():
                right = np.flatnonzero(grant.live & ~wrong)
                kept = Grant(
                    grant.number, grant.task, grant.worker, grant.addresses, grant.granted_s, grant.max_running
                )
                kept.live = grant.live & wrong
                self.grants.append(kept)
                leases.end(grant, np.flatnonzero(grant.live))
                leases.grant_parts(grant, right)
        return bool(self.grants)

    def ended(self) -> list[EndRecord]:
        """Forget them; give what the journal is to say of it."""
        ends = [
            EndRecord(grant.number, len(grant.addresses), np.flatnonzero(grant.live).astype("<u4").tobytes())
            for grant in self.grants
        ]
        self.grants.clear()
        return ends

"""Leases that another request has made wrong: their blocks are outside the run, or wait for blocks that are new in it.

They are over for us: whoever holds one is told so when it greets us, and its release is stale. But it may run the block
until then, beside one that conflicts with it. So nothing is leased for as long as a lease can last (see `hold.py`), and
only then the journal says that these have ended: a successor in the meantime finds them and waits too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from blockyard.core.state.journal import EndRecord
from blockyard.core.state.leases import Grant, Leases
from blockyard.core.state.task import Kind, Task
from blockyard.plan.grid import Ints


@dataclass(slots=True)
class Withdrawn:
    """Such leases, until nobody can run their blocks any more."""

    grants: list[Grant] = field(default_factory=list)
    """Live where they are such leases."""

    def take_out(self, leases: Leases, tasks: Sequence[Task]) -> bool:
        """Take them out of what is leased; give whether there are any."""
        too_early = {task.number: _waiting(task, leases.addresses(task.number)) for task in tasks}
        for grant in leases.grants():
            task = tasks[grant.task]
            wrong = ~task.in_run(task.layout.indices(grant.addresses)) | np.isin(grant.addresses, too_early[grant.task])
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


def _waiting(task: Task, addresses: Ints) -> Ints:
    """Return the addresses of what waits for blocks that some of these leased ones wait for and that are not done."""
    if not len(task.levels.offsets):
        return np.empty(0, np.int64)
    blockers = _unique(task, task.levels.blockers(task.layout.indices(addresses)))
    undone = blockers[task.in_run(task.layout.indices(blockers)) & ~task.bits[Kind.DONE].test(blockers)]
    return _unique(task, task.levels.waiters(task.layout.indices(undone)))


def _unique(task: Task, batches: Iterable[Ints]) -> Ints:
    found = [task.layout.addresses(batch) for batch in batches]
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)

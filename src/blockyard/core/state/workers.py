"""The workers of a run, connected or not, and what becomes of the blocks of one that is lost."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from blockyard.core.state.leases import Grant
from blockyard.plan.grid import Ints
from blockyard.spec.model import TaskSpec
from blockyard.wire.messages import Outcome


@dataclass(slots=True)
class Worker:
    """One worker process."""

    id: str
    pool: str = "default"
    slots: int = 1
    task: str | None = None
    own: bool = False
    connected: bool = False
    want: int = 0
    heard_s: float = 0.0
    last_seq: int = 0
    """Sequence of its last accepted release."""
    stale: dict[int, int] = field(default_factory=dict)
    """Of its accepted releases those with stale leases, and how many: said again when one is sent again."""
    finished: int = 0
    running: tuple[tuple[int, float], ...] = ()
    """(lease, seconds it has run) of its busy slots, as of the last heartbeat."""

    def may_run(self, task: TaskSpec) -> bool:
        """Whether blocks of the task are for workers like this one."""
        return task.pool == self.pool and (task.worker is not None) == self.own and self.task in {None, task.id}


def host_of(worker: str) -> str:
    """Return the machine that a worker's name begins with.

    >>> host_of("node-7-4711-a3f"), host_of("w1")
    ('node-7', 'w1')
    """
    return worker.rsplit("-", 2)[0]


def lost_outcomes(
    worker: Worker, grants: list[Grant], outcome: Outcome, ran: Ints | None = None
) -> list[tuple[Grant, Ints, npt.NDArray[np.uint8]]]:
    """Return for a lost worker's grants the live positions and outcomes: `outcome` for what it ran, the rest returned.

    What it ran are the leases `ran`, where that is known. Else its last heartbeat tells; before the first, or where it
    has finished all that since, it is the first block for each slot.
    """
    named = np.array([number for number, _ in worker.running], np.int64) if ran is None else ran
    running = [int(n) for grant in grants for n in named[np.isin(named, grant.number + np.flatnonzero(grant.live))]]
    assumed = max(worker.slots, 1) if ran is None and not running else 0
    found = []
    for grant in grants:
        live = np.flatnonzero(grant.live)
        outcomes = np.full(len(live), Outcome.RETURNED, np.uint8)
        if running:
            outcomes[np.isin(grant.number + live, running)] = outcome
        else:
            outcomes[:assumed] = outcome
            assumed = max(assumed - len(live), 0)
        found.append((grant, live, outcomes))
    return found

"""How often blocks that are not done have been tried, an attempt that goes on among them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from blockyard.core.state.task import Kind, Task, Tries
from blockyard.plan.grid import Ints


def under_way(task: Task, trouble: Sequence[tuple[int, Tries]], leased: Ints, losses: int) -> tuple[Ints, Ints]:
    """Return the addresses of blocks that are not done and have been tried or are leased, and how often that is.

    `trouble` is what blocks of the task have cost, by address; `losses` the budget of them. A worker that is lost makes
    no attempt of its own: the next one has the same number.
    """
    addresses = np.array([address for address, _ in trouble], np.int64)
    tried = np.array([tries.failures + tries.kills for _, tries in trouble], np.int64)
    spent = np.array([tries.losses >= losses for _, tries in trouble], np.bool_)
    tried += np.isin(addresses, leased) | spent & task.bits[Kind.FAILED].test(addresses)
    known = tried > 0
    first = np.setdiff1d(leased, addresses)
    return np.concatenate([addresses[known], first]), np.concatenate([tried[known], np.ones(len(first), np.int64)])

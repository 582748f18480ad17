"""Who holds which block: leases, granted and kept in batches.

A grant is a batch of leases on blocks of one task to one worker; the lease of its j-th block has the number
``grant.number + j``. Numbers only grow, over restarts and takeovers too, so a number never names two leases.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from blockyard.plan.grid import Ints


@dataclass(slots=True, eq=False)
class Grant:
    """A batch of leases."""

    number: int
    task: int
    worker: str
    addresses: Ints
    granted_s: float
    max_running: int = 0
    """How many blocks of the task its worker may run at once; 0: no limit."""
    inherited: bool = False
    """Granted by an earlier scheduler, whose clock has ended with it: `granted_s` is when this one took over."""
    live: npt.NDArray[np.bool_] = field(init=False)
    """Which of its leases have not ended."""
    alive: int = field(init=False)

    def __post_init__(self) -> None:
        self.live = np.ones(len(self.addresses), np.bool_)
        self.alive = len(self.addresses)


class Leases:
    """All live leases of the run."""

    def __init__(self) -> None:
        self.next_number = 1
        self._grants: dict[int, Grant] = {}
        self._numbers: list[int] = []
        self._by_worker: dict[str, dict[int, Grant]] = {}
        self._held: dict[tuple[int, str], int] = {}
        self.count_by_task: dict[int, int] = {}
        """Live leases of each task that has any."""

    def grant(
        self, task: int, worker: str, addresses: Ints, now: float, *, max_running: int = 0, number: int | None = None
    ) -> Grant:
        """Lease blocks to a worker; `number` is given only when a journal is replayed."""
        number = self.next_number if number is None else number
        grant = Grant(number, task, worker, addresses, now, max_running)
        self.next_number = max(self.next_number, number + len(addresses))
        self._grants[number] = grant
        bisect.insort(self._numbers, number)
        self._by_worker.setdefault(worker, {})[number] = grant
        self._held[task, worker] = self._held.get((task, worker), 0) + grant.alive
        self.count_by_task[task] = self.count_by_task.get(task, 0) + grant.alive
        return grant

    def grant_parts(self, grant: Grant, positions: Ints) -> None:
        """Lease these positions of a grant that has ended again, each run of them as a grant of its own."""
        for run in np.split(positions, np.flatnonzero(np.diff(positions) != 1) + 1):
            if len(run):
                number, addresses = grant.number + int(run[0]), grant.addresses[run]
                self.grant(
                    grant.task,
                    grant.worker,
                    addresses,
                    grant.granted_s,
                    max_running=grant.max_running,
                    number=number,
                )

    def find(self, numbers: Ints) -> Iterator[tuple[Grant | None, npt.NDArray[np.intp], Ints]]:
        """Return for ascending numbers, by grant: the grant (None: none is live), rows of `numbers`, positions."""
        at = 0
        while at < len(numbers):
            place = bisect.bisect_right(self._numbers, int(numbers[at])) - 1
            grant = self._grants[self._numbers[place]] if place >= 0 else None
            if grant is None or numbers[at] >= grant.number + len(grant.addresses):
                following = self._numbers[place + 1] if place + 1 < len(self._numbers) else None
                end = len(numbers) if following is None else _first_from(numbers, following)
                yield None, np.arange(at, end), numbers[at:end]
            else:
                end = _first_from(numbers, grant.number + len(grant.addresses))
                yield grant, np.arange(at, end), numbers[at:end] - grant.number
            at = end

    def end(self, grant: Grant, positions: Ints) -> None:
        """End live leases of a grant; each position once."""
        grant.live[positions] = False
        ended = len(positions)
        grant.alive -= ended
        key = (grant.task, grant.worker)
        self._held[key] -= ended
        if not self._held[key]:
            del self._held[key]
        self.count_by_task[grant.task] -= ended
        if not self.count_by_task[grant.task]:
            del self.count_by_task[grant.task]
        if grant.alive == 0:
            del self._grants[grant.number]
            del self._numbers[bisect.bisect_left(self._numbers, grant.number)]
            mine = self._by_worker[grant.worker]
            del mine[grant.number]
            if not mine:
                del self._by_worker[grant.worker]

    def of_worker(self, worker: str) -> list[Grant]:
        """Return a worker's grants, oldest first."""
        return list(self._by_worker.get(worker, {}).values())

    def held(self, task: int, worker: str) -> int:
        """Count the live leases of a worker on blocks of a task."""
        return self._held.get((task, worker), 0)

    def held_by(self, worker: str) -> int:
        """Count the live leases of a worker."""
        return sum(grant.alive for grant in self._by_worker.get(worker, {}).values())

    def holds_any(self, worker: str) -> bool:
        """Whether a worker has a live lease."""
        return worker in self._by_worker

    def workers(self) -> set[str]:
        """Return the workers that hold anything."""
        return set(self._by_worker)

    def grants(self) -> list[Grant]:
        """Return all grants, by number."""
        return [self._grants[number] for number in self._numbers]

    def addresses(self, task: int) -> Ints:
        """Return the addresses of all leased blocks of a task."""
        parts = [grant.addresses[grant.live] for grant in self._grants.values() if grant.task == task]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def find_block(self, task: int, address: int) -> tuple[Grant, int] | None:
        """Return the grant and position of the live lease on a block."""
        for grant in self._grants.values():
            if grant.task == task:
                at = np.flatnonzero(grant.live & (grant.addresses == address))
                if len(at):
                    return grant, int(at[0])
        return None


def _first_from(numbers: Ints, number: int) -> int:
    """Return the row of the first of ascending numbers that is not below `number`."""
    return len(numbers) if numbers[-1] < number else int(np.searchsorted(numbers, number))

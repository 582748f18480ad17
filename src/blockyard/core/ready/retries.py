"""Blocks that were not done at their first attempt: what that costs them, when they are tried again, and where.

`judge` is the rule; `Retries` keeps what follows from it. What blocks have cost (`Tries`) is durable and kept by their
tasks; all else here is derived, and forgotten at a restart.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from blockyard.core.settings import CoreSettings
from blockyard.core.state.bitmap import Bitmap
from blockyard.core.state.task import Tries
from blockyard.plan.grid import Ints
from blockyard.wire.messages import Outcome


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an attempt that did not succeed means for its block."""

    tries: Tries
    final: bool
    """No further attempt."""
    backoff_s: float = 0.0
    """The longest pause before the next attempt; 0: none."""
    alone: bool = False
    """To be leased in a batch of its own from now on: it may be what ends its workers."""


def judge(tries: Tries, outcome: Outcome, max_retries: int, settings: CoreSettings) -> Verdict:
    """Charge an attempt that ended with `outcome` to the budget of its kind (failures, kills, losses)."""
    failures, kills, losses = tries.failures, tries.kills, tries.losses
    if outcome == Outcome.FAILED:
        tries = Tries(failures + 1, kills, losses)
        return Verdict(tries, failures >= max_retries, _doubled(settings.retry_backoff_s, failures, settings))
    if outcome == Outcome.KILLED:
        tries = Tries(failures, kills + 1, losses)
        return Verdict(tries, kills + 1 >= settings.kills, _doubled(settings.retry_backoff_s, kills, settings))
    if outcome == Outcome.LOST:
        tries = Tries(failures, kills, losses + 1)
        beyond = losses + 1 - settings.losses_alone
        backoff_s = _doubled(1.0, beyond, settings) if beyond >= 0 else 0.0
        return Verdict(tries, losses + 1 >= settings.losses, backoff_s, alone=beyond >= 0)
    return Verdict(Tries(failures + 1, kills, losses), final=True)  # fatal


def _doubled(first_s: float, times: int, settings: CoreSettings) -> float:
    # Beyond 63 doublings every pause is the longest one; 2.0 ** 1024 would be an error.
    return min(first_s * 2.0 ** min(times, 63), settings.longest_backoff_s)


@dataclass(slots=True)
class Retries:
    """Blocks, by (task, address), that await the end of a backoff, are leased alone, or had better change workers."""

    alone: set[tuple[int, int]] = field(default_factory=set)
    """Blocks that are leased alone."""
    avoid: dict[tuple[int, int], str] = field(default_factory=dict)
    """The worker that last failed a block: another tries it, where there is one."""
    _delayed: list[tuple[float, int, int]] = field(default_factory=list)
    """(when, task, address) of blocks that await the end of a backoff; a heap."""

    def forget(self, task: int, address: int) -> None:
        """The block is done, or begins anew."""
        self.alone.discard((task, address))
        self.avoid.pop((task, address), None)

    def delay(self, task: int, address: int, until_s: float) -> None:
        """Try the block again at this time."""
        heapq.heappush(self._delayed, (until_s, task, address))

    def due(self, now: float) -> Iterator[tuple[int, int]]:
        """Take out the blocks whose backoff has ended."""
        while self._delayed and self._delayed[0][0] <= now:
            _, task, address = heapq.heappop(self._delayed)
            yield task, address

    def next_s(self) -> float:
        """Return when the next backoff ends; infinite: there is none."""
        return self._delayed[0][0] if self._delayed else math.inf

    def delayed(self, task: int) -> Ints:
        """Return the addresses of a task's blocks that await the end of a backoff."""
        return np.array([address for _, number, address in self._delayed if number == task], np.int64)

    def is_delayed(self, task: int, address: int) -> bool:
        """Whether a block awaits the end of a backoff."""
        return any((number, at) == (task, address) for _, number, at in self._delayed)

    def drop_delayed(self, task: int, blocks: Bitmap) -> None:
        """Drop the backoffs of these blocks of a task."""
        addresses = self.delayed(task)
        dropped = set(addresses[blocks.test(addresses)].tolist())
        self._delayed = [row for row in self._delayed if row[1] != task or row[2] not in dropped]
        heapq.heapify(self._delayed)

    def restore(self, task: int, tries: Iterable[tuple[int, Tries]], settings: CoreSettings) -> None:
        """Derive anew who is leased alone."""
        self.alone.update((task, address) for address, known in tries if known.losses >= settings.losses_alone)

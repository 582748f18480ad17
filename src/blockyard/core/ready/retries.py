"""Blocks that were not done at their first attempt: what that costs them, when they are tried again, and where.

`judge` is the rule; `Retries` keeps what follows from it. What blocks have cost (`Tries`) is durable and kept by their
tasks; all else here is derived, and forgotten at a restart.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from blockyard.core.settings import CoreSettings
from blockyard.core.state.bitmap import Bitmap
from blockyard.core.state.task import Tries
from blockyard.plan.grid import Ints
from blockyard.wire.messages import Outcome

Failers: TypeAlias = tuple[str, ...]
"""Workers that failed a block, the last one last."""
MOST_FAILERS = 8
"""Remembered of a block."""


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
    failers: dict[tuple[int, int], Failers] = field(default_factory=dict)
    """The workers that failed a block: another tries it, where there is one."""
    waiting: dict[int, dict[Failers, deque[tuple[int, float]]]] = field(default_factory=dict)
    """(address, since when) of blocks that wait for another worker than those that failed them, by task and those."""
    _delayed: list[tuple[float, int, int]] = field(default_factory=list)
    """(when, task, address) of blocks that await the end of a backoff; a heap."""

    def forget(self, task: int, address: int) -> None:
        """The block is done, or begins anew."""
        self.alone.discard((task, address))
        self.failers.pop((task, address), None)

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
        """Return the addresses of a task's blocks that await the end of a backoff, or another worker."""
        found = [address for _, number, address in self._delayed if number == task]
        found += [address for queue in self.waiting.get(task, {}).values() for address, _ in queue]
        return np.array(found, np.int64)

    def awaits(self, task: int, address: int) -> str:
        """Return what a block that is to be tried again awaits; "" for one that does not."""
        if any((number, at) == (task, address) for _, number, at in self._delayed):
            return "after a pause"
        found = any(at == address for queue in self.waiting.get(task, {}).values() for at, _ in queue)
        return "on another worker" if found else ""

    def drop_delayed(self, task: int, blocks: Bitmap) -> None:
        """Drop these blocks of a task, whatever they await."""
        addresses = self.delayed(task)
        dropped = set(addresses[blocks.test(addresses)].tolist())
        self._delayed = [row for row in self._delayed if row[1] != task or row[2] not in dropped]
        heapq.heapify(self._delayed)
        for failers, queue in list(self.waiting.get(task, {}).items()):
            self._keep(task, failers, deque(row for row in queue if row[0] not in dropped))

    # --- another worker ----------------------------------------------------------------------------------------

    def set_apart(self, task: int, addresses: Ints, now: float) -> Ints:
        """Keep those of these blocks that have failed for another worker than that; return the others."""
        if not self.failers:
            return addresses
        others = []
        for address in addresses.tolist():
            if (failers := self.failers.get((task, address))) is None:
                others.append(address)
            else:
                self.waiting.setdefault(task, {}).setdefault(failers, deque()).append((address, now))
        return np.array(others, np.int64)

    def failed(self, task: int, address: int, worker: str) -> None:
        """A worker failed a block."""
        before = [one for one in self.failers.get((task, address), ()) if one != worker]
        self.failers[task, address] = (*before[1 - MOST_FAILERS :], worker)

    def take(self, task: int, most: int, may_take: Callable[[Failers, float], bool]) -> Ints:
        """Take out up to `most` waiting blocks, oldest first, where `may_take(who failed it, since when)`."""
        taken: list[int] = []
        for failers, queue in list(self.waiting.get(task, {}).items()):
            while queue and len(taken) < most and may_take(failers, queue[0][1]):
                taken.append(queue.popleft()[0])
            self._keep(task, failers, queue)
        return np.array(taken, np.int64)

    def give_up(self, task: int, failers: Failers) -> Ints:
        """Take out all that waits for another worker than these."""
        queue = self.waiting[task][failers]
        self._keep(task, failers, deque())
        return np.array([address for address, _ in queue], np.int64)

    def since_s(self) -> Iterator[float]:
        """Return since when the oldest of each queue waits."""
        return (queue[0][1] for queues in self.waiting.values() for queue in queues.values())

    def _keep(self, task: int, failers: Failers, queue: deque[tuple[int, float]]) -> None:
        """Put what is left of a queue in its place; no empty one stays."""
        if queue:
            self.waiting[task][failers] = queue
            return
        del self.waiting[task][failers]
        if not self.waiting[task]:
            del self.waiting[task]

    def restore(self, task: int, tries: Iterable[tuple[int, Tries]], settings: CoreSettings) -> None:
        """Derive anew who is leased alone."""
        self.alone.update((task, address) for address, known in tries if known.losses >= settings.losses_alone)

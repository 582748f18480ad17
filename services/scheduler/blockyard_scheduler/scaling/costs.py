"""Which pods should go first when a pool shrinks: idle ones, then those whose block has run shortest.

A ReplicaSet deletes the pods with the lowest `controller.kubernetes.io/pod-deletion-cost` first, after those that are
not ready. Each change is a request, so a cost is changed only where that lasts, or just before pods are deleted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from blockyard_scheduler.scaling.cluster import Pod

LASTS_S = 15.0
"""A change that was not seen for so long may be a moment between two blocks."""
MOST_AT_ONCE = 20
"""Requests of one look; the next one comes in seconds."""
BUSY = 100


def cost_of(busy_s: float | None) -> int:
    """Return the cost of a pod whose longest block runs for `busy_s`; None: it is idle.

    A step for each doubling, so that a cost changes a dozen times in a day.

    >>> [cost_of(s) for s in (None, 0.0, 10.0, 100.0, 86400.0)]
    [0, 100, 103, 106, 116]
    """
    return 0 if busy_s is None else BUSY + int(math.log2(1 + busy_s))


class Costs:
    """What the costs should be and for how long that is so."""

    def __init__(self) -> None:
        self._wanted: dict[str, tuple[int, float]] = {}
        """Cost that a pod should have, and since when, while it has another."""
        self._set: dict[str, int] = {}
        """What we set, until it is seen."""

    def changes(
        self, pods: Iterable[Pod], busy_s: dict[str, float], now: float, *, at_once: bool = False
    ) -> Iterator[tuple[Pod, int]]:
        """Return (pod, cost) for the pods whose cost should be set now; `at_once`: also where that may not last."""
        n = 0
        there = [pod for pod in pods if not pod.managed]
        self._forget({pod.name for pod in there})
        for pod in there:
            want = cost_of(busy_s.get(pod.name))
            have = pod.cost if pod.cost is not None else self._set.get(pod.name, 0)
            if want == have:
                self._wanted.pop(pod.name, None)
                continue
            # Idle or busy is what has to last; of a busy pod the cost only grows.
            side, since = self._wanted.get(pod.name, (want, now))
            since = since if (side > 0) == (want > 0) else now
            self._wanted[pod.name] = want, since
            if n < MOST_AT_ONCE and (at_once or now - since >= LASTS_S):
                n += 1
                yield pod, want

    def note(self, pod: str, cost: int) -> None:
        """A cost was set."""
        self._set[pod] = cost
        self._wanted.pop(pod, None)

    def _forget(self, there: set[str]) -> None:
        for known in (self._wanted, self._set):
            for name in known.keys() - there:
                del known[name]

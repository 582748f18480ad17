"""How fast a task goes: a true sliding window of the last two minutes, right also before two minutes have passed."""

from __future__ import annotations

from collections import deque

WINDOW_S = 120.0
BUCKET_S = 1.0


class Rate:
    """Blocks finished (or voxels written) per second over the last `WINDOW_S` seconds, in buckets of a second."""

    __slots__ = ("_buckets", "_started_s", "_total")

    def __init__(self) -> None:
        self._buckets: deque[tuple[float, int]] = deque()
        self._started_s: float | None = None
        self._total = 0

    def start(self, now: float) -> None:
        """Begin to measure (the first lease); later calls do nothing."""
        if self._started_s is None:
            self._started_s = now

    def add(self, n: int, now: float) -> None:
        """Count `n` finished blocks (or what they wrote)."""
        self.start(now)
        bucket = now - now % BUCKET_S
        if self._buckets and self._buckets[-1][0] == bucket:
            self._buckets[-1] = (bucket, self._buckets[-1][1] + n)
        else:
            self._buckets.append((bucket, n))
        self._total += n
        self._forget(now)

    def per_second(self, now: float) -> float | None:
        """Return the rate; None while nothing was finished in the window."""
        self._forget(now)
        if self._started_s is None or not self._total:
            return None
        return self._total / max(min(WINDOW_S, now - self._started_s), BUCKET_S / 10)

    def _forget(self, now: float) -> None:
        while self._buckets and self._buckets[0][0] + BUCKET_S <= now - WINDOW_S:
            self._total -= self._buckets.popleft()[1]

"""Looks at the journal in Redis as it grows, beside the schedulers: when it grew, and whether the run is over."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any, Self, cast

import redis

from blockyard.core.state import journal
from blockyard.wire.states import RunPhase

LOOK_EVERY_S = 0.02
LOG_KEY = "blockyard:{chaos}:log"
"""The stream of records of the run of this name, as `blockyard_scheduler.store.keys` has it."""


class Follower:
    """`with Follower(url) as follower: ...`: looks until it is left."""

    def __init__(self, url: str) -> None:
        """Look at the Redis at `url`."""
        self.grew_s: list[float] = []
        """Monotonic times at which the journal was seen to have grown."""
        self.over = False
        """Whether the run has ended, by the word of the last record."""
        self._redis = redis.Redis.from_url(url, socket_timeout=1.0)
        self._last = "0-0"
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follower")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._thread.join()
        self._redis.close()

    def _follow(self) -> None:
        while not self._left.wait(LOOK_EVERY_S):
            try:
                rows = cast("Any", self._redis.xrange(LOG_KEY, min=f"({self._last}"))
            except (redis.RedisError, OSError):  # killed or frozen just now: it is asked again
                continue
            for number, fields in rows:
                self._last = number.decode()
                state = journal.decode_record(fields[b"r"]).state
                self.over = state in {RunPhase.DONE, RunPhase.FAILED} if state else self.over
            if rows:
                self.grew_s.append(time.monotonic())

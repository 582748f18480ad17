"""Keeps the record of the run in Redis: a piece every second, beside the turns and never in their way."""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec

from blockyard.core.history import Batch, History
from blockyard.spec.errors import StoreError
from blockyard_scheduler.store import Store

log = logging.getLogger(__name__)

KEEP_EVERY_S = 1.0
MOST_WAITING = 600
"""Pieces kept in memory while Redis takes none."""


class Historian:
    """The record of one run."""

    def __init__(self, history: History, store: Store) -> None:
        """Keep `history` in `store`."""
        self._history = history
        self._store = store
        self._left: list[tuple[float, bytes]] = []
        """Pieces that Redis has not taken yet."""
        self._lock = asyncio.Lock()

    async def load(self) -> None:
        """Read what earlier schedulers kept; what can't be read is left out, since nothing depends on it."""
        try:
            async for at_s, packed in self._store.read_history():
                self._take(at_s, packed)
        except StoreError as error:
            log.warning("the record of the run could not be read to its end (%s)", error)

    def _take(self, at_s: float, packed: bytes) -> None:
        try:
            self._history.add(msgspec.msgpack.decode(packed, type=list[Batch]), at_s)
        except (msgspec.DecodeError, ValueError, IndexError) as error:
            log.warning("a piece of the record of the run is left out: it can't be read (%s)", error)

    async def run(self) -> None:
        """Keep what is new, for ever."""
        while True:
            await asyncio.sleep(KEEP_EVERY_S)
            await self.keep()

    async def keep(self) -> None:
        """Keep what is new; what Redis does not take is kept with the next piece."""
        now_s = time.time()
        if batches := self._history.take(now_s, time.monotonic()):
            self._left.append((now_s, msgspec.msgpack.encode(batches)))
        async with self._lock:
            while self._left:
                try:
                    await self._store.add_history(*self._left[0])
                except StoreError as error:  # nothing depends on the record: it waits, and what is beyond a bound goes
                    log.debug("a piece of the record of the run waits (%s)", error)
                    del self._left[:-MOST_WAITING]
                    return
                self._left.pop(0)

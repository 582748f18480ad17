"""Keeps the record of the run in Redis: a piece every second, beside the turns and never in their way."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

import msgspec

from blockyard.core.code import CodeVersions
from blockyard.record.history import History
from blockyard.record.pages import Keeper, Piece
from blockyard.spec.errors import StoreError
from blockyard_scheduler.store.redis import Refused, Store, Uncertain, until_answered

log = logging.getLogger(__name__)

KEEP_EVERY_S = 1.0


class Historian:
    """The record of one run."""

    def __init__(self, history: History, code: CodeVersions, store: Store, identity: str) -> None:
        """Keep `history` and `code` in `store`, as the leader of this identity."""
        self._keeper = Keeper(history)
        self._code = code
        self._store = store
        self._identity = identity
        self._waiting: Piece | None = None
        """What Redis has not surely taken yet."""
        self._failing = False
        self._lock = asyncio.Lock()

    async def load(self) -> None:
        """Read what earlier schedulers kept; what can't be read is left out, since nothing depends on it."""
        try:
            await until_answered(self._load)
        except StoreError as error:
            log.warning("the record of the run could not be read to its end (%s)", error)
            self._keeper.store_forgot()  # what is known of it is kept anew

    async def _load(self) -> None:
        self._code.load(await self._store.read_code())
        self._keeper.loaded(await self._store.last_piece())  # first: numbers go on from it also where reading fails
        async for pages in self._store.history_pages():
            for page in pages:
                self._take(f"page {page.key}", partial(self._keeper.load_page, page))
        async for seq, at_s, batches in self._store.history_pieces():
            self._take(f"piece {seq}", partial(self._keeper.load_piece, seq, at_s, batches))

    def _take(self, what: str, load: Callable[[], None]) -> None:
        try:
            load()
        except (msgspec.DecodeError, ValueError, IndexError) as error:
            log.warning("%s of the record of the run is left out: it can't be read (%s)", what, error)

    async def run(self) -> None:
        """Keep what is new, for ever."""
        while True:
            await asyncio.sleep(KEEP_EVERY_S)
            await self.keep()

    async def keep(self, *, all_pages: bool = False) -> None:
        """Keep what is new, with `all_pages` also what else only this scheduler knows.

        What Redis does not take is said again the next time. Meanwhile no more is taken: without Redis nothing is done.
        """
        async with self._lock:
            await self._keep_code()
            more = all_pages or self._waiting is not None
            while await self._keep_one(all_pages=all_pages) and more:
                more = all_pages

    async def _keep_code(self) -> None:
        for sentence in self._code.take_news():
            log.warning("%s", sentence)
        if not (unsaved := dict(self._code.unsaved)):
            return
        try:
            await self._store.write_code(unsaved)
        except StoreError as error:
            log.debug("the code that runs is not kept yet (%s)", error)
            return
        for task, code in unsaved.items():
            if self._code.unsaved.get(task) == code:
                del self._code.unsaved[task]

    async def _keep_one(self, *, all_pages: bool) -> bool:
        """Keep one piece; False where there is none, or Redis does not take it."""
        if self._waiting is None:
            self._waiting = self._keeper.take(time.time(), time.monotonic(), all_pages=all_pages)
        if self._waiting is None:
            return False
        try:
            last = await self._store.add_history(self._identity, self._waiting)
        except (Uncertain, Refused) as error:  # a leader that may go on writes all of the run again first
            log.debug("a piece of the record of the run waits (%s)", error)
            return False
        except StoreError as error:  # nothing depends on the record
            if not self._failing:
                log.warning("the record of the run is not kept: %s", error)
            self._failing, last = True, -1
        if last < self._waiting.seq - 1:
            self._keeper.store_forgot()
        self._waiting = None
        return last >= 0

"""Keeping the record of a run: what is new as pieces, and now and then pages of what there is.

A page is the record of some chunks as of a piece, so pieces that all pages contain can be dropped: what is kept is as
large as the record itself, however often blocks run again. Pages are written a few at a time, in rounds. A piece has a
number and says the same when it is kept twice. Tasks that are recorded by chunk have pages only::

    1   2   3   4   5   6   7   8 ...   pieces: batches of blocks, a second each
                    |   |   |
                    +---+---+--- pages of all chunks that have changed; then pieces up to 4 are dropped
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np

from blockyard.core.events import Page
from blockyard.plan.grid import Ints
from blockyard.record.history import ROW, SUMS, Batch, History, TaskHistory

EVERY_S = 60.0
"""A round of pages begins so long after the last one began, where anything has changed,"""
EVERY_BYTES = 4 * 2**20
"""or when the pieces since then are as large as this."""
PAGES_A_PIECE = 16
"""40 kB each at the most, before they are compressed."""
CHUNKS_A_PAGE = 256
"""Of a task that is recorded by chunk: 4 kB."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What is to be kept in one step."""

    seq: int
    """Number of the piece; counts up."""
    at_s: float
    """On the clock of the record."""
    batches: bytes = b""
    """List of `history.Batch` in msgpack; b"" for none."""
    pages: tuple[Page, ...] = ()
    """Pages to overwrite; they contain this piece."""
    drop_below: int = 0
    """Earlier pieces than this one are in the pages; drop them."""


class _Chunks(msgspec.Struct, array_like=True, frozen=True):
    """The record of chunks that follow each other."""

    began_s: float
    """Of the record."""
    sums: bytes
    """`history.SUMS` each."""
    workers: list[str] = []
    """Names; the rows have their places here."""
    rows: bytes = b""
    """`history.ROW` each address, compressed; b"" where there are none."""


class Keeper:
    """Decides what of the record of a run is to be kept when, and loads it again."""

    def __init__(self, history: History) -> None:
        """Keep `history`, which is empty yet."""
        self._history = history
        self._seq = 0
        """Of the last piece."""
        self._queue: deque[tuple[int, int]] = deque()
        """Task and page that are left of this round."""
        self._round = False
        self._round_s = float("-inf")
        self._bytes = 0
        """Of the pieces since the last round began."""
        self._known = {number: np.zeros_like(task.changed_since) for number, task in history.tasks.items()}
        """While loading: the last piece that each chunk contains."""
        self._loaded = 0
        """Likewise: the last piece that was taken."""

    # --- loading -----------------------------------------------------------------------------------------------

    def load_page(self, page: Page) -> None:
        """Take a page, before all pieces; one that comes again is left out.

        Raises ValueError, IndexError or DecodeError for one of another run.
        """
        task_number, page_number = (int(part) for part in page.key.split(":"))
        self._seq = max(self._seq, page.seq)
        if (task := self._history.tasks.get(task_number)) is None:
            return
        chunks = _chunks(task, page_number)
        if (self._known[task_number][chunks] < page.seq).any():
            kept = msgspec.msgpack.decode(page.data, type=_Chunks)
            if (task.rows is None) == bool(kept.rows):
                raise ValueError(f"page {page.key} is of a task that was recorded otherwise")
            self._load_chunks(task, chunks, kept)
            self._known[task_number][chunks] = page.seq

    def loaded(self, seq: int) -> None:
        """`seq` is the number of the last piece that was kept, which may be in none of what is loaded."""
        self._seq = max(self._seq, seq)

    def _load_chunks(self, task: TaskHistory, chunks: slice, kept: _Chunks) -> None:
        history, sums = self._history, np.frombuffer(kept.sums, SUMS)
        if len(sums) != chunks.stop - chunks.start:
            raise ValueError(f"a page has {len(sums)} chunks, not {chunks.stop - chunks.start}")
        if task.rows is not None:
            try:
                rows = np.frombuffer(zlib.decompress(kept.rows), ROW).copy()
            except zlib.error as error:
                raise ValueError(f"the rows of a page can't be read ({error})") from None
            recorded = rows["code"] != 0
            numbers = np.array([history.number_of(name) for name in kept.workers], np.uint16)
            rows["worker"][recorded] = numbers[rows["worker"][recorded]]
            if history.began_s is not None:
                later_ds = round((kept.began_s - history.began_s) * 10)
                rows["ended_ds"][recorded] = np.maximum(rows["ended_ds"][recorded].astype(np.int64) + later_ds, 0)
            task.rows[chunks.start * task.capacity : chunks.stop * task.capacity] = rows
        if history.began_s is None:
            history.began_s = kept.began_s
        task.sums[chunks] = sums

    def load_piece(self, seq: int, at_s: float, batches: bytes) -> None:
        """Take a piece, in order, after all pages; one that comes again is left out. Raises as `load_page` does."""
        if seq <= self._loaded:
            return
        self._seq, self._loaded = max(self._seq, seq), seq
        self._bytes += len(batches)
        self._history.add(msgspec.msgpack.decode(batches, type=list[Batch]), at_s, seq, self._known)

    # --- keeping -----------------------------------------------------------------------------------------------

    def take(self, at_s: float, now: float, *, all_pages: bool = False) -> Piece | None:
        """Return what is to be kept now; None: nothing. Each piece must be kept before the next one is taken.

        `at_s` is the time on the clock of the record, `now` the same moment on the core's. With `all_pages` a round
        begins at once, as at the end of a scheduler.
        """
        seq = self._seq + 1
        batches = self._history.take(at_s, now, seq)
        packed = msgspec.msgpack.encode(batches) if batches else b""
        self._bytes += len(packed)
        if not self._round and (all_pages or self._bytes >= EVERY_BYTES or now - self._round_s >= EVERY_S):
            self._begin_round(now)
        pages = tuple(self._pages(seq))
        if not packed and not pages:
            return None
        self._seq = seq
        drop_below = 0
        if pages and not self._queue:
            self._round = False
            drop_below = min([seq + 1, *(int(since.min()) for since in self._changed() if len(since))])
        return Piece(seq, at_s, packed, pages, drop_below)

    def store_forgot(self) -> None:
        """What was kept may be lost: keep all of the record again, as pages."""
        for task in self._history.tasks.values():
            recorded = (task.sums["blocks"] > 0) & (task.changed_since == 0)
            task.changed_since[recorded] = self._seq + 1
        self._round, self._round_s = False, float("-inf")

    def _begin_round(self, now: float) -> None:
        found = []
        for number, task in self._history.tasks.items():
            chunks = np.flatnonzero(task.changed_since)
            pages = chunks // _chunks_a_page(task)
            first: dict[int, int] = {}
            for page, since in zip(pages.tolist(), task.changed_since[chunks].tolist(), strict=True):
                first[page] = min(first.get(page, since), since)
            found += [(since, number, page) for page, since in first.items()]
        self._queue = deque((number, page) for _, number, page in sorted(found))
        self._round = bool(found)
        if found:
            self._round_s, self._bytes = now, 0

    def _pages(self, seq: int) -> Iterator[Page]:
        for _ in range(min(len(self._queue), PAGES_A_PIECE)):
            number, page = self._queue.popleft()
            task = self._history.tasks[number]
            chunks = _chunks(task, page)
            task.changed_since[chunks] = 0
            yield Page(f"{number}:{page}", seq, msgspec.msgpack.encode(self._packed(task, chunks)))

    def _packed(self, task: TaskHistory, chunks: slice) -> _Chunks:
        history = self._history
        began_s = history.began_s or 0.0
        sums = task.sums[chunks].tobytes()
        if task.rows is None:
            return _Chunks(began_s, sums)
        rows = task.rows[chunks.start * task.capacity : chunks.stop * task.capacity].copy()
        recorded = rows["code"] != 0
        numbers, rows["worker"][recorded] = np.unique(rows["worker"][recorded], return_inverse=True)
        names = list(history.workers)
        workers = [names[number] for number in numbers]
        return _Chunks(began_s, sums, workers, zlib.compress(rows.tobytes(), 1))

    def _changed(self) -> Iterator[Ints]:
        """Give, of the tasks that have pieces, since when the chunks that have changed have done so."""
        for task in self._history.tasks.values():
            if task.rows is not None:
                yield task.changed_since[task.changed_since > 0]


def _chunks_a_page(task: TaskHistory) -> int:
    return CHUNKS_A_PAGE if task.rows is None else 1


def _chunks(task: TaskHistory, page: int) -> slice:
    """Return the chunks of a page. Raises IndexError where there are none."""
    size = _chunks_a_page(task)
    chunks = slice(page * size, min((page + 1) * size, len(task.sums)))
    if not 0 <= chunks.start < chunks.stop:
        raise IndexError(f"the record of this task has no page {page}")
    return chunks

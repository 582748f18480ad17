"""Which blocks of one task are ready: found lazily, chunk by chunk in Z-order, and kept true as blocks finish.

A chunk that has been looked at and in which blocks still wait is *open*: it has a counter for each block, of the blocks
it waits for. A finished block counts down those that wait for it; one that reaches 0 is ready. So a release of many
blocks costs a few vector operations, and a block that reads a million upstream blocks costs one counter.

Not every chunk can be open, and none needs to be before something in it can run:

- ``UNSEEN``   the cursor has not come by.
- ``DORMANT``  nothing in it can be ready before something that feeds it finishes; that makes it dirty.
- ``DIRTY``    something changed: to be looked at (again) when more ready blocks are wanted.
- ``OPEN``     counted.
- ``PARKED``   all its blocks wait for all of some upstream chunk: looked at again when that chunk is finished.
- ``EMITTED``  nothing in it waits any more; the rest is ready or leased.
- ``CLOSED``   all its blocks are done, failed or orphaned.

Finding is bounded: when enough blocks are ready, a chunk that gets more becomes dirty and is looked at later.
"""

from __future__ import annotations

import enum
import heapq
from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from blockyard.core.ready.activity import Activity
from blockyard.core.ready.queue import ReadyQueue
from blockyard.core.state.task import Bools, Task
from blockyard.plan.edges import Edge, expand
from blockyard.plan.grid import Index, Ints
from blockyard.plan.levels import Counts
from blockyard.plan.requests import volume
from blockyard.plan.zorder import ZOrder

TAKEN = -(2**30)
"""Counter of a block that is ready, leased or finished, or no block of the run; counting down never brings it to 0."""
MOST_OPEN = 2048
"""Open chunks of a task; the one opened first makes room (it becomes dormant and is counted afresh when touched)."""
MOST_READY = 32_768
"""Ready blocks in hand, beyond which chunks become dirty instead."""
WIDE = 4096
"""A fan-out of more blocks than this is counted by boxes."""
DENSE = 64
"""A chunk with more than 1/64 of its blocks finished in a turn is counted as an array (measured: 10 times faster)."""
REGION_AT_ONCE = 2**20
"""Upstream blocks counted in one array; larger regions go chunk by chunk."""


class ChunkState(enum.IntEnum):
    """What is known of a chunk."""

    UNSEEN = 0
    DORMANT = 1
    DIRTY = 2
    OPEN = 3
    PARKED = 4
    EMITTED = 5
    CLOSED = 6


class Frontier:
    """The ready blocks of one task."""

    def __init__(self, task: Task, zorder: ZOrder, taken: Callable[[], Ints], activity: Activity) -> None:
        """`taken` gives the addresses of the task's leased and delayed blocks."""
        self.task = task
        self.upstream: list[tuple[Edge, Frontier]] = []
        self.downstream: list[tuple[Edge, Frontier]] = []
        self._zorder = zorder
        self._taken = taken
        self._activity = activity
        self.ready = ReadyQueue(zorder.dtype)
        layout = task.layout
        self._order = np.argsort(zorder.keys(task.spec.id, layout.chunk_begins()), kind="stable")
        """Chunks in Z-order."""
        self._rank = np.empty(layout.chunks, np.int64)
        self._rank[self._order] = np.arange(layout.chunks)
        self._waits = bool(task.upstream) or len(task.levels.offsets) > 0
        self._feeds = bool(task.downstream) or len(task.levels.offsets) > 0
        self.state: npt.NDArray[np.uint8] = np.zeros(layout.chunks, np.uint8)
        self._slot = np.full(layout.chunks, -1, np.int32)
        self._missing = np.empty((0, layout.capacity), np.int32)
        self._free: list[int] = []
        self._opened: deque[int] = deque()
        self._dirty: list[int] = []
        self._parked: dict[int, list[tuple[Frontier, int]]] = {}
        self._handed_out = np.zeros(layout.chunks, np.bool_)
        """Chunks some of whose blocks were ready or leased since the start."""
        self._cursor = 0

    # --- starting ----------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget all that was derived and begin at the first chunk: after loading, or when something was undone."""
        self.ready.clear()
        self.state[:] = ChunkState.UNSEEN
        self.state[self._dormant_chunks()] = ChunkState.DORMANT
        self.state[self.task.remaining == 0] = ChunkState.CLOSED
        self._slot[:] = -1
        self._missing = np.empty((0, self.task.layout.capacity), np.int32)
        self._free.clear()
        self._opened.clear()
        self._dirty.clear()
        self._parked.clear()
        self._handed_out[:] = False
        self._handed_out[self._taken() // self.task.layout.capacity] = True
        self._cursor = 0
        self._activity.live.add(self.task.number)
        self._activity.closed.add(self.task.number)

    def _dormant_chunks(self) -> npt.NDArray[np.bool_]:
        """Say which chunks have only blocks that wait for an upstream chunk region in which nothing is finished."""
        layout = self.task.layout
        dormant = np.zeros(layout.counts, np.bool_)
        for edge, up in self.upstream:
            lo, hi = edge.fed_box()
            inside = layout.chunks_inside(lo, hi)
            if any(s.start >= s.stop for s in inside):
                continue
            touched = (up.task.remaining != up.task.run_count).reshape(up.task.layout.counts)
            if not touched.any():
                dormant[inside] = True
            else:
                dormant[inside] |= ~self._fed_by(edge, up, touched)[inside]
        return dormant.ravel()

    def _fed_by(self, edge: Edge, up: Frontier, touched: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Say for each chunk whether an upstream chunk that feeds it is touched; separable, by running sums."""
        layout = self.task.layout
        begins = layout.chunk_begins()
        ends = np.minimum(begins + np.array(layout.side), np.array(self.task.grid.shape)) - 1
        first, _ = edge.blockers(begins)
        _, last = edge.blockers(ends)
        first >>= np.array(up.task.layout.log2_side)
        last = -(-last >> np.array(up.task.layout.log2_side))
        counts = touched.astype(np.int64)
        for axis in range(counts.ndim):
            counts = np.cumsum(counts, axis=axis)
        padded = np.pad(counts, [(1, 0)] * counts.ndim)
        total = np.zeros(layout.chunks, np.int64)
        for corner in np.ndindex(*(2,) * counts.ndim):
            at = tuple(np.where(c, last[:, k], first[:, k]) for k, c in enumerate(corner))
            sign = (-1) ** (counts.ndim - sum(corner))
            total += sign * padded[at]
        return (total > 0).reshape(layout.counts)

    # --- looking -----------------------------------------------------------------------------------------------

    def advance(self, want: int, looks: int) -> int:
        """Look at chunks until `want` blocks are ready or `looks` are used up; give the looks left."""
        while looks > 0 and len(self.ready) < want:
            chunk = self._next_chunk()
            if chunk is None:
                break
            self._look(chunk)
            looks -= 1
        return looks

    @property
    def idle(self) -> bool:
        """Whether there is nothing to hand out and nothing to look at, until blocks that it waits for are done."""
        return not len(self.ready) and self.exhausted

    @property
    def exhausted(self) -> bool:
        """Whether there is no chunk left to look at."""
        return not self._dirty and self._next_unseen() is None

    def _next_unseen(self) -> int | None:
        """Move the cursor to the next unseen chunk; give its rank."""
        while self._cursor < len(self._order):
            window = self.state[self._order[self._cursor : self._cursor + 4096]] == ChunkState.UNSEEN
            at = int(window.argmax())
            if window[at]:
                self._cursor += at
                return self._cursor
            self._cursor += len(window)
        return None

    def _next_chunk(self) -> int | None:
        while self._dirty and self.state[self._order[self._dirty[0]]] != ChunkState.DIRTY:
            heapq.heappop(self._dirty)
        unseen = self._next_unseen()
        if self._dirty and (unseen is None or self._dirty[0] < unseen):
            return int(self._order[heapq.heappop(self._dirty)])
        return None if unseen is None else int(self._order[unseen])

    def _look(self, chunk: int) -> None:
        """Find what is ready in a chunk, and count what the rest of it waits for."""
        task = self.task
        if task.remaining[chunk] == 0:
            self.state[chunk] = ChunkState.CLOSED
            return
        lo, hi = task.layout.chunk_box(chunk)
        if self._park(chunk, lo, hi):
            return
        addresses = task.layout.box_addresses(lo, hi)
        waiting = ~task.is_final(addresses)
        if not task.whole:
            waiting &= task.in_run_box(lo, hi)
        if self._handed_out[chunk]:
            waiting &= ~np.isin(addresses, self._taken_in(chunk))
        if not self._waits:
            self.state[chunk] = ChunkState.EMITTED
            self._emit(addresses[waiting])
            return
        missing = self._count_missing(lo, hi)
        ready = waiting & (missing == 0)
        waiting &= ~ready
        if waiting.any():
            counters = self._open(chunk)
            counters[:] = TAKEN
            view = counters[: int(np.prod(task.layout.side))].reshape(task.layout.side)
            view[tuple(slice(0, e - b) for b, e in zip(lo, hi, strict=True))] = np.where(waiting, missing, TAKEN)
        else:
            self.state[chunk] = ChunkState.EMITTED
        self._emit(addresses[ready])

    def may_run(self, addresses: Ints) -> Bools:
        """Say which addresses are blocks of the run that wait for nothing that is not done; chunk by chunk."""
        layout = self.task.layout
        indices = layout.indices(addresses)
        found = self.task.in_run(indices)
        if self._waits:
            chunk = addresses // layout.capacity
            for number in np.unique(chunk).tolist():
                here = np.flatnonzero(chunk == number)
                lo, hi = indices[here].min(axis=0), indices[here].max(axis=0) + 1
                missing = self._count_missing(tuple(lo.tolist()), tuple(hi.tolist()))
                found[here] &= missing[tuple((indices[here] - lo).T)] == 0
        return found

    def _count_missing(self, lo: Index, hi: Index) -> Counts:
        """Count for each block of a box the blocks that it waits for and that are not done."""
        missing = self._count_conflicting(lo, hi)
        for edge, up in self.upstream:
            missing += up.count_undone(edge, lo, hi)
        return missing

    def _taken_in(self, chunk: int) -> Ints:
        capacity = self.task.layout.capacity
        taken = np.concatenate([self.ready.addresses(), self._taken()])
        return taken[taken // capacity == chunk]

    def _park(self, chunk: int, lo: Index, hi: Index) -> bool:
        """Park the chunk on an unfinished upstream chunk that all its blocks wait for, if there is one."""
        for edge, up in self.upstream:
            first, last = edge.common_blockers_of_box(lo, hi)
            layout = up.task.layout
            inside = layout.chunks_inside(first, last)
            if any(s.start >= s.stop for s in inside):
                continue
            chunks = np.arange(layout.chunks).reshape(layout.counts)[inside].ravel()
            chunks = chunks[up.task.remaining[chunks] > 0]
            if len(chunks):
                # The one that comes last in Z-order finishes last, so few looks are in vain.
                last_chunk = int(chunks[up._rank[chunks].argmax()])  # noqa: SLF001 - same class
                up._parked.setdefault(last_chunk, []).append((self, chunk))  # noqa: SLF001
                self.state[chunk] = ChunkState.PARKED
                return True
        return False

    def _count_conflicting(self, lo: Index, hi: Index) -> Counts:
        """Count for each block of a box the conflicting blocks of lower levels that are not done."""
        levels = self.task.levels
        if not len(levels.offsets):
            return np.zeros(tuple(e - b for b, e in zip(lo, hi, strict=True)), np.int32)
        first, last = self._grown(lo, hi)
        return levels.count_blockers(self.task.undone_box(first, last), first, lo, hi)

    def count_undone(self, edge: Edge, lo: Index, hi: Index) -> Counts:
        """Count for each block of a downstream box the blocks of this task that it waits for and that are not done."""
        counts = np.zeros(tuple(e - b for b, e in zip(lo, hi, strict=True)), np.int32)
        first, last = edge.blockers_of_box(lo, hi)
        if volume((first, last)) <= REGION_AT_ONCE:
            if volume((first, last)):
                counts += edge.count_blockers(self.task.undone_box(first, last), first, lo, hi)
            return counts
        layout = self.task.layout
        chunks = np.arange(layout.chunks).reshape(layout.counts)[layout.chunks_meeting(first, last)].ravel()
        for chunk in chunks[self.task.remaining[chunks] > 0].tolist():
            box_lo, box_hi = layout.chunk_box(chunk)
            counts += edge.count_blockers(self.task.undone_box(box_lo, box_hi), box_lo, lo, hi)
        return counts

    def _grown(self, lo: Index, hi: Index) -> tuple[Index, Index]:
        """Return an index box grown by the reach of conflicts, inside the grid."""
        reach = np.abs(self.task.levels.offsets).max(axis=0).tolist()
        first = tuple(max(b - r, 0) for b, r in zip(lo, reach, strict=True))
        return first, tuple(min(e + r, n) for e, r, n in zip(hi, reach, self.task.grid.shape, strict=True))

    # --- finishing ---------------------------------------------------------------------------------------------

    def finished(self, addresses: Ints) -> None:
        """Count down what waits for these blocks, that were just done; each once.

        Where many of a chunk's blocks are among them, all that waits for any is counted at once as an array.
        """
        if not self._feeds:
            return
        capacity = self.task.layout.capacity
        if len(addresses) < capacity // DENSE:
            self._finished_apart(self.task.layout.indices(addresses))
            return
        ordered = np.sort(addresses)
        chunk, first, counts = np.unique(ordered // capacity, return_index=True, return_counts=True)
        dense = counts >= max(capacity // DENSE, 1)
        for number, start, count in np.stack([chunk, first, counts], axis=1)[dense].tolist():
            self._finished_together(number, ordered[start : start + count] - number * capacity)
        sparse = ordered[np.repeat(~dense, counts)]
        if len(sparse):
            self._finished_apart(self.task.layout.indices(sparse))

    def _finished_together(self, chunk: int, places: Ints) -> None:
        """Count down what waits for these places of one chunk."""
        layout = self.task.layout
        lo, hi = layout.chunk_box(chunk)
        flags = np.zeros(layout.side, np.bool_)
        flags.reshape(-1)[places] = True
        if len(self.task.levels.offsets):
            first, last = self._grown(lo, hi)
            self._count_down_array(first, self.task.levels.count_blockers(flags, lo, first, last))
        for edge, down in self.downstream:
            first, last = edge.waiters_of_box(lo, hi)
            if volume((first, last)) > REGION_AT_ONCE:
                down._count_down_boxes(*edge.waiters(layout.indices(chunk * layout.capacity + places)))  # noqa: SLF001
            elif volume((first, last)):
                down._count_down_array(first, edge.count_blockers(flags, lo, first, last))  # noqa: SLF001

    def _finished_apart(self, indices: Ints) -> None:
        """Count down what waits for these blocks, wherever they are."""
        for waiters in self.task.levels.waiters(indices):
            self._count_down_indices(waiters)
        for edge, down in self.downstream:
            lo, hi = edge.waiters(indices)
            width = np.clip(hi - lo, 0, None)
            if int(width.max(axis=0, initial=0).prod()) > WIDE:
                down._count_down_boxes(lo, hi)  # noqa: SLF001 - same class
                continue
            for waiters in expand(lo, hi):
                down._count_down_indices(waiters)  # noqa: SLF001

    def close(self, chunks: Ints) -> None:
        """Chunks of this task are finished: forget their counters, look again at what was parked on them."""
        if len(chunks):
            self._activity.closed.add(self.task.number)
        for chunk in chunks.tolist():
            self._drop_counters(chunk)
            self.state[chunk] = ChunkState.CLOSED
            for down, parked in self._parked.pop(chunk, ()):
                if down.state[parked] == ChunkState.PARKED:
                    down._make_dirty(parked)  # noqa: SLF001 - same class

    def take_out(self, addresses: Ints) -> None:
        """These blocks will never be ready (orphaned): forget their counters."""
        chunk = addresses // self.task.layout.capacity
        slot = self._slot[chunk]
        is_open = slot >= 0
        self._missing[slot[is_open], (addresses - chunk * self.task.layout.capacity)[is_open]] = TAKEN

    def push_back(self, addresses: Ints) -> None:
        """Blocks that were handed out are ready again."""
        self._push(addresses, self.task.layout.indices(addresses))

    def _count_down_indices(self, indices: Ints) -> None:
        """Count down the given blocks by 1 for each time they are named."""
        addresses, counts = np.unique(self.task.layout.addresses(indices), return_counts=True)
        self._count_down(addresses, counts.astype(np.int32))

    def _count_down_array(self, lo: Index, counts: Counts) -> None:
        """Count down the blocks of the box that begins at `lo` by these counts."""
        hi = tuple(b + n for b, n in zip(lo, counts.shape, strict=True))
        some = counts > 0
        self._count_down(self.task.layout.box_addresses(lo, hi)[some], counts[some])

    def _count_down(self, addresses: Ints, counts: Counts) -> None:
        """Count down blocks, each named once; those that reach 0 are ready. Wakes dormant chunks."""
        if not len(addresses):
            return
        capacity = self.task.layout.capacity
        chunk = addresses // capacity
        slot = self._slot[chunk]
        is_open = slot >= 0
        if not is_open.all():
            closed = np.unique(chunk[~is_open])
            for dormant in closed[self.state[closed] == ChunkState.DORMANT].tolist():
                self._make_dirty(dormant)
            addresses, counts, chunk, slot = addresses[is_open], counts[is_open], chunk[is_open], slot[is_open]
        flat = slot.astype(np.int64) * capacity + (addresses - chunk * capacity)
        counters = self._missing.reshape(-1)
        left = counters[flat] - counts
        counters[flat] = left
        self._emit_zeros(addresses[left == 0])

    def _count_down_boxes(self, lo: Ints, hi: Ints) -> None:
        """Count down all blocks of each of these large boxes, rows of two arrays, by 1."""
        boxes, counts = np.unique(np.concatenate([lo, hi], axis=1), axis=0, return_counts=True)
        layout = self.task.layout
        for box, count in zip(boxes.tolist(), counts.tolist(), strict=True):
            first, last = tuple(box[: len(box) // 2]), tuple(box[len(box) // 2 :])
            if not volume((first, last)):
                continue
            chunks = np.arange(layout.chunks).reshape(layout.counts)[layout.chunks_meeting(first, last)].ravel()
            for dormant in chunks[self.state[chunks] == ChunkState.DORMANT].tolist():
                self._make_dirty(dormant)
            for chunk in chunks[self.state[chunks] == ChunkState.OPEN].tolist():
                begin, end = layout.chunk_box(chunk)
                begin = tuple(max(a, b) for a, b in zip(begin, first, strict=True))
                shape = tuple(min(a, b) - c for a, b, c in zip(end, last, begin, strict=True))
                self._count_down_array(begin, np.full(shape, count, np.int32))

    def _emit_zeros(self, addresses: Ints) -> None:
        """Blocks of open chunks wait for nothing any more: ready, or their chunks dirty where enough is ready."""
        if not len(addresses):
            return
        chunks = addresses // self.task.layout.capacity
        if len(self.ready) + len(addresses) > MOST_READY:
            for chunk in np.unique(chunks).tolist():
                self._drop_counters(chunk)
                self._make_dirty(chunk)
            return
        self._missing[self._slot[chunks], addresses - chunks * self.task.layout.capacity] = TAKEN
        self._emit(addresses)

    def _emit(self, addresses: Ints) -> None:
        if len(addresses):
            self._push(addresses, self.task.layout.indices(addresses))

    def _push(self, addresses: Ints, indices: Ints) -> None:
        self._handed_out[addresses // self.task.layout.capacity] = True
        self._activity.live.add(self.task.number)
        self.ready.push(self._zorder.keys(self.task.spec.id, indices), addresses)

    def _make_dirty(self, chunk: int) -> None:
        self._activity.live.add(self.task.number)
        self.state[chunk] = ChunkState.DIRTY
        heapq.heappush(self._dirty, int(self._rank[chunk]))

    def _open(self, chunk: int) -> Counts:
        """Return the chunk a row of counters."""
        if not self._free:
            if len(self._missing) < MOST_OPEN:
                have = len(self._missing)
                grown = np.full((max(8, 2 * have), self.task.layout.capacity), TAKEN, np.int32)
                grown[:have] = self._missing
                self._free.extend(range(have, len(grown)))
                self._missing = grown
            else:
                while not self._free:
                    oldest = self._opened.popleft()
                    if self._slot[oldest] >= 0:
                        self._drop_counters(oldest)
                        self.state[oldest] = ChunkState.DORMANT
        slot = self._free.pop()
        self._slot[chunk] = slot
        self._opened.append(chunk)
        self.state[chunk] = ChunkState.OPEN
        return self._missing[slot]

    def _drop_counters(self, chunk: int) -> None:
        slot = int(self._slot[chunk])
        if slot >= 0:
            self._slot[chunk] = -1
            self._free.append(slot)


def connect_frontiers(frontiers: dict[int, Frontier]) -> None:
    """Link frontiers as their tasks are linked."""
    for frontier in frontiers.values():
        frontier.upstream = [(edge, frontiers[up.number]) for edge, up in frontier.task.upstream]
        frontier.downstream = [(edge, frontiers[down.number]) for edge, down in frontier.task.downstream]

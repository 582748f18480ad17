"""What is known for good about the blocks of one task: done, skipped, failed, orphaned, and what they have cost.

Everything here is in the journal or follows from it. Who is ready is derived from it by `frontier.py`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from blockyard.core.state.bitmap import Bitmap
from blockyard.core.state.layout import Layout
from blockyard.plan.edges import Edge
from blockyard.plan.grid import Grid, Index, Ints
from blockyard.plan.levels import Levels
from blockyard.plan.requests import Box, volume
from blockyard.spec.model import TaskSpec

Bools: TypeAlias = npt.NDArray[np.bool_]


class Kind(enum.IntEnum):
    """The bitmaps of a task. A skipped block is done too; orphans follow from failures and are in no journal."""

    DONE = 0
    SKIPPED = 1
    FAILED = 2
    ORPHANED = 3


DURABLE = (Kind.DONE, Kind.SKIPPED, Kind.FAILED)


class Tries(msgspec.Struct, array_like=True):
    """What a block that is not done has cost so far; kept only for blocks with trouble."""

    failures: int = 0
    """Attempts that failed."""
    kills: int = 0
    """Slots it was seen to kill."""
    losses: int = 0
    """Workers lost while they ran it, for no known reason."""

    @property
    def attempt(self) -> int:
        """Number of the next attempt, from 1."""
        return 1 + self.failures + self.kills


class Task:
    """One task of the run: its arithmetic and its bits."""

    def __init__(self, number: int, spec: TaskSpec, grid: Grid, boxes: Sequence[Box]) -> None:
        self.number = number
        self.spec = spec
        self.grid = grid
        self.boxes = tuple(boxes)
        self.whole = self.boxes == ((((0,) * grid.ndim), grid.shape),)
        self.layout = Layout(grid)
        self.levels = Levels.of(grid, conflict=spec.read_write_conflict)
        self.upstream: list[tuple[Edge, Task]] = []
        self.downstream: list[tuple[Edge, Task]] = []
        self.total = sum(volume(box) for box in self.boxes)
        self._even = all(
            (e - b) % s == 0 for b, e, s in zip(grid.write_begin, grid.write_end, grid.stride, strict=True)
        )
        addresses = self.layout.chunks * self.layout.capacity
        self.address_dtype = np.dtype("<u4" if addresses <= 2**32 else "<i8")
        """How addresses are written to the journal."""
        self.bits = {kind: Bitmap(addresses) for kind in Kind}
        self.counts = dict.fromkeys(Kind, 0)
        self.run_count = self._run_count()
        """Blocks of the run in each chunk."""
        self.remaining = self.run_count.copy()
        """Blocks of the run in each chunk that are not done, failed or orphaned."""
        self.tries: dict[int, Tries] = {}
        self.retries = 0

    # --- asking ------------------------------------------------------------------------------------------------

    @property
    def unfinished(self) -> int:
        """Blocks that are pending, ready or leased."""
        return self.total - self.counts[Kind.DONE] - self.counts[Kind.FAILED] - self.counts[Kind.ORPHANED]

    def in_run(self, indices: Ints) -> Bools:
        """Say for index vectors, shape (..., axes), inside the grid or not, whether they are blocks of the run."""
        inside = np.zeros(indices.shape[:-1], np.bool_)
        for lo, hi in self.boxes:
            inside |= ((indices >= np.array(lo)) & (indices < np.array(hi))).all(axis=-1)
        return inside

    def in_run_box(self, lo: Index, hi: Index) -> Bools:
        """Say which blocks of an index box belong to the run, as an array of the shape of the box."""
        inside = np.zeros(tuple(e - b for b, e in zip(lo, hi, strict=True)), np.bool_)
        for first, last in self.boxes:
            inside[tuple(slice(max(f - b, 0), max(t - b, 0)) for f, t, b in zip(first, last, lo, strict=True))] = True
        return inside

    def concerns(self, addresses: Ints) -> Bools:
        """Say which addresses are blocks of the run, or were under an earlier request and are done or failed."""
        if self.whole:
            return np.ones(len(addresses), np.bool_)
        kept = self.bits[Kind.DONE].test(addresses) | self.bits[Kind.FAILED].test(addresses)
        return kept | self.in_run(self.layout.indices(addresses))

    def undone_box(self, lo: Index, hi: Index) -> Bools:
        """Say which blocks of an index box belong to the run and are not done, as an array of the shape of the box."""
        undone = ~self.bits[Kind.DONE].test(self.layout.box_addresses(lo, hi))
        return undone if self.whole else undone & self.in_run_box(lo, hi)

    def is_final(self, addresses: npt.NDArray[np.int64]) -> Bools:
        """Say which addresses are done, failed or orphaned."""
        final = self.bits[Kind.DONE].test(addresses)
        for kind in (Kind.FAILED, Kind.ORPHANED):
            if self.counts[kind]:
                final |= self.bits[kind].test(addresses)
        return final

    def voxels_written(self, addresses: Ints) -> int:
        """Return how many voxels these blocks write together."""
        if self._even:  # no block is clipped
            return len(addresses) * math.prod(self.grid.stride)
        return self.grid.voxels_written(self.layout.indices(addresses))

    def attempts(self, addresses: Ints) -> dict[int, int]:
        """Return position in `addresses` to number of the next attempt, where that is not the first."""
        if not self.tries:
            return {}
        known = ((position, self.tries.get(address)) for position, address in enumerate(addresses.tolist()))
        return {position: tries.attempt for position, tries in known if tries is not None and tries.attempt > 1}

    # --- changing ----------------------------------------------------------------------------------------------

    def mark(self, kind: Kind, addresses: Ints, seq: int) -> Ints:
        """Set bits of run blocks that are not final yet; give the chunks this finished. Skipped blocks are done too."""
        self.bits[kind].set(addresses, seq)
        self.counts[kind] += len(addresses)
        if kind is Kind.SKIPPED:
            return self.mark(Kind.DONE, addresses, seq)
        if len(addresses) == 1:
            chunk = addresses // self.layout.capacity
            self.remaining[chunk] -= 1
            return chunk[self.remaining[chunk] == 0]
        chunks, counts = np.unique(addresses // self.layout.capacity, return_counts=True)
        self.remaining[chunks] -= counts.astype(np.int32)
        return chunks[self.remaining[chunks] == 0]

    def unmark_failed(self, addresses: Ints, seq: int) -> None:
        """Make failed blocks unfinished again; the caller recounts."""
        self.bits[Kind.FAILED].clear(addresses, seq)

    def recount(self) -> None:
        """Count all from the bits (after loading, or after a retry)."""
        by_chunk = {kind: self._count_bits(kind) for kind in Kind}
        self.counts = {kind: int(counts.sum()) for kind, counts in by_chunk.items()}
        finals = by_chunk[Kind.DONE] + by_chunk[Kind.FAILED] + by_chunk[Kind.ORPHANED]
        self.remaining = (self.run_count - finals).astype(np.int32)

    # --- inside ------------------------------------------------------------------------------------------------

    def _run_count(self) -> npt.NDArray[np.int32]:
        """Count the run's blocks in each chunk: overlaps are separable, an outer product for each box."""
        counts = np.zeros(self.layout.counts, np.int32)
        for lo, hi in self.boxes:
            overlap = np.ones((1,) * self.grid.ndim, np.int32)
            for axis, log2_side in enumerate(self.layout.log2_side):
                begin = np.arange(self.layout.counts[axis], dtype=np.int64) << log2_side
                along = np.clip(np.minimum(begin + (1 << log2_side), hi[axis]) - np.maximum(begin, lo[axis]), 0, None)
                overlap = overlap * along.astype(np.int32).reshape((-1,) + (1,) * (self.grid.ndim - 1 - axis))
            counts += overlap
        return counts.ravel()

    def _count_bits(self, kind: Kind) -> Ints:
        counts = self.bits[kind].chunk_counts(self.layout.chunks, self.layout.capacity)
        if self.whole:
            return counts
        for chunk in np.flatnonzero(counts):  # bits of an earlier run may lie outside this one's request
            lo, hi = self.layout.chunk_box(int(chunk))
            bits = self.bits[kind].test(self.layout.box_addresses(lo, hi))
            counts[chunk] = np.count_nonzero(bits & self.in_run_box(lo, hi))
        return counts


def connect(tasks: Sequence[Task]) -> None:
    """Build the edges between the tasks of a run from what they require."""
    by_id = {task.spec.id: task for task in tasks}
    for task in tasks:
        for required in dict.fromkeys(task.spec.requires):
            if required not in by_id:  # nothing of this task is wanted any more
                continue
            upstream = by_id[required]
            edge = Edge(upstream.grid, task.grid)
            task.upstream.append((edge, upstream))
            upstream.downstream.append((edge, task))


def failed_addresses(task: Task) -> Ints:
    """Return the addresses of the run's failed blocks."""
    addresses = task.bits[Kind.FAILED].addresses()
    return addresses if task.whole else addresses[task.in_run(task.layout.indices(addresses))]

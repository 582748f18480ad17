"""The map: how many blocks of each state lie in each cell of a picture of the grid.

Two axes of the grid are shown. Each other one is either *cut* at an index (a slice) or *looked through* (a projection).
A cell of the picture is a box of blocks: `step` blocks on each shown axis (a power of two, as the sides of chunks are,
so that either is a whole number of the other), and one block or all on the rest.

No loop goes over blocks. Most chunks have no bit of a kind set or all of them, and those are arithmetic; the others are
unpacked a batch at a time and summed. 10^8 blocks with every chunk half done: see docs/benchmarks.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from blockyard.core.state.task import Bools, Kind, Task
from blockyard.plan.grid import Index, Ints, ceil_div
from blockyard.spec.errors import SpecError
from blockyard.wire.states import BlockState

BATCH_BYTES = 2**18
"""Bits unpacked at once: 2 MB as bytes, which stays in the cache."""
PLACES_AT_ONCE = 2**18
"""Values of blocks summed at once: 2 MB as well."""
SCATTER_AT_ONCE = 2**20
LANE_MOST = 255
"""Eight counters are added at once as one 64-bit word, while none can exceed a byte."""

Planes: TypeAlias = dict[BlockState, Ints]


@dataclass(frozen=True, slots=True)
class View:
    """What of a grid is shown."""

    shown: tuple[int, ...]
    """The axis of the rows and that of the columns; a grid of one axis has columns only."""
    cut: Mapping[int, int] = field(default_factory=dict)
    """Index at which an axis is cut, by axis; axes neither here nor in `shown` are looked through."""
    begin: Index = ()
    """First index shown, for each shown axis; (): from 0."""
    end: Index = ()
    """One past the last index shown, for each shown axis; (): to the end."""
    most: int = 512
    """The most cells on each shown axis (of a grid of one axis: the square of that)."""


@dataclass(frozen=True, slots=True)
class BlockMap:
    """Counts of blocks by state and cell."""

    begin: Index
    """Index of the first block of the first cell, for each shown axis."""
    step: Index
    """Blocks of a cell, for each shown axis."""
    cells: Index
    """Rows and columns of the picture; a grid of one axis has one row."""
    planes: Planes
    """For each state an array of shape `cells`; a state that no block is in is missing."""
    volume: int
    """Blocks of the largest cell."""


def view_of(
    shape: Index, cuts: Sequence[tuple[int, int | None]], window: tuple[Index, Index] = ((), ()), most: int = 512
) -> View:
    """Return the view of a grid along the axes in `cuts`, each with the index to cut at or None to look through.

    Axes that are not named are looked through, the first first, until two are left. Raises SpecError for a view that
    the grid does not have.
    """
    ndim = len(shape)
    along = dict(cuts)
    for axis, at in along.items():
        if not 0 <= axis < ndim:
            raise SpecError(f"axis {axis} is none of the grid's axes 0 .. {ndim - 1}")
        if at is not None and not 0 <= at < shape[axis]:
            raise SpecError(f"slice {at} is outside axis {axis}, which has blocks 0 .. {shape[axis] - 1}")
    left = [axis for axis in range(ndim) if axis not in along]
    shown = tuple(left[-2:])
    if not shown:
        raise SpecError(f"all {ndim} axes are cut or looked through; leave one or two to be shown")
    sizes: Index = tuple(shape[axis] for axis in shown)
    begin = window[0] or (0,) * len(shown)
    end = window[1] or sizes
    if not len(begin) == len(end) == len(shown):
        raise SpecError(f"the window has {len(begin)} and {len(end)} numbers; {len(shown)} axes are shown")
    if not all(0 <= b < e <= n for b, e, n in zip(begin, end, sizes, strict=True)) and 0 not in sizes:
        raise SpecError(f"the window from {begin} to {end} is not inside the shown axes, of {sizes} blocks")
    return View(shown, {axis: at for axis, at in along.items() if at is not None}, begin, end, most)


def block_map(task: Task, view: View, leased: Ints, ready: Ints) -> BlockMap:
    """Count the blocks of each state in each cell; `leased` and `ready` are addresses.

    May run in a thread while the core goes on: then the counts are of moments a few milliseconds apart.
    """
    picture = Picture(task, view)
    counts = {kind: picture.count_bits(kind) for kind in Kind if task.counts[kind]}
    none = np.zeros(picture.cells, np.int64)
    skipped = counts.get(Kind.SKIPPED, none)
    planes = {
        BlockState.READY: picture.count_addresses(ready),
        BlockState.LEASED: picture.count_addresses(leased),
        BlockState.DONE: np.maximum(counts.get(Kind.DONE, none) - skipped, 0),
        BlockState.SKIPPED: skipped,
        BlockState.FAILED: counts.get(Kind.FAILED, none),
        BlockState.ORPHANED: counts.get(Kind.ORPHANED, none),
    }
    in_run = picture.count_boxes(task.boxes)
    planes[BlockState.PENDING] = np.maximum(in_run - sum(planes.values()), 0)
    volume = picture.count_boxes([((0,) * task.grid.ndim, task.grid.shape)])
    planes[BlockState.OUTSIDE] = volume - in_run
    return BlockMap(
        begin=picture.begin,
        step=picture.step,
        cells=picture.cells,
        planes={state: planes[state] for state in BlockState if planes[state].any()},
        volume=int(volume.max(initial=0)),
    )


def step_for(size: int, most: int) -> int:
    """Return the smallest power of two of blocks a cell with which `size` blocks are at most `most` cells.

    >>> step_for(512, 512), step_for(513, 512), step_for(10_000, 512)
    (1, 2, 32)
    """
    return 1 << (max(ceil_div(size, most), 1) - 1).bit_length()


@dataclass(frozen=True, slots=True)
class _Shown:
    """One axis of the picture. Cells here count from `origin`, the cell in which the first chunk begins."""

    size: int
    side: int
    log2_side: int
    chunks: slice
    log2_step: int
    begin: int
    end: int

    @property
    def step(self) -> int:
        return 1 << self.log2_step

    @property
    def origin(self) -> int:
        return (self.chunks.start << self.log2_side) >> self.log2_step

    @property
    def pieces(self) -> int:
        """Cells that a chunk spreads over."""
        return ceil_div(self.side, self.step)

    @property
    def first_cells(self) -> Ints:
        """The first cell of each chunk."""
        begins = np.arange(self.chunks.start, self.chunks.stop) << self.log2_side
        return (begins >> self.log2_step) - self.origin

    @property
    def n_cells(self) -> int:
        """Cells that the chunks reach, those beyond the end of the grid too."""
        return int(self.first_cells.max(initial=0)) + self.pieces

    @property
    def crop(self) -> slice:
        """The cells of the window."""
        return slice((self.begin >> self.log2_step) - self.origin, ceil_div(self.end, self.step) - self.origin)

    def piece_sizes(self) -> Ints:
        """Return the blocks of each piece of each chunk, shape (chunks, pieces)."""
        begin = np.arange(self.chunks.start, self.chunks.stop)[:, None] << self.log2_side
        limit = np.minimum(begin + self.side, self.size)
        start = begin + np.arange(self.pieces) * self.step
        return np.clip(np.minimum(start + self.step, limit) - start, 0, None)

    def overlaps(self, lo: int, hi: int) -> Ints:
        """Return for each cell of the window how many of its blocks lie in [lo, hi)."""
        first = np.arange(self.begin >> self.log2_step, ceil_div(self.end, self.step)) << self.log2_step
        end = np.minimum(first + self.step, self.size)
        return np.clip(np.minimum(end, hi) - np.maximum(first, lo), 0, None)


_NO_ROWS = _Shown(1, 1, 0, slice(0, 1), 0, 0, 1)


class Picture:
    """The picture of one view: which chunks it looks at, and where their blocks go."""

    def __init__(self, task: Task, view: View) -> None:
        self.task, self.view = task, view
        layout, shape = task.layout, task.grid.shape
        begin, end = view.begin or (0,) * len(view.shown), view.end or tuple(shape[axis] for axis in view.shown)
        most = view.most if len(view.shown) > 1 else view.most**2
        lo, hi = [0] * len(shape), list(shape)
        for axis, at in view.cut.items():
            lo[axis], hi[axis] = at, at + 1
        steps = [step_for(last - first, most) for first, last in zip(begin, end, strict=True)]
        for axis, first, last, step in zip(view.shown, begin, end, steps, strict=True):
            lo[axis], hi[axis] = first // step * step, min(ceil_div(last, step) * step, shape[axis])
        self._slices = layout.chunks_meeting(lo, hi)
        axes = [
            _Shown(
                shape[axis],
                layout.side[axis],
                layout.log2_side[axis],
                self._slices[axis],
                step.bit_length() - 1,
                lo[axis],
                hi[axis],
            )
            for axis, step in zip(view.shown, steps, strict=True)
        ]
        self._rows, self._columns = axes if len(axes) > 1 else (_NO_ROWS, axes[0])
        self._through = tuple(axis for axis in range(len(shape)) if axis not in view.shown and axis not in view.cut)
        self._lo, self._hi = tuple(lo), tuple(hi)
        self.step = tuple(axis.step for axis in axes)
        self.begin = tuple(axis.begin for axis in axes)
        self._crop = (self._rows.crop, self._columns.crop)
        self.cells = (self._crop[0].stop - self._crop[0].start, self._crop[1].stop - self._crop[1].start)

    # --- all in one go -----------------------------------------------------------------------------------------

    def count_boxes(self, boxes: Sequence[tuple[Index, Index]]) -> Ints:
        """Count the blocks of disjoint index boxes in each cell: an outer product for each box."""
        counts = np.zeros(self.cells, np.int64)
        for lo, hi in boxes:
            depth = 1
            for axis in (*self.view.cut, *self._through):
                depth *= max(min(hi[axis], self._hi[axis]) - max(lo[axis], self._lo[axis]), 0)
            *row, column = self.view.shown
            rows = self._rows.overlaps(lo[row[0]], hi[row[0]]) if row else np.ones(1, np.int64)
            counts += depth * rows[:, None] * self._columns.overlaps(lo[column], hi[column])
        return counts

    def count_addresses(self, addresses: Ints) -> Ints:
        """Count blocks given by their addresses."""
        return self.sum_addresses(addresses, np.ones(len(addresses), np.float32))[1]

    def sum_addresses(self, addresses: Ints, values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], Ints]:
        """Sum the values of blocks given by their addresses, and count them, in each cell."""
        indices = self.task.layout.indices(addresses)
        wanted = np.ones(len(indices), np.bool_)
        for axis in range(indices.shape[1]):
            wanted &= (indices[:, axis] >= self._lo[axis]) & (indices[:, axis] < self._hi[axis])
        *row, column = self.view.shown
        columns = (indices[wanted, column] >> self._columns.log2_step) - self._columns.origin
        rows = (indices[wanted, row[0]] >> self._rows.log2_step) - self._rows.origin if row else 0 * columns
        shape = (self._rows.n_cells, self._columns.n_cells)
        place = rows * shape[1] + columns
        counts = np.bincount(place, minlength=shape[0] * shape[1]).reshape(shape)
        sums = np.bincount(place, values[wanted], minlength=shape[0] * shape[1]).reshape(shape)
        return sums.astype(np.float64)[self._crop], counts.astype(np.int64)[self._crop]

    @property
    def has_whole_chunks(self) -> bool:
        """Whether no chunk is divided among cells, or cut."""
        side = self.task.layout.side
        coarse = all(step >= side[axis] for axis, step in zip(self.view.shown, self.step, strict=True))
        return coarse and not self.view.cut

    def sum_places(
        self,
        table: npt.NDArray[Any],
        chosen: Bools,
        value: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
        within: type,
    ) -> npt.NDArray[np.float64]:
        """Sum the `value` of entries of a table, shape (chunks, capacity), in each cell; of the chosen chunks only.

        `within` is the type of sums within a chunk.
        """
        layout = self.task.layout
        sums = self._empty(np.float64)
        chunks, depth = self._chunks()
        some = np.flatnonzero(chosen[chunks])
        at_once = max(PLACES_AT_ONCE // layout.capacity, 1)
        for start in range(0, len(some), at_once):
            at = some[start : start + at_once]
            entries = table[chunks[at], : math.prod(layout.side)].reshape(-1, *layout.side)
            self._scatter(sums, at // depth, self._pieces(value(self._cut(entries)), within))
        return sums[self._crop]

    def chunks_along(self, axis: int) -> tuple[int, int]:
        """Return the chunks of the view along an axis, from and to."""
        return self._slices[axis].start, self._slices[axis].stop

    def chunk_of_cells(self, axis: int) -> Ints:
        """Return for each cell along a shown axis the chunk of its first block, counted from the view's first."""
        at = self.view.shown.index(axis)
        cells = self.cells[at] if len(self.view.shown) > 1 else self.cells[1]
        first = self.begin[at] + np.arange(cells) * self.step[at]
        return (first >> self.task.layout.log2_side[axis]) - self._slices[axis].start

    # --- bitmaps -----------------------------------------------------------------------------------------------

    def count_bits(self, kind: Kind) -> Ints:
        """Count the run's blocks with a bit set: full chunks by arithmetic, the others bit by bit."""
        layout = self.task.layout
        counts = self._empty(np.int64)
        chunks, depth = self._chunks()
        full = np.zeros(len(chunks), np.bool_)
        stored = self.task.bits[kind].bytes[: layout.chunks * layout.capacity // 8].reshape(layout.chunks, -1)
        volumes = self._volumes()
        at_once = max(BATCH_BYTES * 8 // layout.capacity, 1)
        for start in range(0, len(chunks), at_once):
            part = slice(start, start + at_once)
            raw = stored[chunks[part]]
            n_set = np.bitwise_count(raw.view(np.uint64)).sum(axis=1, dtype=np.int64)
            whole = volumes[part] == self.task.run_count[chunks[part]]
            full[part] = whole & (n_set == volumes[part])
            for some, masked in (((n_set > 0) & whole & ~full[part], False), ((n_set > 0) & ~whole, True)):
                at = np.flatnonzero(some)
                if len(at):
                    bits = self._bits(raw[at], chunks[start + at] if masked else None)
                    self._scatter(counts, (start + at) // depth, bits)
        self._add_full(counts, full)
        return counts[self._crop]

    def _empty(self, dtype: type) -> npt.NDArray[Any]:
        return np.zeros((self._rows.n_cells, self._columns.n_cells), dtype)

    def _order(self) -> tuple[int, ...]:
        """Return the axes, the shown ones first: chunks behind one another lie side by side in this order."""
        return (*self.view.shown, *(axis for axis in range(self.task.grid.ndim) if axis not in self.view.shown))

    def _chunks(self) -> tuple[Ints, int]:
        """Return the chunks that the view meets, those behind one another together, and how many that are."""
        layout = self.task.layout
        chunks = np.arange(layout.chunks).reshape(layout.counts)[self._slices].transpose(self._order())
        return chunks.reshape(-1), math.prod(chunks.shape[len(self.view.shown) :])

    def _volumes(self) -> Ints:
        """Return the blocks of each chunk of `_chunks`, in that order."""
        volumes = np.ones(1, np.int64)
        for axis in self._order():
            volumes = (volumes[:, None] * self._extents(axis)).reshape(-1)
        return volumes

    def _extents(self, axis: int) -> Ints:
        """Return how many blocks along an axis each chunk of the view has."""
        layout = self.task.layout
        begins = np.arange(self._slices[axis].start, self._slices[axis].stop) << layout.log2_side[axis]
        return np.minimum(begins + layout.side[axis], self.task.grid.shape[axis]) - begins

    def _bits(self, raw: npt.NDArray[np.uint8], masked: Ints | None) -> npt.NDArray[Any]:
        """Count the bits of chunks, shape (chunks, bytes), by piece of the picture, shape (chunks, rows, columns)."""
        layout = self.task.layout
        side, last = layout.side, len(layout.side) - 1
        if masked is None and last in self._through and side[last] in {8, 16, 32, 64}:
            # The fastest axis is looked through: its bits are one word, and counting them is one instruction.
            counts = np.bitwise_count(raw.view(f"u{side[last] // 8}"))
            counts = counts[:, : math.prod(side[:last])].reshape(-1, *side[:last], 1)
        else:
            counts = np.unpackbits(raw, axis=1, bitorder="little")[:, : math.prod(side)].reshape(-1, *side)
        if masked is not None:
            counts &= self._in_run(masked)
        return self._pieces(self._cut(counts), np.uint32)

    def _cut(self, entries: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return of entries, shape (chunks, *side), those of the slice; axes that are cut stay with length 1."""
        for axis, at in self.view.cut.items():
            place = at & ((1 << self.task.layout.log2_side[axis]) - 1)
            entries = entries[(slice(None),) * (axis + 1) + (slice(place, place + 1),)]
        return entries

    def _pieces(self, values: npt.NDArray[Any], dtype: type) -> npt.NDArray[Any]:
        """Sum the values of what was cut by piece of the picture, shape (chunks, rows, columns)."""
        values = _sum_through(values, tuple(axis + 1 for axis in self._through), dtype)
        for axis in (a for a, shown in zip(self.view.shown, self.step, strict=True) if shown > 1):
            step = self.step[self.view.shown.index(axis)]
            starts = np.arange(0, self.task.layout.side[axis], step)
            values = np.add.reduceat(values, starts, axis=axis + 1, dtype=dtype)
        return values.reshape(-1, self._rows.pieces, self._columns.pieces)

    def _in_run(self, chunks: Ints) -> npt.NDArray[np.uint8]:
        """Say which places of chunks belong to the run, shape (chunks, *side)."""
        layout = self.task.layout
        ndim = len(layout.side)
        begins = layout.indices(chunks * layout.capacity)
        inside = np.zeros((len(chunks), *layout.side), np.bool_)
        for lo, hi in self.task.boxes:
            within = np.ones((1,) * (ndim + 1), np.bool_)
            for axis in range(ndim):
                index = begins[:, axis, None] + np.arange(layout.side[axis])
                along: Bools = (index >= lo[axis]) & (index < hi[axis])
                within = within & along.reshape(len(chunks), *(-1 if a == axis else 1 for a in range(ndim)))
            inside |= within
        return inside.view(np.uint8)

    def _scatter(self, counts: npt.NDArray[Any], columns: Ints, pieces: npt.NDArray[Any]) -> None:
        """Add pieces, shape (n, rows, columns), of chunks that stand in these ascending columns of chunks."""
        starts = np.flatnonzero(np.concatenate(([True], columns[1:] != columns[:-1])))
        summed = np.add.reduceat(pieces, starts, axis=0, dtype=counts.dtype)
        row, column = np.divmod(columns[starts], len(self._columns.first_cells))
        rows = self._rows.first_cells[row][:, None] + np.arange(self._rows.pieces)
        across = self._columns.first_cells[column][:, None] + np.arange(self._columns.pieces)
        np.add.at(counts, (rows[:, :, None], across[:, None, :]), summed)

    def _add_full(self, counts: Ints, full: Bools) -> None:
        """Add the chunks of which every block counts."""
        if not full.any():
            return
        depth = np.ones(1, np.int64)
        for axis in self._order()[len(self.view.shown) :]:
            extents = self._extents(axis) if axis in self._through else np.ones(1, np.int64)
            depth = (depth[:, None] * extents).reshape(-1)
        columns = (full.reshape(-1, len(depth)) * depth).sum(axis=1)
        some = np.flatnonzero(columns)
        at_once = max(SCATTER_AT_ONCE // (self._rows.pieces * self._columns.pieces), 1)
        for start in range(0, len(some), at_once):
            part = some[start : start + at_once]
            row, column = np.divmod(part, len(self._columns.first_cells))
            down, across = self._rows.piece_sizes()[row], self._columns.piece_sizes()[column]
            self._scatter(counts, part, columns[part, None, None] * down[:, :, None] * across[:, None, :])


def _sum_through(values: npt.NDArray[Any], axes: tuple[int, ...], dtype: type) -> npt.NDArray[Any]:
    """Sum over axes, which stay with length 1; of ``u1`` all values are 0 or 1."""
    depth = math.prod(values.shape[axis] for axis in axes)
    if depth == 1:
        return values
    last = values.ndim - 1
    bits = values.dtype == np.uint8 and values.strides[last] == 1 and values.shape[last] % 8 == 0
    if bits and last not in axes and depth <= LANE_MOST:
        return values.view(np.uint64).sum(axis=axes, dtype=np.uint64, keepdims=True).view(np.uint8)
    return values.sum(axis=axes, dtype=dtype, keepdims=True)


# ----- which blocks they are ------------------------------------------------------------------------------------------


def blocks_in(task: Task, state: BlockState, box: tuple[Index, Index], leased: Ints, ready: Ints, most: int) -> Ints:
    """Return the ids, ascending, of up to `most` blocks of an index box that are in one state."""
    found: list[Ints] = []
    missing = most
    for addresses in _candidates(task, state, box, leased, ready):
        indices = task.layout.indices(addresses)
        inside = ((indices >= np.array(box[0])) & (indices < np.array(box[1]))).all(axis=1)
        inside &= task.in_run(indices) != (state is BlockState.OUTSIDE)
        found.append(task.grid.ravel(indices[inside])[:missing])
        missing -= len(found[-1])
        if missing <= 0:
            break
    return np.sort(np.concatenate(found)) if found else np.empty(0, np.int64)


def _candidates(task: Task, state: BlockState, box: tuple[Index, Index], leased: Ints, ready: Ints) -> Iterator[Ints]:
    """Return addresses in the state, chunk by chunk; some may lie outside the box or the run."""
    if state in {BlockState.LEASED, BlockState.READY}:
        yield leased if state is BlockState.LEASED else ready
        return
    layout = task.layout
    chunks = np.arange(layout.chunks).reshape(layout.counts)[layout.chunks_meeting(*box)].ravel()
    if state is BlockState.PENDING:
        chunks = chunks[task.remaining[chunks] > 0]
    taken = np.concatenate([leased, ready])
    for chunk in chunks.tolist():
        lo, hi = layout.chunk_box(chunk)
        first = tuple(max(a, b) for a, b in zip(lo, box[0], strict=True))
        last = tuple(min(a, b) for a, b in zip(hi, box[1], strict=True))
        addresses = layout.box_addresses(first, last).ravel()
        chosen = _in_state(task, state, addresses, taken)
        if chosen.any():
            yield addresses[chosen]


def _in_state(task: Task, state: BlockState, addresses: Ints, taken: Ints) -> Bools:
    if state is BlockState.OUTSIDE:
        return np.ones(len(addresses), np.bool_)
    if state is BlockState.PENDING:
        return ~task.is_final(addresses) & ~np.isin(addresses, taken)
    if state is BlockState.DONE:
        return task.bits[Kind.DONE].test(addresses) & ~task.bits[Kind.SKIPPED].test(addresses)
    return task.bits[Kind[state.name]].test(addresses)

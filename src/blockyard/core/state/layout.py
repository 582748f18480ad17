"""Where the bits of a task's blocks lie: chunks of the grid, so that what is near in space is near in memory.

A chunk is an index box of 2^c_k blocks an axis (fewer where the grid is thinner), about `CHUNK_BITS` bits in all. A
block's *address* is ``chunk number * capacity + place in the chunk``; addresses of a padded edge belong to no block.
The layout depends on the grid alone, so that addresses in a journal stay true when other settings of a task change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from blockyard.plan.grid import Grid, Index, Ints

CHUNK_BITS = 12
"""4096 blocks a chunk: small enough to scan in well under a millisecond, large enough to make numpy worth it."""
FEWEST_CHUNKS_BITS = 4
"""Small grids still get a few chunks, so that their blocks come in Z-order over all tasks."""
MOST_CHUNKS_BITS = 20
"""Larger grids get larger chunks: what is kept a chunk stays small."""


class Layout:
    """Chunks and addresses of one grid."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        size_bits = max(grid.size - 1, 0).bit_length()
        bits = max(min(CHUNK_BITS, size_bits - FEWEST_CHUNKS_BITS), size_bits - MOST_CHUNKS_BITS, 0)
        self.log2_side = _sides(grid.shape, bits)
        self.side: Index = tuple(max(min(1 << c, n), 1) for c, n in zip(self.log2_side, grid.shape, strict=True))
        self.counts: Index = tuple(-(-n // (1 << c)) for c, n in zip(self.log2_side, grid.shape, strict=True))
        """Chunks on each axis."""
        self.chunks = math.prod(self.counts)
        self.capacity = -(-math.prod(self.side) // 64) * 64
        """Addresses of a chunk; a whole number of 64-bit words."""
        self._chunk_stride = _c_strides(self.counts)
        self._place_stride = _c_strides(self.side)

    def addresses(self, indices: Ints) -> Ints:
        """Return the addresses, shape (n,), of index vectors, shape (n, axes)."""
        total = np.zeros(len(indices), np.int64)
        for axis in range(indices.shape[1]):
            total += self._axis_addresses(axis, indices[:, axis])
        return total

    def box_addresses(self, lo: Sequence[int], hi: Sequence[int]) -> Ints:
        """Return the addresses of an index box, as an array of the shape of the box."""
        ndim = len(self.side)
        total = np.zeros((1,) * ndim, np.int64)
        for axis in range(ndim):
            along = self._axis_addresses(axis, np.arange(lo[axis], hi[axis]))
            total = total + along.reshape((-1,) + (1,) * (ndim - 1 - axis))
        return total

    def indices(self, addresses: Ints) -> Ints:
        """Return the index vectors, shape (n, axes), of addresses, shape (n,)."""
        if len(addresses) == 1:  # slow blocks come one by one, and ten array operations cost 40 us
            return np.array([self.index_of(int(addresses[0]))], np.int64)
        chunk, place = np.divmod(addresses, self.capacity)
        indices = np.empty((len(addresses), len(self.side)), np.int64)
        for axis, log2_side in enumerate(self.log2_side):
            at, chunk = np.divmod(chunk, self._chunk_stride[axis])
            within, place = np.divmod(place, self._place_stride[axis])
            indices[:, axis] = (at << log2_side) + within
        return indices

    def index_of(self, address: int) -> Index:
        """Return the index vector of one address."""
        chunk, place = divmod(address, self.capacity)
        index = []
        for axis, log2_side in enumerate(self.log2_side):
            at, chunk = divmod(chunk, self._chunk_stride[axis])
            within, place = divmod(place, self._place_stride[axis])
            index.append((at << log2_side) + within)
        return tuple(index)

    def chunk_box(self, chunk: int) -> tuple[Index, Index]:
        """Return the index box [lo, hi) of a chunk."""
        lo = []
        for axis, log2_side in enumerate(self.log2_side):
            at, chunk = divmod(chunk, self._chunk_stride[axis])
            lo.append(at << log2_side)
        hi = [min(b + s, n) for b, s, n in zip(lo, self.side, self.grid.shape, strict=True)]
        return tuple(lo), tuple(hi)

    def chunk_begins(self) -> Ints:
        """Return the index of the first block of every chunk, shape (chunks, axes)."""
        grids = np.meshgrid(
            *(np.arange(n) << c for n, c in zip(self.counts, self.log2_side, strict=True)), indexing="ij"
        )
        return np.stack([axis.ravel() for axis in grids], axis=1).astype(np.int64)

    def chunks_meeting(self, lo: Sequence[int], hi: Sequence[int]) -> tuple[slice, ...]:
        """Return the chunks that meet an index box, as slices of an array of shape `counts`."""
        return tuple(
            slice(b >> c, max(-(-e // (1 << c)), b >> c)) for b, e, c in zip(lo, hi, self.log2_side, strict=True)
        )

    def chunks_inside(self, lo: Sequence[int], hi: Sequence[int]) -> tuple[slice, ...]:
        """Return the chunks that lie wholly in an index box, as slices of an array of shape `counts`."""
        slices = []
        for b, e, c, n, count in zip(lo, hi, self.log2_side, self.grid.shape, self.counts, strict=True):
            first = -(-b // (1 << c))
            last = count if e >= n else e >> c
            slices.append(slice(first, max(last, first)))
        return tuple(slices)

    def _axis_addresses(self, axis: int, index: Ints) -> Ints:
        log2_side = self.log2_side[axis]
        chunk = index >> log2_side
        place = index - (chunk << log2_side)
        return chunk * (self._chunk_stride[axis] * self.capacity) + place * self._place_stride[axis]


def _sides(shape: Index, bits: int) -> Index:
    """Share `bits` among the axes as a Morton code does: one at a time, last axis first, skipping used-up axes."""
    sides = [0] * len(shape)
    while bits > 0 and any((1 << c) < n for c, n in zip(sides, shape, strict=True)):
        for axis in reversed(range(len(shape))):
            if bits > 0 and (1 << sides[axis]) < shape[axis]:
                sides[axis] += 1
                bits -= 1
    return tuple(sides)


def _c_strides(shape: Index) -> Index:
    strides = [1] * len(shape)
    for axis in reversed(range(len(shape) - 1)):
        strides[axis] = strides[axis + 1] * max(shape[axis + 1], 1)
    return tuple(strides)

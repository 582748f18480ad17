"""Conflicts within a task, and the order they impose: which blocks a block waits for, by arithmetic.

Blocks i and j = i + d conflict when one's read ROI meets the other's write ROI. With cl, cu the context below and
above and s the stride, that is ``-ceil(cl/s) <= d <= ceil(cu/s)`` on every axis, or the same for -d; clipping never
changes it.

A level is one residue ``i mod m`` with ``m = min(1 + ceil(max(cl, cu) / s), n)`` on each axis; levels go in descending
C order of the residue. Blocks of one level never conflict, so each block waits for its conflicting blocks of lower
levels and for nothing else, and which of two conflicting blocks runs first never depends on timing::

    m = 2 on both axes        residue (1,1) = level 0    1 0 1 0
                                      (1,0) = level 1    3 2 3 2     numbers: level of each block of a 4 x 4 grid,
                                      (0,1) = level 2    1 0 1 0     last row and last column first
                                      (0,0) = level 3    3 2 3 2     (drawn upside down)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from blockyard.plan.grid import Grid, Index, Ints, ceil_div

Flags: TypeAlias = npt.NDArray[np.bool_]
Counts: TypeAlias = npt.NDArray[np.int32]

PAIRS_AT_ONCE = 2**18
"""Neighbour pairs expanded at a time, so that memory stays small with large contexts."""


@dataclass(frozen=True, slots=True)
class Levels:
    """The levels of one grid and the conflicts between its blocks."""

    shape: Index
    moduli: Index
    """m on each axis."""
    offsets: Ints
    """All d != 0 such that blocks i and i + d conflict, shape (offsets, axes)."""

    @classmethod
    def of(cls, grid: Grid, *, conflict: bool) -> Levels:
        """Build the levels of a grid; without conflicts there is one level and nobody waits."""
        if not conflict or grid.size == 0:
            return cls(grid.shape, (1,) * grid.ndim, np.empty((0, grid.ndim), np.int64))
        below = [ceil_div(c, s) for c, s in zip(grid.below, grid.stride, strict=True)]
        above = [ceil_div(c, s) for c, s in zip(grid.above, grid.stride, strict=True)]
        moduli = tuple(min(1 + max(b, a), n) for b, a, n in zip(below, above, grid.shape, strict=True))
        reach = [min(max(b, a), n - 1) for b, a, n in zip(below, above, grid.shape, strict=True)]
        axes = np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij")
        offsets = np.stack([axis.ravel() for axis in axes], axis=1).astype(np.int64)
        forward = ((offsets >= -np.array(below)) & (offsets <= np.array(above))).all(axis=1)
        backward = ((-offsets >= -np.array(below)) & (-offsets <= np.array(above))).all(axis=1)
        return cls(grid.shape, moduli, offsets[(forward | backward) & offsets.any(axis=1)])

    @property
    def count(self) -> int:
        """Number of levels."""
        return math.prod(self.moduli)

    def of_blocks(self, indices: Ints) -> Ints:
        """Return the level of each block, shape (n,), from index vectors, shape (n, axes); level 0 runs first."""
        return self.count - 1 - self.rank(indices)

    def waiters(self, indices: Ints) -> Iterator[Ints]:
        """Return the blocks that wait for the given ones, in batches of shape (n, axes); once for each pair."""
        return self._neighbours(indices, higher=True)

    def blockers(self, indices: Ints) -> Iterator[Ints]:
        """Return the blocks that the given ones wait for, in batches of shape (n, axes); once for each pair."""
        return self._neighbours(indices, higher=False)

    def count_blockers(self, flags: Flags, origin: Index, lo: Index, hi: Index) -> Counts:
        """Return for each block of the box [lo, hi) how many of the flagged blocks it waits for, shape of the box.

        `flags` is an array over the box that begins at `origin`; blocks outside it are not flagged.
        """
        shape = tuple(e - b for b, e in zip(lo, hi, strict=True))
        if not len(self.offsets):
            return np.zeros(shape, np.int32)
        reach = np.abs(self.offsets).max(axis=0).tolist()
        begin = [b - r for b, r in zip(lo, reach, strict=True)]
        around = np.zeros([n + 2 * r for n, r in zip(shape, reach, strict=True)], np.bool_)
        place(flags, origin, around, begin)
        if len(self.offsets) + 1 == math.prod(2 * r + 1 for r in reach):
            return self._count_by_axis(around, begin, shape)
        axes = np.meshgrid(*(np.arange(b, b + n) for b, n in zip(begin, around.shape, strict=True)), indexing="ij")
        rank = self.rank(np.stack(axes, axis=-1)).astype(np.min_scalar_type(self.count))
        own = rank[tuple(slice(r, r + n) for r, n in zip(reach, shape, strict=True))]
        counts = np.zeros(shape, np.min_scalar_type(len(self.offsets)))
        for offset in self.offsets.tolist():
            at = tuple(slice(r + d, r + d + n) for r, d, n in zip(reach, offset, shape, strict=True))
            counts += around[at] & (rank[at] > own)
        return counts.astype(np.int32)

    def _count_by_axis(self, around: Flags, begin: Sequence[int], shape: Index) -> Counts:
        """Count blockers where the offsets are a whole box, as they are for symmetric contexts; 5 times faster.

        Residues are compared axis by axis: a neighbour has the higher rank if its residue is higher on the first axis
        on which they differ. Within the reach, which is m - 1, only an offset of 0 has the same residue. So the count
        is a sum over that first axis: offset 0 before it, a higher residue on it, any offset behind it.
        """
        dtype = np.min_scalar_type(len(self.offsets))  # the smallest type: most of the time is memory
        summed = around.astype(dtype)
        counts = np.zeros(shape, dtype)
        for axis in reversed(range(len(shape))):
            n, m = shape[axis], self.moduli[axis]
            steps = [slice(d, d + n) for d in range(2 * m - 1)]
            behind = (1,) * (len(shape) - 1 - axis)
            centre = summed[tuple(slice(k - 1, k - 1 + e) for k, e in zip(self.moduli[:axis], shape, strict=False))]
            residue = np.arange(begin[axis], begin[axis] + n + 2 * (m - 1)) % m
            before = (slice(None),) * axis
            for step in steps:
                higher = residue[step] > residue[steps[m - 1]]
                if higher.any():
                    counts += centre[(*before, step)] * higher.astype(dtype).reshape(-1, *behind)
            if axis:
                total = summed[(*before, steps[0])].copy()
                for step in steps[1:]:
                    total += summed[(*before, step)]
                summed = total
        return counts.astype(np.int32)

    def rank(self, indices: Ints) -> Ints:
        """Return the C-order position of each residue (a higher rank is a lower level); axes along the last axis."""
        rank = indices[..., 0] % self.moduli[0]
        for axis in range(1, len(self.moduli)):
            rank *= self.moduli[axis]
            rank += indices[..., axis] % self.moduli[axis]
        return rank

    def _neighbours(self, indices: Ints, *, higher: bool) -> Iterator[Ints]:
        if not len(self.offsets) or not len(indices):
            return
        blocks_at_once = max(1, PAIRS_AT_ONCE // len(self.offsets))
        offsets_at_once = PAIRS_AT_ONCE
        shape = np.array(self.shape)
        for start in range(0, len(indices), blocks_at_once):
            batch = indices[start : start + blocks_at_once]
            rank = self.rank(batch)[:, None]
            for first in range(0, len(self.offsets), offsets_at_once):
                pairs = batch[:, None, :] + self.offsets[None, first : first + offsets_at_once, :]
                other = self.rank(pairs)
                chosen = (other < rank) if higher else (other > rank)
                chosen &= (pairs >= 0).all(axis=2)
                chosen &= (pairs < shape).all(axis=2)
                yield pairs[chosen]


def place(flags: Flags, origin: Sequence[int], into: Flags, begin: Sequence[int]) -> None:
    """Copy the part of `flags`, a box that begins at `origin`, that lies in the box `into`, which begins at `begin`."""
    source, target = [], []
    for o, n, b, m in zip(origin, flags.shape, begin, into.shape, strict=True):
        first, last = max(o, b), min(o + n, b + m)
        if first >= last:
            return
        source.append(slice(first - o, last - o))
        target.append(slice(first - b, last - b))
    into[tuple(target)] = flags[tuple(source)]

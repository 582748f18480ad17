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
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blockyard.plan.grid import Grid, Index, Ints, ceil_div

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
        """Give the level of each block, shape (n,), from index vectors, shape (n, axes); level 0 runs first."""
        return self.count - 1 - self.rank(indices)

    def waiters(self, indices: Ints) -> Iterator[Ints]:
        """Give the blocks that wait for the given ones, in batches of shape (n, axes); once for each pair."""
        return self._neighbours(indices, higher=True)

    def blockers(self, indices: Ints) -> Iterator[Ints]:
        """Give the blocks that the given ones wait for, in batches of shape (n, axes); once for each pair."""
        return self._neighbours(indices, higher=False)

    def waits(self, indices: Ints, offset: Ints) -> npt.NDArray[np.bool_]:
        """Say for each block whether it waits for the one at `offset` (which must conflict), if that exists."""
        return self.rank(indices + offset) > self.rank(indices)

    def rank(self, indices: Ints) -> Ints:
        """Give the C-order position of each residue (a higher rank is a lower level); the last axis holds the axes."""
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

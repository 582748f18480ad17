"""The grid of one task: from the three ROIs and the fit to the number of blocks, and from an index to its ROIs.

One axis, with block read ROI R = [r0, r1), write ROI W = [w0, w1) and total ROI T = [t0, t1)::

    context below  cl = w0 - r0        stride       s  = w1 - w0
    context above  cu = r1 - w1        total write  TW = [t0 + cl, t1 - cu), L = |TW|

    T        |-----------------------------|            L = 10, s = 4, cl = cu = 1
    TW         |-------------------------|
    valid      |--0---|  |--1---|           .           floor(L / s) = 2 blocks
    overhang   |--0---|  |--1---|  |--2--.--|           ceil(L / s) = 3 blocks, the last reaches over
    shrink     |--0---|  |--1---|  |--2--|              ceil(L / s) = 3 blocks, the last is clipped

Block i writes [t0 + cl + i s, + s) and reads [t0 + i s, + cl + s + cu); `shrink` clips the write to TW and the read to
T. In n dimensions the grid is the product of the axes, and a block's id is the C-order linear index of its index
vector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from blockyard.spec.errors import SpecError
from blockyard.spec.model import Fit, RoiSpec, TaskSpec

Ints: TypeAlias = npt.NDArray[np.int64]
Index: TypeAlias = tuple[int, ...]

LARGEST_GRID = 2**62
"""Block ids are 64-bit integers."""


def ceil_div(a: int, b: int) -> int:
    """Return the ceiling of a / b for b > 0, exact for integers of any size."""
    return -(-a // b)


@dataclass(frozen=True, slots=True)
class Grid:
    """All blocks of one task, as arithmetic. Indices are int64 arrays of shape (blocks, axes); boxes are half-open."""

    total_begin: Index
    total_end: Index
    below: Index
    """Context below the write ROI on each axis (cl)."""
    above: Index
    """Context above the write ROI on each axis (cu)."""
    stride: Index
    """Size of the write ROI on each axis (s)."""
    fit: Fit
    shape: Index
    """Number of blocks on each axis."""
    size: int
    """Number of blocks."""

    @classmethod
    def of(cls, task: TaskSpec) -> Grid:
        """Build the grid of a valid task. Raises SpecError where it has more blocks than an id can count."""
        total, read, write = task.total_roi, task.read_roi, task.write_roi
        below = tuple(w - r for w, r in zip(write.begin, read.begin, strict=True))
        above = tuple(r - w for w, r in zip(write.end, read.end, strict=True))
        stride = write.shape
        length = [n - b - a for n, b, a in zip(total.shape, below, above, strict=True)]
        if task.fit == "valid":
            shape = tuple(max(n, 0) // s for n, s in zip(length, stride, strict=True))
        else:
            shape = tuple(max(ceil_div(n, s), 0) for n, s in zip(length, stride, strict=True))
        size = math.prod(shape)
        if size > LARGEST_GRID:
            raise SpecError(
                f"task '{task.id}' has {size} blocks {shape}, more than the {LARGEST_GRID} that fit an id;"
                f" make write_roi {write} larger"
            )
        return cls(total.begin, total.end, below, above, stride, task.fit, shape, size)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.stride)

    @property
    def write_begin(self) -> Index:
        """Begin of the first block's write ROI."""
        return tuple(t + c for t, c in zip(self.total_begin, self.below, strict=True))

    @property
    def write_end(self) -> Index:
        """End of the last block's write ROI (for shrink: of the total write ROI); the begin where there is no block."""
        ends = []
        for begin, total_end, above, stride, n in zip(
            self.write_begin, self.total_end, self.above, self.stride, self.shape, strict=True
        ):
            end = begin + n * stride
            ends.append(max(min(end, total_end - above), begin) if self.fit == "shrink" else end)
        return tuple(ends)

    # --- one block ---------------------------------------------------------------------------------------------

    def index_of(self, block_id: int) -> Index:
        """Return the index vector of a block id. Raises IndexError outside 0 .. size - 1."""
        if not 0 <= block_id < self.size:
            raise IndexError(f"block id {block_id} is outside 0 .. {self.size - 1}")
        index = []
        for n in reversed(self.shape):
            block_id, at = divmod(block_id, n)
            index.append(at)
        return tuple(reversed(index))

    def id_of(self, index: Index) -> int:
        """Return the block id of an index vector. Raises IndexError outside the grid."""
        block_id = 0
        for at, n in zip(index, self.shape, strict=True):
            if not 0 <= at < n:
                raise IndexError(f"block index {tuple(index)} is outside the grid {self.shape}")
            block_id = block_id * n + at
        return block_id

    def write_roi(self, index: Index) -> RoiSpec:
        """Return what the block at `index` writes."""
        begin = tuple(w + i * s for w, i, s in zip(self.write_begin, index, self.stride, strict=True))
        if self.fit != "shrink":
            return RoiSpec(begin, self.stride)
        limit = [t - a for t, a in zip(self.total_end, self.above, strict=True)]
        return RoiSpec(begin, tuple(min(b + s, e) - b for b, s, e in zip(begin, self.stride, limit, strict=True)))

    def read_roi(self, index: Index) -> RoiSpec:
        """Return what the block at `index` reads."""
        begin = tuple(t + i * s for t, i, s in zip(self.total_begin, index, self.stride, strict=True))
        shape = tuple(b + s + a for b, s, a in zip(self.below, self.stride, self.above, strict=True))
        if self.fit != "shrink":
            return RoiSpec(begin, shape)
        return RoiSpec(begin, tuple(min(b + n, e) - b for b, n, e in zip(begin, shape, self.total_end, strict=True)))

    # --- batches -----------------------------------------------------------------------------------------------

    def unravel(self, ids: Ints) -> Ints:
        """Return the index vectors, shape (n, axes), of block ids, shape (n,)."""
        indices = np.empty((len(ids), self.ndim), np.int64)
        rest = ids
        for axis in range(self.ndim - 1, 0, -1):
            rest, indices[:, axis] = np.divmod(rest, self.shape[axis])
        indices[:, 0] = rest
        return indices

    def ravel(self, indices: Ints) -> Ints:
        """Return the block ids, shape (n,), of index vectors, shape (n, axes)."""
        ids = indices[:, 0].copy()
        for axis in range(1, self.ndim):
            ids *= self.shape[axis]
            ids += indices[:, axis]
        return ids

    def holds(self, indices: Ints) -> npt.NDArray[np.bool_]:
        """Say which index vectors, shape (n, axes), are blocks of the grid."""
        return np.asarray(((indices >= 0) & (indices < np.array(self.shape))).all(axis=1))

    def voxels_written(self, indices: Ints) -> int:
        """Return how many voxels the blocks of these index vectors, shape (n, axes), write together."""
        begin = np.array(self.write_begin) + indices * np.array(self.stride)
        end = np.minimum(begin + np.array(self.stride), np.array(self.write_end))
        return int((end - begin).prod(axis=1).sum())

    # --- ROIs to index boxes -----------------------------------------------------------------------------------

    def writers(self, roi: RoiSpec) -> tuple[Index, Index]:
        """Return the index box [lo, hi) of the blocks whose write ROI meets `roi`; empty (lo == hi) where none does.

        Per axis, with u0 and u1 the ends of all that is written: a = max(begin, u0) - u0 and b = min(end, u1) - u0;
        a >= b means none, else [floor(a / s), ceil(b / s)).
        """
        lo, hi = [], []
        for begin, end, first, last, stride in zip(
            roi.begin, roi.end, self.write_begin, self.write_end, self.stride, strict=True
        ):
            a, b = max(begin, first) - first, min(end, last) - first
            if a >= b:
                return (0,) * self.ndim, (0,) * self.ndim
            lo.append(a // stride)
            hi.append(ceil_div(b, stride))
        return tuple(lo), tuple(hi)

    def read_box(self, lo: Index, hi: Index) -> RoiSpec:
        """Return the box that the blocks of the non-empty index box [lo, hi) read together: it has no holes."""
        begin = self.read_roi(lo).begin
        end = self.read_roi(tuple(h - 1 for h in hi)).end
        return RoiSpec(begin, tuple(e - b for b, e in zip(begin, end, strict=True)))

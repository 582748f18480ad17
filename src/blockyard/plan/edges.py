"""Between two tasks: which upstream blocks a block waits for, and which downstream blocks wait for a block.

Downstream block B waits for every upstream block X with X.write meeting B.read. Along one axis the upstream writes tile
[u0, u1) with stride s, so these are the indices ``[floor(a/s), ceil(b/s))`` with a and b the ends of B.read clipped to
[u0, u1), less u0. The inverse is the same formula on X.write grown by (context above, context below) of the downstream
task, over the downstream grid: what B reads below itself lies above X's end, and the reverse.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from blockyard.plan.grid import Grid, Index, Ints
from blockyard.plan.levels import Counts, Flags
from blockyard.spec.model import RoiSpec


@dataclass(frozen=True, slots=True)
class Edge:
    """A downstream task requires an upstream task. Boxes are half-open index boxes; an empty one has lo >= hi = 0."""

    upstream: Grid
    downstream: Grid

    def blockers(self, indices: Ints) -> tuple[Ints, Ints]:
        """Return for each downstream block the box [lo, hi) of upstream blocks it waits for, two arrays (n, axes)."""
        return _boxes([self.axis_blockers(axis, indices[:, axis]) for axis in range(self.downstream.ndim)])

    def axis_blockers(self, axis: int, index: Ints) -> tuple[Ints, Ints]:
        """Return along one axis the range [lo, hi) of upstream indices to wait for; lo >= hi: none."""
        down = self.downstream
        begin = index * down.stride[axis] + down.total_begin[axis]
        end = begin + (down.below[axis] + down.stride[axis] + down.above[axis])
        if down.fit == "shrink":
            end = np.minimum(end, down.total_end[axis])
        return _axis_range(self.upstream, axis, begin, end)

    def waiters(self, indices: Ints) -> tuple[Ints, Ints]:
        """Return for each upstream block the box [lo, hi) of blocks that wait for it, two arrays (n, axes)."""
        up, down = self.upstream, self.downstream
        ranges = []
        for axis in range(up.ndim):
            begin = indices[:, axis] * up.stride[axis] + up.write_begin[axis]
            end = np.minimum(begin + up.stride[axis], up.write_end[axis])
            ranges.append(_axis_range(down, axis, begin - down.above[axis], end + down.below[axis]))
        return _boxes(ranges)

    def count_blockers(self, flags: Flags, origin: Index, lo: Index, hi: Index) -> Counts:
        """Return for each downstream block of the box [lo, hi) how many of the flagged upstream blocks it waits for.

        `flags` is an array over the upstream box that begins at `origin`; blocks outside it are not flagged. A block
        waits for a box, separable by axis: a running sum along each axis and two look-ups in it.
        """
        counts = flags.astype(np.int32)
        for axis in range(counts.ndim):
            begin, end = self.axis_blockers(axis, np.arange(lo[axis], hi[axis]))
            size = counts.shape[axis]
            end = np.clip(end - origin[axis], 0, size)
            begin = np.minimum(np.clip(begin - origin[axis], 0, size), end)
            sums = np.zeros((*counts.shape[:axis], size + 1, *counts.shape[axis + 1 :]), np.int32)
            np.cumsum(counts, axis=axis, dtype=np.int32, out=sums[(slice(None),) * axis + (slice(1, None),)])
            counts = np.take(sums, end, axis=axis) - np.take(sums, begin, axis=axis)
        return counts

    def blockers_of_box(self, lo: Index, hi: Index) -> tuple[Index, Index]:
        """Return the box of upstream blocks that any block of the non-empty downstream box [lo, hi) waits for."""
        return self.upstream.writers(self.downstream.read_box(lo, hi))

    def waiters_of_box(self, lo: Index, hi: Index) -> tuple[Index, Index]:
        """Return the box of downstream blocks that wait for any block of the non-empty upstream box [lo, hi)."""
        up, down = self.upstream, self.downstream
        begin = up.write_roi(lo).begin
        end = up.write_roi(tuple(h - 1 for h in hi)).end
        grown = [(b - a, e + c) for b, e, a, c in zip(begin, end, down.above, down.below, strict=True)]
        return down.writers(RoiSpec(tuple(b for b, _ in grown), tuple(e - b for b, e in grown)))

    def common_blockers_of_box(self, lo: Index, hi: Index) -> tuple[Index, Index]:
        """Return the box of upstream blocks that *every* block of the downstream box waits for; may be empty."""
        last = np.array([[h - 1 for h in hi]])
        first_lo, first_hi = self.blockers(np.array([lo]))
        last_lo, last_hi = self.blockers(last)
        begin, end = np.maximum(first_lo, last_lo)[0], np.minimum(first_hi, last_hi)[0]
        return tuple(begin.tolist()), tuple(end.tolist())

    def fed_box(self) -> tuple[Index, Index]:
        """Return the box of downstream blocks that wait for at least one upstream block (full upstream grid)."""
        if self.upstream.size == 0:
            return (0,) * self.downstream.ndim, (0,) * self.downstream.ndim
        return self.waiters_of_box((0,) * self.upstream.ndim, self.upstream.shape)


def _axis_range(grid: Grid, axis: int, begin: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Return the range [lo, hi) of indices along one axis whose writes meet [begin, end); lo >= hi where none does."""
    origin, stride = grid.write_begin[axis], grid.stride[axis]
    a = np.maximum(begin - origin, 0)
    b = np.minimum(end, grid.write_end[axis]) - origin
    lo = a // stride
    return lo, np.where(a < b, -(-b // stride), lo)


def _boxes(ranges: list[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    """Join the ranges along each axis to boxes; one that is empty along any axis becomes [0, 0)."""
    lo = np.stack([lo for lo, _ in ranges], axis=1)
    hi = np.stack([hi for _, hi in ranges], axis=1)
    empty = (lo >= hi).any(axis=1)
    lo[empty] = 0
    hi[empty] = 0
    return lo, hi


def expand(lo: Ints, hi: Ints, *, most: int = 2**18) -> Iterator[Ints]:
    """Return the index vectors of boxes, row by row, in batches of at most about `most` rows of shape (n, axes).

    A block that lies in several boxes comes once for each.
    """
    full = (hi > lo).all(axis=1)
    if not full.all():
        lo, hi = lo[full], hi[full]
    if not len(lo):
        return
    width = (hi - lo).max(axis=0)
    steps = np.stack([axis.ravel() for axis in np.meshgrid(*(np.arange(w) for w in width), indexing="ij")], axis=1)
    at_once = max(1, most // len(steps))
    for start in range(0, len(lo), at_once):
        pairs = lo[start : start + at_once, None, :] + steps[None, :, :]
        yield pairs[(pairs < hi[start : start + at_once, None, :]).all(axis=2)]

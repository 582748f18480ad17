"""Between two tasks: which upstream blocks a block waits for, and which downstream blocks wait for a block.

Downstream block B waits for every upstream block X with X.write meeting B.read. Along one axis the upstream writes tile
[u0, u1) with stride s, so these are the indices ``[floor(a/s), ceil(b/s))`` with a and b the ends of B.read clipped to
[u0, u1), less u0. The inverse is the same formula on X.write grown by (context above, context below) of the downstream
task, over the downstream grid: what B reads below itself lies above X's end, and the reverse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blockyard.plan.grid import Grid, Index, Ints
from blockyard.spec.model import RoiSpec


@dataclass(frozen=True, slots=True)
class Edge:
    """A downstream task requires an upstream task. Boxes are half-open index boxes; an empty one has lo >= hi = 0."""

    upstream: Grid
    downstream: Grid

    def blockers(self, indices: Ints) -> tuple[Ints, Ints]:
        """Give for each downstream block the box [lo, hi) of upstream blocks it waits for, two arrays (n, axes)."""
        down = self.downstream
        begin = indices * np.array(down.stride) + np.array(down.total_begin)
        end = begin + (np.array(down.below) + np.array(down.stride) + np.array(down.above))
        if down.fit == "shrink":
            end = np.minimum(end, np.array(down.total_end))
        return _boxes(self.upstream, begin, end)

    def waiters(self, indices: Ints) -> tuple[Ints, Ints]:
        """Give for each upstream block the box [lo, hi) of downstream blocks that wait for it, two arrays (n, axes)."""
        up, down = self.upstream, self.downstream
        begin = indices * np.array(up.stride) + np.array(up.write_begin)
        end = np.minimum(begin + np.array(up.stride), np.array(up.write_end))
        return _boxes(down, begin - np.array(down.above), end + np.array(down.below))

    def blockers_of_box(self, lo: Index, hi: Index) -> tuple[Index, Index]:
        """Give the box of upstream blocks that any block of the non-empty downstream box [lo, hi) waits for."""
        return self.upstream.writers(self.downstream.read_box(lo, hi))

    def waiters_of_box(self, lo: Index, hi: Index) -> tuple[Index, Index]:
        """Give the box of downstream blocks that wait for any block of the non-empty upstream box [lo, hi)."""
        up, down = self.upstream, self.downstream
        begin = up.write_roi(lo).begin
        end = up.write_roi(tuple(h - 1 for h in hi)).end
        grown = [(b - a, e + c) for b, e, a, c in zip(begin, end, down.above, down.below, strict=True)]
        return down.writers(RoiSpec(tuple(b for b, _ in grown), tuple(e - b for b, e in grown)))

    def common_blockers_of_box(self, lo: Index, hi: Index) -> tuple[Index, Index]:
        """Give the box of upstream blocks that *every* block of the downstream box waits for; may be empty."""
        last = np.array([[h - 1 for h in hi]])
        first_lo, first_hi = self.blockers(np.array([lo]))
        last_lo, last_hi = self.blockers(last)
        begin, end = np.maximum(first_lo, last_lo)[0], np.minimum(first_hi, last_hi)[0]
        return tuple(begin.tolist()), tuple(end.tolist())

    def fed_box(self) -> tuple[Index, Index]:
        """Give the box of downstream blocks that wait for at least one upstream block (full upstream grid)."""
        if self.upstream.size == 0:
            return (0,) * self.downstream.ndim, (0,) * self.downstream.ndim
        return self.waiters_of_box((0,) * self.upstream.ndim, self.upstream.shape)


def _boxes(grid: Grid, begin: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Give the index boxes of the blocks of `grid` whose write ROI meets [begin, end), row by row."""
    origin = np.array(grid.write_begin)
    stride = np.array(grid.stride)
    a = np.maximum(begin - origin, 0)
    b = np.minimum(end, np.array(grid.write_end)) - origin
    lo = a // stride
    hi = -(-b // stride)
    none = (a >= b).any(axis=1)
    if none.any():
        lo[none] = 0
        hi[none] = 0
    return lo, hi

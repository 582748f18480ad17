"""Which blocks share a chunk or shard of an array: what is written at once is a whole one, read, changed and put back.

One axis, in the units of the ROIs; blocks of 4 from 2 on, in chunks of 8::

    chunks   |-------|-------|-------|
    blocks     |-0-|-1-|-2-|-3-|             block 1 writes into two chunks, chunk 0 has three writers

Blocks share nothing where every border between two of them is a border of units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from blockyard.plan.grid import Grid, ceil_div


@dataclass(frozen=True, slots=True)
class ArrayFacts:
    """What is known of an array that a parameter names."""

    task: str
    parameter: str
    path: str
    """As the parameters say it."""
    role: str
    """``writes`` or ``reads``, by the parameter's name; "" where that does not say it."""
    unit_name: str
    """``chunk`` or ``shard``: what is written as a whole."""
    shape: tuple[int, ...]
    """In voxels."""
    unit: tuple[int, ...]
    """In voxels."""
    voxel_size: tuple[int, ...] | None = None
    """In world units, for as many axes as blocks have; None where the array does not say it in whole numbers."""
    offset: tuple[int, ...] | None = None
    """Of its first voxel, in world units."""
    declared: bool = False
    """Whether the task says that it reads or writes it: then ROIs are in world units, and nothing is guessed."""


@dataclass(frozen=True, slots=True)
class Placed:
    """The array's last axes, those that blocks have, in the units of the ROIs; axes before them are channels."""

    begin: tuple[int, ...]
    end: tuple[int, ...]
    unit: tuple[int, ...]

    @classmethod
    def of(cls, array: ArrayFacts, grid: Grid) -> Placed | None:
        """Return where an array lies under a grid: in voxels, or in world units where what is written fits only so."""
        if len(array.shape) < grid.ndim or len(array.unit) != len(array.shape):
            return None
        shape, unit = array.shape[-grid.ndim :], array.unit[-grid.ndim :]
        voxels = cls((0,) * grid.ndim, shape, unit)
        size = array.voxel_size
        if size is None or len(size) != grid.ndim:
            return voxels
        offset = array.offset if array.offset is not None and len(array.offset) == grid.ndim else (0,) * grid.ndim
        world = cls(
            offset,
            tuple(o + n * v for o, n, v in zip(offset, shape, size, strict=True)),
            tuple(u * v for u, v in zip(unit, size, strict=True)),
        )
        if array.declared:
            return world
        in_voxels = voxels.holds(grid.write_begin, grid.write_end)
        return voxels if in_voxels and not any(offset) else world

    def holds(self, begin: Sequence[int], end: Sequence[int]) -> bool:
        """Whether a box lies in the array."""
        inside = zip(self.begin, begin, end, self.end, strict=True)
        return all(first <= b and e <= last for first, b, e, last in inside)


def most_in_unit(grid: Grid, placed: Placed) -> int:
    """Return how many blocks write into one unit, at most; 1 where no two share one."""
    most = 1
    for begin, stride, n, first, unit in zip(
        grid.write_begin, grid.stride, grid.shape, placed.begin, placed.unit, strict=True
    ):
        at = begin - first
        if n < 2 or ((at + stride) % unit == 0 and (n == 2 or stride % unit == 0)):
            continue  # every border between blocks is a border of units
        step = math.gcd(unit, stride)
        # A unit begins (some of) 0 ... stride - 1 voxels into a block: the later, the more blocks reach into it.
        latest = stride - step + (-at) % step
        most *= min(ceil_div(latest + unit, stride), n)
    return most


def always_in_order(grid: Grid, placed: Placed) -> bool:
    """Whether blocks that share a unit always conflict by what they read, so that no two of them run at once."""
    for at, (stride, n, unit) in enumerate(zip(grid.stride, grid.shape, placed.unit, strict=True)):
        reach = min(ceil_div(grid.below[at], stride), ceil_div(grid.above[at], stride))
        if min(ceil_div(unit - 1, stride), n - 1) > reach:
            return False
    return True


def fitting_shape(grid: Grid, placed: Placed) -> tuple[int, ...]:
    """Return the write shape nearest to that of the blocks whose blocks share no unit, begun at the border of one."""
    axes = zip(grid.stride, grid.shape, placed.unit, strict=True)
    return tuple(stride if n < 2 else max(unit, round(stride / unit) * unit) for stride, n, unit in axes)


def fitting_begin(grid: Grid, placed: Placed) -> tuple[int, ...]:
    """Return the nearest border of units at or below the first voxel that is written, on axes of several blocks."""
    axes = zip(grid.write_begin, grid.shape, placed.begin, placed.unit, strict=True)
    return tuple(begin if n < 2 else begin - (begin - first) % unit for begin, n, first, unit in axes)

"""Z-order: one Morton key for the blocks of all tasks, so that tasks advance through space together.

``q_k = (write.begin_k - o_k) // g_k`` on axis k, with g_k the smallest stride and o_k the smallest first write begin
over the tasks of the run. Axis k has bit_length(max q_k) bits. They are interleaved from bit 0 up, the last axis
lowest, skipping axes whose bits are used up::

    q = (z: 2 bits, y: 1 bit, x: 3 bits)      key = x2 z1 x1 z0 y0 x0

The key is separable: a small table for each axis, OR-ed. A key of more than 64 bits is a Python integer (dtype object).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from blockyard.plan.grid import Grid, Ints

Keys: TypeAlias = npt.NDArray[Any]
"""uint64, or object where 64 bits are not enough."""

TABLE_ENTRIES = 2**18
"""Longest table kept for one axis; longer axes are computed."""
WORD_BITS = 64


class ZOrder:
    """Keys for the blocks of the given grids, by task id."""

    def __init__(self, grids: Mapping[str, Grid]) -> None:
        ndim = max((grid.ndim for grid in grids.values()), default=0)
        self._grids = dict(grids)
        self._origin: list[int] = []
        self._unit: list[int] = []
        bits = []
        for axis in range(ndim):
            with_axis = [grid for grid in grids.values() if axis < grid.ndim]
            self._origin.append(min(grid.write_begin[axis] for grid in with_axis))
            self._unit.append(min(grid.stride[axis] for grid in with_axis))
            bits.append(max(self._quotient(grid, axis, grid.shape[axis] - 1) for grid in with_axis).bit_length())
        self._positions: list[list[int]] = [[] for _ in range(ndim)]
        position = 0
        for bit in range(max(bits, default=0)):
            for axis in reversed(range(ndim)):
                if bit < bits[axis]:
                    self._positions[axis].append(position)
                    position += 1
        self.bits = position
        self.dtype: np.dtype[Any] = np.dtype(np.uint64 if position <= WORD_BITS else object)
        self._tables: dict[tuple[str, int], Keys] = {}

    def keys(self, task: str, indices: Ints) -> Keys:
        """Return the keys, shape (n,), of index vectors, shape (n, axes), of one task."""
        keys = self._axis_keys(task, 0, indices[:, 0])
        for axis in range(1, indices.shape[1]):
            keys = keys | self._axis_keys(task, axis, indices[:, axis])
        return keys

    def _quotient(self, grid: Grid, axis: int, index: int) -> int:
        begin = grid.write_begin[axis] + max(index, 0) * grid.stride[axis]
        return (begin - self._origin[axis]) // self._unit[axis]

    def _axis_keys(self, task: str, axis: int, index: Ints) -> Keys:
        n = self._grids[task].shape[axis]
        if n > TABLE_ENTRIES:
            return self._spread(task, axis, index)
        table = self._tables.get((task, axis))
        if table is None:
            table = self._tables[task, axis] = self._spread(task, axis, np.arange(n))
        return table[index]

    def _spread(self, task: str, axis: int, index: Ints) -> Keys:
        """Put the bits of the quotients of one axis where they go in the key."""
        grid = self._grids[task]
        quotient = (index * grid.stride[axis] + (grid.write_begin[axis] - self._origin[axis])) // self._unit[axis]
        word = quotient.astype(self.dtype)
        one = self.dtype.type(1) if self.dtype != object else 1
        keys = np.zeros(len(index), self.dtype)
        for bit, position in enumerate(self._positions[axis]):
            if self.dtype == object:
                keys |= ((word >> bit) & 1) << position
            else:
                keys |= ((word >> np.uint64(bit)) & one) << np.uint64(position)
        return keys

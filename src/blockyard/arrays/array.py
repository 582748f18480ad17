"""The array that a function of a block gets: it takes ROIs, in world units.

def smooth(block, raw, smooth):
smooth[block.write_roi] = gaussian_filter(raw[block.read_roi], 2)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from funlib.geometry import Coordinate, Roi

from blockyard.arrays.padding import Pad, check_pad, inside
from blockyard.arrays.stores import Store
from blockyard.spec.block import Block
from blockyard.spec.errors import BlockyardError


class ArrayError(BlockyardError):
    """A ROI that an array does not have."""


class Array:
    """An open array of a task: ``array[roi]`` reads, ``array[roi] = values`` writes.

    ROIs are in world units and of the axes that blocks have, which are the array's last; axes before them are channels,
    read and written whole. Safe to use from several threads.
    """

    def __init__(self, name: str, store: Store, voxel_size: Sequence[int], offset: Sequence[int], writes: bool) -> None:
        self.name = name
        self.data = store.data
        """tensorstore's own object, in voxels."""
        self.dtype = store.dtype
        self.shape = store.shape
        """In voxels, channels first."""
        self.voxel_size = Coordinate(voxel_size)
        self.offset = Coordinate(offset)
        self._writes = writes
        self._ndim = len(self.voxel_size)

    @property
    def roi(self) -> Roi:
        """All of it, in world units."""
        return Roi(self.offset, Coordinate(self.shape[-self._ndim :]) * self.voxel_size)

    def __getitem__(self, roi: Roi) -> npt.NDArray[Any]:
        """Read a ROI; what is outside the volume is reflected at its faces, see `read`."""
        return self.read(roi)

    def read(self, roi: Roi, pad: Pad | None = "reflect") -> npt.NDArray[Any]:
        """Return the voxels of a ROI, a new array in memory.

        `pad` is what stands outside the volume: reflect, mirror, nearest or wrap as scipy.ndimage means them, a number,
        or None: that is an error. So is a ROI that does not meet the volume at all.
        """
        box = self._box(roi)
        sizes = self.shape[-self._ndim :]
        if all(b >= 0 and e <= n for (b, e), n in zip(box, sizes, strict=True)):
            return self.data[(..., *(slice(b, e) for b, e in box))].read().result()
        if pad is None or any(e <= 0 or b >= n for (b, e), n in zip(box, sizes, strict=True)):
            raise ArrayError(f"array '{self.name}' has {self.roi}, but {roi} was read")
        check_pad(pad)
        at = [inside(b, e, n, pad) for (b, e), n in zip(box, sizes, strict=True)]
        if isinstance(pad, str):
            return self.data.oindex[(..., *at)].read().result()
        found = np.full((*self.shape[: -self._ndim], *map(len, at)), pad, self.dtype)
        known = [np.flatnonzero(a >= 0) for a in at]
        held: tuple[Any, ...] = (..., *(slice(int(k[0]), int(k[-1]) + 1) for k in known))
        there = tuple(slice(int(a[k[0]]), int(a[k[-1]]) + 1) for a, k in zip(at, known, strict=True))
        found[held] = self.data[(..., *there)].read().result()
        return found

    def __setitem__(self, roi: Roi, values: Any) -> None:
        """Write a ROI, which must lie inside the array; values of another type are cast as numpy does."""
        self.write(roi, values)

    def write(self, roi: Roi, values: Any, block: Block | None = None) -> None:
        """Write a ROI. Where `values` have the shape of what `block` reads, the part that it writes is taken."""
        if not self._writes:
            raise ArrayError(f"array '{self.name}' is in reads of its task; name it in writes to write it")
        box = self._box(roi)
        if any(b < 0 or e > n for (b, e), n in zip(box, self.shape[-self._ndim :], strict=True)):
            raise ArrayError(f"array '{self.name}' has {self.roi}, but {roi} was written")
        part = self.data[(..., *(slice(b, e) for b, e in box))]
        data = np.asarray(values)
        if block is not None and data.ndim >= self._ndim:
            data = self._cropped(data, roi, box, block)
        part.write(np.broadcast_to(data.astype(self.dtype, copy=False), part.shape)).result()

    def of(self, block: Block) -> ArrayOfBlock:
        """Return the array as the function of a block gets it."""
        return ArrayOfBlock(self, block)

    def _cropped(self, data: npt.NDArray[Any], roi: Roi, box: list[tuple[int, int]], block: Block) -> npt.NDArray[Any]:
        """Return what belongs into `roi` of values of the shape of a block's read ROI; other values as they are."""
        read = self._box(block.read_roi)
        shape = data.shape[-self._ndim :]
        if shape == tuple(e - b for b, e in box) or shape != tuple(e - b for b, e in read) or roi != block.write_roi:
            return data
        part: tuple[Any, ...] = tuple(slice(b - rb, e - rb) for (b, e), (rb, _) in zip(box, read, strict=True))
        return data[(..., *part)]

    def _box(self, roi: Roi) -> list[tuple[int, int]]:
        """Return begin and end on each axis, in voxels from the array's first on."""
        if not isinstance(roi, Roi) or roi.dims != self._ndim:
            raise ArrayError(f"array '{self.name}' takes a Roi of {self._ndim} axes, not {roi!r}")
        box = []
        for axis, (begin, end, offset, size) in enumerate(
            zip(roi.begin, roi.end, self.offset, self.voxel_size, strict=True)
        ):
            if (begin - offset) % size or (end - offset) % size:
                raise ArrayError(
                    f"array '{self.name}' has voxels of {size} from {offset} on on axis {axis}, and {begin}:{end} is no"
                    " whole number of them"
                )
            box.append((int(begin - offset) // size, int(end - offset) // size))
        return box

    def __repr__(self) -> str:
        return f"Array {self.name} of {self.dtype}, {self.roi}, voxels of {self.voxel_size}"


class ArrayOfBlock:
    """An array while a block runs: an `Array` that knows the block, so that what a block read fits what it writes."""

    __slots__ = ("_array", "_block")

    def __init__(self, array: Array, block: Block) -> None:
        self._array = array
        self._block = block

    def __getitem__(self, roi: Roi) -> npt.NDArray[Any]:
        return self._array.read(roi)

    def __setitem__(self, roi: Roi, values: Any) -> None:
        self._array.write(roi, values, self._block)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._array, name)

    def __repr__(self) -> str:
        return repr(self._array)

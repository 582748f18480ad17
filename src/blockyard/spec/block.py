"""A block as user code sees it: an index of a grid; its ROIs are arithmetic and built when asked."""

from __future__ import annotations

from typing import Any, Protocol

from funlib.geometry import Roi

from blockyard.spec.model import RoiSpec


class BlockGeometry(Protocol):
    """What a block asks of its grid (`blockyard.plan.grid.Grid` has it)."""

    def index_of(self, block_id: int) -> tuple[int, ...]:
        """Index vector of a block id."""

    def read_roi(self, index: tuple[int, ...]) -> RoiSpec:
        """What the block at `index` reads."""

    def write_roi(self, index: tuple[int, ...]) -> RoiSpec:
        """What the block at `index` writes."""


class Block:
    """One block of one task.

    ``task_id`` and ``block_id`` name it, ``index`` is its place in the task's full grid, ``read_roi`` and ``write_roi``
    are funlib.geometry Rois in voxels, ``attempt`` counts from 1. User code may set ``status``: 0 or
    SUCCESS, 1 or FAILED, of any enum.
    """

    __slots__ = ("_geometry", "attempt", "block_id", "lease", "status", "task_id")

    def __init__(self, geometry: BlockGeometry, task_id: str, block_id: int, attempt: int = 1, lease: int = -1) -> None:
        self._geometry = geometry
        self.task_id = task_id
        self.block_id = block_id
        self.attempt = attempt
        self.lease = lease
        self.status: Any = None

    @property
    def index(self) -> tuple[int, ...]:
        """Place in the task's full grid, one integer an axis."""
        return self._geometry.index_of(self.block_id)

    @property
    def read_roi(self) -> Roi:
        """What the block reads, in voxels."""
        return self._geometry.read_roi(self.index).to_roi()

    @property
    def write_roi(self) -> Roi:
        """What the block writes, in voxels."""
        return self._geometry.write_roi(self.index).to_roi()

    def __repr__(self) -> str:
        return f"{self.task_id}/{self.block_id} reading {self.read_roi}, writing {self.write_roi}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Block) and (self.task_id, self.block_id) == (other.task_id, other.block_id)

    def __hash__(self) -> int:
        return hash((self.task_id, self.block_id))

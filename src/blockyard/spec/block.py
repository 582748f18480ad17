"""A block as user code sees it: an index of a grid; its ROIs are arithmetic and built when asked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
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


@dataclass(frozen=True, slots=True)
class GridOfRun:
    """The geometry of a task's blocks with the name of their run, which seeds their random numbers."""

    grid: BlockGeometry
    run: str

    def index_of(self, block_id: int) -> tuple[int, ...]:
        """Index vector of a block id."""
        return self.grid.index_of(block_id)

    def read_roi(self, index: tuple[int, ...]) -> RoiSpec:
        """What the block at `index` reads."""
        return self.grid.read_roi(index)

    def write_roi(self, index: tuple[int, ...]) -> RoiSpec:
        """What the block at `index` writes."""
        return self.grid.write_roi(index)


class Block:
    """One block of one task.

    ``task_id`` and ``block_id`` name it, ``index`` is its place in the task's full grid, ``read_roi`` and ``write_roi``
    are funlib.geometry Rois in voxels, ``attempt`` counts from 1, ``rng`` gives random numbers. User code may set
    ``status``: 0 or SUCCESS, 1 or FAILED, of any enum.
    """

    __slots__ = ("_geometry", "_rng", "attempt", "block_id", "lease", "status", "task_id")
    _rng: np.random.Generator

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

    @property
    def rng(self) -> np.random.Generator:
        """The block's own random generator, made when first asked for.

        It is seeded by the names of run and task and the block's id: the numbers are the same at each attempt, with
        any number of workers, in a serial run, and when the run is done again under its name.
        """
        try:
            return self._rng
        except AttributeError:
            self._rng = np.random.default_rng(self.seed())
            return self._rng

    def seed(self, *more: int) -> np.random.SeedSequence:
        """Return what seeds the block's random numbers; `more` numbers give independent ones."""
        names = f"{getattr(self._geometry, 'run', '')}\0{self.task_id}".encode()
        entropy = int.from_bytes(hashlib.sha256(names).digest()[:16])
        return np.random.SeedSequence([entropy, *more], spawn_key=(self.block_id,))

    def __repr__(self) -> str:
        return f"{self.task_id}/{self.block_id} reading {self.read_roi}, writing {self.write_roi}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Block) and (self.task_id, self.block_id) == (other.task_id, other.block_id)

    def __hash__(self) -> int:
        return hash((self.task_id, self.block_id))

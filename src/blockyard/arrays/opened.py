"""The arrays of a task in the process that runs its blocks: each opened once, when it is first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from blockyard.spec.errors import SpecError, nearest
from blockyard.spec.model import ArraySpec, TaskSpec

if TYPE_CHECKING:
    from blockyard.arrays.array import Array


class TaskArrays:
    """The arrays that a task declares; relative paths begin where this process was when this was made."""

    def __init__(self, task: TaskSpec) -> None:
        self.declared: Mapping[str, ArraySpec] = task.arrays
        self._task = task
        self._folder = Path.cwd() if self.declared else Path()
        self._open: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        """Return an array, opened. Raises SpecError where the task declares none of it, or it can't be opened."""
        if name not in self._open:
            self._open[name] = self._opened(name)
        return self._open[name]

    def _opened(self, name: str) -> Array:
        from blockyard.arrays.array import Array
        from blockyard.arrays.stores import open_store

        task = self._task
        if name not in self.declared:
            raise SpecError(f"task '{task.id}' declares no array '{name}'{nearest(name, self.declared)}")
        spec = self.declared[name]
        store = open_store(spec.path, self._folder, task.total_roi.ndim)
        size, offset = spec.voxel_size or store.scale.voxel_size, spec.offset or store.scale.offset
        return Array(name, store, size, offset, writes=name in task.writes)

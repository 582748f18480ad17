"""From the arrays that tasks declare to numbers: done by who starts a run, since the scheduler opens nothing.

Arrays that exist are opened and say their shape, units and scale; of those that a task writes and nobody has made yet
the same is planned here, `make` makes them, and tasks after it in the run see them as if they were there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from blockyard.arrays.scale import Scale
from blockyard.arrays.stores import NewArray, NoArrayError, Store, identity, make_array, open_store
from blockyard.plan.declared import check_array, check_order, unit_grid
from blockyard.plan.grid import Grid, ceil_div
from blockyard.plan.plan_warnings import PlanWarning
from blockyard.plan.summary import needed_tasks
from blockyard.plan.units import ArrayFacts
from blockyard.spec.errors import SpecError
from blockyard.spec.maps import rois_of
from blockyard.spec.model import ArraySpec, PipelineSpec, RunSpec, TaskSpec
from blockyard.spec.unit_grid import UnitGrid


@dataclass(slots=True)
class Declared:
    """What became of the declarations of a run."""

    run: RunSpec
    """With the numbers of its arrays."""
    folder: Path
    facts: list[ArrayFacts] = field(default_factory=list)
    new: list[NewArray] = field(default_factory=list)
    """Those that are to be made."""
    notes: list[PlanWarning] = field(default_factory=list)


def make_declared(declared: Declared, say: Callable[[str], None], *, again: bool = False) -> None:
    """Make the arrays that do not exist yet, and `say` so. Raises SpecError where that can't be done.

    `again`: a run starts over, and who asked for that is told that what it wrote stays.
    """
    made = {array.path for array in declared.new}
    there = dict.fromkeys(array.path for array in declared.facts if array.role == "writes" and array.path not in made)
    if again and there:
        say(f"note: all blocks run again, over what is in {', '.join(map(repr, there))}: arrays are never emptied")
    for note in declared.notes:
        say(f"note: {note.text}")
    for array in declared.new:
        make_array(array, declared.folder)
        say(f"made {array.describe()}")


def declared_arrays(run: RunSpec, folder: Path) -> Declared:
    """Look at the arrays that the tasks of a valid run declare; relative paths begin in `folder`.

    Makes nothing. Raises SpecError for the first that is missing, or that does not fit its task.
    """
    if not any(task.reads or task.writes for task in run.pipeline.tasks):
        return Declared(run, folder)
    return _Look(run, folder).look()


@dataclass(frozen=True, slots=True)
class _Known:
    """An array that exists, or will when the run begins."""

    shape: tuple[int, ...]
    unit: tuple[int, ...]
    is_sharded: bool
    dtype: str
    scale: Scale

    @classmethod
    def of(cls, found: Store) -> _Known:
        return cls(found.shape, found.unit, found.is_sharded, found.dtype.name, found.scale)


class _Look:
    def __init__(self, run: RunSpec, folder: Path) -> None:
        self._run = run
        self._folder = folder
        self._needed = needed_tasks(run)
        self._grids = {task.id: Grid.of(task) for task in self._needed}
        self._known: dict[tuple[str, int], _Known] = {}
        self._result = Declared(run, folder)

    def look(self) -> Declared:
        places = {
            (task.id, name): identity(array.path, self._folder)
            for task in self._needed
            for name, array in task.arrays.items()
        }
        check_order(self._needed, self._grids, places)
        done = {task.id: self._task(task) for task in self._needed}
        tasks = tuple(done.get(task.id, task) for task in self._run.pipeline.tasks)
        pipeline = PipelineSpec(name=self._run.pipeline.name, tasks=tasks)
        self._result.run = msgspec.structs.replace(self._run, pipeline=pipeline)
        return self._result

    def _task(self, task: TaskSpec) -> TaskSpec:
        if task.block is not None:
            task = self._with_rois(task)
            self._grids[task.id] = Grid.of(task)
        changes: dict[str, dict[str, str | ArraySpec]] = {"reads": {}, "writes": {}}
        units: dict[str, list[UnitGrid]] = {"reads": [], "writes": []}
        for kind, names in (("reads", task.reads), ("writes", task.writes)):
            for name in names:
                array = task.arrays[name]
                known = self._array(task, kind, name, array)
                if known is None:
                    continue
                facts = self._facts(task, kind, name, array, known)
                check_array(task, self._grids[task.id], facts)
                self._result.facts.append(facts)
                if known.scale.note and array.voxel_size is None:
                    text = f"task '{task.id}': the array '{name}' ({array.path}) {known.scale.note}"
                    self._result.notes.append(PlanWarning(task.id, text))
                assert facts.voxel_size is not None
                changes[kind][name] = msgspec.structs.replace(array, voxel_size=facts.voxel_size, offset=facts.offset)
                place = identity(array.path, self._folder)
                units[kind].append(unit_grid(facts, place, task.total_roi.ndim))
        return msgspec.structs.replace(
            task,
            reads={**task.reads, **changes["reads"]},
            writes={**task.writes, **changes["writes"]},
            read_units=tuple(units["reads"]),
            write_units=tuple(units["writes"]),
        )

    def _with_rois(self, task: TaskSpec) -> TaskSpec:
        """Return a map with the ROIs that follow from its first array, block and halo."""
        assert task.block is not None
        name, ndim = next(iter(task.reads)), len(task.block)
        array, known = task.arrays[name], self._array(task, "reads", name, task.arrays[name])
        assert known is not None, "what is read is there"
        if len(known.shape) < ndim:
            raise SpecError(
                f"task '{task.id}': block is {list(task.block)}, and the array '{name}' ({array.path}) has only"
                f" {len(known.shape)} axes"
            )
        size, offset = array.voxel_size or known.scale.voxel_size, array.offset or known.scale.offset
        halo = (task.halo,) * ndim if isinstance(task.halo, int) else task.halo
        total, read, write = rois_of(offset, known.shape[-ndim:], size, task.block, halo)
        return msgspec.structs.replace(task, total_roi=total, read_roi=read, write_roi=write)

    def _facts(self, task: TaskSpec, kind: str, name: str, array: ArraySpec, known: _Known) -> ArrayFacts:
        ndim, unit = task.total_roi.ndim, known.unit
        if array.write_unit is not None and len(unit) >= ndim:
            unit = (*unit[: len(unit) - ndim], *array.write_unit)
        return ArrayFacts(
            task=task.id,
            parameter=name,
            path=array.path,
            role=kind,
            unit_name="shard" if known.is_sharded else "chunk",
            shape=known.shape,
            unit=unit,
            voxel_size=array.voxel_size or known.scale.voxel_size,
            offset=array.offset or known.scale.offset,
            declared=True,
        )

    # ----- one array --------------------------------------------------------------------------------------------

    def _array(self, task: TaskSpec, kind: str, name: str, array: ArraySpec) -> _Known | None:
        """Return an array; None for one that nobody needs, since its task has no block."""
        try:
            return self._open(array.path, task.total_roi.ndim)
        except NoArrayError as error:
            if kind == "reads":
                raise SpecError(f"task '{task.id}', reads: '{name}': {error}") from None
        except SpecError as error:
            raise SpecError(f"task '{task.id}', {kind}: '{name}': {error}") from None
        if not self._grids[task.id].size:
            return None
        new = self._plan(task, name, array)
        self._result.new.append(new)
        known = _Known(new.shape, new.shards or new.chunks, new.shards is not None, new.dtype, new.scale)
        self._known[identity(array.path, self._folder), task.total_roi.ndim] = known
        return known

    def _open(self, path: str, ndim: int) -> _Known:
        key = identity(path, self._folder), ndim
        if key not in self._known:
            self._known[key] = _Known.of(open_store(path, self._folder, ndim))
        return self._known[key]

    def _plan(self, task: TaskSpec, name: str, array: ArraySpec) -> NewArray:
        """Return what an array that does not exist will be: as `like` says, else what the blocks write."""
        ndim, grid = task.total_roi.ndim, self._grids[task.id]
        like = self._like(task, name, array)
        first = next((self._open(task.arrays[read].path, ndim) for read in task.reads), None)
        source = like or first
        size = array.voxel_size or self._declared_size(task, array) or (source.scale.voxel_size if source else None)
        size = size or (1,) * ndim
        if like is not None:
            begin = array.offset or like.scale.offset
            extent = [n * v for n, v in zip(like.shape[-ndim:], like.scale.voxel_size, strict=True)]
            channels = like.shape[:-ndim]
        else:
            begin, end = array.offset or grid.write_begin, _write_end(grid)
            extent = [e - b for b, e in zip(begin, end, strict=True)]
            channels = source.shape[:-ndim] if source and task.block is not None else ()
        dtype = array.dtype or (source.dtype if source else None)
        if dtype is None:
            raise SpecError(
                f"task '{task.id}', writes: there is no array '{name}' ({array.path}) yet, and to make it its dtype is"
                f" needed; write {name}: {{path: {array.path}, dtype: uint8}} or the like"
            )
        shape = tuple(ceil_div(max(n, 0), v) for n, v in zip(extent, size, strict=True))
        chunks = _chunks(array, grid, begin, size, shape)
        return NewArray(
            path=array.path,
            shape=(*channels, *shape),
            chunks=(*channels, *chunks),
            shards=(*channels, *array.shards) if array.shards else None,
            dtype=np.dtype(dtype).name,
            scale=Scale(tuple(size), tuple(begin)),
        )

    def _declared_size(self, task: TaskSpec, array: ArraySpec) -> tuple[int, ...] | None:
        """Return the voxel size that was given by hand to what a new array is like."""
        source = array.like if array.like in task.arrays else next(iter(task.reads), None)
        return task.arrays[source].voxel_size if source else None

    def _like(self, task: TaskSpec, name: str, array: ArraySpec) -> _Known | None:
        if array.like is None:
            return None
        path = task.arrays[array.like].path if array.like in task.reads else array.like
        try:
            return self._open(path, task.total_roi.ndim)
        except SpecError as error:
            raise SpecError(f"task '{task.id}', writes: '{name}' is like '{array.like}': {error}") from None


def _write_end(grid: Grid) -> tuple[int, ...]:
    """Return the end of all that may be written: for valid also the rest that no block writes."""
    totals = zip(grid.write_end, grid.total_end, grid.above, strict=True)
    return tuple(max(end, total - above) for end, total, above in totals)


def _chunks(
    array: ArraySpec, grid: Grid, begin: tuple[int, ...], size: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Return chunks that fit what a block writes, so that no two blocks write into one."""
    if array.chunks is not None:
        return array.chunks
    chunks = []
    for axis, (stride, n) in enumerate(zip(grid.stride, shape, strict=True)):
        chunk = max(stride // size[axis], 1)
        shift = (grid.write_begin[axis] - begin[axis]) // size[axis]
        if shift % chunk:
            chunk = math.gcd(chunk, shift)
        if array.shards is not None:
            chunk = math.gcd(chunk, array.shards[axis])
        chunks.append(chunk if array.shards is not None else min(chunk, max(n, 1)))
    return tuple(chunks)

"""What is wrong with arrays that tasks declare, from numbers alone; each a sentence with what to write instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from blockyard.plan.grid import Grid
from blockyard.plan.units import ArrayFacts, Placed
from blockyard.spec.errors import SpecError
from blockyard.spec.model import PipelineSpec, RunSpec, TaskSpec
from blockyard.spec.unit_grid import UnitGrid


def check_array(task: TaskSpec, grid: Grid, array: ArrayFacts) -> None:
    """Raise SpecError where blocks of a task can't read or write an array as its declaration says."""
    for fault in _faults(task, grid, array):
        raise SpecError(f"task '{task.id}', {array.role}: {fault}")


def _faults(task: TaskSpec, grid: Grid, array: ArrayFacts) -> Iterator[str]:
    name = f"'{array.parameter}' ({array.path})"
    if len(array.shape) < grid.ndim:
        yield f"the array {name} has {len(array.shape)} axes, and blocks have {grid.ndim}; give ROIs as many axes"
        return
    yield from _fractions(task, grid, array, name)
    placed = Placed.of(array, grid)
    assert placed is not None, "a declared array has as many units as axes"
    if not grid.size:
        return
    if array.role == "writes":
        yield from _beyond(grid, placed, name)
        return
    last = tuple(n - 1 for n in grid.shape)
    ends, begins = grid.read_roi((0,) * grid.ndim).end, grid.read_roi(last).begin
    for axis, (end, begin) in enumerate(zip(ends, begins, strict=True)):
        if end <= placed.begin[axis] or begin >= placed.end[axis]:
            yield (
                f"some blocks read nothing of the array {name}, which has {placed.begin[axis]}:{placed.end[axis]} on"
                f" axis {axis}: the first read up to {end}, the last from {begin} on; give a total_roi inside it"
            )


def _fractions(task: TaskSpec, grid: Grid, array: ArrayFacts, name: str) -> Iterator[str]:
    """Name the first number of the ROIs that is no whole number of voxels."""
    assert array.voxel_size is not None
    offset = array.offset or (0,) * grid.ndim
    for axis, size in enumerate(array.voxel_size):
        numbers = {
            "the shape of write_roi": grid.stride[axis],
            "the context below write_roi": grid.below[axis],
            "the context above write_roi": grid.above[axis],
            "the begin of total_roi": grid.total_begin[axis] - offset[axis],
            "the end of total_roi": grid.total_end[axis] - offset[axis] if task.fit == "shrink" else 0,
        }
        for what, number in numbers.items():
            if number % size:
                shift = offset[axis] if "total_roi" in what else 0
                below = number // size * size + shift
                between = f"{below} or {below + size}" if below or shift else f"{below + size}"
                yield (
                    f"{what} is {number + shift} on axis {axis}, and voxels of the array {name} are {size}"
                    f"{f' from {shift} on' if shift else ''}; ROIs are in world units, so write {between}"
                )


def _beyond(grid: Grid, placed: Placed, name: str) -> Iterator[str]:
    for axis, (first, last) in enumerate(zip(placed.begin, placed.end, strict=True)):
        begin, end = grid.write_begin[axis], grid.write_end[axis]
        if begin >= first and end <= last:
            continue
        overhangs = grid.fit == "overhang" and begin >= first and grid.total_end[axis] - grid.above[axis] <= last
        inside = f"a total_roi of {first - grid.below[axis]}:{last + grid.above[axis]} there writes all of it"
        yield (
            f"blocks write {begin}:{end} on axis {axis}, but the array {name} has {first}:{last};"
            f" {'use fit shrink' if overhangs else inside}"
        )


Places = Mapping[tuple[str, str], str]
"""By task and name of an array: what tells it from others."""


def check_order(tasks: Sequence[TaskSpec], grids: Mapping[str, Grid], places: Places) -> None:
    """Raise SpecError where two tasks write, or one reads what the other writes, without an order."""
    upstream = _upstreams(tasks)
    writers: dict[str, list[TaskSpec]] = {}
    for task in tasks:
        for name in task.writes:
            writers.setdefault(places[task.id, name], []).append(task)
    for task in tasks:
        for name in (*task.writes, *task.reads):
            for other in writers.get(places[task.id, name], ()):
                ordered = other.id in upstream[task.id] or task.id in upstream[other.id]
                if other.id == task.id or ordered or not _meet(task, grids, other, reads=name in task.reads):
                    continue
                both = f"task '{task.id}' {'reads' if name in task.reads else 'writes'} the array '{name}'"
                yet = "writes" if name in task.reads else "writes too, where their ROIs overlap"
                raise SpecError(
                    f"{both} ({task.arrays[name].path}), which task '{other.id}' {yet}, and nothing orders them; add"
                    f" 'requires: [{other.id}]' to '{task.id}'"
                )


def _upstreams(tasks: Sequence[TaskSpec]) -> dict[str, set[str]]:
    """Return what each task waits for, directly or not; `tasks` come after those that they require."""
    known: dict[str, set[str]] = {}
    for task in tasks:
        known[task.id] = set(task.requires).union(*(known.get(other, ()) for other in task.requires))
    return known


def _meet(task: TaskSpec, grids: Mapping[str, Grid], other: TaskSpec, *, reads: bool) -> bool:
    mine, theirs = grids[task.id], grids[other.id]
    begin, end = (mine.total_begin, mine.total_end) if reads else (mine.write_begin, mine.write_end)
    if mine.ndim != theirs.ndim or task.block is not None or other.block is not None:  # a map is of all there is
        return True
    boxes = zip(begin, end, theirs.write_begin, theirs.write_end, strict=True)
    return all(max(b, ob) < min(e, oe) for b, e, ob, oe in boxes)


def unit_grid(array: ArrayFacts, place: str, ndim: int) -> UnitGrid:
    """Return the write units of a declared array in world units."""
    size, offset = array.voxel_size or (1,) * ndim, array.offset or (0,) * ndim
    unit = array.unit[len(array.unit) - ndim :]
    return UnitGrid(place, offset, tuple(u * v for u, v in zip(unit, size, strict=True)))


def by_hand(run: RunSpec) -> RunSpec:
    """Return a run with the write units that its declarations say themselves, for who can't see the arrays.

    Raises SpecError for an array that is written and does not say its own.
    """
    return msgspec.structs.replace(
        run,
        pipeline=PipelineSpec(name=run.pipeline.name, tasks=tuple(_task_by_hand(task) for task in run.pipeline.tasks)),
    )


def _task_by_hand(task: TaskSpec) -> TaskSpec:
    if task.block is not None and not Grid.of(task).size:
        raise SpecError(
            f"task '{task.id}' is a map, whose ROIs follow from arrays that no scheduler opens; write function instead,"
            " with total_roi, read_roi and write_roi"
        )
    ndim, units = task.total_roi.ndim, []
    for name in task.writes:
        array = task.arrays[name]
        if array.write_unit is None:
            raise SpecError(
                f"task '{task.id}' writes the array '{name}' ({array.path}), which no scheduler opens; say what"
                f" is written as one (a shard, else a chunk) in voxels: {name}: {{path: {array.path}, write_unit:"
                f" {list(task.write_roi.shape)}}}, with its voxel_size and offset if it has some"
            )
        size, offset = array.voxel_size or (1,) * ndim, array.offset or (0,) * ndim
        shape = tuple(u * v for u, v in zip(array.write_unit, size, strict=True))
        units.append(UnitGrid(array.path, offset, shape))
    return msgspec.structs.replace(task, write_units=tuple(units)) if units else task

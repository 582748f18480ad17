"""What is probably not meant in a run, in sentences with the numbers; every way of starting one says them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from blockyard.plan.grid import Grid
from blockyard.plan.units import ArrayFacts, Placed, always_in_order, fitting_begin, fitting_shape, most_in_unit
from blockyard.spec.model import RoiSpec, TaskSpec, declared

READ_KEYS = ("source", "input", "in", "src", "raw", "reads")
WRITE_KEYS = ("target", "output", "out", "dst", "destination", "writes")
"""Parameters that name an array, as people call them; enough to warn, never to decide."""


PLAN_WARNING = "plan_warning"
"""The kind of notice of a run that says one."""


class PlanWarning(NamedTuple):
    """One sentence about a task."""

    task: str
    text: str


def warnings_of(
    tasks: Sequence[TaskSpec], grids: Mapping[str, Grid], arrays: Sequence[ArrayFacts]
) -> list[PlanWarning]:
    """Return the warnings of the tasks of a run, given in an order in which each comes after what it requires."""
    found = [PlanWarning(task.id, text) for task in tasks for text in _warnings_of(task, grids[task.id])]
    writers = Counter(path for task in tasks for path in {declared(array).path for array in task.writes.values()})
    of_several = {path for path, count in writers.items() if count > 1}
    for task in tasks:
        named = [array for array in arrays if array.task == task.id]
        found += [PlanWarning(task.id, text) for text in _warnings_of_arrays(task, grids[task.id], named, of_several)]
    return found + list(_warnings_between(tasks, grids))


# ----- one task -------------------------------------------------------------------------------------------------------


def _warnings_of(task: TaskSpec, grid: Grid) -> Iterator[str]:
    """Say what is probably not meant in one task."""
    for axis, n in enumerate(grid.shape):
        length = grid.total_end[axis] - grid.above[axis] - grid.write_begin[axis]
        if length <= 0:
            yield (
                f"task '{task.id}' has no block: on axis {axis} its total_roi {task.total_roi} is no larger than the"
                f" context of a block ({grid.below[axis]} below, {grid.above[axis]} above)"
            )
            continue
        rest = length - n * grid.stride[axis]
        if rest > 0:
            yield (
                f"task '{task.id}' leaves the last {rest} of {length} voxels on axis {axis} unwritten, because blocks"
                f" write {grid.stride[axis]} and fit is 'valid'; use fit 'shrink' to cover them"
            )
        elif rest < 0 and grid.fit == "overhang":
            yield (
                f"task '{task.id}' writes {-rest} voxels beyond its total_roi on axis {axis} (fit 'overhang'); its"
                f" arrays must be that large, or use fit 'shrink'"
            )
    context = any(grid.below) or any(grid.above)
    both = sorted(_paths(task, READ_KEYS) & _paths(task, WRITE_KEYS))
    if both and context and not task.read_write_conflict:
        yield (
            f"task '{task.id}' reads and writes '{both[0]}' with context, but read_write_conflict is false: what its"
            f" blocks read depends on which of them ran first"
        )


# ----- the arrays that it names ---------------------------------------------------------------------------------------


def _warnings_of_arrays(
    task: TaskSpec, grid: Grid, arrays: Sequence[ArrayFacts], of_several: Collection[str]
) -> Iterator[str]:
    """Say what is probably not meant of the arrays that a task writes, or may write where no name says which.

    `of_several` are those that several tasks write: what one leaves another may write.
    """
    written = [array for array in arrays if array.role == "writes"]
    for array in written or [array for array in arrays if array.role != "reads"]:
        placed = Placed.of(array, grid)
        if placed is None or not grid.size:
            continue
        most = most_in_unit(grid, placed)
        if most > 1 and task.num_workers != 1 and not (task.read_write_conflict and always_in_order(grid, placed)):
            yield _sharing(array, grid, placed, most)
        if array.role == "writes" and not (array.declared and array.path in of_several):
            yield from _ends(array, grid, placed)


def _sharing(array: ArrayFacts, grid: Grid, placed: Placed, most: int) -> str:
    unit, shape, begin = array.unit_name, fitting_shape(grid, placed), fitting_begin(grid, placed)
    writes = "writes" if array.role == "writes" else f"may write (parameter '{array.parameter}')"
    changes = [f"a write_roi of shape {list(shape)}"] if shape != grid.stride else []
    if begin != grid.write_begin:
        changes.append(f"a total_roi in which the first block writes from {list(begin)} on")
    lost = "lose each other's voxels"
    if array.declared:
        lost = f"write it several times (or {lost}, where they write it otherwise than by the argument they get)"
    return (
        f"task '{array.task}' {writes} blocks of {list(grid.stride)} into '{array.path}', of {unit}s of"
        f" {list(placed.unit)}: up to {most} blocks write into one {unit}, and those that run at once {lost};"
        f" give it {' and '.join(changes)}, or num_workers 1"
    )


def _ends(array: ArrayFacts, grid: Grid, placed: Placed) -> Iterator[str]:
    """Say where blocks write beyond an array, or leave a rim of it that is narrower than a block and its context."""
    for axis, (first, last) in enumerate(zip(placed.begin, placed.end, strict=True)):
        begin, end = grid.write_begin[axis], grid.write_end[axis]
        if begin < first or end > last:
            yield (
                f"task '{array.task}' writes {begin}:{end} on axis {axis}, but '{array.path}' has {first}:{last} there;"
                " what is beyond it is lost, or fails"
            )
            continue
        rim = [at for at in (begin - first, last - end) if at > 0]
        if rim and array.declared:
            total = f"{first - grid.below[axis]}:{last + grid.above[axis]}"
            yield (
                f"task '{array.task}' writes {begin}:{end} on axis {axis} of '{array.path}', which has {first}:{last}:"
                f" the rest is never written; a total_roi of {total} there, and fit shrink, writes all of it"
            )
        elif rim and min(rim) <= max(grid.below[axis], grid.above[axis]):
            yield (
                f"task '{array.task}' writes {begin}:{end} on axis {axis} of '{array.path}', which has {first}:{last}:"
                f" the rest is never written; total_roi is what is read, so grow it by the context"
                f" ({grid.below[axis]} below, {grid.above[axis]} above) to write all"
            )


# ----- between tasks --------------------------------------------------------------------------------------------------


def _warnings_between(tasks: Sequence[TaskSpec], grids: Mapping[str, Grid]) -> Iterator[PlanWarning]:
    known = {task.id: task for task in tasks}
    for task in tasks:
        for upstream_id in task.requires:
            if upstream_id in known:
                for text in _warnings_of_pair(known[upstream_id], grids[upstream_id], task, grids[task.id]):
                    yield PlanWarning(task.id, text)
    readers: dict[str, set[str]] = {}
    for task in tasks:
        for path in _paths(task, READ_KEYS):
            readers.setdefault(path, set()).add(task.id)
    for task in tasks:
        overwritten = {path: readers[path] for path in sorted(_paths(task, WRITE_KEYS)) if path in readers}
        upstream = _upstream(known, task.id) if overwritten else set()
        for other in sorted(set().union(*overwritten.values()) & upstream):
            path = next(path for path, reading in overwritten.items() if other in reading)
            if _meets(_written(grids[task.id]), known[other].total_roi):
                yield PlanWarning(
                    task.id,
                    f"task '{task.id}' writes '{path}', which task '{other}' before it reads; nothing orders that, so"
                    f" write to another array",
                )


def _warnings_of_pair(upstream: TaskSpec, upstream_grid: Grid, task: TaskSpec, grid: Grid) -> Iterator[str]:
    if not grid.size or not upstream_grid.size:
        return
    mine, theirs = _written(grid), _written(upstream_grid)
    if not _meets(task.total_roi, theirs):
        yield (
            f"task '{task.id}' requires '{upstream.id}', but reads {task.total_roi} and that writes {theirs}: they"
            f" never meet, so it waits for nothing"
        )
        return
    for axis, (b, e, ub, ue) in enumerate(zip(mine.begin, mine.end, theirs.begin, theirs.end, strict=True)):
        if b < ub or e > ue:
            yield (
                f"task '{task.id}' writes {b}:{e} on axis {axis}, but '{upstream.id}', which it requires, writes only"
                f" {ub}:{ue} there: the rest of its input is whatever the array holds"
            )


def _written(grid: Grid) -> RoiSpec:
    begin, end = grid.write_begin, grid.write_end
    return RoiSpec(begin, tuple(e - b for b, e in zip(begin, end, strict=True)))


def _meets(a: RoiSpec, b: RoiSpec) -> bool:
    return all(max(ab, bb) < min(ae, be) for ab, ae, bb, be in zip(a.begin, a.end, b.begin, b.end, strict=True))


def _paths(task: TaskSpec, keys: Sequence[str]) -> set[str]:
    return {value for key, value in task.params.items() if key in keys and isinstance(value, str)}


def _upstream(known: dict[str, TaskSpec], task_id: str) -> set[str]:
    found: set[str] = set()
    stack = list(known[task_id].requires)
    while stack:
        upstream = stack.pop()
        if upstream in known and upstream not in found:
            found.add(upstream)
            stack += known[upstream].requires
    return found

"""`blockyard plan`: what a pipeline would run, by arithmetic alone; nothing runs and no data is opened."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec

from blockyard.plan.grid import Grid
from blockyard.plan.levels import Levels
from blockyard.plan.requests import Box, run_boxes, topological, volume
from blockyard.spec.model import RoiSpec, RunSpec, TaskSpec

READ_KEYS = ("source", "input", "in", "src", "raw", "reads")
WRITE_KEYS = ("target", "output", "out", "dst", "destination", "writes")
"""Parameters that name an array, as people call them; enough to warn, never to decide."""


class TaskPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What one task would run."""

    id: str
    pool: str
    grid: tuple[int, ...]
    """Blocks on each axis of the full grid."""
    blocks: int
    """Blocks of this run."""
    blocks_in_grid: int
    levels: int
    """Steps in which the conflicts of a task with overlapping reads and writes are resolved; 1: none."""
    at_once: int
    """The most of its blocks that can run at once, however many workers there are."""
    write_voxels: int
    """Voxels that the blocks of this run write."""
    read_voxels: int
    """Voxels that they read, those in several blocks counted each time."""


class RunPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run would do."""

    name: str
    tasks: tuple[TaskPlan, ...]
    """In an order in which each comes after those it requires."""
    blocks: int
    warnings: tuple[str, ...]


def plan_run(run: RunSpec) -> RunPlan:
    """Return the plan of a valid run."""
    tasks = {task.id: task for task in run.pipeline.tasks}
    grids = {task_id: Grid.of(task) for task_id, task in tasks.items()}
    boxes = run_boxes(run, grids)
    order = [task_id for task_id in topological(run.pipeline.tasks) if task_id in boxes]
    plans = tuple(_plan_task(tasks[task_id], grids[task_id], boxes[task_id]) for task_id in order)
    warnings = [warning for task_id in order for warning in _warnings_of(tasks[task_id], grids[task_id])]
    warnings += _warnings_between([tasks[task_id] for task_id in order], grids)
    return RunPlan(
        name=run.pipeline.name, tasks=plans, blocks=sum(plan.blocks for plan in plans), warnings=tuple(warnings)
    )


def _plan_task(task: TaskSpec, grid: Grid, boxes: Sequence[Box]) -> TaskPlan:
    levels = Levels.of(grid, conflict=task.read_write_conflict)
    blocks = sum(volume(box) for box in boxes)
    at_once = sum(_independent(box, levels.moduli) for box in boxes)
    if task.num_workers is not None:
        at_once = min(at_once, task.num_workers)
    return TaskPlan(
        id=task.id,
        pool=task.pool,
        grid=grid.shape,
        blocks=blocks,
        blocks_in_grid=grid.size,
        levels=levels.count,
        at_once=at_once,
        write_voxels=sum(_voxels(grid, box, context=False) for box in boxes),
        read_voxels=sum(_voxels(grid, box, context=True) for box in boxes),
    )


def _independent(box: Box, moduli: Sequence[int]) -> int:
    """Return the most blocks of one level in an index box: every m-th on each axis."""
    return math.prod(-(-max(end - begin, 0) // m) for begin, end, m in zip(*box, moduli, strict=True))


def _voxels(grid: Grid, box: Box, *, context: bool) -> int:
    """Return the voxels that the blocks of an index box read (`context`) or write, added up over blocks.

    Separable: a sum over blocks of a product over axes is the product of the sums over each axis; and there all blocks
    but the last of the grid, which `shrink` clips, are alike.
    """
    total = 1
    for axis, (begin, end) in enumerate(zip(*box, strict=True)):
        last = grid.shape[axis] - 1
        size = grid.stride[axis] + (grid.below[axis] + grid.above[axis] if context else 0)
        voxels_on_axis = (min(end, last) - begin) * size
        if begin <= last < end:
            index = tuple(last if k == axis else 0 for k in range(grid.ndim))
            voxels_on_axis += (grid.read_roi(index) if context else grid.write_roi(index)).shape[axis]
        total *= voxels_on_axis
    return total


# ----- warnings -------------------------------------------------------------------------------------------------------


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


def _warnings_between(tasks: Sequence[TaskSpec], grids: dict[str, Grid]) -> Iterator[str]:
    """Say what is probably not meant between tasks, given in an order in which each comes after what it requires."""
    known = {task.id: task for task in tasks}
    for task in tasks:
        for upstream_id in task.requires:
            if upstream_id in known:
                yield from _warnings_of_pair(known[upstream_id], grids[upstream_id], task, grids[task.id])
    for task in tasks:
        upstream = [known[task_id] for task_id in sorted(_upstream(known, task.id))]
        for other in upstream:
            overwritten = sorted(_paths(other, READ_KEYS) & _paths(task, WRITE_KEYS))
            if overwritten and _meets(_written(grids[task.id]), other.total_roi):
                yield (
                    f"task '{task.id}' writes '{overwritten[0]}', which task '{other.id}' before it reads; nothing"
                    f" orders that, so write to another array"
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


# ----- as text --------------------------------------------------------------------------------------------------------


def plan_text(plan: RunPlan) -> str:
    """Return the plan as a table, with its warnings."""
    rows = [("task", "pool", "grid", "blocks", "levels", "at once", "writes", "reads")]
    rows += [
        (
            task.id,
            task.pool,
            " x ".join(f"{n:,}" for n in task.grid),
            f"{task.blocks:,}" + (f" of {task.blocks_in_grid:,}" if task.blocks != task.blocks_in_grid else ""),
            f"{task.levels:,}",
            f"{task.at_once:,}",
            voxels(task.write_voxels),
            voxels(task.read_voxels),
        )
        for task in plan.tasks
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = [
        "  ".join(
            cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines = [f"{plan.name}: {plan.blocks:,} blocks in {len(plan.tasks)} task{'s' if len(plan.tasks) != 1 else ''}"]
    lines += ["", *(line.rstrip() for line in table)]
    if plan.warnings:
        lines += ["", *(f"warning: {warning}" for warning in plan.warnings)]
    return "\n".join(lines)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Names to the left, numbers to the right."""
    return [
        cell.ljust(width) if column < 3 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def voxels(count: int) -> str:
    """Write a number of voxels for a person.

    >>> voxels(0), voxels(20_971_520), voxels(3 * 10**15)
    ('0', '21.0 M', '3.0 P')
    """
    sizes = [(1, ""), (10**3, " k"), (10**6, " M"), (10**9, " G"), (10**12, " T"), (10**15, " P"), (10**18, " E")]
    for (size, name), (following, _) in pairwise([*sizes, (10**24, "")]):
        if count < following * 0.99995 or name == " E":
            return f"{count:,}" if size == 1 else f"{count / size:,.1f}{name}"
    raise AssertionError("the last size has no limit")

"""What a run would be, by arithmetic alone: blocks, levels, the most that can run at once, and what to warn of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from blockyard.plan.grid import Grid
from blockyard.plan.levels import Levels
from blockyard.plan.plan_warnings import PlanWarning, warnings_of
from blockyard.plan.requests import Box, run_boxes, topological, volume
from blockyard.plan.units import ArrayFacts
from blockyard.spec.model import RunSpec, TaskSpec


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
    makes: tuple[str, ...] = ()
    """Arrays that a run would make, since they do not exist."""


def plan_run(run: RunSpec, arrays: Sequence[ArrayFacts] = ()) -> RunPlan:
    """Return the plan of a valid run; `arrays` is what is known of those that its parameters name."""
    tasks = {task.id: task for task in run.pipeline.tasks}
    grids = {task_id: Grid.of(task) for task_id, task in tasks.items()}
    boxes = run_boxes(run, grids)
    order = [task_id for task_id in topological(run.pipeline.tasks) if task_id in boxes]
    plans = tuple(_plan_task(tasks[task_id], grids[task_id], boxes[task_id]) for task_id in order)
    warnings = warnings_of([tasks[task_id] for task_id in order], grids, arrays)
    return RunPlan(
        name=run.pipeline.name,
        tasks=plans,
        blocks=sum(plan.blocks for plan in plans),
        warnings=tuple(warning.text for warning in warnings),
    )


def run_warnings(run: RunSpec, arrays: Sequence[ArrayFacts] = ()) -> list[PlanWarning]:
    """Return what to say of a valid run before it starts: the warnings of its plan, each with its task."""
    order = needed_tasks(run)
    return warnings_of(order, {task.id: Grid.of(task) for task in order}, arrays)


def needed_tasks(run: RunSpec) -> list[TaskSpec]:
    """Return the tasks of a run, its targets and all that they require, each after those it requires."""
    tasks = {task.id: task for task in run.pipeline.tasks}
    needed = _needed(run, tasks)
    return [tasks[task_id] for task_id in topological(run.pipeline.tasks) if task_id in needed]


def _needed(run: RunSpec, tasks: dict[str, TaskSpec]) -> set[str]:
    """Return the ids of the tasks of a run: its targets and all that they require."""
    waiting = list(tasks) if run.targets is None else [target.task for target in run.targets]
    needed: set[str] = set()
    while waiting:
        task_id = waiting.pop()
        if task_id not in needed:
            needed.add(task_id)
            waiting += tasks[task_id].requires
    return needed


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

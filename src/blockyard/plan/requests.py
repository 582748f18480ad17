"""What of each task runs: requests become index boxes, closed upstream; never a list of blocks.

The blocks whose write ROI meets a request are an index box of the task's grid. What a box of blocks reads is one box of
voxels (reads tile without holes), so what it needs upstream is an index box again. The run of a task is the union of
such boxes, kept as disjoint boxes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import msgspec

from blockyard.plan.grid import Grid, Index
from blockyard.spec.model import RoiSpec, RunSpec, TaskSpec

Box: TypeAlias = tuple[Index, Index]


def run_boxes(run: RunSpec, grids: Mapping[str, Grid]) -> dict[str, tuple[Box, ...]]:
    """Return for each task of the run its disjoint index boxes; a task that no target needs is left out.

    A task that is needed, but of which no block runs, has no boxes.
    """
    tasks = {task.id: task for task in run.pipeline.tasks}
    wanted: dict[str, list[Box]] = {}
    whole: set[str] = set()
    for task_id, requests in _targets(run):
        boxes = wanted.setdefault(task_id, [])
        if requests is None:
            whole.add(task_id)
        else:
            boxes += [grids[task_id].writers(roi) for roi in requests]
    closed: dict[str, tuple[Box, ...]] = {}
    for task_id in reversed(topological(run.pipeline.tasks)):
        if task_id not in wanted:
            continue
        grid = grids[task_id]
        closed[task_id] = disjoint([_whole(grid)] if task_id in whole else wanted[task_id])
        for upstream in tasks[task_id].requires:
            boxes = wanted.setdefault(upstream, [])
            if task_id in whole:
                whole.add(upstream)
            else:
                boxes += [grids[upstream].writers(grid.read_box(lo, hi)) for lo, hi in closed[task_id]]
    return {task.id: closed[task.id] for task in run.pipeline.tasks if task.id in closed}


def numbered_alike(old: RunSpec, new: RunSpec) -> RunSpec:
    """Return `new` with its tasks numbered as in `old`, an earlier request of the same pipeline; new ones come last."""
    numbered = old.numbered or _needed(old)
    numbered += tuple(task for task in _needed(new) if task not in numbered)
    return msgspec.structs.replace(new, numbered=() if numbered == _needed(new) else numbered)


def _needed(run: RunSpec) -> tuple[str, ...]:
    """Return the ids of the tasks that any target needs, in the order of the pipeline."""
    return tuple(run_boxes(run, {task.id: Grid.of(task) for task in run.pipeline.tasks}))


def topological(tasks: Sequence[TaskSpec]) -> list[str]:
    """Return task ids so that each comes after those it requires; the order of the file where that is free."""
    requires = {task.id: task.requires for task in tasks}
    order: list[str] = []
    visited: set[str] = set()
    for task in tasks:
        stack = [(task.id, False)]
        while stack:
            task_id, expanded = stack.pop()
            if expanded:
                order.append(task_id)
            elif task_id not in visited:
                visited.add(task_id)
                stack.append((task_id, True))
                stack += [(upstream, False) for upstream in reversed(requires[task_id])]
    return order


def volume(box: Box) -> int:
    """Return the number of blocks in an index box."""
    return math.prod(max(end - begin, 0) for begin, end in zip(*box, strict=True))


def disjoint(boxes: Iterable[Box]) -> tuple[Box, ...]:
    """Return disjoint non-empty boxes with the same union.

    >>> disjoint([((0,), (4,)), ((2,), (6,)), ((3,), (3,))])
    (((0,), (4,)), ((4,), (6,)))
    """
    kept: list[Box] = []
    for box in sorted(set(boxes), key=lambda box: (-volume(box), box)):
        parts = [box] if volume(box) else []
        for other in kept:
            parts = [piece for part in parts for piece in _subtract(part, other)]
            if not parts:
                break
        kept += parts
    return tuple(kept)


def _targets(run: RunSpec) -> list[tuple[str, tuple[RoiSpec, ...] | None]]:
    if run.targets is None:
        return [(task.id, None) for task in run.pipeline.tasks]
    return [(target.task, target.request) for target in run.targets]


def _whole(grid: Grid) -> Box:
    return (0,) * grid.ndim, grid.shape


def _subtract(box: Box, other: Box) -> list[Box]:
    """Return disjoint boxes that cover `box` without `other`."""
    lo, hi = list(box[0]), list(box[1])
    if any(b >= oe or e <= ob for b, e, ob, oe in zip(lo, hi, *other, strict=True)):
        return [box]
    parts: list[Box] = []
    for axis, (ol, oh) in enumerate(zip(*other, strict=True)):
        if lo[axis] < ol:
            parts.append((tuple(lo), (*hi[:axis], ol, *hi[axis + 1 :])))
            lo[axis] = ol
        if hi[axis] > oh:
            parts.append(((*lo[:axis], oh, *lo[axis + 1 :]), tuple(hi)))
            hi[axis] = oh
    return parts

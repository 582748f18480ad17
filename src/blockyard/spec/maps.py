"""Tasks that say `map`, `block` and `halo` instead of ROIs: those follow from the arrays, when they are opened.

Until then such a task has ROIs of no block, from the first voxel on.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from blockyard.spec.errors import SpecError, brief
from blockyard.spec.model import RoiSpec

SOURCE, TARGET = "source", "target"
"""The names of arrays that were given without one."""
ROIS = ("total_roi", "read_roi", "write_roi")


def task_of_map(task: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return a task of a pipeline file that says `map` as one with all that others have.

    `what` names it in errors. Raises SpecError where it says too little, or too much.
    """
    given = [name for name in ROIS if name in task]
    if given:
        raise SpecError(f"{what} has map and {given[0]}: the ROIs of a map follow from its arrays, block and halo")
    for name in ("block", "reads", "writes"):
        if name not in task:
            raise SpecError(f"{what}: a map needs '{name}', which is missing")
    if isinstance(task["writes"], Mapping) and "path" not in task["writes"]:
        raise SpecError(f"{what}, writes: a map writes one array; write its path, or {{path: ..., dtype: ...}}")
    block = voxels(task["block"], f"{what}, block", 1)
    halo = halo_of(task.get("halo", 0), len(block), f"{what}, halo")
    total, read, write = ({"offset": r.offset, "shape": r.shape} for r in rois_of_no_block(block, halo))
    return {
        **task,
        "reads": _named(task["reads"], SOURCE),
        "writes": {TARGET: task["writes"]},
        "fit": task.get("fit", "shrink"),
        "read_write_conflict": task.get("read_write_conflict", False),
        "block": block,
        "halo": halo,
        "total_roi": total,
        "read_roi": read,
        "write_roi": write,
    }


def _named(reads: Any, name: str) -> Any:
    return reads if isinstance(reads, Mapping) and "path" not in reads else {name: reads}


def voxels(value: Any, what: str, least: int) -> list[int]:
    """Return whole numbers, one for each axis. Raises SpecError, in which `what` names them."""
    try:
        numbers = [operator.index(n) for n in value]
    except TypeError:
        numbers = []
    if not numbers or min(numbers) < least or any(isinstance(n, bool) for n in value):
        raise SpecError(f"{what} is {brief(value)}; it must be a list of whole numbers of at least {least}")
    return numbers


def halo_of(value: Any, ndim: int, what: str) -> list[int]:
    """Return the halo on each axis. Raises SpecError, in which `what` names it."""
    halo = voxels([value] * ndim if not isinstance(value, Sequence) else value, what, 0)
    if len(halo) != ndim:
        raise SpecError(f"{what} is {list(halo)}, and block has {ndim} axes; write one number, or {ndim}")
    return halo


def rois_of_no_block(block: Sequence[int], halo: Sequence[int]) -> tuple[RoiSpec, RoiSpec, RoiSpec]:
    """Return total, read and write ROI of a map whose arrays nobody has seen."""
    return rois_of([0] * len(block), [0] * len(block), [1] * len(block), block, halo)


def rois_of(
    offset: Sequence[int], shape: Sequence[int], voxel_size: Sequence[int], block: Sequence[int], halo: Sequence[int]
) -> tuple[RoiSpec, RoiSpec, RoiSpec]:
    """Return total, read and write ROI of a map over an array: of `shape` voxels, from `offset` on in world units."""
    axes = list(zip(offset, shape, voxel_size, block, halo, strict=True))
    total = RoiSpec(tuple(o - h * v for o, _, v, _, h in axes), tuple((n + 2 * h) * v for _, n, v, _, h in axes))
    read = RoiSpec(total.offset, tuple((b + 2 * h) * v for _, _, v, b, h in axes))
    write = RoiSpec(tuple(offset), tuple(b * v for _, _, v, b, _ in axes))
    return total, read, write

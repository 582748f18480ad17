"""What can be known to be wrong with the arrays that a task declares, before anybody looks at one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from blockyard.spec.errors import SpecError
from blockyard.spec.model import ArraySpec, TaskSpec, declared

OF_NEW_ARRAYS = ("dtype", "chunks", "shards", "like")
"""What only an array that is to be made has a use for."""

Where = tuple[str | int, ...]


def check_arrays(task: TaskSpec, where: Where) -> None:
    """Raise SpecError for the first fault of the arrays of a task, seen alone."""
    for kind in ("reads", "writes"):
        for name, given in getattr(task, kind).items():
            for fault in _faults(task, kind, name, declared(given)):
                raise SpecError.at((*where, kind, name), f"task '{task.id}', {kind}: {fault}")


def _faults(task: TaskSpec, kind: str, name: str, array: ArraySpec) -> Iterator[str]:
    if not name.isidentifier() or name == "path":
        yield f"an array can't be named '{name}', since its name is that of an argument; write letters, digits and '_'"
    if name in task.params:
        yield f"'{name}' is in params too, and a function has one argument of a name; call one of them otherwise"
    if kind == "writes" and name in task.reads:
        yield f"'{name}' is in reads too; give what is read and what is written a name each"
    if not array.path or "\0" in array.path:
        yield f"the path of '{name}' is {array.path!r}; write the path or URL of an array"
    if kind == "reads":
        given = [field for field in OF_NEW_ARRAYS if getattr(array, field) is not None]
        if given:
            yield f"'{name}' has {given[0]}, which is for arrays that are made; what is read says it itself"
    if array.dtype is not None and not _is_dtype(array.dtype):
        yield f"dtype of '{name}' is '{array.dtype}', which is no type of voxels; write uint8, float32 or the like"
    ndim = task.total_roi.ndim
    for field in ("voxel_size", "offset", "write_unit", "chunks", "shards"):
        value: tuple[int, ...] | None = getattr(array, field)
        if value is None:
            continue
        if len(value) != ndim:
            yield f"{field} of '{name}' is {list(value)}, but blocks have {ndim} axes; write a number for each"
        if field != "offset" and min(value, default=1) < 1:
            yield f"{field} of '{name}' is {list(value)}; each must be at least 1"
    for axis, (chunk, shard) in enumerate(zip(array.chunks or (), array.shards or (), strict=False)):
        if shard % chunk:
            yield (
                f"shards of '{name}' are {shard} on axis {axis} and its chunks {chunk}; a shard is a whole number of"
                f" chunks, such as {max(round(shard / chunk), 1) * chunk}"
            )


def _is_dtype(name: str) -> bool:
    try:
        return np.dtype(name).kind in "biufc"
    except TypeError:
        return False

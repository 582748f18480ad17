"""What to run, as data: the pipeline file, the messages and the journal all carry these structs.

Everything here is frozen and checked by `validate` (see `validate.py`) before a run starts.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from funlib.geometry import Coordinate, Roi

from blockyard.spec.unit_grid import UnitGrid

Fit = Literal["valid", "overhang", "shrink"]


class RoiSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An axis-aligned, half-open box of voxels: ``offset`` and ``shape``, one integer an axis, in array axis order."""

    offset: tuple[int, ...]
    """First voxel on each axis; may be negative."""
    shape: tuple[int, ...]
    """Voxels on each axis."""

    @property
    def begin(self) -> tuple[int, ...]:
        """The first voxel on each axis."""
        return self.offset

    @property
    def end(self) -> tuple[int, ...]:
        """One past the last voxel on each axis."""
        return tuple(o + s for o, s in zip(self.offset, self.shape, strict=True))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.offset)

    def to_roi(self) -> Roi:
        """Return the funlib.geometry Roi of the same box (5 us: build it when asked, not for each block)."""
        return Roi(Coordinate(self.offset), Coordinate(self.shape))

    @classmethod
    def from_roi(cls, roi: Roi | RoiSpec) -> RoiSpec:
        """Take the integers of a funlib.geometry Roi (or give a RoiSpec back)."""
        if isinstance(roi, RoiSpec):
            return roi
        return cls(tuple(int(x) for x in roi.offset), tuple(int(x) for x in roi.shape))

    def __str__(self) -> str:
        """``[0:20, 0:1024]``: begin and end on each axis."""
        return "[" + ", ".join(f"{b}:{e}" for b, e in zip(self.begin, self.end, strict=True)) + "]"


class CheckSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Two check functions, each ``"module:name"``: `before` skips a finished block, `after` fails an unfinished one."""

    before: str | None = None
    """Called before each block; true: the block is done already, and skipped."""
    after: str | None = None
    """Called after each block; false: the attempt has failed."""


class ArraySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """An array that a task reads or writes; where a task says only a path or URL, the array says the rest itself."""

    path: str
    """Path or URL of the array; a relative path begins in the folder where blocks run."""
    voxel_size: tuple[int, ...] | None = None
    """World units of a voxel on each axis that blocks have; None: what the array says, else 1."""
    offset: tuple[int, ...] | None = None
    """Where its first voxel lies, in world units; None: what the array says, else 0."""
    write_unit: tuple[int, ...] | None = None
    """Voxels that are written as one (a chunk, or a shard), where the array can't be seen by who starts the run."""
    dtype: str | None = None
    """Of an array to be made where there is none; None: that of `like`, or of the first array that is read."""
    chunks: tuple[int, ...] | None = None
    """Voxels of a chunk of an array to be made; None: what a block writes."""
    shards: tuple[int, ...] | None = None
    """Voxels of a shard, a whole number of chunks, of an array to be made; None: no shards."""
    like: str | None = None
    """An array, by its name in `reads` or its path, whose shape and voxel size an array to be made gets."""


class TaskSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One task of a pipeline file: exactly one of `function`, `worker`, `command` and `map` says what runs."""

    id: str
    """Unique in the pipeline."""
    function: str | None = None
    """``"module:name"``, called as ``name(block, **params)``; a class is built once a slot as ``name(**params)``."""
    worker: str | None = None
    """``"module:name"`` of a user's own worker: a function of no argument that drives `blockyard.Client` itself."""
    submits: bool = False
    """Whether `worker` submits a job, which drives the Client later and elsewhere, and returns: it is called once for
    each worker, and its return is no failure. A job that ends is not submitted again; that blocks are left is told."""
    command: tuple[str, ...] | None = None
    """A program to run for each block instead, with the block as JSON on standard input."""
    map: str | None = None
    """``"module:name"`` of a function of an array: it gets what a block reads, and of what it returns the part that the
    block writes is written. `reads` is a path or array, or arrays by name; `writes` one; ROIs follow from them."""
    block: tuple[int, ...] | None = None
    """Of a map: voxels of the first array that a block writes, on each axis."""
    halo: int | tuple[int, ...] = 0
    """Of a map: voxels that a block reads around those, one number or one for each axis."""
    pad: Literal["reflect", "mirror", "nearest", "wrap"] | float = "reflect"
    """Of a map: what stands outside the volume, as scipy.ndimage means it, or a number."""
    params: dict[str, Any] = {}
    """Keyword arguments of the function."""
    reads: dict[str, str | ArraySpec] = {}
    """Arrays that blocks read, by name; an argument of that name, where the function has one, is the array."""
    writes: dict[str, str | ArraySpec] = {}
    """Arrays that blocks write, likewise; one that does not exist is made before the first block."""
    total_roi: RoiSpec
    """All that is read."""
    read_roi: RoiSpec
    """What one block reads; only its shape relative to `write_roi` matters."""
    write_roi: RoiSpec
    """What one block writes; inside `read_roi`."""
    fit: Fit = "valid"
    """What happens to blocks that reach over the end of `total_roi`."""
    read_write_conflict: bool = True
    """Whether blocks whose reads meet other blocks' writes must not run at the same time."""
    max_retries: Annotated[int, msgspec.Meta(ge=0)] = 2
    """Retries of a failed block, so `max_retries` + 1 attempts."""
    timeout_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Longest time one block may take; then its slot is killed and the attempt has failed."""
    num_workers: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """The most blocks of this task that run at once; None: no limit."""
    check: str | CheckSpec | None = None
    """One function ``"module:name"`` used before and after each block, or a pair."""
    pool: str = "default"
    """Which workers run it."""
    keep_going: bool = False
    """Try all its blocks, also where the first 10 attempts all failed with the same error (see `run --keep-going`)."""
    requires: tuple[str, ...] = ()
    """Ids of the tasks whose blocks it reads."""
    read_units: tuple[UnitGrid, ...] = ()
    """Write units of what it reads: filled in by who starts the run, never in a file."""
    write_units: tuple[UnitGrid, ...] = ()
    """Write units of what it writes, likewise."""

    @property
    def arrays(self) -> dict[str, ArraySpec]:
        """What it reads and writes, by name."""
        return {name: declared(array) for name, array in (self.reads | self.writes).items()}


RESOLVED = ("read_units", "write_units")
"""Fields of a task that no pipeline file has."""


def declared(array: str | ArraySpec) -> ArraySpec:
    """Return the long form of a declared array."""
    return ArraySpec(path=array) if isinstance(array, str) else array


class PipelineSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A pipeline file: a name, which names the run, and its tasks in any order."""

    name: str
    """Names the run: the same name on the same Redis resumes it."""
    tasks: tuple[TaskSpec, ...]
    """In any order; `requires` says what waits for what."""


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One task to run and what of it: ROIs in voxels, or None for all."""

    task: str
    request: tuple[RoiSpec, ...] | None = None


class RunSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A pipeline and what of it is wanted; `targets` None means every task, whole."""

    pipeline: PipelineSpec
    targets: tuple[Target, ...] | None = None
    numbered: tuple[str, ...] = ()
    """Ids of tasks in the order by which the journal numbers them: those of the run, and those that were of it under
    an earlier request. Empty: the run's tasks in the order of the pipeline."""


Json: TypeAlias = dict[str, Any]

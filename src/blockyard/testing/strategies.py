"""Hypothesis strategies for tasks and runs: small grids, but every corner of the semantics.

They draw how many blocks an axis has, how large a block is, its context on either side and what is left over, and
compute the ROIs from that; so that grids of no block, of one block, and of a context wider than the volume come up as
often as ordinary ones. Everything they give is valid input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blockyard.spec.model import Fit, PipelineSpec, RoiSpec, RunSpec, Target, TaskSpec

try:
    from hypothesis import strategies as st
    from hypothesis.strategies import DrawFn, SearchStrategy
except ImportError as error:
    raise ImportError("blockyard.testing.strategies needs hypothesis: pip install hypothesis") from error

__all__ = ["fits", "pipelines", "requests", "runs", "tasks"]

LARGEST_GRID_BLOCKS = 300
"""More than this slows the naive oracle down, which tests every pair of blocks."""
LARGEST_GRID_OF_A_CHAIN_BLOCKS = 80
"""The same where up to four tasks come together."""

fits: SearchStrategy[Fit] = st.sampled_from(("valid", "overhang", "shrink"))
"""The three fits."""


@dataclass(frozen=True)
class _Axis:
    """One axis of one task, in voxels."""

    begin: int
    size: int
    below: int
    stride: int
    above: int
    shift: int
    """Where the block ROIs are given; it must not matter."""


@st.composite
def _axes(draw: DrawFn, most_blocks: int, first_write: int, *, empty: bool, symmetric: bool) -> _Axis:
    """Draw an axis of at most `most_blocks` blocks (none if `empty`) whose first write begins about `first_write`."""
    stride = draw(st.integers(1, 5))
    kinds = draw(st.integers(0, 8))
    below = draw(st.integers(0, (0, stride, 3 * stride + 1)[kinds % 3]))
    # As below, nothing, or anything; drawn from few numbers, since drawing is what these tests spend their time on.
    above = below if kinds < 3 else draw(st.integers(0, (0, stride, 3 * stride + 1)[kinds // 3]))
    above = below if symmetric else above
    if empty:
        length = draw(st.integers(-below - above, 0))
    else:
        # Whole blocks and what is left over, from nothing to one voxel less than a block.
        length = draw(st.integers(1, most_blocks)) * stride - draw(st.integers(0, stride - 1))
    shift = draw(st.integers(-2 * stride, 2 * stride))
    return _Axis(first_write - below + shift, below + length + above, below, stride, above, 3 * shift - 1)


def _task(name: str, axes: Sequence[_Axis], fit: Fit, *, own: bool, **fields: object) -> TaskSpec:
    return TaskSpec(
        id=name,
        function=None if own else "tests:process",
        worker="tests:work" if own else None,
        total_roi=RoiSpec(tuple(a.begin for a in axes), tuple(a.size for a in axes)),
        read_roi=RoiSpec(tuple(a.shift for a in axes), tuple(a.below + a.stride + a.above for a in axes)),
        write_roi=RoiSpec(tuple(a.shift + a.below for a in axes), tuple(a.stride for a in axes)),
        fit=fit,
        **fields,  # type: ignore[arg-type]
    )


@st.composite
def tasks(
    draw: DrawFn,
    *,
    name: str = "a",
    ndim: int | None = None,
    largest_grid: int = LARGEST_GRID_BLOCKS,
    origin: tuple[int, ...] | None = None,
    requires: tuple[str, ...] = (),
    plain: bool = False,
) -> TaskSpec:
    """Draw one task of at most `largest_grid` blocks, in `ndim` axes (None: 1 to 4, rarely 5), near `origin`.

    A `plain` one has the same context on both sides, and at least one block.
    """
    ndim = draw(st.sampled_from((1, 1, 1, 2, 2, 2, 3, 3, 4, 5))) if ndim is None else ndim
    if origin is None:
        origin = tuple(draw(st.integers(-10, 10)) for _ in range(ndim))
    empty = None if plain else draw(st.sampled_from([None] * 15 + [draw(st.integers(0, ndim - 1))]))
    fit = draw(fits)
    axes = []
    budget = largest_grid
    for axis in range(ndim):
        # Leave the later axes three blocks each, so that the first one does not eat everything.
        drawn = draw(
            _axes(max(min(budget // 3 ** (ndim - axis - 1), 30), 2), origin[axis], empty=axis == empty, symmetric=plain)
        )
        axes.append(drawn)
        length = drawn.size - drawn.below - drawn.above
        budget //= max(-(-length // drawn.stride), 1)
        if plain and length < drawn.stride:
            fit = "overhang"  # valid would have no block
    return _task(
        name,
        axes,
        fit,
        own=draw(st.sampled_from((False, False, False, False, True))),
        read_write_conflict=draw(st.sampled_from((True, True, False))),
        max_retries=draw(st.integers(0, 2)),
        num_workers=draw(st.sampled_from((None, None, 1, 2, 3))),
        pool=draw(st.sampled_from(("default", "default", "default", "gpu"))),
        requires=requires,
    )


@st.composite
def pipelines(
    draw: DrawFn, most_tasks: int = 4, largest_grid: int = LARGEST_GRID_OF_A_CHAIN_BLOCKS, *, plain: bool = False
) -> PipelineSpec:
    """Draw up to `most_tasks` tasks that require some of those before them, listed in any order.

    Their grids overlap in part: strides, contexts and offsets are drawn for each.
    """
    ndim = draw(st.sampled_from((1, 1, 1, 2, 2, 2, 3, 3, 4, 5)))
    origin = tuple(draw(st.integers(-10, 10)) for _ in range(ndim))
    drawn: list[TaskSpec] = []
    for name in "abcd"[: draw(st.integers(1, most_tasks))]:
        before = [task.id for task in drawn]
        fewest = draw(st.sampled_from((0, 1, 1, 1, 1)))
        requires = draw(st.lists(st.sampled_from(before), unique=True, min_size=fewest, max_size=3)) if before else []
        drawn.append(
            draw(
                tasks(
                    name=name,
                    ndim=ndim,
                    largest_grid=largest_grid,
                    origin=origin,
                    requires=tuple(requires),
                    plain=plain,
                )
            )
        )
    return PipelineSpec(name="drawn", tasks=tuple(draw(st.permutations(drawn))))


@st.composite
def requests(draw: DrawFn, task: TaskSpec) -> RoiSpec:
    """Draw a ROI inside the task's total ROI: any, of no voxel, or only in the context below."""
    kind = draw(st.sampled_from(("any", "any", "any", "any", "all", "context", "nothing")))
    special = draw(st.integers(0, task.total_roi.ndim - 1))
    begin, end = [], []
    for axis in range(task.total_roi.ndim):
        low, high = task.total_roi.begin[axis], task.total_roi.end[axis]
        below = task.write_roi.begin[axis] - task.read_roi.begin[axis]
        one, other = sorted((draw(st.integers(low, high)), draw(st.integers(low, high))))
        if kind == "all":
            one, other = low, high
        elif kind == "context" and axis == special:
            one, other = low, min(low + below, high)
        elif kind == "nothing" and axis == special:
            other = one
        begin.append(one)
        end.append(other)
    return RoiSpec(tuple(begin), tuple(e - b for b, e in zip(begin, end, strict=True)))


@st.composite
def targets(draw: DrawFn, pipeline: PipelineSpec) -> tuple[Target, ...]:
    """Draw up to three targets of a pipeline, most of them with requests."""
    chosen = draw(st.lists(st.sampled_from(pipeline.tasks), min_size=1, max_size=3, unique_by=lambda task: task.id))
    drawn = []
    for task in chosen:
        rois = draw(st.lists(requests(task), min_size=1, max_size=3)) if draw(st.integers(0, 3)) else None
        drawn.append(Target(task.id, None if rois is None else tuple(rois)))
    return tuple(drawn)


@st.composite
def runs(draw: DrawFn, most_tasks: int = 4, largest_grid: int = LARGEST_GRID_OF_A_CHAIN_BLOCKS) -> RunSpec:
    """Draw a pipeline and what of it is wanted: everything, or up to three targets, most of them with requests."""
    pipeline = draw(pipelines(most_tasks, largest_grid))
    wanted = draw(targets(pipeline)) if draw(st.booleans()) else None
    return RunSpec(pipeline, wanted)

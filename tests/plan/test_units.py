"""Blocks that share a chunk or shard: what the arithmetic says against every block of small grids."""

from __future__ import annotations

import itertools

from hypothesis import assume, given
from hypothesis import strategies as st

from blockyard.plan.grid import Grid
from blockyard.plan.units import ArrayFacts, Placed, always_in_order, fitting_begin, fitting_shape, most_in_unit
from blockyard.spec.model import RoiSpec, TaskSpec


def task(begin, below, stride, above, length, fit="valid", conflict=True) -> TaskSpec:
    """A task whose blocks write from `begin` on; one number an axis each."""
    offset = tuple(b - c for b, c in zip(begin, below, strict=True))
    read = tuple(b + s + a for b, s, a in zip(below, stride, above, strict=True))
    total = tuple(b + n + a for b, n, a in zip(below, length, above, strict=True))
    return TaskSpec(
        id="t",
        function="m:f",
        total_roi=RoiSpec(offset, total),
        read_roi=RoiSpec(offset, read),
        write_roi=RoiSpec(begin, stride),
        fit=fit,
        read_write_conflict=conflict,
    )


@st.composite
def cases(draw) -> tuple[Grid, Placed]:
    ndim = draw(st.integers(1, 2))
    axes = st.tuples(*[st.integers(1, 7)] * ndim)
    contexts = st.tuples(*[st.integers(0, 9)] * ndim)
    begin, first = draw(st.tuples(*[st.integers(-9, 9)] * ndim)), draw(st.tuples(*[st.integers(-9, 9)] * ndim))
    length = draw(st.tuples(*[st.integers(1, 30)] * ndim))
    fit = draw(st.sampled_from(["valid", "overhang", "shrink"]))
    grid = Grid.of(task(begin, draw(contexts), draw(axes), draw(contexts), length, fit))
    return grid, Placed(first, tuple(f + 10**6 for f in first), draw(axes))


def units_of(grid: Grid, placed: Placed, index: tuple[int, ...]) -> set[tuple[int, ...]]:
    """The units that the block at `index` writes into, by its ROI."""
    roi = grid.write_roi(index)
    ranges = [
        range((b - first) // unit, -((first - e) // unit))
        for b, e, first, unit in zip(roi.begin, roi.end, placed.begin, placed.unit, strict=True)
    ]
    return set(itertools.product(*ranges))


def sharing(grid: Grid, placed: Placed) -> tuple[int, list[tuple[tuple[int, ...], tuple[int, ...]]]]:
    """The most blocks in one unit, and all pairs of blocks that share one."""
    writers: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for index in itertools.product(*map(range, grid.shape)):
        for unit in units_of(grid, placed, index):
            writers.setdefault(unit, []).append(index)
    pairs = {pair for blocks in writers.values() for pair in itertools.combinations(blocks, 2)}
    return max(map(len, writers.values())), sorted(pairs)


def conflict(grid: Grid, one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether one block reads what the other writes."""

    def meets(a: RoiSpec, b: RoiSpec) -> bool:
        return all(max(ab, bb) < min(ae, be) for ab, ae, bb, be in zip(a.begin, a.end, b.begin, b.end, strict=True))

    return meets(grid.read_roi(one), grid.write_roi(other)) or meets(grid.read_roi(other), grid.write_roi(one))


@given(cases())
def test_the_most_blocks_in_a_unit_are_no_fewer_than_there_are_and_one_only_where_none_share(case) -> None:
    """Exact where the grid is long enough to meet a unit everywhere; 1 says that no two blocks share."""
    grid, placed = case
    assume(grid.size)
    most, _ = sharing(grid, placed)
    said = most_in_unit(grid, placed)
    assert most <= said
    assert (said > 1) == (most > 1)


@given(cases())
def test_blocks_are_said_to_be_in_order_only_where_all_that_share_a_unit_conflict(case) -> None:
    """Then nothing is lost, and nothing needs to be said."""
    grid, placed = case
    assume(grid.size and always_in_order(grid, placed))
    assert [pair for pair in sharing(grid, placed)[1] if not conflict(grid, *pair)] == []


@given(cases())
def test_the_shape_and_the_begin_that_are_advised_share_nothing(case) -> None:
    """And they are what the blocks have where those share nothing on axes of several blocks."""
    grid, placed = case
    assume(grid.size)
    shape, begin = fitting_shape(grid, placed), fitting_begin(grid, placed)
    length = tuple(s if n < 2 else 3 * s for s, n in zip(shape, grid.shape, strict=True))
    advised = Grid.of(task(begin, grid.below, shape, grid.above, length))
    several = [axis for axis, n in enumerate(grid.shape) if n > 1]
    assert most_in_unit(advised, placed) == 1
    if all(grid.stride[k] % placed.unit[k] == 0 for k in several):
        assert shape == grid.stride


def facts(shape, unit, **more) -> ArrayFacts:
    return ArrayFacts("t", "target", "out.zarr", "writes", "chunk", shape, unit, **more)


def test_an_array_lies_in_voxels_or_in_world_units_as_the_rois_are() -> None:
    """Axes before those of the blocks are channels; an array of fewer axes can't be placed."""
    grid = Grid.of(task((0, 0), (0, 0), (64, 64), (0, 0), (640, 640)))
    assert Placed.of(facts((3, 640, 640), (1, 64, 32)), grid) == Placed((0, 0), (640, 640), (64, 32))
    assert Placed.of(facts((640,), (64,)), grid) is None
    nm = facts((80, 160), (8, 16), voxel_size=(8, 4), offset=(0, 0))
    assert Placed.of(nm, grid) == Placed((0, 0), (640, 640), (64, 64))
    assert Placed.of(facts((80, 160), (8, 16), voxel_size=(8, 4), offset=(-80, 40)), grid) == Placed(
        (-80, 40), (560, 680), (64, 64)
    )
    assert Placed.of(facts((640, 640), (8, 16), voxel_size=(8, 4)), grid) == Placed((0, 0), (640, 640), (8, 16))

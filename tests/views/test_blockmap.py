"""The map counts what a look at each block counts, however the grid lies in chunks and cells."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.core.state.task import Kind, Task
from blockyard.plan.grid import Grid
from blockyard.plan.requests import disjoint
from blockyard.spec.errors import SpecError
from blockyard.spec.model import RoiSpec, TaskSpec
from blockyard.views.blockmap import block_map, blocks_in, step_for, view_of
from blockyard.wire.states import BlockState

STATES = tuple(BlockState)


def task_of(shape, boxes=None):
    zero, one = (0,) * len(shape), (1,) * len(shape)
    spec = TaskSpec(
        id="work",
        function="json:dumps",
        total_roi=RoiSpec(zero, tuple(shape)),
        read_roi=RoiSpec(zero, one),
        write_roi=RoiSpec(zero, one),
    )
    grid = Grid.of(spec)
    return Task(0, spec, grid, disjoint([(zero, grid.shape)] if boxes is None else boxes))


def scatter_states(task, rng, crowded):
    """Put each block of the run into a state, and give (state by index, leased, ready)."""
    states, addresses = {}, {state: [] for state in STATES}
    usual = rng.choice(("pending", "done", "failed"))
    for index in itertools.product(*map(range, task.grid.shape)):
        at = np.array([index])
        state = rng.choice(STATES[:-1]) if crowded or rng.random() < 0.02 else usual
        states[index] = state if task.in_run(at)[0] else "outside"
        addresses[states[index]].append(int(task.layout.addresses(at)[0]))
    taken = {state: np.array(found, np.int64) for state, found in addresses.items()}
    for kind in (Kind.DONE, Kind.SKIPPED, Kind.FAILED, Kind.ORPHANED):
        if len(taken[kind.name.lower()]):
            task.mark(kind, taken[kind.name.lower()], 1)
    return states, taken["leased"], taken["ready"]


def naive(task, view, found, states):
    planes = {state: np.zeros(found.cells, np.int64) for state in STATES}
    for index, state in states.items():
        if any(index[axis] != at for axis, at in view.cut.items()):
            continue
        at = [index[axis] for axis in view.shown]
        cell = [(i - b) // step for i, b, step in zip(at, found.begin, found.step, strict=True)]
        cell = cell if len(cell) > 1 else [0, *cell]
        if all(0 <= c < n for c, n in zip(cell, found.cells, strict=True)):
            planes[state][tuple(cell)] += 1
    return planes


@st.composite
def shapes(draw):
    ndim = draw(st.integers(1, 4))
    most = {1: 300, 2: 20, 3: 9, 4: 5}[ndim]
    return tuple(draw(st.lists(st.integers(1, most), min_size=ndim, max_size=ndim)))


@st.composite
def views(draw, shape):
    axes = draw(st.permutations(range(len(shape))))[: draw(st.integers(0, len(shape) - 1))]
    cuts = [(axis, draw(st.none() | st.integers(0, shape[axis] - 1))) for axis in axes]
    most = draw(st.sampled_from((2, 5, 16, 64)))
    view = view_of(shape, cuts, most=most)
    begin = tuple(draw(st.integers(0, shape[axis] - 1)) for axis in view.shown)
    end = tuple(draw(st.integers(b + 1, shape[axis])) for b, axis in zip(begin, view.shown, strict=True))
    return draw(st.sampled_from((view, view_of(shape, cuts, (begin, end), most))))


@st.composite
def boxes(draw, shape):
    if draw(st.booleans()):
        return None
    found = []
    for _ in range(draw(st.integers(1, 3))):
        lo = tuple(draw(st.integers(0, n - 1)) for n in shape)
        found.append((lo, tuple(draw(st.integers(b + 1, n)) for b, n in zip(lo, shape, strict=True))))
    return found


@pytest.mark.parametrize("bits", [3, 6, 12])
@given(data=st.data())
def test_each_cell_counts_its_blocks_by_state(data, bits):
    """Slices, projections, windows and cells of several blocks: the planes are those of a loop over all blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("blockyard.core.state.layout.CHUNK_BITS", bits)
        patch.setattr("blockyard.views.blockmap.BATCH_BYTES", data.draw(st.sampled_from((8, 2**18))))
        shape = data.draw(shapes())
        task = task_of(shape, data.draw(boxes(shape)))
        rng = random.Random(data.draw(st.integers(0, 2**16)))
        states, leased, ready = scatter_states(task, rng, data.draw(st.booleans()))
        view = data.draw(views(shape))
        found = block_map(task, view, leased, ready)
        expected = naive(task, view, found, states)
    most = view.most if len(view.shown) > 1 else view.most**2
    assert all(n <= most + 1 for n in found.cells)
    assert list(found.planes) == [state for state in STATES if expected[state].any()]
    for state, plane in found.planes.items():
        np.testing.assert_array_equal(plane, expected[state], state)


@given(data=st.data())
def test_the_blocks_of_a_cell_are_named(data):
    """Of each state the first blocks found in a box, and never one that is in another state or outside the box."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("blockyard.core.state.layout.CHUNK_BITS", 4)
        shape = data.draw(shapes())
        task = task_of(shape, data.draw(boxes(shape)))
        states, leased, ready = scatter_states(task, random.Random(data.draw(st.integers(0, 2**16))), crowded=True)
        lo = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
        hi = tuple(data.draw(st.integers(b + 1, n)) for b, n in zip(lo, shape, strict=True))
        for state in STATES:
            there = [
                task.grid.id_of(index)
                for index, its in states.items()
                if its == state and all(b <= i < e for b, i, e in zip(lo, index, hi, strict=True))
            ]
            assert blocks_in(task, state, (lo, hi), leased, ready, 10**6).tolist() == there
            few = blocks_in(task, state, (lo, hi), leased, ready, 3).tolist()
            assert len(few) == min(3, len(there))
            assert set(few) <= set(there)


def test_the_map_of_a_large_grid_is_arithmetic_where_nothing_is_done():
    """10^9 blocks, none of them done: the map is arithmetic."""
    task = task_of((1000, 1000, 1000))
    none = np.empty(0, np.int64)
    found = block_map(task, view_of(task.grid.shape, [], most=512), none, none)
    assert list(found.planes) == ["pending"]
    assert found.planes["pending"].sum() == 10**9
    assert found.step == (2, 2)


def test_an_empty_grid_has_an_empty_map():
    """A task of no block is shown as nothing."""
    task = task_of((0, 4))
    none = np.empty(0, np.int64)
    found = block_map(task, view_of(task.grid.shape, []), none, none)
    assert (found.cells, found.planes) == ((0, 4), {})


@pytest.mark.parametrize(
    ("cuts", "window", "sentence"),
    [
        ([(3, None)], ((), ()), "axis 3 is none of the grid's axes 0 .. 2"),
        ([(0, 5)], ((), ()), "slice 5 is outside axis 0, which has blocks 0 .. 4"),
        ([(0, 0), (1, 0), (2, 0)], ((), ()), "leave one or two to be shown"),
        ([(0, 0)], ((0,), (1,)), "2 axes are shown"),
        ([(0, 0)], ((0, 0), (6, 8)), "not inside the shown axes, of (6, 7) blocks"),
    ],
)
def test_a_view_that_the_grid_does_not_have_is_refused(cuts, window, sentence):
    """The sentence says what there is."""
    with pytest.raises(SpecError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        view_of((5, 6, 7), cuts, window)


def test_a_cell_has_a_power_of_two_of_blocks():
    """So that cells and chunks fit into one another."""
    assert [step_for(n, 4) for n in (1, 4, 5, 8, 9, 17, 10**9)] == [1, 1, 2, 2, 4, 8, 2**28]

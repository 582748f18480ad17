"""The map by duration and attempts against plain sums over blocks: any cut, projection, window and number of axes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.core.observer import shapes_of
from blockyard.core.state.task import Task
from blockyard.plan.grid import Grid
from blockyard.record.durations import encode
from blockyard.record.history import History
from blockyard.spec.model import RoiSpec, TaskSpec
from blockyard.views.blockmap import view_of
from blockyard.views.valuemap import value_map


def task_of(shape):
    zero, block = (0,) * len(shape), RoiSpec((0,) * len(shape), (1,) * len(shape))
    total = RoiSpec(zero, tuple(shape))
    spec = TaskSpec(id="t", function="json:dumps", total_roi=total, read_roi=block, write_roi=block)
    grid = Grid.of(spec)
    return Task(0, spec, grid, [(zero, grid.shape)])


def recorded(task, ids, seconds, most=10**6):
    history = History(shapes_of([task]), most)
    addresses = task.layout.addresses(task.grid.unravel(np.array(ids, np.int64)))
    attempts = np.where(np.arange(len(ids)) % 3, 1, 2).astype(np.uint8)
    history.tasks[0].add(addresses, encode(np.array(seconds, np.float32)), attempts, 0, 0, 1)
    return history.tasks[0]


@given(st.data())
def test_each_cell_has_the_mean_of_its_blocks(data):
    """Of those that are recorded; NaN where none is."""
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    task = task_of(shape)
    n = int(np.prod(shape))
    ids = sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1)))
    seconds = [data.draw(st.floats(0.01, 100.0)) for _ in ids]
    hidden = list(range(len(shape) - 2)) if len(shape) > 2 else []
    cuts = [(axis, data.draw(st.none() | st.integers(0, shape[axis] - 1))) for axis in hidden]
    view = view_of(shape, cuts, most=data.draw(st.sampled_from([2, 4, 64])))
    found = value_map(task, recorded(task, ids, seconds), view, "duration")
    frame, plane = found.frame, found.means
    assert found.together == ()
    sums, counts = np.zeros(frame.cells), np.zeros(frame.cells)
    for block, took in zip(ids, seconds, strict=True):
        index = np.unravel_index(block, shape)
        if all(at is None or index[axis] == at for axis, at in cuts):
            cell = [index[axis] // step for axis, step in zip(view.shown, frame.step, strict=True)]
            cell = (0, *cell) if len(cell) == 1 else tuple(cell)
            sums[cell] += took
            counts[cell] += 1
    with np.errstate(invalid="ignore"):
        expected = sums / counts
    assert plane == pytest.approx(expected, rel=2e-3, nan_ok=True)


def test_attempts_are_shown_likewise():
    """The attempt at which a block was done."""
    task = task_of((2, 2))
    found = value_map(task, recorded(task, [0, 1, 3], [1.0, 1.0, 1.0]), view_of((2, 2), []), "attempts")
    assert found.means == pytest.approx(np.array([[2, 1], [np.nan, 1]]), nan_ok=True)


@given(st.data())
def test_blocks_under_way_count_by_their_attempts(data):
    """In each cell those that are not done beside those that are; and not what an earlier time took that is undone."""
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=2, max_size=3)))
    task = task_of(shape)
    n = int(np.prod(shape))
    ids = sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1)))
    attempts = {block: 2 if at % 3 == 0 else 1 for at, block in enumerate(ids)}
    going_on = data.draw(st.dictionaries(st.integers(0, n - 1), st.integers(1, 5)))
    addresses = task.layout.addresses(task.grid.unravel(np.array(list(going_on), np.int64)))
    under_way = addresses, np.array(list(going_on.values()), np.int64)
    view = view_of(shape, [], most=data.draw(st.sampled_from([1, 2, 64])))
    found = value_map(task, recorded(task, ids, [1.0] * len(ids)), view, "attempts", under_way)
    sums, counts = np.zeros(found.frame.cells), np.zeros(found.frame.cells)
    for block, tried in (attempts | going_on).items():
        index = np.unravel_index(block, shape)
        cell = tuple(index[axis] // step for axis, step in zip(view.shown, found.frame.step, strict=True))
        sums[cell] += tried
        counts[cell] += 1
    with np.errstate(invalid="ignore"):
        assert found.means == pytest.approx(sums / counts, nan_ok=True)


def test_a_task_recorded_by_chunk_shows_the_mean_of_the_chunk():
    """In each cell of it, and it is said that no more is known; nothing where no chunk has a record."""
    task = task_of((64, 64))
    history = recorded(task, [0, 1], [2.0, 4.0], most=10)
    assert history.rows is None
    view = view_of((64, 64), [])
    height, width = task.layout.side
    for value, mean in (("duration", 3.0), ("attempts", 1.5)):
        found = value_map(task, history, view, value)
        assert found.together == (height, width)
        assert found.means[:height, :width] == pytest.approx(np.full((height, width), mean), rel=2e-3)
        assert np.isnan(found.means[height:]).all()
        assert np.isnan(found.means[:, width:]).all()
    under_way = task.layout.addresses(np.array([[1, 1], [63, 63]])), np.array([3, 4])
    means = value_map(task, history, view, "attempts", under_way).means
    assert (means[0, 0], means[1, 1], means[63, 63]) == (1.5, 3, 4)


@pytest.mark.parametrize("most", [10, 10**9])
def test_a_cell_of_several_chunks_has_the_mean_of_all_of_them(most):
    """Not that of its first one only; likewise whether blocks are recorded or chunks."""
    task = task_of((40_000, 300))
    height = task.layout.side[0]
    ids = [0, height * 300]  # the first blocks of two chunks that lie below one another
    history = recorded(task, ids, [2.0, 4.0], most=most)
    view = view_of((40_000, 300), [], most=4)
    found = value_map(task, history, view, "duration")
    assert found.frame.step[0] > height
    assert found.means[0, 0] == pytest.approx(3.0, rel=2e-3)
    under_way = task.layout.addresses(np.array([[1, 1], [height, 0]])), np.array([3, 4])
    tried = value_map(task, history, view, "attempts", under_way).means[0, 0]
    assert tried == pytest.approx((2 + 1 + 3 + 4) / 4 if most == 10 else (2 + 3 + 4) / 3)


def test_nothing_is_known_where_nothing_is_recorded():
    """A run without a record."""
    task = task_of((3, 4))
    found = value_map(task, None, view_of((3, 4), []), "duration")
    assert found.frame.cells == found.means.shape == (3, 4)
    assert np.isnan(found.means).all()

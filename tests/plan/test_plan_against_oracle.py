"""The arithmetic of the plan gives, on random tasks and runs, exactly what the naive oracle lists."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from oracle import Box, Oracle, OracleTask

from blockyard.plan.edges import Edge, expand
from blockyard.plan.grid import Grid
from blockyard.plan.levels import Levels
from blockyard.plan.requests import run_boxes, topological, volume
from blockyard.plan.zorder import ZOrder
from blockyard.spec.model import RoiSpec, RunSpec, TaskSpec
from blockyard.spec.validate import validate_run
from blockyard.testing.strategies import runs, tasks


def ids_in(grid: Grid, lo, hi) -> list[int]:
    """The block ids of an index box, one by one."""
    return [grid.id_of(index) for index in product(*(range(b, e) for b, e in zip(lo, hi, strict=True)))]


def box_of(roi: RoiSpec) -> Box:
    return Box(roi.begin, roi.end)


def all_indices(grid: Grid) -> np.ndarray:
    return grid.unravel(np.arange(grid.size))


# --- one task ------------------------------------------------------------------------------------------------------


@given(task=tasks())
def test_the_grid_has_the_blocks_and_boxes_of_the_oracle(task: TaskSpec):
    """Count, ids, indices, read and write ROIs of every block."""
    grid, oracle = Grid.of(task), OracleTask(task)
    assert grid.shape == tuple(oracle.counts)
    assert grid.size == len(oracle.blocks)
    for block_id, block in oracle.blocks.items():
        assert grid.index_of(block_id) == block.index
        assert grid.id_of(block.index) == block_id
        assert box_of(grid.write_roi(block.index)) == block.write
        assert box_of(grid.read_roi(block.index)) == block.read
    indices = all_indices(grid)
    assert [tuple(index) for index in indices.tolist()] == [block.index for block in oracle.blocks.values()]
    assert grid.ravel(indices).tolist() == list(range(grid.size))


@given(task=tasks())
def test_voxels_are_those_of_the_write_rois(task: TaskSpec):
    """Exact, also for blocks that shrink clips."""
    grid, oracle = Grid.of(task), OracleTask(task)
    writes = [block.write for block in oracle.blocks.values()]
    sizes = [math.prod(e - b for b, e in zip(roi.begin, roi.end, strict=True)) for roi in writes]
    assert grid.voxels_written(all_indices(grid)) == sum(sizes)


@given(task=tasks())
def test_what_the_grid_writes_in_all_ends_where_its_last_block_ends(task: TaskSpec):
    """write_begin and write_end are the ends of the union of all writes, and equal where there is none."""
    grid, oracle = Grid.of(task), OracleTask(task)
    assert grid.write_begin == oracle.total_write.begin
    if grid.size:
        assert grid.write_end == list(oracle.blocks.values())[-1].write.end
    else:
        assert any(begin == end for begin, end in zip(grid.write_begin, grid.write_end, strict=True))


@given(data=st.data(), task=tasks(largest_grid=100))
def test_the_writers_of_a_roi_are_the_blocks_whose_write_roi_meets_it(data, task: TaskSpec):
    """Any ROI: inside, over the edge, far outside, empty."""
    grid, oracle = Grid.of(task), OracleTask(task)
    near = [st.integers(b - 12, e + 12) for b, e in zip(task.total_roi.begin, task.total_roi.end, strict=True)]
    begin = tuple(data.draw(axis) for axis in near)
    roi = RoiSpec(begin, tuple(data.draw(st.one_of(st.integers(0, 1), st.integers(0, 30))) for _ in begin))
    lo, hi = grid.writers(roi)
    expected = [block_id for block_id, block in oracle.blocks.items() if block.write.meets(box_of(roi))]
    assert ids_in(grid, lo, hi) == expected


@given(data=st.data(), task=tasks(largest_grid=100))
def test_a_box_of_blocks_reads_what_its_blocks_read(data, task: TaskSpec):
    """From the first one's begin to the last one's end, and no voxel of it is read by none."""
    grid, oracle = Grid.of(task), OracleTask(task)
    if not grid.size:
        return
    lo, hi = data.draw(index_boxes(grid))
    read = grid.read_box(lo, hi)
    blocks = [oracle.blocks[block_id].read for block_id in ids_in(grid, lo, hi)]
    assert read.begin == tuple(map(min, *(block.begin for block in blocks), read.begin))
    assert read.end == tuple(map(max, *(block.end for block in blocks), read.end))
    for axis in range(grid.ndim):
        covered = {x for block in blocks for x in range(block.begin[axis], block.end[axis])}
        assert covered == set(range(read.begin[axis], read.end[axis]))


@st.composite
def index_boxes(draw, grid: Grid):
    """A non-empty box of block indices."""
    pairs = [sorted((draw(st.integers(0, n - 1)), draw(st.integers(0, n - 1)))) for n in grid.shape]
    return tuple(lo for lo, _ in pairs), tuple(hi + 1 for _, hi in pairs)


@given(task=tasks(largest_grid=150))
def test_levels_and_the_waiting_within_a_task_are_those_of_the_oracle(task: TaskSpec):
    """The level of each block; whom it waits for and who waits for it, each pair once."""
    grid, oracle = Grid.of(task), OracleTask(task)
    levels = Levels.of(grid, conflict=task.read_write_conflict)
    indices = all_indices(grid)
    assert levels.of_blocks(indices).tolist() == [block.level for block in oracle.blocks.values()]
    if grid.size:
        assert levels.count == 1 + max(block.level for block in oracle.blocks.values())
    for block_id in oracle.blocks:
        waits = listed(grid, levels.blockers(indices[block_id : block_id + 1]))
        assert waits == sorted(oracle.waits_for[block_id])
        waiting = listed(grid, levels.waiters(indices[block_id : block_id + 1]))
        assert waiting == [other for other, waits in oracle.waits_for.items() if block_id in waits]


def listed(grid: Grid, batches) -> list[int]:
    """All ids of some batches of index vectors, sorted, repetitions and all."""
    return sorted(x for batch in batches for x in grid.ravel(batch).tolist())


@given(data=st.data(), task=tasks(largest_grid=60))
def test_neighbours_of_a_batch_are_those_of_its_blocks_together(data, task: TaskSpec):
    """A batch gives each pair once; as an array, each block has the number of flagged blocks it waits for."""
    grid, oracle = Grid.of(task), OracleTask(task)
    levels = Levels.of(grid, conflict=task.read_write_conflict)
    indices = all_indices(grid)
    if not grid.size:
        return
    batch = sorted(data.draw(st.sets(st.integers(0, grid.size - 1), max_size=12)))
    expected = sorted(other for block_id in batch for other in oracle.waits_for[block_id])
    assert listed(grid, levels.blockers(indices[batch])) == expected
    flags = np.zeros(grid.shape, np.bool_)
    flags.reshape(-1)[batch] = True
    counted = levels.count_blockers(flags, (0,) * grid.ndim, (0,) * grid.ndim, grid.shape).ravel()
    for block_id, waits in oracle.waits_for.items():
        assert counted[block_id] == len(waits & set(batch))


# --- between tasks -------------------------------------------------------------------------------------------------


@given(run=runs())
def test_edges_between_tasks_are_those_of_the_oracle_in_both_directions(run: RunSpec):
    """Every downstream block's upstream blocks, and the inverse."""
    oracle = Oracle(RunSpec(run.pipeline))
    grids = {task.id: Grid.of(task) for task in run.pipeline.tasks}
    for down_id, task in oracle.tasks.items():
        for up_id in task.spec.requires:
            up, down = grids[up_id], grids[down_id]
            edge = Edge(up, down)
            lo, hi = edge.blockers(all_indices(down))
            for block_id in task.blocks:
                expected = sorted(x for t, x in oracle.waits_for[down_id, block_id] if t == up_id)
                assert ids_in(up, lo[block_id].tolist(), hi[block_id].tolist()) == expected
            lo, hi = edge.waiters(all_indices(up))
            for block_id in oracle.tasks[up_id].blocks:
                expected = sorted(x for t, x in oracle.waited_for_by[up_id, block_id] if t == down_id)
                assert ids_in(down, lo[block_id].tolist(), hi[block_id].tolist()) == expected


@given(data=st.data(), run=runs(most_tasks=3))
def test_edges_of_boxes_are_the_union_or_the_intersection_over_their_blocks(data, run: RunSpec):
    """blockers_of_box and waiters_of_box: any; common_blockers_of_box: every; fed_box: those that wait for any."""
    oracle = Oracle(RunSpec(run.pipeline))
    grids = {task.id: Grid.of(task) for task in run.pipeline.tasks}
    for down_id, task in oracle.tasks.items():
        for up_id in task.spec.requires:
            up, down = grids[up_id], grids[down_id]
            edge = Edge(up, down)

            def waits_for(block_id, down_id=down_id, up_id=up_id):
                return {x for t, x in oracle.waits_for[down_id, block_id] if t == up_id}

            fed = [block_id for block_id in range(down.size) if waits_for(block_id)]
            if down.size:
                assert ids_in(down, *edge.fed_box()) == fed
                lo, hi = data.draw(index_boxes(down))
                sets = [waits_for(block_id) for block_id in ids_in(down, lo, hi)]
                assert ids_in(up, *edge.blockers_of_box(lo, hi)) == sorted(set.union(*sets))
                assert ids_in(up, *edge.common_blockers_of_box(lo, hi)) == sorted(set.intersection(*sets))
            if up.size:
                lo, hi = data.draw(index_boxes(up))
                chosen = set(ids_in(up, lo, hi))
                expected = [block_id for block_id in range(down.size) if waits_for(block_id) & chosen]
                assert ids_in(down, *edge.waiters_of_box(lo, hi)) == expected


# --- what runs, and in which order ---------------------------------------------------------------------------------


@given(run=runs())
def test_the_boxes_of_a_run_hold_each_block_of_the_run_once(run: RunSpec):
    """Requests, targets and shared dependencies: the union; tasks that nobody needs are left out."""
    oracle = Oracle(run)
    grids = {task.id: Grid.of(task) for task in run.pipeline.tasks}
    boxes = run_boxes(run, grids)
    assert list(boxes) == oracle.order
    for task_id, chosen in boxes.items():
        listed_ids = [block_id for lo, hi in chosen for block_id in ids_in(grids[task_id], lo, hi)]
        assert sorted(listed_ids) == sorted(oracle.run_blocks[task_id])
        assert sum(map(volume, chosen)) == len(oracle.run_blocks[task_id])


@given(run=runs())
def test_tasks_in_topological_order_come_after_those_they_require(run: RunSpec):
    """Each task once, after all that it requires."""
    order = topological(run.pipeline.tasks)
    assert sorted(order) == sorted(task.id for task in run.pipeline.tasks)
    for task in run.pipeline.tasks:
        assert all(order.index(upstream) < order.index(task.id) for upstream in task.requires)


@given(run=runs())
def test_the_keys_are_the_morton_codes_of_the_oracle(run: RunSpec):
    """Bit by bit; over all tasks of the run."""
    oracle = Oracle(run)
    grids = {task_id: Grid.of(task.spec) for task_id, task in oracle.tasks.items()}
    order = ZOrder(grids)
    keys = {
        (task_id, block_id): int(key)
        for task_id, grid in grids.items()
        for block_id, key in enumerate(order.keys(task_id, all_indices(grid)).tolist())
    }
    expected = {(task_id, x): b.key for task_id, task in oracle.tasks.items() for x, b in task.blocks.items()}
    if all(grid.size for grid in grids.values()):
        assert keys == expected
    # A grid of no block may claim a bit that no block has set; that changes keys, but not their order.
    ranks = {key: rank for rank, key in enumerate(sorted(set(keys.values())))}
    expected_ranks = {key: rank for rank, key in enumerate(sorted(set(expected.values())))}
    assert {name: ranks[key] for name, key in keys.items()} == {n: expected_ranks[k] for n, k in expected.items()}


@given(
    counts=st.lists(st.integers(1, 2**24), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
)
def test_keys_of_enormous_grids_are_integers_of_any_width(counts, seed):
    """Up to 120 bits, axes longer than a table, compared bit by bit on a few blocks."""
    from oracle import interleaved

    one = (1,) * len(counts)
    zero = (0,) * len(counts)
    task = TaskSpec(
        id="a", total_roi=RoiSpec(zero, tuple(counts)), read_roi=RoiSpec(zero, one), write_roi=RoiSpec(zero, one)
    )
    if np.prod([float(n) for n in counts]) >= 2**62:
        return
    rng = np.random.default_rng(seed)
    places = np.stack([rng.integers(0, n, 5) for n in counts], axis=1)
    places[0] = np.array(counts) - 1
    keys = ZOrder({"a": Grid.of(task)}).keys("a", places)
    bits = [(n - 1).bit_length() for n in counts]
    assert [int(key) for key in keys.tolist()] == [interleaved(place, bits) for place in places.tolist()]


# --- the strategies themselves -------------------------------------------------------------------------------------


@given(run=runs())
def test_drawn_runs_are_valid_input(run: RunSpec):
    """What the property tests run is what a user may run."""
    validate_run(run)


@given(
    boxes=st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=2), max_size=6),
    most=st.integers(1, 40),
)
def test_expanding_boxes_gives_the_indices_of_each_box_once(boxes, most):
    """A block of several boxes comes once for each; empty boxes give nothing."""
    lo = np.array([[b for b, _ in box] for box in boxes], np.int64).reshape(-1, 2)
    hi = np.array([[e for _, e in box] for box in boxes], np.int64).reshape(-1, 2)
    expected = [index for box in boxes for index in product(*(range(b, e) for b, e in box))]
    batches = list(expand(lo, hi, most=most))
    assert sorted(tuple(index) for batch in batches for index in batch.tolist()) == sorted(expected)

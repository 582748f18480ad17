"""The oracle itself is right: every row of the tables of docs/semantics, and claims the semantics make about it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from oracle import Box, Oracle, OracleTask

from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, Target, TaskSpec
from blockyard.testing.strategies import runs, tasks


def interval(begin: int, end: int) -> RoiSpec:
    return RoiSpec((begin,), (end - begin,))


def line(name, total, read, write, fit="valid", **fields) -> TaskSpec:
    """A task of one axis from its intervals."""
    return TaskSpec(
        id=name,
        function="m:f",
        total_roi=interval(*total),
        read_roi=interval(*read),
        write_roi=interval(*write),
        fit=fit,
        **fields,
    )


def run_of(*specs, targets=None) -> RunSpec:
    return RunSpec(PipelineSpec(name="run", tasks=specs), targets)


def boxes(task: OracleTask, kind: str) -> list[tuple[int, int]]:
    return [(getattr(b, kind).begin[0], getattr(b, kind).end[0]) for b in task.blocks.values()]


# --- section 1: one axis -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [(0, 12), (-5, 9), (3, 30), (0, 5), (0, 4), (7, 7)])
@pytest.mark.parametrize(("below", "stride", "above"), [(1, 3, 1), (0, 4, 0), (4, 1, 4), (1, 2, 3), (0, 3, 5)])
@pytest.mark.parametrize("fit", ["valid", "overhang", "shrink"])
def test_the_counts_and_boxes_of_each_fit_are_those_of_the_table(total, below, stride, above, fit):
    """Valid: floor(L/s) blocks; overhang and shrink: ceil(L/s); shrink clips writes to TW and reads to T."""
    task = OracleTask(line("a", total, (0, below + stride + above), (below, below + stride), fit))
    length = total[1] - total[0] - below - above
    count = max(0, (math.floor if fit == "valid" else math.ceil)(length / stride))
    writes = [(total[0] + below + i * stride, total[0] + below + (i + 1) * stride) for i in range(count)]
    reads = [(begin - below, end + above) for begin, end in writes]
    if fit == "shrink":
        writes = [(begin, min(end, total[1] - above)) for begin, end in writes]
        reads = [(begin, min(end, total[1])) for begin, end in reads]
    assert boxes(task, "write") == writes
    assert boxes(task, "read") == reads


def test_only_context_and_stride_matter_and_not_where_the_block_rois_lie():
    """Only cl, cu and s matter."""
    here = OracleTask(line("a", (0, 12), (0, 5), (1, 4)))
    there = OracleTask(line("a", (0, 12), (-100, -95), (-99, -96)))
    assert here.blocks == there.blocks


def test_the_block_id_is_the_c_order_index_with_the_last_axis_fastest():
    """Ids count 0 to total - 1 with the last axis fastest."""
    roi = RoiSpec((0, 0), (2, 3))
    task = OracleTask(
        TaskSpec(id="a", total_roi=roi, read_roi=RoiSpec((0, 0), (1, 1)), write_roi=RoiSpec((0, 0), (1, 1)))
    )
    assert [block.index for block in task.blocks.values()] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


# --- section 2: conflicts and levels -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "read", "write", "fit", "writes", "waits"),
    [
        ((0, 12), (0, 5), (1, 4), "valid", [(1, 4), (4, 7), (7, 10)], {0: {1}, 1: set(), 2: {1}}),
        (
            (0, 12),
            (0, 5),
            (1, 4),
            "overhang",
            [(1, 4), (4, 7), (7, 10), (10, 13)],
            {0: {1}, 1: set(), 2: {1, 3}, 3: set()},
        ),
        (
            (0, 12),
            (0, 5),
            (1, 4),
            "shrink",
            [(1, 4), (4, 7), (7, 10), (10, 11)],
            {0: {1}, 1: set(), 2: {1, 3}, 3: set()},
        ),
    ],
)
def test_the_rows_of_the_order_table(total, read, write, fit, writes, waits):
    """The first three rows of the table of section 2, literally."""
    task = OracleTask(line("a", total, read, write, fit))
    assert boxes(task, "write") == writes
    assert task.waits_for == waits


def test_the_last_block_of_the_overhang_and_shrink_rows_reads_what_the_table_says():
    """Overhang reads [9, 14), shrink [9, 12)."""
    assert boxes(OracleTask(line("a", (0, 12), (0, 5), (1, 4), "overhang")), "read")[3] == (9, 14)
    assert boxes(OracleTask(line("a", (0, 12), (0, 5), (1, 4), "shrink")), "read")[3] == (9, 12)


def test_a_wide_context_makes_five_levels_of_which_residue_four_is_the_first():
    """The fourth row: 12 blocks, m = 5, level 0 is residue 4."""
    task = OracleTask(line("a", (0, 20), (0, 9), (4, 5)))
    assert len(task.blocks) == 12
    assert task.residues == [5]
    assert [block.level for block in task.blocks.values()] == [4, 3, 2, 1, 0, 4, 3, 2, 1, 0, 4, 3]


def test_the_asymmetric_row_has_five_blocks_and_three_residues():
    """The fifth row; a wrong m of 2 would let blocks 0 and 2 run together, although 0 reads what 2 writes."""
    task = OracleTask(line("a", (0, 14), (0, 6), (1, 3)))
    assert len(task.blocks) == 5
    assert task.residues == [3]
    assert task.waits_for == {0: {1, 2}, 1: {2}, 2: set(), 3: {1, 2, 4}, 4: {2}}


@given(task=tasks(largest_grid=100))
def test_conflicting_blocks_differ_in_level_and_clipping_changes_no_conflict(task):
    """Blocks of one level never conflict; the d-formula, the literal test and the clipped boxes agree."""
    oracle = OracleTask(task)
    reach = [
        (math.ceil(below / stride), math.ceil(above / stride))
        for below, above, stride in zip(oracle.below, oracle.above, oracle.stride, strict=True)
    ]

    def near(one, other):
        return all(-lo <= j - i <= hi for i, j, (lo, hi) in zip(one.index, other.index, reach, strict=True))

    for one_id, one in oracle.blocks.items():
        for other_id, other in oracle.blocks.items():
            conflict = one.conflicts_with(other)
            assert conflict == (near(one, other) or near(other, one))
            assert conflict == (one.read.meets(other.write) or other.read.meets(one.write))
            if conflict and one_id != other_id and task.read_write_conflict:
                assert one.level != other.level


@given(task=tasks(largest_grid=100))
def test_each_voxel_is_written_once_and_the_fits_cover_what_they_promise(task):
    """Writes never meet; overhang and shrink cover the total write ROI, shrink exactly, and valid stays inside."""
    oracle = OracleTask(task)
    written = [voxel for block in oracle.blocks.values() for voxel in voxels(block.write)]
    assert len(written) == len(set(written))
    wanted = set(voxels(oracle.total_write))
    if task.fit == "valid":
        assert set(written) <= wanted
    elif task.fit == "shrink":
        assert set(written) == wanted
    else:
        assert set(written) >= wanted


def voxels(box: Box):
    found: list[tuple[int, ...]] = [()]
    for begin, end in zip(box.begin, box.end, strict=True):
        found = [(*voxel, x) for voxel in found for x in range(begin, end)]
    return found


# --- section 3: between tasks --------------------------------------------------------------------------------------


@given(run=runs(most_tasks=2, largest_grid=60))
def test_edges_between_tasks_are_the_formula_of_section_3_in_both_directions(run):
    """[floor(a/s), ceil(b/s)) of the read ROI upstream; and of the grown write ROI downstream."""
    oracle = Oracle(RunSpec(run.pipeline))
    for task in oracle.tasks.values():
        for upstream in (oracle.tasks[name] for name in task.spec.requires):
            for block_id, block in task.blocks.items():
                expected = {x for x, b in upstream.blocks.items() if inside(b.index, index_box(upstream, block.read))}
                name = task.spec.id, block_id
                assert {x for t, x in oracle.waits_for[name] if t == upstream.spec.id} == expected
            for block_id, block in upstream.blocks.items():
                grown = Box(
                    tuple(b - c for b, c in zip(block.write.begin, task.above, strict=True)),
                    tuple(e + c for e, c in zip(block.write.end, task.below, strict=True)),
                )
                expected = {x for x, b in task.blocks.items() if inside(b.index, index_box(task, grown))}
                name = upstream.spec.id, block_id
                assert {x for t, x in oracle.waited_for_by[name] if t == task.spec.id} == expected


def index_box(task: OracleTask, box: Box) -> list[tuple[int, int]]:
    found = []
    for axis, stride in enumerate(task.stride):
        first = task.total_write.begin[axis]
        last = first + task.counts[axis] * stride
        if task.spec.fit == "shrink":
            last = min(last, task.total_write.end[axis])
        a, b = max(box.begin[axis], first) - first, min(box.end[axis], last) - first
        found.append((a // stride, -(-b // stride)) if a < b else (0, 0))
    return found


def inside(index: tuple[int, ...], box: list[tuple[int, int]]) -> bool:
    return all(lo <= i < hi for i, (lo, hi) in zip(index, box, strict=True))


# --- section 4: requests -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "read", "write", "request_", "writes"),
    [
        ((0, 10), (0, 1), (0, 1), (3, 5), [(3, 4), (4, 5)]),
        ((0, 10), (0, 2), (0, 2), (1, 3), [(0, 2), (2, 4)]),
        ((1, 11), (0, 2), (0, 2), (1, 7), [(1, 3), (3, 5), (5, 7)]),
        ((0, 12), (0, 5), (1, 4), (4, 7), [(4, 7)]),
    ],
)
def test_the_rows_of_the_request_table(total, read, write, request_, writes):
    """Blocks whose write ROI meets the request run, with the ids of the full grid."""
    oracle = Oracle(run_of(line("a", total, read, write), targets=(Target("a", (interval(*request_),)),)))
    found = [oracle.tasks["a"].blocks[x].write for x in sorted(oracle.run_blocks["a"])]
    assert [(box.begin[0], box.end[0]) for box in found] == writes


@pytest.mark.parametrize("request_", [(4, 4), (0, 1), (11, 12), (10, 11)])
def test_a_request_of_nothing_only_context_or_only_the_remainder_runs_nothing(request_):
    """It meets no write ROI; 10 is the remainder of valid."""
    oracle = Oracle(run_of(line("a", (0, 12), (0, 5), (1, 4)), targets=(Target("a", (interval(*request_),)),)))
    assert oracle.run_blocks == {"a": set()}


def test_a_request_runs_upstream_what_its_blocks_read_recursively():
    """Block [8, 10) of c reads [6, 12) of b, whose blocks of 4 read one voxel more on either side of a."""
    a = line("a", (0, 20), (0, 1), (0, 1))
    b = line("b", (0, 20), (0, 6), (1, 5), "shrink", requires=("a",))
    c = line("c", (0, 20), (0, 6), (2, 4), requires=("b",))
    oracle = Oracle(run_of(c, a, b, targets=(Target("c", (interval(8, 10),)),)))
    assert oracle.run_blocks == {"a": set(range(4, 14)), "b": {1, 2}, "c": {3}}


def test_several_requests_and_targets_are_a_union_and_a_whole_target_runs_its_upstream_whole():
    """Each block once; without a request everything upstream runs whole."""
    a = line("a", (0, 10), (0, 1), (0, 1))
    b = line("b", (0, 5), (0, 1), (0, 1), requires=("a",))
    c = line("c", (2, 9), (0, 1), (0, 1), requires=("a",))
    two = Oracle(
        run_of(a, b, c, targets=(Target("b", (interval(0, 2), interval(1, 3))), Target("c", (interval(2, 4),))))
    )
    assert two.run_blocks == {"a": {0, 1, 2, 3}, "b": {0, 1, 2}, "c": {0, 1}}
    whole = Oracle(run_of(a, b, c, targets=(Target("b"),)))
    assert whole.run_blocks == {"a": set(range(10)), "b": set(range(5))}


# --- sections 5, 7 and 8 -------------------------------------------------------------------------------------------


def test_orphans_are_closed_over_conflicts_and_downstream_tasks_and_each_counts_once():
    """Block 1 runs first; 0 and 2 wait for it, and all of b reads what they write."""
    a = line("a", (0, 12), (0, 5), (1, 4))
    b = line("b", (1, 10), (0, 3), (0, 3), requires=("a",))
    oracle = Oracle(run_of(a, b))
    done, failed, orphaned = oracle.ends({("a", 1)})
    assert (done, failed) == (set(), {("a", 1)})
    assert orphaned == oracle.orphans_of({("a", 1)}) == {("a", 0), ("a", 2), ("b", 0), ("b", 1), ("b", 2)}


def test_a_downstream_block_that_meets_no_upstream_block_is_ready_at_once():
    """Never a hang."""
    a = line("a", (0, 4), (0, 2), (0, 2))
    b = line("b", (0, 8), (0, 2), (0, 2), requires=("a",))
    oracle = Oracle(run_of(a, b))
    assert oracle.ready(()) == [("a", 0), ("a", 1), ("b", 2), ("b", 3)]


def test_the_key_interleaves_from_the_last_axis_up_and_skips_axes_that_have_no_more_bits():
    """A grid of 2 x 4 blocks: bits of key are (axis 1 bit 0, axis 0 bit 0, axis 1 bit 1)."""
    roi = RoiSpec((5, -3), (2, 4))
    one = RoiSpec((0, 0), (1, 1))
    oracle = Oracle(run_of(TaskSpec(id="a", total_roi=roi, read_roi=one, write_roi=one)))
    keys = {block.index: block.key for block in oracle.tasks["a"].blocks.values()}
    assert keys == {(0, 0): 0, (0, 1): 1, (1, 0): 2, (1, 1): 3, (0, 2): 4, (0, 3): 5, (1, 2): 6, (1, 3): 7}


@given(run=runs(largest_grid=40))
def test_every_run_can_end_and_whoever_waits_waits_only_for_blocks_of_the_run(run):
    """No cycle of waiting; all blocks end done when none fails."""
    oracle = Oracle(run)
    assert all(oracle.in_run(other) for waits in oracle.waits_for.values() for other in waits)
    done, failed, orphaned = oracle.ends(())
    assert done == set(oracle.waits_for)
    assert not failed
    assert not orphaned

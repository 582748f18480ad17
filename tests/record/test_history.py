"""The record of a run: what blocks took, where and when; kept in pieces that make the same record again."""

from __future__ import annotations

import numpy as np
import pytest

from blockyard.core import events as ev
from blockyard.core.observer import shapes_of
from blockyard.core.scheduler import Scheduler
from blockyard.record.durations import decode, encode
from blockyard.record.history import History
from blockyard.record.run_record import RunRecord
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec
from blockyard.wire.messages import BlockError, Outcome


def run_of(blocks=40):
    total, block = RoiSpec((0,), (blocks,)), RoiSpec((0,), (1,))
    task = TaskSpec(
        id="t", function="json:dumps", total_roi=total, read_roi=block, write_roi=block, read_write_conflict=False
    )
    return RunSpec(PipelineSpec(name="r", tasks=(task,)))


def recorded(run, most=10**6):
    """A core and the history of what it does."""
    core = Scheduler(run)
    core.observer = record = RunRecord(shapes_of(core.tasks), most)
    return core, record.history


def worked(core, outcomes, seconds):
    """One worker takes as many blocks as there are outcomes and says what became of them; gives their addresses."""
    core.handle(ev.WorkerJoined("w", slots=len(outcomes)), 0.0)
    core.handle(ev.BlocksWanted("w", len(outcomes)), 0.0)
    (leases,) = [e for e in core.handle(ev.TurnEnded(), 0.0) if isinstance(e, ev.SendLeases)]
    numbers = leases.number + np.arange(len(outcomes))
    errors = tuple(BlockError(int(n), "E", "m") for n, o in zip(numbers, outcomes, strict=True) if o == Outcome.FAILED)
    seq = core.workers["w"].last_seq + 1
    codes, took = np.array(outcomes, np.uint8), np.array(seconds, np.float32)
    core.handle(ev.BlocksReleased("w", seq, numbers, codes, took, errors), 1.0)
    core.handle(ev.TurnEnded(), 1.0)
    task = core.tasks[0]
    return task.layout.addresses(task.grid.unravel(leases.blocks))


def test_what_blocks_took_is_recorded():
    """Seconds to a part in 2,000, the attempt, the worker and the time; nothing of blocks that failed."""
    core, history = recorded(run_of())
    first = worked(core, [Outcome.SUCCESS, Outcome.FAILED], [0.25, 9.0])
    history.take(100.0, 1.0)
    again = worked(core, [Outcome.SUCCESS, Outcome.SUCCESS], [2.0, 3.0])
    history.take(107.5, 1.0)
    record = history.tasks[0]
    assert decode(record.rows["code"][first[:1]]) == pytest.approx(0.25, rel=1e-3)
    assert decode(record.rows["code"][again]) == pytest.approx([2.0, 3.0], rel=1e-3)
    assert sorted(record.rows["attempt"][again].tolist()) == [1, 2]
    assert record.rows["ended_ds"][again].tolist() == [75, 75]
    assert history.workers == {"w": 0}
    unknown = np.setdiff1d(np.arange(len(record.rows)), np.concatenate([first[:1], again]))
    assert np.isnan(decode(record.rows["code"][unknown])).all()


def test_kept_pieces_make_the_same_record():
    """After a restart, whatever the last scheduler had not kept apart."""
    core, history = recorded(run_of())
    worked(core, [Outcome.SUCCESS] * 5, [0.1, 0.2, 0.3, 0.4, 0.5])
    batches = history.take(50.0, 3.0)
    again = History(shapes_of(core.tasks), 10**6)
    again.add(batches, 50.0)
    assert (again.tasks[0].rows == history.tasks[0].rows).all()
    assert again.began_s == history.began_s == 48.0  # taken two seconds after the blocks were done
    assert (again.tasks[0].sums == history.tasks[0].sums).all()
    assert again.tasks[0].sums["seconds"].sum() == pytest.approx(1.5, rel=1e-3)


def test_a_chunk_has_the_sums_of_its_blocks_whatever_ran_again():
    """A block that is done again, also twice in one piece, counts as the last time says."""
    (task,) = Scheduler(run_of()).tasks
    record = History(shapes_of([task]), 10**6).tasks[0]
    for ids, seconds, attempts in (([0, 1, 2], [1.0, 2.0, 3.0], [1, 3, 1]), ([1, 1, 5], [5.0, 7.0, np.nan], [2, 1, 1])):
        codes, tried = encode(np.array(seconds, np.float32)), np.array(attempts, np.uint8)
        record.add(task.layout.addresses(np.array(ids)[:, None]), codes, tried, 0, 0, 1)
    assert record.sums["blocks"].sum() == 3
    assert record.sums["seconds"].sum() == pytest.approx(1.0 + 7.0 + 3.0, rel=1e-3)
    assert record.sums["retries"].sum() == 0
    assert record.rows["attempt"].sum() == 3  # nothing of a block whose seconds are unknown


def test_tasks_beyond_the_size_are_recorded_by_chunk():
    """No row a block and no batch to keep: of each chunk the blocks, their seconds, and attempts after the first."""
    core, history = recorded(run_of(), 10)
    worked(core, [Outcome.SUCCESS, Outcome.FAILED], [1.0, 9.0])
    worked(core, [Outcome.SUCCESS] * 3, [2.0, 3.0, 4.0])
    assert history.take(1.0, 1.0) == []
    record = history.tasks[0]
    assert record.rows is None
    assert (record.sums["blocks"].sum(), record.sums["retries"].sum()) == (4, 1)
    assert record.sums["seconds"].sum() == pytest.approx(10.0, rel=1e-3)


def test_batches_of_a_record_by_block_make_sums_by_chunk():
    """Where a run is recorded otherwise than before."""
    core, history = recorded(run_of(4000))
    worked(core, [Outcome.SUCCESS] * 5, [0.1] * 5)
    batches = history.take(50.0, 3.0)
    by_chunk = History(shapes_of(core.tasks), 10)
    by_chunk.add(batches, 50.0)
    assert (by_chunk.tasks[0].sums == history.tasks[0].sums).all()


def test_nothing_is_recorded_where_nothing_is_wanted():
    """`--history-blocks 0`."""
    core, history = recorded(run_of(), 0)
    worked(core, [Outcome.SUCCESS], [1.0])
    assert history.tasks == {}
    assert history.take(1.0, 1.0) == []


def test_seconds_survive_16_bits():
    """From microseconds to months, in order, to one part in 2,000; NaN stays NaN."""
    seconds = np.logspace(-6, 7, 2000).astype(np.float32)
    decoded = decode(encode(seconds))
    assert np.abs(decoded / seconds - 1).max() < 5e-4
    assert (np.diff(encode(seconds).astype(int)) >= 0).all()
    assert np.isnan(decode(encode(np.array([np.nan], np.float32)))[0])

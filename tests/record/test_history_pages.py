"""Keeping the record of a run: pieces and pages make the same record again, and are as large as it is."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.core.observer import shapes_of
from blockyard.core.scheduler import Scheduler
from blockyard.record import pages
from blockyard.record.history import History
from blockyard.record.pages import EVERY_S, PAGES_A_PIECE, Keeper
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec

BLOCKS = 9000
MOST = 2_000_000


def tasks_of(*blocks):
    specs = []
    for n, count in enumerate(blocks):
        total, block = RoiSpec((0,), (count,)), RoiSpec((0,), (1,))
        spec = TaskSpec(
            id=f"t{n}", function="a:b", total_roi=total, read_roi=block, write_roi=block, read_write_conflict=False
        )
        specs.append(spec)
    return shapes_of(Scheduler(RunSpec(PipelineSpec(name="r", tasks=tuple(specs)))).tasks)


class Kept:
    """What a store holds of a record: as the script in Redis keeps it."""

    def __init__(self):
        self.last, self.pieces, self.pages = 0, {}, {}

    def add(self, piece):
        """Give the last piece before this one; one that comes again changes nothing."""
        last = self.last
        if piece is None or piece.seq <= last:
            return last
        if piece.batches:
            self.pieces[piece.seq] = piece
        self.pages |= {page.key: page for page in piece.pages}
        self.pieces = {seq: kept for seq, kept in self.pieces.items() if seq >= piece.drop_below}
        self.last = piece.seq
        return last

    @property
    def size(self):
        return sum(len(p.batches) for p in self.pieces.values()) + sum(len(p.data) for p in self.pages.values())

    def load(self, tasks, most):
        """A record that is loaded from here, and its keeper."""
        history = History(tasks, most)
        keeper = Keeper(history)
        for _ in range(2):  # an answer was lost on the way: everything is read again
            for page in self.pages.values():
                keeper.load_page(page)
            for seq in sorted(self.pieces):
                keeper.load_piece(seq, self.pieces[seq].at_s, self.pieces[seq].batches)
        keeper.loaded(self.last)
        return history, keeper


def finish(history, rng, task, n, now):
    """A worker finishes some blocks of a task, drawn at random."""
    size = len(history.tasks[task].sums) * history.tasks[task].capacity
    addresses = rng.choice(size, n, replace=False)
    seconds = rng.uniform(0.1, 10, n).astype(np.float32)
    history.finished(task, f"w{rng.integers(5)}", addresses, seconds, {0: int(rng.integers(1, 9))}, now)


def assert_same(one, other):
    """Rows by name of their worker, and sums of chunks, bit by bit."""
    names, theirs = np.array([*one.workers, ""]), np.array([*other.workers, ""])
    assert one.began_s == other.began_s
    for number, task in one.tasks.items():
        again = other.tasks[number]
        assert (task.sums == again.sums).all()
        assert (task.rows is None) == (again.rows is None)
        if task.rows is not None:
            recorded = np.flatnonzero(task.rows["code"])
            for part in ("code", "attempt", "ended_ds"):
                assert (task.rows[part] == again.rows[part]).all()
            assert (names[task.rows["worker"][recorded]] == theirs[again.rows["worker"][recorded]]).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from([2000, 12_000, 10**6]))
@settings(max_examples=40, deadline=None)
def test_a_restart_reads_the_same_record(seed, most):
    """At any moment: what was kept makes the record as it was taken, however often the scheduler was restarted.

    A task without rows has pages only: it is as it was when the last scheduler ended in order.
    """
    rng = np.random.default_rng(seed)
    tasks, kept, at_s = tasks_of(BLOCKS, 300), Kept(), 0.0
    history, keeper = kept.load(tasks, most)
    for _ in range(int(rng.integers(1, 60))):
        at_s = round(at_s + float(rng.choice([0.1, 1.0, EVERY_S])), 1)
        for _ in range(int(rng.integers(3))):
            finish(history, rng, int(rng.integers(2)), int(rng.integers(1, 200)), at_s)
        piece = keeper.take(at_s, at_s)
        kept.add(piece)
        if rng.random() < 0.3:
            kept.add(piece)  # its answer was lost
        if rng.random() < 0.1:
            while piece := keeper.take(at_s, at_s, all_pages=True):
                kept.add(piece)
            again, keeper = kept.load(tasks, most)
            assert_same(history, again)
            history = again
    if all(task.rows is not None for task in history.tasks.values()):
        assert_same(history, kept.load(tasks, most)[0])


def test_what_is_kept_is_bounded(monkeypatch):
    """However often blocks run again: the pages, and pieces up to a limit and those of one round."""
    monkeypatch.setattr(pages, "EVERY_BYTES", 20_000)
    rng, kept = np.random.default_rng(1), Kept()
    history, keeper = kept.load(tasks_of(60_000), 10**6)
    sizes, taken = [], 0
    for second in range(400):
        finish(history, rng, 0, 1000, second)
        piece = keeper.take(float(second), float(second))
        assert len(piece.pages) <= PAGES_A_PIECE
        taken += len(piece.batches)
        kept.add(piece)
        sizes.append(kept.size)
    rows = history.tasks[0].rows
    assert max(sizes) < rows.nbytes + 4 * 20_000 < taken
    assert max(sizes[200:]) < 1.1 * max(sizes[100:200])
    assert_same(history, kept.load(tasks_of(60_000), 10**6)[0])


def test_the_record_of_a_hundred_million_blocks_is_small():
    """Recorded by chunk: 16 bytes for each 4096 blocks, and the same after a restart."""
    tasks, kept, rng = tasks_of(10**8), Kept(), np.random.default_rng(2)
    history, keeper = kept.load(tasks, MOST)
    for second in range(10):
        finish(history, rng, 0, 10**5, float(second))
        kept.add(keeper.take(float(second), float(second)))
        assert kept.pieces == {}
    while piece := keeper.take(10.0, 10.0, all_pages=True):
        kept.add(piece)
    assert kept.size < 20 * len(history.tasks[0].sums) < 10**6
    assert_same(history, kept.load(tasks, MOST)[0])


def test_a_store_that_forgot_gets_all_of_the_record_again():
    """Emptied, or as it was some time ago: the next pieces bring every page."""
    tasks, kept, rng = tasks_of(BLOCKS), Kept(), np.random.default_rng(3)
    history, keeper = kept.load(tasks, 10**6)
    for second in range(5):
        finish(history, rng, 0, 100, float(second))
        kept.add(keeper.take(float(second), float(second)))
    kept = Kept()
    finish(history, rng, 0, 100, 5.0)
    piece = keeper.take(5.0, 5.0)
    assert kept.add(piece) < piece.seq - 1  # by this its leader knows
    keeper.store_forgot()
    kept.add(keeper.take(6.0, 6.0))
    assert_same(history, kept.load(tasks, 10**6)[0])


def test_a_page_of_another_run_is_refused():
    """Other tasks, other grids, other sizes, damage: an error that says so, which the reader of a record leaves out."""
    tasks, kept = tasks_of(BLOCKS), Kept()
    history, keeper = kept.load(tasks, 10**6)
    finish(history, np.random.default_rng(4), 0, 100, 0.0)
    piece = keeper.take(0.0, 0.0, all_pages=True)
    page = piece.pages[0]
    _, small = Kept().load(tasks_of(5), 10**6)
    _, by_chunk = Kept().load(tasks, 10)
    _, whole = Kept().load(tasks, 10**6)
    for reader, bad in [
        (small, page),
        (by_chunk, page),
        (whole, replace(page, key="0:999")),
        (whole, replace(page, data=page.data[:-9] + bytes(9))),
        (whole, replace(page, data=page.data[:20])),
    ]:
        with pytest.raises((ValueError, IndexError, msgspec.DecodeError)):
            reader.load_page(bad)

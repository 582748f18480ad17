"""Blocks that a check finds done: handed out in batches as those that run are, and no surprise for those that do."""

import numpy as np
import pytest

from blockyard.core import events as ev
from blockyard.core.scheduler import CoreSettings, Scheduler
from blockyard.core.seconds import MOST_SKIPS
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec
from blockyard.views.observed import ObservedRun
from blockyard.wire.messages import Outcome

SKIP, RUN = (Outcome.SKIPPED, 0.0002), (Outcome.SUCCESS, 10.0)


class Run:
    """A core of one task of many blocks, and one worker of one slot."""

    def __init__(self):
        one, shape = RoiSpec((0,), (1,)), RoiSpec((0,), (100_000,))
        work = TaskSpec(
            id="work", function="m:f", total_roi=shape, read_roi=one, write_roi=one, read_write_conflict=False
        )
        settings = CoreSettings(batch_s=0.2)
        self.core = Scheduler(RunSpec(PipelineSpec(name="run", tasks=(work,))), settings=settings)
        self.observed = ObservedRun(self.core)
        self.core.handle(ev.WorkerJoined("w"), 0.0)
        self.now, self.seq = 0.0, 0

    def batch(self, outcome, seconds):
        """Let the worker take a batch and end each of its blocks so; give how many there were."""
        self.core.handle(ev.BlocksWanted("w", 2**20), self.now)
        leases = [e for e in self.core.handle(ev.TurnEnded(), self.now) if isinstance(e, ev.SendLeases)]
        self.observed.turned(self.now)
        numbers = np.concatenate([lease.number + np.arange(len(lease.blocks)) for lease in leases])
        self.seq += 1
        self.now += len(numbers) * seconds
        self.core.handle(ev.WorkerHeard("w"), self.now)
        outcomes, took = np.full(len(numbers), outcome, np.uint8), np.full(len(numbers), seconds, np.float32)
        self.core.handle(ev.BlocksReleased("w", self.seq, numbers, outcomes, took), self.now)
        return len(numbers)


def test_skips_come_in_batches():
    """From the second on, as many as may be: 2 batches ahead, each of as many as are given where the next may run."""
    run = Run()
    assert [run.batch(*SKIP) for _ in range(3)] == [1, 2 * MOST_SKIPS, 2 * MOST_SKIPS]


def test_the_first_block_that_runs_makes_batches_small_again():
    """Nothing announces the end of the skips; what is held then is bounded, and the next batch is one block."""
    run = Run()
    for _ in range(5):
        run.batch(*SKIP)
    assert run.batch(*RUN) == 2 * MOST_SKIPS
    assert run.batch(*RUN) == 1


@pytest.mark.parametrize("runs", [1, 5])
def test_a_skip_among_long_blocks_is_no_batch(runs):
    """How many of the last ones were skipped counts, not what the very last one took."""
    run = Run()
    for _ in range(runs):
        run.batch(*RUN)
    run.batch(*SKIP)
    assert run.batch(*SKIP) == 1


def test_what_runs_fast_is_not_held_back_by_skips():
    """Without skips there is no such bound."""
    run = Run()
    run.batch(Outcome.SUCCESS, 0.0002)
    assert run.batch(Outcome.SUCCESS, 0.0002) == 2000


def test_the_time_left_is_that_of_the_blocks_that_were_finished():
    """Half of them skipped in no time, half of them run for 10 s: 5 s a block, whatever sizes the batches."""
    run = Run()
    for _ in range(100):
        run.batch(*SKIP)
        for _ in range(3):
            run.batch(*RUN)
    counts = run.observed.status(run.now).tasks[0]
    took_s = run.now / counts.finished
    assert run.observed.status(run.now).eta_s == pytest.approx(took_s * (counts.total - counts.finished), rel=0.2)

"""Why a block does not run, in a sentence."""

import numpy as np
import pytest

from blockyard.core import events as ev
from blockyard.core.scheduler import Scheduler
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec
from blockyard.views.observed import ObservedRun
from blockyard.wire.messages import Outcome

SMOOTH = TaskSpec(
    id="smooth",
    function="json:dumps",
    total_roi=RoiSpec((0, 0, 0), (1, 1, 2)),
    read_roi=RoiSpec((0, 0, 0), (1, 1, 1)),
    write_roi=RoiSpec((0, 0, 0), (1, 1, 1)),
    read_write_conflict=False,
)
FRAGMENTS = TaskSpec(
    id="fragments",
    function="json:dumps",
    total_roi=RoiSpec((0, 0, 0), (1, 1, 2)),
    read_roi=RoiSpec((0, 0, 0), (1, 1, 2)),
    write_roi=RoiSpec((0, 0, 0), (1, 1, 2)),
    read_write_conflict=False,
    requires=("smooth",),
)


def test_a_waiting_block_says_who_holds_what_it_waits_for_since_when_and_for_which_attempt():
    """One attempt failed; the second is leased for 4 minutes."""
    core = Scheduler(RunSpec(PipelineSpec(name="run", tasks=(SMOOTH, FRAGMENTS))))
    core.handle(ev.WorkerJoined("w7", slots=2), 0.0)
    core.handle(ev.BlocksWanted("w7", 1), 0.0)
    lease = next(effect for effect in core.handle(ev.TurnEnded(), 0.0) if isinstance(effect, ev.SendLeases))
    core.handle(ev.BlocksReleased("w7", 1, np.array([lease.number]), np.array([Outcome.FAILED], np.uint8)), 10.0)
    core.handle(ev.BlocksWanted("w7", 1), 10.0)
    core.handle(ev.TurnEnded(), 10.0)
    explained = ObservedRun(core).explain("fragments", 0, 250.0)
    holder = "leased to worker w7 for 4 min, attempt 2"
    assert explained.text == f"block (0, 0, 0) of fragments waits for block (0, 0, 0) of smooth, {holder}, and 1 more"
    assert explained.waits_for == [f"block (0, 0, 0) of smooth, {holder}", "block (0, 0, 1) of smooth, ready"]
    assert ObservedRun(core).explain("smooth", 0, 250.0).text == f"block (0, 0, 0) of smooth is {holder}"


def test_a_lease_of_an_earlier_scheduler_has_lasted_longer_than_this_one():
    """Its clock is gone: what is known is when this one took over."""
    run = RunSpec(PipelineSpec(name="run", tasks=(SMOOTH, FRAGMENTS)))
    core = Scheduler(run)
    core.handle(ev.WorkerJoined("w7", slots=2), 5000.0)
    core.handle(ev.BlocksWanted("w7", 1), 5000.0)
    record = next(effect for effect in core.handle(ev.TurnEnded(), 5000.0) if isinstance(effect, ev.CommitRecord))
    successor = Scheduler.restore(run, [], [(record.seq, record.record)], epoch=2, now=100.0)
    holder = "leased to worker w7 for more than 4 min, attempt 1"
    assert ObservedRun(successor).explain("smooth", 0, 340.0).text == f"block (0, 0, 0) of smooth is {holder}"


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([], ""),
        ([ev.PauseRequested()], "the run is paused: 'blockyard resume' goes on"),
        ([ev.PauseRequested(), ev.ResumeRequested()], ""),
        ([ev.CancelRequested()], "the run was cancelled"),
    ],
)
@pytest.mark.parametrize("block", [0, 1])
def test_why_nothing_is_leased_is_said_of_a_block_that_could_run(events, said, block):
    """Whether it was found ready or not: a person has paused or ended the run."""
    core = Scheduler(RunSpec(PipelineSpec(name="run", tasks=(SMOOTH,))))
    core.handle(ev.WorkerJoined("w7", slots=1), 0.0)
    core.handle(ev.BlocksWanted("w7", 1), 0.0)
    core.handle(ev.TurnEnded(), 0.0)
    core.handle(ev.BlocksReleased("w7", 1, np.array([1]), np.array([Outcome.RETURNED], np.uint8)), 1.0)
    for event in events:
        core.handle(event, 2.0)
    core.handle(ev.TurnEnded(), 2.0)
    text = ObservedRun(core).explain("smooth", block, 3.0).text
    assert ("but the run" in text) == bool(said)
    assert said in text

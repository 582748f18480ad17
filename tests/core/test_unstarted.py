"""Workers that can't start what they should: what is said of them, and until when."""

import numpy as np
import pytest

from blockyard.core import events as ev
from blockyard.core.scheduler import Scheduler
from blockyard.core.unstarted import LATE_S
from blockyard.leader import convert
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec
from blockyard.views.observed import ObservedRun
from blockyard.wire.messages import CannotStart, Outcome


class Run:
    """A core of one task, and workers that complain."""

    def __init__(self, **task):
        one = RoiSpec((0,), (1,))
        rois = {"total_roi": RoiSpec((0,), (9,)), "read_roi": one, "write_roi": one, "read_write_conflict": False}
        self.core = Scheduler(RunSpec(PipelineSpec(name="run", tasks=(TaskSpec(id="work", **task, **rois),))))

    def tell(self, *events):
        for event in events:
            self.core.handle(event, 0.0)
        return self.core.handle(ev.TurnEnded(), 0.0)

    @property
    def said(self):
        """(task, worker, pool, text) of the notices."""
        notices = ObservedRun(self.core).status(0.0).notices
        assert {notice.kind for notice in notices} <= {"cannot_start"}
        return [(notice.task, notice.worker, notice.pool, notice.text) for notice in notices]


def test_a_worker_s_trouble_is_shown_until_it_is_over():
    """A newer reason takes the place of an older one."""
    run = Run(worker="own:loop")
    run.tell(ev.WorkerJoined("a", slots=0, task="work"), ev.WorkerCannotStart("a", "no module"))
    run.tell(ev.WorkerCannotStart("a", "no memory"))
    assert run.said == [("work", "a", "default", "no memory")]
    run.tell(ev.WorkerCannotStart("a", ""))
    assert run.said == []


@pytest.mark.parametrize(
    ("task", "joined", "about"),
    [
        ({"worker": "own:loop"}, {"slots": 0, "task": "work"}, "work"),
        ({"function": "json:dumps"}, {}, ""),
    ],
)
def test_what_a_worker_said_before_it_left_stands_until_a_block_is_done(task, joined, about):
    """A pod that is started again and fails again is one trouble, not one more each time."""
    run = Run(**task)
    for worker in ("a", "b", "c"):
        run.tell(ev.WorkerJoined(worker, **joined), ev.WorkerCannotStart(worker, f"{worker}: no module"))
        run.tell(ev.WorkerGone(worker))
    assert run.said == [(about, "", "default", "c: no module")]
    joined = ev.WorkerJoined("good", own="worker" in task)
    (lease,) = [e for e in run.tell(joined, ev.BlocksWanted("good", 1)) if isinstance(e, ev.SendLeases)]
    run.tell(ev.BlocksReleased("good", 1, np.array([lease.number]), np.array([Outcome.SUCCESS], np.uint8)))
    assert run.said == []


def test_a_start_of_which_nothing_more_is_heard_is_said_after_a_while():
    """It may hang, load for long, or wait in a queue: that can't be known, and is over with the first block leased."""
    run = Run(worker="own:loop")
    run.tell(ev.WorkerJoined("a", slots=0, task="work"), ev.BlocksWanted("a", 1))
    for now, expected in ((LATE_S - 1, []), (LATE_S, ["slow_start"])):
        run.core.handle(ev.TurnEnded(), now)
        assert [notice.kind for notice in ObservedRun(run.core).status(now).notices] == expected
    (notice,) = ObservedRun(run.core).status(LATE_S).notices
    assert "task 'work'" in notice.text
    run.core.handle(ev.WorkerJoined("job", task="work", own=True), LATE_S)
    run.core.handle(ev.BlocksWanted("job", 1), LATE_S)
    run.core.handle(ev.TurnEnded(), LATE_S)
    assert ObservedRun(run.core).status(LATE_S).notices == []


@pytest.mark.parametrize("submits", [True, False])
def test_jobs_that_ended_and_left_blocks_are_told_until_another_comes(submits):
    """Nobody submits them again by itself; an agent that keeps a worker running does start it again."""
    run = Run(worker="own:loop", submits=submits)

    def kinds(now, *events):
        for event in (*events, ev.TurnEnded()):
            run.core.handle(event, now)
        return [notice.kind for notice in ObservedRun(run.core).status(now).notices]

    def come(job, now):
        return kinds(now, ev.WorkerJoined(job, task="work", own=True), ev.BlocksWanted(job, 1))

    assert come("one", 0.0) == come("two", 0.0) == []
    assert kinds(10.0, ev.WorkerGone("one")) == []
    assert kinds(10.0 + LATE_S, ev.WorkerHeard("two")) == [], "the other one is still there"
    assert kinds(200.0, ev.WorkerGone("two")) == kinds(199.0 + LATE_S) == []
    assert kinds(200.0 + LATE_S) == (["slow_start"] if submits else [])
    assert come("three", 210.0 + LATE_S) == []


def test_a_worker_that_is_not_there_says_nothing():
    """Its connection was faster than its word."""
    run = Run(function="json:dumps")
    run.tell(ev.WorkerCannotStart("a", "no module"))
    assert run.said == []


def test_what_a_peer_says_is_cut_to_what_can_be_shown():
    """It comes from user code."""
    text = convert.cannot_start("a", CannotStart("bad\x1b[2J\nword" + "x" * 10_000)).text
    assert text.startswith("bad [2J word")
    assert len(text) == convert.LONGEST_TEXT

"""Workers of the user's own are started when there is something for them to do: who is told so, and when."""

import numpy as np
import pytest

from blockyard.core import events as ev
from blockyard.core.failfast import Stop
from blockyard.core.scheduler import CoreSettings, Scheduler
from blockyard.core.state import layout
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec
from blockyard.wire.messages import Outcome


def own_task(name, blocks, size=1, **fields):
    """One axis; blocks of `size` voxels, run by a loop of the user's own."""
    one = RoiSpec((0,), (size,))
    rois = {"total_roi": RoiSpec((0,), (blocks * size,)), "read_roi": one, "write_roi": one}
    return TaskSpec(id=name, worker="own:loop", read_write_conflict=False, **rois, **fields)


CHAIN = (own_task("up", 1, 4), own_task("down", 4, requires=("up",)))


class Run:
    """A core, agents that listen and their workers; everything is safe in the journal at once."""

    def __init__(self, tasks=CHAIN, **settings):
        self.spec = RunSpec(PipelineSpec(name="run", tasks=tasks))
        self.core = Scheduler(self.spec, settings=CoreSettings(**settings))
        self.records = []
        self.told = []
        self.leases = {}
        self.seqs = {}

    def listen(self, agent, task, n=1):
        self.core.handle(ev.WorkerJoined(agent, slots=0, task=task), 0.0)
        self.core.handle(ev.BlocksWanted(agent, n), 0.0)

    def work(self, worker, task, n=1):
        self.core.handle(ev.WorkerJoined(worker, task=task, own=True), 0.0)
        self.core.handle(ev.BlocksWanted(worker, n), 0.0)

    def release(self, worker, outcome=Outcome.SUCCESS):
        """End the oldest lease of a worker."""
        self.seqs[worker] = self.seqs.get(worker, 0) + 1
        numbers = np.array([self.leases[worker].pop(0)])
        event = ev.BlocksReleased(worker, self.seqs[worker], numbers, np.array([outcome], np.uint8))
        self.core.handle(event, 0.0)

    def turn(self):
        """Give (agent, task, blocks its workers were leased) of each who is told to begin."""
        effects = self.core.handle(ev.TurnEnded(), 0.0)
        for effect in effects:
            if isinstance(effect, ev.CommitRecord):
                self.records.append((effect.seq, effect.record))
            if isinstance(effect, ev.SendLeases):
                held = self.leases.setdefault(effect.worker, [])
                held += [effect.number + at for at in range(len(effect.blocks))]
        if any(isinstance(effect, ev.ContinueTurn) for effect in effects):
            return [*_told(effects), *self.turn()]
        return _told(effects)

    def restart(self):
        """Another scheduler leads."""
        self.core = Scheduler.restore(self.spec, [], self.records, epoch=2)


def _told(effects):
    return [(e.worker, e.task, e.leased) for e in effects if isinstance(e, ev.SendTaskBegan)]


def test_an_agent_is_told_when_the_first_block_of_its_task_can_run():
    """Not when the run begins: what its worker reads in its set-up is written by then. Once for each time it asks."""
    run = Run()
    run.listen("a", "up")
    run.listen("b", "down", 2)
    assert run.turn() == [("a", "up", 0)]
    assert run.turn() == []
    run.work("a/own-0.1/x", "up")
    assert run.turn() == []
    run.release("a/own-0.1/x")
    assert run.turn() == [("b", "down", 0)]
    assert run.turn() == []


def test_an_agent_that_comes_later_is_told_at_once():
    """Also after a restart of the scheduler: what can run is derived from what is done."""
    run = Run()
    run.work("w", "up")
    run.turn()
    run.release("w")
    run.turn()
    run.restart()
    run.listen("late", "down")
    assert run.turn() == [("late", "down", 0)]


def test_nothing_is_started_for_what_others_have():
    """All that is left is leased; when a block comes back and nobody takes it there is a reason."""
    run = Run((own_task("only", 1),))
    run.work("other", "only")
    run.turn()
    run.listen("a", "only")
    assert run.turn() == []
    run.release("other", Outcome.RETURNED)
    assert run.turn() == [("a", "only", 0)]


def test_a_worker_that_is_there_and_wants_comes_first():
    """A block that it takes is no reason to start another one."""
    run = Run((own_task("only", 1),))
    run.listen("a", "only")
    run.work("other", "only")
    assert run.turn() == []


@pytest.mark.parametrize("outcome", [Outcome.SUCCESS, Outcome.SKIPPED, Outcome.FATAL])
def test_nothing_is_started_for_a_task_that_is_over(outcome):
    """However it ended; nor for one whose blocks wait for a failed one."""
    run = Run()
    run.work("w", "up")
    run.turn()
    run.release("w", outcome)
    run.turn()
    run.listen("a", "up")
    run.listen("b", "down")
    assert run.turn() == ([] if outcome is Outcome.FATAL else [("b", "down", 0)])


def test_a_rerun_begins_a_task_again():
    """Its agent asks as long as it has nothing to look after."""
    run = Run((own_task("only", 1),))
    run.work("w", "only")
    run.turn()
    run.release("w")
    run.listen("a", "only")
    assert run.turn() == []
    run.core.handle(ev.RerunRequested(), 0.0)
    assert run.turn() == [("a", "only", 0)]


@pytest.mark.parametrize("event", [ev.PauseRequested(), ev.CancelRequested()])
def test_nothing_is_started_while_nothing_is_leased(event):
    """It would wait for nothing."""
    run = Run((own_task("only", 1),))
    run.core.handle(event, 0.0)
    run.listen("a", "only")
    assert run.turn() == []
    run.core.handle(ev.ResumeRequested(), 0.0)
    assert run.turn() == [("a", "only", 0)]


def test_nothing_is_started_for_a_task_that_fail_fast_has_stopped():
    """Its blocks are ready, and are leased to nobody."""
    run = Run((own_task("only", 1), own_task("other", 1)))
    run.core.fail_fast.stops[0] = Stop("it fails")
    run.listen("a", "only")
    assert run.turn() == []
    run.core.handle(ev.ResumeRequested(), 0.0)
    assert run.turn() == [("a", "only", 0)]


def test_who_is_told_hears_how_many_blocks_its_workers_had():
    """Its process may have started programs that drive the Client: it sees none of their blocks."""
    run = Run((own_task("only", 8),), batch_s=1e-9)
    run.work("a/own-0.1/x", "only", 1)
    run.work("b/own-0.1/y", "only", 1)
    run.turn()
    run.listen("a", "only")
    run.listen("c", "only")
    assert run.turn() == [("a", "only", 1), ("c", "only", 0)]


def test_an_agent_that_left_or_wants_no_more_is_told_nothing():
    """Its wish ends with its connection, and it may take it back."""
    run = Run((own_task("only", 1),))
    run.listen("gone", "only")
    run.core.handle(ev.WorkerGone("gone"), 0.0)
    run.listen("cut", "only")
    run.core.handle(ev.WorkerDisconnected("cut"), 0.0)
    run.listen("full", "only", 0)
    assert run.turn() == []


def test_a_ready_block_is_found_however_far_away_it_is(monkeypatch):
    """A turn looks at a few chunks only; somebody who waits for the task has the next turn go on."""
    monkeypatch.setattr(layout, "FEWEST_CHUNKS_BITS", 0)  # all of "up" is one chunk
    run = Run((own_task("up", 4, 100_000), own_task("down", 400_000, requires=("up",))), looks_a_turn=1)
    for worker in "abcd":
        run.work(worker, "up")
        run.turn()
    run.release("d")
    run.turn()
    run.core = Scheduler.restore(run.spec, [], run.records, epoch=2, settings=CoreSettings(looks_a_turn=1))
    run.listen("agent", "down")
    assert run.turn() == [("agent", "down", 0)]

"""One bad machine: where what it fails is tried again, how little it gets, when it is named, and how it comes back."""

import heapq
import itertools

import numpy as np
import pytest

from blockyard.core import events as ev
from blockyard.core.health import PATIENCE_S, SUSPECT, failed
from blockyard.core.scheduler import CoreSettings, Scheduler
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec
from blockyard.views.observed import ObservedRun
from blockyard.wire.messages import BlockError, Outcome

DONE, FAILS = Outcome.SUCCESS, Outcome.FAILED


def task(id_="a", blocks=60, **more):
    one, all_ = RoiSpec((0,), (10,)), RoiSpec((0,), (10 * blocks,))
    rois = {"total_roi": all_, "read_roi": one, "write_roi": one, "read_write_conflict": False}
    return TaskSpec(id=id_, function="steps:f", **(rois | more))


class Cluster:
    """A core and workers in virtual time: each takes what it gets, and ends it after `seconds` as its rule says."""

    def __init__(self, *tasks, **settings):
        self.core = Scheduler(
            RunSpec(PipelineSpec(name="run", tasks=tasks or (task(),))), settings=CoreSettings(**settings)
        )
        self.now, self.workers, self.ends, self.order = 0.0, {}, [], itertools.count()
        self.attempts, self.seqs, self.ran, self.final = {}, {}, {}, []

    def join(self, worker, rule=DONE, seconds=0.2, slots=1):
        """A worker comes; `rule` is an outcome, or a function of (task, block, now)."""
        self.workers[worker] = (rule, seconds, slots)
        self.core.handle(ev.WorkerJoined(worker, slots=slots), self.now)
        self.core.handle(ev.BlocksWanted(worker, slots), self.now)

    def leave(self, worker):
        del self.workers[worker]
        self.core.handle(ev.WorkerGone(worker), self.now)

    def step(self, until_s=1e6):
        """End a turn, then go on to what happens next, or until then; give whether anything will."""
        effects = self.core.handle(ev.TurnEnded(), self.now)
        for effect in effects:
            if isinstance(effect, ev.CommitRecord):
                self.final += [note.block_id for note in effect.errors if note.final]
            if isinstance(effect, ev.SendLeases):
                for n, block in enumerate(effect.blocks.tolist()):
                    self._began(effect.worker, effect.number + n, (effect.task, block))
        if self.core.has_stopped:
            return False
        wakes_s = next(effect.time_s for effect in effects if isinstance(effect, ev.WakeAt))
        soonest_s = self.ends[0][0] if self.ends else wakes_s
        if any(isinstance(effect, ev.ContinueTurn) for effect in effects):
            return True
        self.now = max(min(soonest_s, wakes_s, until_s), self.now)
        for worker in self.workers:
            self.core.handle(ev.WorkerHeard(worker), self.now)
        while self.ends and self.ends[0][0] <= self.now:
            self._ended(*heapq.heappop(self.ends)[2:])
        return True

    def go(self, until_s=1e6, most=20_000):
        """Go on until the run has ended or until then."""
        for _ in range(most):
            if not self.step(until_s) or self.now >= until_s:
                return
        raise AssertionError("it does not end")

    def _began(self, worker, number, name):
        self.ran.setdefault(worker, []).append(self.now)
        self.attempts.setdefault(name, []).append(worker)
        if worker in self.workers:
            heapq.heappush(self.ends, (self.now + self.workers[worker][1], next(self.order), worker, number, name))

    def _ended(self, worker, number, name):
        if worker not in self.workers:
            return
        rule, seconds, _ = self.workers[worker]
        outcome = rule(*name, self.now) if callable(rule) else rule
        self.seqs[worker] = self.seqs.get(worker, 0) + 1
        errors = (BlockError(number, "RuntimeError", "no device"),) if outcome == FAILS else ()
        arrays = np.array([number]), np.array([outcome], np.uint8), np.array([seconds], np.float32)
        self.core.handle(ev.BlocksReleased(worker, self.seqs[worker], *arrays, errors), self.now)
        self.core.handle(ev.BlocksWanted(worker, self.workers[worker][2]), self.now)

    @property
    def named(self):
        return [(notice.task, notice.worker) for notice in ObservedRun(self.core).status(self.now).notices]


@pytest.mark.parametrize("good", [["good"], ["good", "better", "best"]])
@pytest.mark.parametrize(("bad", "retries"), [(["bad"], 1), (["bad"], 2), (["bad", "worse"], 2)])
@pytest.mark.parametrize("first", ["good", "bad"])
@pytest.mark.parametrize("good_s", [0.2, 30.0])
@pytest.mark.parametrize("backoff_s", [0.0, 0.5])
@pytest.mark.parametrize("machine", ["{}", "pc-1-{}"])
def test_the_good_workers_do_it(retries, good, bad, first, good_s, backoff_s, machine):
    """Bad ones fail each block in a millisecond, good ones are slow: nothing fails for good, and the bad are named.

    With as many retries as there are bad ones: each may take one attempt of a block before it is known.
    """
    good, bad = ([machine.format(name) for name in names] for names in (good, bad))
    cluster = Cluster(task(blocks=40, max_retries=retries), retry_backoff_s=backoff_s)
    for worker in [*good, *bad] if first == "good" else [*bad, *good]:
        if worker in good:
            cluster.join(worker, DONE, good_s)
        else:
            cluster.join(worker, FAILS, 0.001)
    cluster.go()
    assert (cluster.core.state, cluster.final) == ("done", [])
    assert {worker for _, worker in cluster.named} == set(bad)
    assert max(len(cluster.ran[worker]) for worker in bad) < 40


@pytest.mark.parametrize("seconds", [0.001, 0.2])
def test_without_a_second_attempt_a_bad_worker_costs_few_blocks(seconds):
    """The first blocks are lost, and one now and then."""
    cluster = Cluster(task(blocks=300, max_retries=0))
    cluster.join("bad", FAILS, seconds)
    cluster.join("good", DONE, 0.2)
    cluster.go()
    assert len(cluster.final) <= SUSPECT + 6


def test_all_attempts_of_a_block_are_not_spent_on_one_worker():
    """The other is busy with one long block: what failed waits for it, though who failed it is not a suspect yet."""
    cluster = Cluster(task(blocks=2, max_retries=1))
    cluster.join("good", DONE, PATIENCE_S - 1)
    cluster.join("bad", FAILS, 0.001)
    cluster.go()
    assert cluster.core.state == "done"
    assert sorted(map(tuple, cluster.attempts.values())) == [("bad", "good"), ("good",)]


def test_it_waits_within_reason():
    """The other is busy for a day: after a while the worker may have its block again."""
    cluster = Cluster(task(blocks=2, max_retries=1))
    outcomes = iter([FAILS, DONE])
    cluster.join("busy", DONE, 86_400.0)
    cluster.join("flaky", lambda *_: next(outcomes), 0.1)
    cluster.go(until_s=2 * PATIENCE_S)
    assert sorted(cluster.attempts.values()) == [["busy"], ["flaky", "flaky"]]
    assert cluster.ran["flaky"][1] == pytest.approx(PATIENCE_S + 0.1)


def test_another_machine_is_tried_first():
    """The second worker of the bad machine has as broken a driver."""
    cluster = Cluster(task(blocks=8, max_retries=1))
    for name, rule, seconds in (("n1-1-a", FAILS, 0.001), ("n1-2-b", FAILS, 0.001), ("n2-1-c", DONE, 5.0)):
        cluster.join(name, rule, seconds)
    cluster.go()
    assert (cluster.core.state, cluster.final) == ("done", [])


def test_a_bad_block_makes_no_worker_bad():
    """A region of the volume that nobody can do: all are tried with it, none is named, none is held back for long."""
    cluster = Cluster(task(blocks=200, max_retries=2))
    for worker in ("one", "two", "three"):
        cluster.join(worker, lambda _t, block, _now: FAILS if 50 <= block < 80 else DONE, 0.1)
    cluster.go()
    assert sorted(cluster.final) == list(range(50, 80))
    assert cluster.named == []
    assert cluster.now < 30, "15 s of work for each, and a few pauses"


def test_a_worker_that_is_well_again_comes_back():
    """One block now and then shows it; then it has its share, and nobody speaks of it."""
    cluster = Cluster(task(blocks=2000))
    cluster.join("good", DONE, 0.2)
    cluster.join("ill", lambda _t, _b, now: FAILS if now < 20 else DONE, 0.1)
    cluster.go(until_s=19)
    assert cluster.named == [("a", "ill")]
    tried = len(cluster.ran["ill"])
    assert SUSPECT <= tried < 12, "with pauses that double"
    cluster.go(until_s=60)
    assert cluster.named == []
    assert len(cluster.ran["ill"]) > tried + 100


def test_the_only_one_that_is_left_is_used():
    """Then it is the best there is; who came back to life does the rest."""
    cluster = Cluster(task(blocks=300, max_retries=30))
    cluster.join("good", DONE, 0.2)
    cluster.join("ill", lambda _t, _b, now: FAILS if now < 5.5 else DONE, 0.05)
    cluster.go(until_s=5)
    cluster.leave("good")
    before = len(cluster.ran["ill"])
    cluster.go(until_s=6)
    assert len(cluster.ran["ill"]) > before + 10
    cluster.go()
    assert cluster.core.state == "done"


def test_a_worker_that_never_asks_is_not_waited_for():
    """Its slots can't start, say: it is connected, and of no use."""
    cluster = Cluster(task(blocks=20, max_retries=1))
    cluster.core.handle(ev.WorkerJoined("idle"), 0.0)
    cluster.join("bad", FAILS, 0.01)
    cluster.go(until_s=50)
    assert cluster.core.state == "failed"


@pytest.mark.parametrize("keeps", ["all fail", "one worker"])
def test_where_all_fail_nobody_is_held_back(keeps):
    """A typo, in a run that keeps going, costs what it did."""
    cluster = Cluster(task(blocks=50, max_retries=2))
    for worker in ("one", "two", "three") if keeps == "all fail" else ("one",):
        cluster.join(worker, FAILS, 0.01)
    cluster.go()
    assert (cluster.core.state, len(cluster.final), cluster.named) == ("failed", 50, [])
    assert cluster.now < 3


def test_a_worker_is_bad_at_a_task_not_at_all():
    """A broken driver is no reason against what needs none."""
    cluster = Cluster(task("gpu", blocks=100), task("cpu", blocks=100))
    cluster.join("half", lambda name, *_: FAILS if name == "gpu" else DONE, 0.1)
    cluster.join("good", DONE, 0.1)
    cluster.go()
    assert (cluster.core.state, cluster.named) == ("done", [("gpu", "half")])
    assert sum("half" in tried for (name, _), tried in cluster.attempts.items() if name == "cpu") > 60


def test_the_most_that_run_at_once_is_kept():
    """`num_workers: 1`: a bad worker does not keep the place."""
    cluster = Cluster(task(blocks=30, num_workers=1, max_retries=1))
    cluster.join("bad", FAILS, 0.001)
    cluster.join("good", DONE, 0.2)
    cluster.go()
    assert (cluster.core.state, cluster.final) == ("done", [])


def test_a_block_that_was_failed_and_handed_back_still_goes_elsewhere():
    """It is not the next one of the worker that failed it."""
    cluster = Cluster(task(blocks=1, max_retries=1))
    cluster.join("bad", FAILS, 0.01)
    cluster.go(until_s=0.005)

    def leaves(*_):
        cluster.workers["leaving"] = (leaves, 1.0, 0)  # it asks no more
        return Outcome.RETURNED

    cluster.join("leaving", leaves, 1.0)
    cluster.go(until_s=0.5)
    cluster.join("good", DONE, 3.0)
    cluster.go()
    assert (cluster.core.state, list(cluster.attempts.values())) == ("done", [["bad", "leaving", "good"]])


def test_a_block_that_a_good_worker_fails_too_is_not_charged_to_the_first():
    """Nor to the second: it is the block."""
    cluster = Cluster()
    cluster.join("first")
    cluster.join("second")
    core, error = cluster.core, BlockError(1, "ValueError", "NaN")
    first, second = core.workers["first"], core.workers["second"]
    second.finished = 5
    failed(core, core.tasks[0], 7, first, error, 0.0)
    core.retries.failed(0, 7, "first")
    assert core.health.streaks[0, "first"].failures == 1
    failed(core, core.tasks[0], 7, second, error, 0.0)
    assert {key: streak.failures for key, streak in core.health.streaks.items()} == {(0, "first"): 0}


def test_blocks_that_wait_for_another_worker_are_ready_and_say_so():
    """In the status, and to who asks; a rerun drops them from where they wait."""
    cluster = Cluster(task(blocks=3, max_retries=1))
    cluster.join("good", DONE, 50.0)
    cluster.join("bad", FAILS, 0.001)
    cluster.go(until_s=1)
    counts = ObservedRun(cluster.core).status(cluster.now).tasks[0]
    assert (counts.leased, counts.ready, counts.pending) == (1, 2, 0)
    texts = [ObservedRun(cluster.core).explain("a", block, cluster.now).text for block in range(3)]
    assert sum("is ready for attempt 2 on another worker" in text for text in texts) == 2
    cluster.core.handle(ev.RerunRequested("a"), cluster.now)
    assert not cluster.core.retries.waiting
    assert ObservedRun(cluster.core).status(cluster.now).tasks[0].total == 3


def test_many_workers_cost_nothing_where_nobody_fails():
    """The rules look at those who fail."""
    cluster = Cluster(task(blocks=100))
    for n in range(50):
        cluster.join(f"w{n}", DONE, 0.1)
    cluster.go()
    assert (cluster.core.health.streaks, cluster.core.health.able) == ({}, {})

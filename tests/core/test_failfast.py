"""Fail-fast: a task whose first attempts all fail alike stops; who goes on, who is given a chance, what is kept."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.core import events as ev
from blockyard.core.failfast import line_of, several
from blockyard.core.scheduler import CoreSettings, Scheduler
from blockyard.core.state.journal import Stop
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec
from blockyard.views.observed import ObservedRun
from blockyard.wire.messages import BlockError, Outcome

FAST = CoreSettings(fail_fast=True)
TRACE = 'Traceback (most recent call last):\n  File "/home/me/steps.py", line {}, in f\n    x[0]\n{}: {}\n'


def error(kind="ValueError", message="typo", line=3):
    return BlockError(0, kind, message, TRACE.format(line, kind, message))


def task(id_="a", blocks=50, **more):
    one, all_ = RoiSpec((0,), (10,)), RoiSpec((0,), (10 * blocks,))
    rois = {"total_roi": all_, "read_roi": one, "write_roi": one, "read_write_conflict": False}
    return TaskSpec(id=id_, function="steps:f", **(rois | more))


class Run:
    """A core, its journal, and workers of one slot that do as the test says."""

    def __init__(self, *tasks, settings=FAST):
        self.spec = RunSpec(PipelineSpec(name="run", tasks=tasks or (task(),)))
        self.settings = settings
        self.core = Scheduler(self.spec, settings=settings)
        self.records, self.now, self.seqs, self.held = [], 0.0, {}, {}

    def join(self, *workers, **more):
        for worker in workers:
            self.core.handle(ev.WorkerJoined(worker, **more), self.now)

    def turn(self, *wanting, want=1):
        """End a turn; give the leases (worker, number, task) that were sent."""
        for worker in wanting:
            self.core.handle(ev.BlocksWanted(worker, want), self.now)
        effects = self.core.handle(ev.TurnEnded(), self.now)
        self.records += [(e.seq, e.record) for e in effects if isinstance(e, ev.CommitRecord)]
        self.woken = next(e.time_s for e in effects if isinstance(e, ev.WakeAt))
        return [
            (e.worker, e.number + n, e.task)
            for e in effects
            if isinstance(e, ev.SendLeases)
            for n in range(len(e.blocks))
        ]

    def release(self, worker, number, outcome, why=None):
        self.seqs[worker] = self.seqs.get(worker, 0) + 1
        why = (BlockError(number, why.kind, why.message, why.traceback),) if why else ()
        outcomes = np.array([outcome], np.uint8)
        seconds = np.array([0.01], np.float32)
        self.core.handle(
            ev.BlocksReleased(worker, self.seqs[worker], np.array([number]), outcomes, seconds, why), self.now
        )

    def work(self, does, *workers, most=1000):
        """Let workers take blocks and end each as `does(worker, task, n)` says; give how many attempts there were."""
        for n in itertools.count():
            leased = self.turn(*workers) if n < most else []
            if not leased:
                return self.attempts
            for worker, number, name in leased:
                self.attempts = getattr(self, "attempts", 0) + 1
                found = does(worker, name, self.attempts)
                self.release(worker, number, *(found if isinstance(found, tuple) else (found,)))
        raise AssertionError

    def restart(self, **settings):
        """Another scheduler goes on from the journal; workers have to join again."""
        self.settings = CoreSettings(**({"fail_fast": True} | settings))
        self.core = Scheduler.restore(self.spec, [], self.records, epoch=2, settings=self.settings, now=self.now)
        self.seqs = {}

    @property
    def status(self):
        return ObservedRun(self.core).status(self.now)


def typo(*_):
    return Outcome.FAILED, error()


def test_a_typo_costs_ten_attempts_and_says_what_it_is():
    """One worker, alone (as in a run on one machine): after 10 attempts the run is paused, with the error."""
    run = Run(settings=CoreSettings(fail_fast=True, fail_fast_settle_s=0))
    run.join("w")
    assert run.work(typo, "w") == 10
    status = run.status
    assert (status.state, status.has_stopped, status.is_over) == ("paused", True, False)
    for part in ("task 'a'", "10 attempts", "ValueError: typo", "/home/me/steps.py, line 3", "resume", "--keep-going"):
        assert part in status.reason
    assert [(notice.kind, notice.task) for notice in status.notices] == [("failing_fast", "a")]
    assert "ValueError" in status.tasks[0].stopped


def test_a_block_that_was_never_tried_is_explained_by_the_stop():
    """It waits for no block, and will not be "found ready" either until somebody resumes the run."""
    run = Run(settings=CoreSettings(fail_fast=True, fail_fast_settle_s=0))
    run.join("w")
    run.work(typo, "w")
    run.restart()  # nothing was looked for yet
    pending = [found for b in range(50) if (found := ObservedRun(run.core).explain("a", b, run.now)).state == "pending"]
    assert pending
    assert all("leased no more until the run is resumed" in found.text for found in pending)


@pytest.mark.parametrize(
    ("blocks", "retries", "state", "attempts"),
    [(3, 2, "failed", 9), (2, 20, "failed", 42), (3, 9, "paused", 21), (10, 0, "failed", 10), (11, 0, "paused", 10)],
)
def test_what_is_too_small_to_stop_ends_by_itself(blocks, retries, state, attempts):
    """10 attempts at 3 blocks; where those were all there were, it has failed instead."""
    run = Run(task(blocks=blocks, max_retries=retries), settings=CoreSettings(fail_fast=True, fail_fast_settle_s=0))
    run.join("w")
    assert run.work(typo, "w") == attempts
    assert run.core.state == state


OTHERS = {
    "one done": lambda n: Outcome.SUCCESS if n == 4 else (Outcome.FAILED, error()),
    "one skipped": lambda n: Outcome.SKIPPED if n == 1 else (Outcome.FAILED, error()),
    "one killed": lambda n: Outcome.KILLED if n == 9 else (Outcome.FAILED, error()),
    "one fatal": lambda n: (Outcome.FATAL, error()) if n == 2 else (Outcome.FAILED, error()),
    "another line": lambda n: (Outcome.FAILED, error(line=4 if n == 10 else 3)),
    "another type": lambda n: (Outcome.FAILED, error(kind="KeyError" if n == 5 else "ValueError")),
}


@pytest.mark.parametrize("other", OTHERS)
def test_one_attempt_that_ended_otherwise_is_enough_to_go_on(other):
    """Then it is not the code alone, and every block has all its attempts."""
    run = Run(task(blocks=20))
    run.join("w")
    assert run.work(lambda _w, _t, n: OTHERS[other](n), "w") > 50
    assert run.core.state == "failed"


@pytest.mark.parametrize("message", ["block [3]", "other words", ""])
def test_the_message_may_differ(message):
    """It may name the block; type and line are what says that it is one cause."""
    run = Run()
    run.join("w")
    run.work(lambda _w, _t, n: (Outcome.FAILED, error(message=f"{message} {n}")), "w")
    assert run.core.fail_fast.stops


@pytest.mark.parametrize("outcome", [Outcome.RETURNED, Outcome.LOST])
def test_what_says_nothing_of_the_code_is_not_counted(outcome):
    """A block that came back or was lost is no attempt that failed, and none that did not."""
    run = Run()
    run.join("w")
    assert run.work(lambda _w, _t, n: outcome if n % 2 else (Outcome.FAILED, error()), "w") == 20
    assert run.core.fail_fast.stops


@pytest.mark.parametrize("keep", ["setting", "task"])
def test_who_wants_to_keep_going_does(keep):
    """By the run's setting or the task's."""
    run = Run(task(blocks=5, keep_going=keep == "task"), settings=CoreSettings(fail_fast=keep != "setting"))
    run.join("w")
    assert run.work(typo, "w") == 15
    assert (run.core.state, run.status.notices) == ("failed", [])


def test_one_bad_worker_of_two_does_not_stop_the_other():
    """The good one is slow: all that is known for a while is that everything fails."""
    run = Run()
    run.join("bad", "good")
    ((_, number, _),) = [lease for lease in run.turn("good", "bad") if lease[0] == "good"]
    for _ in range(40):
        for worker, each, _ in run.turn("bad"):
            run.release(worker, each, *typo())
    assert run.core.state == "running"
    assert not run.core.fail_fast.stops
    run.release("good", number, Outcome.SUCCESS)
    run.turn()
    assert not run.core.fail_fast.watching


def test_two_workers_that_fail_alike_stop_it():
    """From the moment at which the second has, though the first had failed 10 times."""
    run = Run(task(max_retries=0))
    run.join("one", "two")
    run.work(typo, "one", most=12)
    assert not run.core.fail_fast.stops
    run.work(typo, "two", most=2)
    assert run.core.fail_fast.stops == {0: Stop(run.core.fail_fast.stops[0].text, "")}
    assert run.core.state == "paused"


@pytest.mark.parametrize(
    ("seen", "connected", "enough"),
    [
        (["a"], ["a"], True),
        (["a"], ["a", "b"], False),
        (["a", "b"], ["a", "b", "c"], True),
        (["a"], [], True),
        (["n1-7-x", "n1-8-y"], ["n1-7-x", "n1-8-y"], True),
        (["n1-7-x", "n1-8-y"], ["n1-7-x", "n1-8-y", "n2-7-z"], False),
        (["n1-7-x", "n2-7-z"], ["n1-7-x", "n1-8-y", "n2-7-z"], True),
        (["my-host-7-x", "my-host-8-y"], ["my-host-7-x", "my-host-8-y", "my-other-1-z"], False),
    ],
)
def test_two_workers_of_one_machine_are_not_two_where_there_is_another(seen, connected, enough):
    """A machine with a broken driver fails in all its workers; their names begin with the host."""
    assert several(seen, connected) is enough


def test_a_worker_that_comes_later_has_its_chance():
    """The first pod to come up is on the bad machine: the run waits a moment, and goes on with the next one."""
    run = Run()
    run.join("bad")
    run.work(typo, "bad")
    assert (run.core.state, run.woken) == ("running", 10.0), "others may be starting"
    assert "only bad has tried it: another worker is waited for, 10 s at most. Mend it" in run.status.notices[0].text
    run.now = 10.0
    run.core.handle(ev.WorkerHeard("bad"), run.now)
    run.turn()
    assert run.core.state == "paused"
    run.join("bad")
    run.turn("bad")
    assert run.core.state == "paused", "it only connected again"
    run.join("good")
    leased = run.turn("good")
    assert (run.core.state, len(leased), run.status.notices) == ("running", 1, []), "who failed is held back"
    for worker, number, _ in leased:
        run.release(worker, number, *typo())
    run.turn("good", "bad")
    assert run.core.state == "paused", "it fails there as well: one attempt is enough"


def test_a_block_in_flight_that_is_done_takes_a_stop_back():
    """Two bad workers of three: what the third was doing shows that the code is right."""
    run = Run()
    run.join("bad", "worse", "good")
    ((_, number, _),) = run.turn("good")
    while not run.core.fail_fast.stops:  # they are given one block now and then
        run.now += 60
        for worker in ("bad", "worse", "good"):
            run.core.handle(ev.WorkerHeard(worker), run.now)
        run.work(typo, "bad", "worse")
        assert run.now < 600
    assert run.core.state == "running", "a block is in flight"
    run.release("good", number, Outcome.SUCCESS)
    assert run.turn("good")
    assert (run.core.state, run.core.fail_fast.stops, run.status.notices) == ("running", {}, [])


def test_what_does_not_wait_for_it_still_runs():
    """Only then the run is paused; tasks downstream wait, and are not orphaned."""
    run = Run(
        task("bad"),
        task("good", blocks=8),
        task("below", requires=("bad", "good")),
        task("last", requires=("below",)),
        settings=CoreSettings(fail_fast=True, fail_fast_settle_s=0),
    )
    run.join("w")
    run.work(lambda _w, name, _n: Outcome.SUCCESS if name == "good" else typo(), "w")
    by_id = {one.id: one for one in run.status.tasks}
    assert (run.core.state, by_id["good"].done) == ("paused", 8)
    assert by_id["below"].orphaned == by_id["bad"].failed == 3, "of those that have had all their attempts"
    assert by_id["bad"].stopped
    assert not by_id["below"].stopped


def test_blocks_downstream_that_meet_nothing_of_it_run_first():
    """A downstream task larger than what it reads: its far blocks, in the last of 20 chunks, can run when workers come.

    They are looked for, however few chunks are looked at in a turn.
    """
    near, far = 20 * 4096 - 30, 20 * 4096
    run = Run(
        task("bad", blocks=near, max_retries=0),
        task("below", blocks=far, requires=("bad",), pool="other"),
        settings=CoreSettings(fail_fast=True, fail_fast_settle_s=0, looks_a_turn=1),
    )
    run.join("w", slots=10)
    for worker, number, _ in run.turn("w", want=10):
        run.release(worker, number, *typo())
    run.core.frontiers[1].reset()  # as after a restart: nothing of it was looked at
    for _ in range(30):
        run.turn("w")
        assert (bool(run.core.fail_fast.stops), run.core.state) == (True, "running")
    run.join("late", pool="other")
    run.work(lambda *_: Outcome.SUCCESS, "late")
    assert (run.status.tasks[1].done, run.core.state) == (far - near, "paused")


@pytest.mark.parametrize("how", ["resume", "retry", "rerun"])
def test_what_goes_on_counts_anew(how):
    """The user has mended the code, or thinks so: it stops again only after 10 attempts more."""
    run = Run(settings=CoreSettings(fail_fast=True, fail_fast_settle_s=0))
    run.join("w")
    run.work(typo, "w")
    event = {"resume": ev.ResumeRequested(), "retry": ev.RetryRequested("a"), "rerun": ev.RerunRequested("a")}[how]
    run.core.handle(event, run.now)
    assert (run.core.state, run.status.notices) == ("running", [])
    assert run.work(typo, "w") == 20
    assert run.core.state == "paused"
    run.core.handle(event, run.now)
    run.work(lambda *_: Outcome.SUCCESS, "w")
    assert run.core.state in {"done", "failed"}


def test_a_resume_while_others_still_run_is_one():
    """The task is stopped, the run not yet paused."""
    run = Run(task("bad"), task("good"), settings=CoreSettings(fail_fast=True, fail_fast_settle_s=0))
    run.join("w")
    run.work(lambda _w, name, _n: Outcome.SUCCESS if name == "good" else typo(), "w", most=30)
    assert run.core.fail_fast.stops
    run.core.handle(ev.ResumeRequested(), run.now)
    assert not run.core.fail_fast.stops


def test_a_cancelled_run_is_cancelled():
    """And no longer stopped for a reason."""
    run = Run(settings=CoreSettings(fail_fast=True, fail_fast_settle_s=0))
    run.join("w")
    run.work(typo, "w")
    run.core.handle(ev.CancelRequested(), run.now)
    run.turn()
    assert (run.core.state, run.status.reason, run.status.notices) == ("cancelled", "", [])


def test_a_person_who_paused_it_resumes_it():
    """A pause by hand is no end, whatever was stopped before or meanwhile."""
    run = Run(settings=CoreSettings(fail_fast=True, fail_fast_settle_s=0))
    run.join("w")
    run.work(typo, "w", most=9)
    run.core.handle(ev.PauseRequested(), run.now)
    run.turn("w")
    assert (run.core.state, run.core.has_stopped) == ("paused", False)


def test_state_and_reason_outlive_a_restart():
    """The counts do not: a successor that has to stop it again needs 10 attempts."""
    run = Run(settings=CoreSettings(fail_fast=True, fail_fast_settle_s=0))
    run.join("w")
    run.work(typo, "w")
    reason = run.core.reason
    run.restart()
    run.join("w")
    assert run.turn("w") == []
    assert (run.core.state, run.status.reason, len(run.status.notices)) == ("paused", reason, 1)
    run.core.handle(ev.ResumeRequested(), run.now)
    run.turn()
    run.restart()
    assert (run.core.state, run.core.reason, run.core.fail_fast.stops) == ("running", "", {})
    pages = list(run.core.whole_snapshot())
    assert Scheduler.restore(run.spec, pages, [], settings=FAST).state == "running"


def test_state_and_reason_are_in_a_snapshot():
    """The journal may be gone."""
    run = Run(settings=CoreSettings(fail_fast=True, fail_fast_settle_s=0))
    run.join("w")
    run.work(typo, "w")
    other = Scheduler.restore(run.spec, list(run.core.whole_snapshot()), [], settings=FAST)
    assert (other.state, other.reason, other.fail_fast.stops) == ("paused", run.core.reason, run.core.fail_fast.stops)


def test_a_restart_that_keeps_going_goes_on():
    """`--keep-going` on a run that was paused for this."""
    run = Run(settings=CoreSettings(fail_fast=True, fail_fast_settle_s=0))
    run.join("w")
    run.work(typo, "w")
    run.restart(fail_fast=False)
    run.join("w")
    assert run.turn("w")
    assert (run.core.state, run.status.reason, run.status.notices) == ("running", "", [])


PATHS = ("/home/me/steps.py", "/data/a b/ünï.py", r"C:\me\steps.py", "<ipython-input-3-ab>", "/app/lib/steps.py")
INSTALLED = (
    "/usr/lib/python3.11/json/decoder.py",
    "/venv/lib/python3.12/site-packages/zarr/core.py",
    "/usr/lib/python3/dist-packages/numpy/core.py",
    r"C:\Python\Lib\json\decoder.py",
    "<frozen importlib._bootstrap>",
)


@given(
    st.sampled_from(PATHS), st.integers(1, 9999), st.lists(st.tuples(st.sampled_from(INSTALLED), st.integers(1, 99)))
)
def test_the_line_is_the_innermost_of_the_users_code(path, line, below):
    """Whatever libraries it called, and wherever in them it ended."""
    frames = [("/home/me/main.py", 1), (path, line), *below]
    text = "Traceback (most recent call last):\n" + "".join(f'  File "{f}", line {n}, in g\n    x\n' for f, n in frames)
    assert line_of(BlockError(1, "E", "m", text + "E: m\n")) == f"{path}, line {line}"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (BlockError(1, "exit", "'tool' ended with exit status 1: no block 12"),) * 2 + (True,),
        (BlockError(1, "exit", "status 1: no block 12"), BlockError(2, "exit", "status 1: no block 13"), True),
        (BlockError(1, "exit", "status 1: no file"), BlockError(2, "exit", "status 1: no device"), False),
        (BlockError(1, "check", "no"), BlockError(2, "check", "no", 'File "x.py", line 3'), False),
    ],
)
def test_without_a_line_it_is_the_message_without_its_numbers(one, other, same):
    """Exit statuses, checks and time limits have no traceback."""
    assert (line_of(one) == line_of(other)) is same

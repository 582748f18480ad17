"""Blocks that fail, kill, get lost or take too long: whose budget pays, who tries next, and who is named."""

import numpy as np
import pytest
from plain_run import Run

from blockyard.core import events as ev
from blockyard.core.ready.retries import judge
from blockyard.core.scheduler import CoreSettings
from blockyard.core.state.task import Tries
from blockyard.wire.messages import Outcome


@pytest.mark.parametrize(
    ("outcome", "attempts"),
    [(Outcome.FAILED, [1, 2, 3]), (Outcome.KILLED, [1, 2, 3]), (Outcome.FATAL, [1]), (Outcome.LOST, [1] * 20)],
)
def test_each_class_of_failure_has_its_own_budget(outcome, attempts):
    """2 retries; 3 kills; none after a fatal failure; 20 losses without a reason, which are no attempts."""
    run = Run(1)
    run.join("w")
    assert [attempt for attempt, _ in run.tries(outcome)] == attempts
    assert run.core.state == "failed"
    assert run.notes[-1].final


def test_kills_and_losses_spend_no_retry():
    """After two of each, there are still all three attempts of its own."""
    run = Run(1)
    run.join("w")
    for outcome in (Outcome.KILLED, Outcome.LOST, Outcome.RETURNED, Outcome.KILLED, Outcome.FAILED, Outcome.FAILED):
        ((worker, number, _, _),) = run.lease("w")
        run.release(worker, number, outcome)
    assert run.observed.status(0.0).tasks[0].failed == 0
    ((worker, number, _, attempt),) = run.lease("w")
    assert attempt == 5
    run.release(worker, number)
    run.turn()
    assert run.core.state == "done"


def test_a_backoff_doubles_with_each_failure_and_has_jitter():
    """Half to the whole of 4 s, then of 8 s."""
    run = Run(1, retry_backoff_s=4.0)
    run.join("w")
    _, second, third = (waited_s for _, waited_s in run.tries(Outcome.FAILED))
    assert 2.0 <= second <= 4.25
    assert 4.0 <= third <= 8.25


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.KILLED, Outcome.LOST])
def test_a_backoff_stays_the_longest_one_after_thousands_of_attempts(outcome):
    """With budgets that large: 2 to the power of 1024 is no float."""
    settings = CoreSettings(retry_backoff_s=1.0, kills=10**6, losses=10**6)
    verdict = judge(Tries(5000, 5000, 5000), outcome, 10**6, settings)
    assert not verdict.final
    assert verdict.backoff_s == settings.longest_backoff_s


def test_losses_without_a_reason_are_backed_off_from_the_third_on():
    """The first ones are tried again at once: machines do go away."""
    run = Run(1)
    run.join("w")
    waits = [waited_s for _, waited_s in run.tries(Outcome.LOST)]
    assert waits[:3] == [0.0, 0.0, 0.0]
    assert all(waited_s > 0 for waited_s in waits[3:])
    assert max(waits) <= CoreSettings().longest_backoff_s + 0.25


def test_another_worker_tries_again_where_there_is_one():
    """Else the same one does."""
    run = Run(3)
    run.join("bad", "good")
    ((_, number, block, _),) = run.lease("bad")
    run.release("bad", number, Outcome.FAILED)
    leased = {worker: (found, attempt) for worker, _, found, attempt in run.lease("bad", "good")}
    assert leased["good"] == (block, 2)
    assert leased["bad"][0] != block
    alone = Run(1)
    alone.join("bad")
    ((_, number, block, _),) = alone.lease("bad")
    alone.release("bad", number, Outcome.FAILED)
    assert [(worker, found, attempt) for worker, _, found, attempt in alone.lease("bad")] == [("bad", block, 2)]


@pytest.mark.parametrize(
    ("done", "seconds", "named"), [(9, 100.0, False), (10, 5.9, False), (10, 6.1, True)], ids=["few", "within", "over"]
)
def test_a_straggler_runs_over_three_times_the_median_when_ten_and_half_are_done(done, seconds, named):
    """Of 20 blocks of 2 s each."""
    run = Run(20)
    run.join("w")
    for _ in range(done):
        ((worker, number, _, _),) = run.lease("w")
        run.release(worker, number, seconds=2.0)
    ((_, number, block, _),) = run.lease("w")
    run.core.handle(ev.WorkerHeard("w", ((number, seconds),)), run.now)
    found = [(one.task, one.index, one.worker, one.median_s) for one in run.observed.status(run.now).stragglers]
    assert found == ([("work", (block,), "w", 2.0)] if named else [])


def test_half_of_a_large_task_must_be_done_before_stragglers_are_named():
    """Ten of 40 are too few to know."""
    run = Run(40)
    run.join("w")
    for _ in range(12):
        ((worker, number, _, _),) = run.lease("w")
        run.release(worker, number, seconds=2.0)
    ((_, number, _, _),) = run.lease("w")
    run.core.handle(ev.WorkerHeard("w", ((number, 100.0),)), run.now)
    assert not run.observed.status(run.now).stragglers


def test_only_the_blocks_that_are_named_are_retried():
    """Of those that have failed; what else has failed stays so."""
    run = Run(6)
    run.join("w")
    for _ in range(4):
        ((_, number, _, _),) = run.lease("w")
        run.release("w", number, Outcome.FATAL)
    run.turn()
    failed = sorted(note.block_id for note in run.notes)
    run.core.handle(ev.RetryRequested("work", blocks=np.array([failed[1], failed[3], 5])), run.now)
    run.turn()
    assert [run.observed.explain("work", block, run.now).state == "failed" for block in failed] == [
        True,
        False,
        True,
        False,
    ]
    assert run.observed.status(run.now).tasks[0].failed == 2

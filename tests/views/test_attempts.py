"""How often blocks have been tried, whatever state they are in."""

import pytest
from plain_run import Run

from blockyard.views.attempts import under_way
from blockyard.wire.messages import Outcome


def tried(run):
    """Attempts by block, as the map has them."""
    task = run.core.tasks[0]
    leased = run.core.leases.addresses(0)
    addresses, attempts = under_way(task, list(task.tries.items()), leased, run.core.settings.losses)
    ids = task.grid.ravel(task.layout.indices(addresses))
    return dict(zip(ids.tolist(), attempts.tolist(), strict=True))


@pytest.mark.parametrize(
    ("outcome", "attempts"), [(Outcome.FAILED, 3), (Outcome.KILLED, 3), (Outcome.FATAL, 1), (Outcome.LOST, 1)]
)
def test_a_failed_block_has_been_tried_as_often_as_its_last_error_says(outcome, attempts):
    """For the map as for `explain`."""
    run = Run(1)
    run.join("w")
    run.tries(outcome)
    assert run.core.state == "failed"
    assert tried(run) == {0: attempts}
    assert run.observed.explain("work", 0, run.now).attempt == attempts == run.notes[-1].attempt


def test_the_attempt_that_goes_on_counts():
    """A leased block has that attempt; one that waits for a retry the ones before; one that never ran has none."""
    run = Run(4, retry_backoff_s=100.0)
    run.join("w", slots=2)
    (first,), (second,) = run.lease("w"), run.lease("w")
    assert tried(run) == {first[2]: 1, second[2]: 1}
    run.release("w", first[1], Outcome.FAILED)
    run.release("w", second[1])
    run.turn()
    assert tried(run) == {first[2]: 1}
    explained = run.observed.explain("work", first[2], run.now)
    assert (explained.state, explained.attempt) == ("ready", 2)
    run.now = 200.0
    run.join("w", slots=2)
    again = next(leased for _ in range(3) for leased in run.lease("w") if leased[2] == first[2])
    assert again[3] == 2
    assert tried(run)[first[2]] == 2


def test_a_loss_is_no_attempt():
    """A block that was lost and waits again has been tried at nothing that counts."""
    run = Run(1)
    run.join("w")
    ((_, number, _, _),) = run.lease("w")
    run.release("w", number, Outcome.LOST)
    run.turn()
    assert tried(run) == {}
    run.lease("w")
    assert tried(run) == {0: 1}


def test_a_done_block_tells_the_attempt_that_is_recorded():
    """2 after a failure; 0, which is unknown, where tasks are too large to be recorded by block."""
    for blocks, attempt in ((10**6, 2), (0, 0)):
        run = Run(1, history_blocks=blocks)
        run.join("w")
        for outcome in (Outcome.FAILED, Outcome.SUCCESS):
            ((_, number, _, _),) = run.lease("w")
            run.release("w", number, outcome)
            run.turn()
        run.observed.record.history.take(0.0, 0.0)
        explained = run.observed.explain("work", 0, run.now)
        assert (explained.state, explained.attempt) == ("done", attempt)

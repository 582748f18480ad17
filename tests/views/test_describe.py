"""What is said of a run while it works."""

from plain_run import Run

from blockyard.core.events import WorkerHeard
from blockyard.views.describe import running_blocks


def test_a_worker_is_said_to_run_what_its_last_heartbeat_named_and_it_has_not_finished():
    """Since the block began, longest first; nothing of a worker that nobody knows."""
    run = Run(5)
    run.join("w", slots=3)
    ((_, first, one, _),), ((_, second, two, _),), ((_, third, _, _),) = (run.lease("w") for _ in range(3))
    run.core.handle(WorkerHeard("w", ((first, 1.0), (second, 30.0), (third, 2.0), (999, 5.0))), run.now)
    run.release("w", third)
    run.now = 10.0
    found = [(block.task, block.index, block.seconds) for block in running_blocks(run.core, "w", run.now)]
    assert found == [("work", (two,), 40.0), ("work", (one,), 11.0)]
    assert running_blocks(run.core, "nobody", run.now) == []

"""`num_workers` of several tasks on the slots of one worker: each has all of its own."""

from collections import Counter

import pytest

from blockyard.core import events as ev
from blockyard.core.scheduler import Scheduler
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec


def granted(asked, slots, blocks=4):
    """How many blocks of each task one worker is leased at first, of tasks that ask for so many workers."""
    one = RoiSpec((0,), (1,))
    rois = {"total_roi": RoiSpec((0,), (blocks,)), "read_roi": one, "write_roi": one, "read_write_conflict": False}
    tasks = tuple(TaskSpec(id=f"t{n}", function="json:dumps", num_workers=number, **rois) for n, number in asked)
    core = Scheduler(RunSpec(PipelineSpec(name="run", tasks=tasks)))
    core.handle(ev.WorkerJoined("w", slots=slots), 0.0)
    core.handle(ev.BlocksWanted("w", slots), 0.0)
    counts = Counter()
    for effect in core.handle(ev.TurnEnded(), 0.0):
        if isinstance(effect, ev.SendLeases):
            counts[effect.task] += len(effect.blocks)
    return [counts[task.id] for task in tasks]


@pytest.mark.parametrize(
    ("asked", "slots", "leased"),
    [
        ([4, 2], 6, [4, 2]),
        ([2, 4], 6, [2, 4]),
        ([1, 1, 1], 3, [1, 1, 1]),
        ([4], 6, [4]),  # what would wait for the others keeps slots from other tasks
        ([2, None], 6, [2, 4]),
    ],
)
def test_slots_are_not_kept_idle_by_blocks_that_may_not_run_yet(asked, slots, leased):
    """Slow ones, or ones of which nothing is known, are leased as many as may run at once."""
    assert granted(list(enumerate(asked)), slots) == leased

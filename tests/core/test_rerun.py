"""What runs again when a region is run again."""

import numpy as np

from blockyard.core import events as ev
from blockyard.core.scheduler import Scheduler
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec

CONFLICTS = TaskSpec(
    id="work",
    function="json:dumps",
    total_roi=RoiSpec((0,), (17,)),
    read_roi=RoiSpec((0,), (5,)),
    write_roi=RoiSpec((1,), (3,)),
    read_write_conflict=True,
)
"""Five blocks in two levels: 1 and 3 first; 0 after 1, 2 after 1 and 3, 4 after 3."""


def work_off(core):
    """Run all blocks to the end, in order of leases; give their ids."""
    ran = []
    core.handle(ev.WorkerJoined("w"), 0.0)
    seq = core.workers["w"].last_seq
    while not core.is_over:
        core.handle(ev.BlocksWanted("w", 1), 0.0)
        for grant in [e for e in core.handle(ev.TurnEnded(), 0.0) if isinstance(e, ev.SendLeases)]:
            ran += grant.blocks.tolist()
            seq += 1
            numbers = grant.number + np.arange(len(grant.blocks))
            core.handle(ev.BlocksReleased("w", seq, numbers, np.zeros(len(numbers), np.uint8)), 0.0)
    return ran


def test_conflicting_blocks_of_later_levels_run_again_too():
    """They read what the rerun writes: without them the result would depend on what was asked for when."""
    core = Scheduler(RunSpec(PipelineSpec(name="run", tasks=(CONFLICTS,))))
    assert sorted(work_off(core)) == [0, 1, 2, 3, 4]
    core.handle(ev.RerunRequested("work", RoiSpec((4,), (3,))), 0.0)  # what block 1 writes
    again = work_off(core)
    assert again[0] == 1
    assert sorted(again) == [0, 1, 2]

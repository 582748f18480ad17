"""What a worker is told of releases that came too late."""

import numpy as np

from blockyard.core import events as ev
from blockyard.core.scheduler import Scheduler
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec

WORK = TaskSpec(
    id="work",
    function="json:dumps",
    total_roi=RoiSpec((0,), (4,)),
    read_roi=RoiSpec((0,), (1,)),
    write_roi=RoiSpec((0,), (1,)),
    read_write_conflict=False,
)
RUN = RunSpec(PipelineSpec(name="run", tasks=(WORK,)))


def turn(core, *events):
    for event in events:
        core.handle(event, 0.0)
    return core.handle(ev.TurnEnded(), 0.0)


def acks(effects):
    return [effect for effect in effects if isinstance(effect, ev.SendAck)]


def test_a_stale_release_sent_again_is_called_stale_again():
    """The first answer may have been lost: the second says the same, also after a takeover."""
    core = Scheduler(RUN)
    records = []
    stale = ev.BlocksReleased("w", 1, np.array([17, 18]), np.zeros(2, np.uint8))
    for event in (ev.WorkerJoined("w"), stale):
        effects = turn(core, event)
        records += [(effect.seq, effect.record) for effect in effects if isinstance(effect, ev.CommitRecord)]
    assert acks(effects) == [ev.SendAck("w", 1, 2)]
    assert acks(turn(core, stale)) == [ev.SendAck("w", 1, 2)]
    for successor in (Scheduler.restore(RUN, [], records), Scheduler.restore(RUN, core.whole_snapshot(), [])):
        assert acks(turn(successor, stale)) == [ev.SendAck("w", 1, 2)]

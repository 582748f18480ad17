"""A leader whose store may have forgotten leases nothing until every lease that it cannot know of has ended."""

import numpy as np
import pytest

from blockyard.core import events as ev
from blockyard.core.scheduler import CoreSettings, Scheduler
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec
from blockyard.views.observed import ObservedRun
from blockyard.wire.report import status_report

WORK = TaskSpec(
    id="work",
    function="json:dumps",
    total_roi=RoiSpec((0,), (8,)),
    read_roi=RoiSpec((0,), (1,)),
    write_roi=RoiSpec((0,), (1,)),
    read_write_conflict=False,
)
RUN = RunSpec(PipelineSpec(name="run", tasks=(WORK,)))
PATIENCE_S = 65.0


class Leader:
    """A core, the journal it wrote and the clock."""

    def __init__(self, records=(), now=0.0, epoch=1, seed=0):
        self.now = now
        self.records = list(records)
        self.core = Scheduler.restore(RUN, [], self.records, settings=CoreSettings(), now=now, epoch=epoch, seed=seed)

    def turn(self, *events):
        """Give the effects of a turn, the commit kept."""
        for event in events:
            self.core.handle(event, self.now)
        effects = self.core.handle(ev.TurnEnded(), self.now)
        self.records += [(effect.seq, effect.record) for effect in effects if isinstance(effect, ev.CommitRecord)]
        return effects

    def join(self, worker, holds=(), want=2):
        """A worker greets and asks: what of its leases is revoked, and the numbers and ids of what it is leased."""
        holds = np.array(sorted(holds), np.int64)
        effects = self.turn(ev.WorkerJoined(worker, slots=2, holds=holds), ev.BlocksWanted(worker, want))
        revoked = next(effect.revoked for effect in effects if isinstance(effect, ev.SendWelcome)).tolist()
        return revoked, leased(effects)


def leased(effects):
    return {
        effect.number + at: block
        for effect in effects
        if isinstance(effect, ev.SendLeases)
        for at, block in enumerate(effect.blocks.tolist())
    }


def wakes_at(effects):
    return next(effect.time_s for effect in effects if isinstance(effect, ev.WakeAt))


def test_a_successor_of_a_store_that_may_have_forgotten_waits_for_lease_and_grace():
    """Nothing is leased until then, and then at once."""
    leader = Leader(now=100.0)
    leader.core.store_forgot(100.0)
    assert leader.join("w") == ([], {})
    status = ObservedRun(leader.core).status(110.0)
    assert status.quiet_s == 100.0 + PATIENCE_S - 110.0
    assert "nothing is leased for 55 s (Redis may have forgotten what runs)" in status_report(status)
    leader.now = 100.0 + PATIENCE_S - 0.1
    effects = leader.turn(ev.WorkerHeard("w"))
    assert not leased(effects)
    assert wakes_at(effects) == 100.0 + PATIENCE_S
    leader.now = 100.0 + PATIENCE_S
    assert sorted(leased(leader.turn()).values()) == [0, 1]
    assert ObservedRun(leader.core).status(leader.now).quiet_s == 0.0


def test_leases_that_the_journal_knows_go_on_and_all_others_are_revoked():
    """What its worker holds of them is kept, released and counted meanwhile; a ghost's release is stale."""
    first = Leader()
    known = first.join("w")[1]
    before = list(first.records)
    ghosts = first.join("other")[1]
    assert ghosts
    successor = Leader(before, now=1.0, epoch=2)
    successor.core.store_forgot(1.0)
    assert successor.join("other", ghosts) == (sorted(ghosts), {})
    assert successor.join("w", known) == ([], {})
    numbers = np.array(sorted(known), np.int64)
    effects = successor.turn(
        ev.BlocksReleased("w", 1, numbers, np.zeros(len(numbers), np.uint8)),
        ev.BlocksReleased("other", 1, np.array(sorted(ghosts), np.int64), np.zeros(len(ghosts), np.uint8)),
    )
    assert [effect for effect in effects if isinstance(effect, ev.SendAck)] == [
        ev.SendAck("w", 1, 0),
        ev.SendAck("other", 1, len(ghosts)),
    ]
    assert ObservedRun(successor.core).status(1.0).tasks[0].done == len(known)
    assert not leased(effects)


@pytest.mark.parametrize(("epoch", "seed"), [(2, 0), (1, 1), (1, 2)], ids=["next", "emptied", "emptied, lower"])
def test_a_lease_that_nobody_granted_shows_that_records_are_lost(epoch, seed):
    """The store looks the same, but a worker holds what the journal never granted: from then on nothing is leased."""
    first = Leader()
    ghosts = first.join("w")[1]
    successor = Leader([], now=50.0, epoch=epoch, seed=seed)
    assert successor.join("w", ghosts) == (sorted(ghosts), {})
    assert successor.join("fresh") == ([], {})
    successor.now = 50.0 + PATIENCE_S
    successor.turn(ev.WorkerHeard("w"), ev.WorkerHeard("fresh"))
    assert successor.core.leases.held_by("fresh") == 2


@pytest.mark.parametrize("claimed", [[], [-1, 0], [2**63 - 1]], ids=["nothing", "no numbers of ours", "beyond all"])
def test_a_successor_that_lacks_nothing_leases_at_once(claimed):
    """Also beside a peer that claims what can be no lease of ours, and to a worker that is back with its own."""
    first = Leader()
    known = first.join("w")[1]
    successor = Leader(first.records, now=1.0, epoch=2)
    revoked, more = successor.join("w", [*known, *claimed], want=4)
    assert (revoked, successor.core.hold.begun) == (claimed, False)
    assert successor.join("other", claimed)[1]
    assert successor.join("w", [*known, *more])[0] == []


def test_numbers_never_name_two_leases_though_records_are_lost():
    """A successor counts from a number of its own."""
    first = Leader()
    ghosts = first.join("w")[1]
    successor = Leader([], now=1.0, epoch=2)
    assert not set(successor.join("w")[1]) & set(ghosts)


def test_a_peer_cannot_hold_a_leader_back_for_longer():
    """However often leases that nobody granted are claimed, blocks are leased when lease and grace are over."""
    leader = Leader(now=0.0)
    leader.join("liar", [1, 2, 3])
    leader.now = PATIENCE_S
    leader.join("liar", [1, 2, 3])
    assert leader.join("honest")[1]

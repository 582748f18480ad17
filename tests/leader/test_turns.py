"""The turns of a leader and the peers it speaks to: events in, steps and frames out, without a socket or a store."""

import pytest

from blockyard.core.events import CommitRecord, PauseRequested
from blockyard.core.scheduler import Scheduler
from blockyard.leader.claim import Claim
from blockyard.leader.peer import UNHEARD, Door, Peer
from blockyard.leader.turn import AwaitLock, Commit, Rewrite, Speak, Turns
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec
from blockyard.wire.frames import HELLO_LIMIT_BYTES, Decoder, encode
from blockyard.wire.messages import (
    Ack,
    Bye,
    Grants,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Refused,
    Release,
    RunOver,
    TaskOver,
    ToWorker,
    Want,
    Welcome,
)

LOCK_S = 5.0


class Leader:
    """A leader of a run of a few blocks, at a time that the test sets."""

    def __init__(self, blocks=3, token=""):
        roi = RoiSpec((0,), (1,))
        task = TaskSpec(
            id="work", function="m:f", total_roi=RoiSpec((0,), (blocks,)), read_roi=roi, write_roi=roi, max_retries=0
        )
        run = RunSpec(PipelineSpec(name="run", tasks=(task,)))
        self.now = 100.0
        self.claim = Claim("n", lock_s=LOCK_S)
        self.claim.took(1, self.now)
        welcome = Welcome(run="run", epoch=1, heartbeat_s=2.0, lease_s=60.0, grace_s=5.0, pipeline=run.pipeline)
        self.turns = Turns(Scheduler(run, now=self.now), self.claim, welcome)
        self.door = Door(self.claim, token, self.turns)

    def peer(self):
        return Heard(self)

    def turn(self):
        """Take one with a store that takes all; return the steps that were wanted."""
        steps = [self.turns.begin(self.now)]
        while not isinstance(steps[-1], Speak):
            assert isinstance(steps[-1], Commit)
            steps.append(self.turns.stored(self.now))
        self.turns.speak()
        return steps


class Heard(Peer):
    """A peer whose frames are read as its worker would."""

    def __init__(self, leader):
        super().__init__("test", leader.now)
        self.leader = leader
        self.decoder = Decoder(ToWorker)

    def says(self, *messages):
        self.receive(b"".join(map(encode, messages)), self.leader.door, self.leader.now)

    def hears(self):
        return self.decoder.feed(self.take_outgoing())


def kinds(messages):
    return [type(message) for message in messages]


def test_nothing_is_said_before_it_is_safe():
    """Hello, wish and turn: the record comes first, and until it is stored there is not a byte."""
    leader = Leader()
    peer = leader.peer()
    peer.says(Hello(worker="w"), Want(2))
    step = leader.turns.begin(leader.now)
    assert isinstance(step, Commit)
    assert isinstance(step.record, CommitRecord)
    assert peer.hears() == []
    assert isinstance(leader.turns.stored(leader.now), Speak)
    assert peer.hears() == []
    assert leader.turns.speak() == [peer]
    welcome, grants = peer.hears()
    assert (welcome.run, kinds([grants])) == ("run", [Grants])


def test_words_wait_for_a_lock_that_is_surely_ours():
    """Also after a commit; a turn without words does not."""
    leader = Leader()
    peer = leader.peer()
    peer.says(Hello(worker="w"), Want(1))
    assert isinstance(leader.turns.begin(leader.now), Commit)
    leader.now += LOCK_S + 1
    assert isinstance(leader.turns.stored(leader.now), AwaitLock)
    assert isinstance(leader.turns.look(leader.now), AwaitLock)
    leader.claim.confirm(leader.now)
    assert isinstance(leader.turns.look(leader.now), Speak)
    leader.turns.speak()
    leader.now += LOCK_S + 1
    assert isinstance(leader.turns.begin(leader.now), Speak)


def test_a_store_that_forgot_is_written_again_before_a_word():
    """With the failures of the record that was not stored. Where the lock has lapsed, nothing is leased for a while."""
    leader = Leader()
    peer = leader.peer()
    peer.says(Hello(worker="w"), Want(1))
    leader.turns.begin(leader.now)
    step = leader.turns.forgot("it was emptied", leader.now)
    assert isinstance(step, Rewrite)
    assert (step.why, step.seq, step.vouch) == ("it was emptied", 1, True)
    assert [page.seq for page in step.pages()][:1] == [1]
    assert isinstance(leader.turns.rewritten(step.asked_s, leader.now), Speak)
    assert peer in leader.turns.speak()
    leader.now += LOCK_S + 1
    leader.turns.store_forgot("keys are gone")
    step = leader.turns.begin(leader.now)
    assert isinstance(step, Rewrite)
    assert not step.vouch
    assert leader.turns.core.hold.lasts(leader.now)


def test_what_is_noticed_while_the_lock_is_awaited_is_written_again_first():
    """Or the leader would wait for ever: a store that forgot does not renew the lock."""
    leader = Leader()
    peer = leader.peer()
    peer.says(Hello(worker="w"))
    leader.now += LOCK_S + 1
    assert isinstance(leader.turns.begin(leader.now), AwaitLock)
    leader.turns.store_forgot("it was emptied")
    assert isinstance(leader.turns.look(leader.now), Rewrite)


def test_a_newcomer_is_told_what_is_over():
    """With its welcome, once: the end of tasks and of the run."""
    leader = Leader(blocks=1)
    first = leader.peer()
    first.says(Hello(worker="one"), Want(1))
    leader.turn()
    grant = first.hears()[1].grants[0]
    first.says(Release(1, grant.number.to_bytes(8, "little"), b"\0"))
    leader.turn()
    assert kinds(first.hears()) == [Ack, TaskOver, RunOver]
    late = leader.peer()
    late.says(Hello(worker="two"))
    leader.turn()
    assert kinds(late.hears()) == [Welcome, TaskOver, RunOver]
    assert first.hears() == []
    assert leader.turns.run_over


def test_a_worker_that_comes_back_is_spoken_to_on_its_new_connection():
    """The end of the old one, noticed late, changes nothing."""
    leader = Leader()
    old, new = leader.peer(), leader.peer()
    old.says(Hello(worker="w"))
    leader.turn()
    new.says(Hello(worker="w"))
    leader.turn()
    assert old.ended
    old.disconnected(leader.door, leader.now)
    new.says(Want(1))
    leader.turn()
    assert kinds(new.hears()) == [Welcome, Grants]


def test_a_worker_that_leaves_is_let_go_after_its_last_acknowledgement():
    """In one turn: the release, and the goodbye behind it."""
    leader = Leader()
    peer = leader.peer()
    peer.says(Hello(worker="w"), Want(1))
    leader.turn()
    number = peer.hears()[1].grants[0].number
    peer.says(Release(1, number.to_bytes(8, "little"), b"\0"), Bye("drained"))
    leader.turn()
    assert kinds(peer.hears()) == [Ack]
    assert peer.ended == "drained"


def test_heartbeats_are_echoed_by_a_leader_that_surely_leads_and_to_whom_knows_its_leases():
    """The worker counts its leases' time from the echo."""
    leader = Leader()
    peer = leader.peer()
    peer.says(Hello(worker="w"), Heartbeat(1.0))
    assert peer.hears() == []
    leader.turn()
    peer.hears()
    peer.says(Heartbeat(2.0))
    assert peer.hears() == [HeartbeatAck(2.0, 1)]
    leader.now += LOCK_S + 1
    peer.says(Heartbeat(3.0))
    assert peer.hears() == []


def test_heartbeats_alone_are_one_turn_in_a_while():
    """Nobody waits for what they change; all else is due at once."""
    leader = Leader()
    peer = leader.peer()
    peer.says(Hello(worker="w"))
    leader.turn()
    leader.turns.begin(leader.now)
    leader.turns.effects = []
    leader.turns.speak()
    peer.says(Heartbeat(1.0))
    assert leader.now < leader.turns.due_s < leader.now + 1
    peer.says(Want(1))
    assert leader.turns.due_s <= leader.now


def test_a_flood_is_to_be_read_at_the_pace_of_the_turns():
    """After so many messages that no turn has heard."""
    leader = Leader()
    peer = leader.peer()
    peer.says(Hello(worker="w"), *[Want(1)] * UNHEARD)
    assert peer.overloads
    leader.turn()
    assert not peer.overloads


@pytest.mark.parametrize(
    ("messages", "code", "counts_as"),
    [
        ([Want(1)], "protocol", "protocol"),
        ([Hello(worker="w", token="wrong")], "token", "token"),
        ([Hello(worker="w", token="right", protocol=99)], "protocol", "protocol"),
        ([Hello(worker="w", token="right", pool="gpu")], "pool", "pool"),
        ([Hello(worker="", token="right")], "pool", "pool"),
    ],
)
def test_who_is_not_let_in_is_told_why_and_tells_nothing(messages, code, counts_as):
    """Whatever it says behind its hello."""
    leader = Leader(token="right")
    peer = leader.peer()
    peer.says(*messages, Want(1), Bye())
    (refused,) = peer.hears()
    assert (type(refused), refused.code, peer.refused) == (Refused, code, counts_as)
    assert peer.ended
    assert leader.turns.begin(leader.now) == Speak()
    assert leader.turns.events == []


def test_a_frame_that_is_none_ends_its_connection_alone():
    """Before a hello it is counted as malformed, after it as against the protocol."""
    leader = Leader()
    stranger, worker = leader.peer(), leader.peer()
    stranger.receive((HELLO_LIMIT_BYTES + 1).to_bytes(4, "big"), leader.door, leader.now)
    assert (stranger.refused, kinds(stranger.hears())) == ("malformed", [Refused])
    worker.says(Hello(worker="w"))
    leader.turn()
    worker.says(Hello(worker="w"))
    assert (worker.broke_protocol, worker.ended) == (True, "a second hello on one connection")


@pytest.mark.parametrize(("epoch", "code"), [(0, "standby"), (2, "busy")])
def test_a_scheduler_that_does_not_lead_yet_sends_workers_elsewhere_or_asks_for_patience(epoch, code):
    """With the leader's address, where it is another."""
    claim = Claim("n", lock_s=LOCK_S)
    claim.epoch, claim.leader = epoch, "there:1"
    leader = Leader()
    leader.door = Door(claim)
    peer = leader.peer()
    peer.says(Hello(worker="w"))
    (refused,) = peer.hears()
    assert (refused.code, refused.again, refused.leader) == (code, True, "there:1" if code == "standby" else "")


def test_what_a_person_asks_is_a_turn_as_well():
    """Committed, though nobody is to be told."""
    leader = Leader()
    leader.turn()
    leader.turns.tell(PauseRequested(), leader.now)
    assert leader.turns.due_s <= leader.now
    assert kinds(leader.turn()) == [Commit, Speak]
    assert leader.turns.core.state == "paused"

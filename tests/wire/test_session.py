"""The rules of a worker's session: what is held, what is said again, and when leases are over."""

import math
import random

import numpy as np
import pytest

from blockyard.spec.errors import ProtocolError, SpecError
from blockyard.spec.model import PipelineSpec
from blockyard.wire.frames import Decoder, encode
from blockyard.wire.happenings import (
    BlocksGranted,
    Disconnect,
    LeasesLost,
    LeasesRevoked,
    RefusedForGood,
    RunEnded,
    TaskWaits,
)
from blockyard.wire.messages import (
    Ack,
    BlockError,
    Bye,
    CannotStart,
    Gone,
    Grant,
    Grants,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Imported,
    Outcome,
    Refused,
    Release,
    Remark,
    Revoke,
    RunOver,
    TaskBegan,
    ToScheduler,
    Want,
    Welcome,
)
from blockyard.wire.session import (
    GREETING_S,
    LONGEST_RETRY_S,
    TRANSITIONS,
    Cause,
    SessionState,
    WorkerSession,
    split_address,
)

HEARTBEAT_S, LEASE_S = 2.0, 60.0


def new_session(now=0.0):
    return WorkerSession(Hello(worker="w-1"), "one:1", random.Random(1), now)


def welcome(**changes):
    values = {"run": "r", "epoch": 1, "heartbeat_s": HEARTBEAT_S, "lease_s": LEASE_S, "grace_s": 5.0}
    return Welcome(**(values | {"pipeline": PipelineSpec(name="r", tasks=())} | changes))


def sent(session):
    return Decoder(ToScheduler).feed(session.data_to_send())


def joined(now=0.0):
    session = new_session(now)
    session.connection_made(now)
    session.receive(encode(welcome()), now)
    sent(session)
    return session


def granted(session, number, n, now=0.0, task="a"):
    blocks = np.arange(n, dtype="<i8").tobytes()
    return session.receive(encode(Grants((Grant(number, task, blocks),))), now)


def release(session, *numbers, outcome=Outcome.SUCCESS, errors=()):
    n = len(numbers)
    session.release(np.array(numbers, np.int64), np.full(n, outcome, np.uint8), np.zeros(n, np.float32), errors)


def ids(packed):
    return np.frombuffer(packed, "<i8").tolist()


def test_a_hello_names_what_is_held_and_what_was_released_unheard():
    """A scheduler must not give away a block whose Release may still be on its way."""
    session = joined()
    granted(session, 10, 3)
    release(session, 11)
    sent(session)
    session.connection_lost(1.0)
    session.connection_made(2.0)
    (hello,) = sent(session)
    assert sorted(ids(hello.holds)) == [10, 11, 12]


def test_unacknowledged_releases_are_sent_again_in_order_after_a_reconnect():
    """Their sequence numbers make it harmless; an acknowledged one is not repeated."""
    session = joined()
    granted(session, 0, 3)
    for number in range(3):
        release(session, number)
    session.receive(encode(Ack(1)), 0.5)
    session.connection_lost(1.0)
    session.connection_made(2.0)
    sent(session)
    session.receive(encode(welcome(epoch=2)), 2.0)
    again = [message for message in sent(session) if isinstance(message, Release)]
    assert [(message.seq, ids(message.numbers)) for message in again] == [(2, [1]), (3, [2])]


def test_a_lease_counts_from_the_sending_of_the_last_answered_heartbeat():
    """The leader's clock for the lease cannot have started earlier."""
    session = joined(now=0.0)
    granted(session, 0, 1)
    assert session.deadline_s == LEASE_S
    session.tick(4.0)
    session.receive(encode(HeartbeatAck(4.0, 1)), 9.0)
    assert session.deadline_s == 4.0 + LEASE_S


def test_an_old_leaders_answer_does_not_prolong_a_lease():
    """Only the leader of this epoch or a later one can speak for the leases."""
    session = new_session()
    session.connection_made(0.0)
    session.receive(encode(welcome(epoch=5)), 0.0)
    granted(session, 0, 1)
    session.tick(4.0)
    session.receive(encode(HeartbeatAck(4.0, 4)), 5.0)
    assert session.deadline_s == LEASE_S


def test_past_the_deadline_what_is_held_is_lost_at_once():
    """It may be another worker's by then; what was released before stays to be said."""
    session = joined()
    granted(session, 0, 3)
    release(session, 0)
    session.connection_lost(1.0)
    happenings = session.tick(LEASE_S)
    assert [sorted(h.numbers.tolist()) for h in happenings if isinstance(h, LeasesLost)] == [[1, 2]]
    assert session.deadline_s == math.inf
    release(session, 1)
    assert [ids(unacked.numbers) for unacked in session.unacked] == [[0]]


def test_after_lost_leases_the_scheduler_is_greeted_again():
    """Only a Hello says what is held no longer; without one the scheduler would believe us to hold it for ever."""
    session = joined()
    granted(session, 0, 3)
    release(session, 0)
    happenings = session.tick(LEASE_S)
    assert any(isinstance(h, Disconnect) for h in happenings)
    session.connection_made(LEASE_S + 1)
    (hello,) = sent(session)
    assert ids(hello.holds) == [0]


def test_leases_that_are_not_held_are_not_released():
    """A revoked lease may be another worker's by now."""
    session = joined()
    granted(session, 0, 3)
    (revoked,) = session.receive(encode(Revoke(np.array([1, 99], "<i8").tobytes())), 0.0)
    assert isinstance(revoked, LeasesRevoked)
    assert revoked.numbers.tolist() == [1]
    release(session, 0, 1, 2)
    (message,) = sent(session)
    assert ids(message.numbers) == [0, 2]
    assert len(message.outcomes) == 2


def test_a_welcome_revokes_what_is_no_longer_ours():
    """The first thing to do after a reconnect is to stop those."""
    session = joined()
    granted(session, 0, 2)
    session.connection_lost(1.0)
    session.connection_made(2.0)
    happenings = session.receive(encode(welcome(revoked=np.array([0], "<i8").tobytes())), 2.0)
    assert [h.numbers.tolist() for h in happenings if isinstance(h, LeasesRevoked)] == [[0]]
    assert session.held == {1}


def test_a_want_is_said_again_after_a_reconnect_and_ends_with_a_grant():
    """The scheduler forgets wants with the connection, and a grant sets them to 0."""
    session = joined()
    session.want(4)
    session.want(4)
    assert sent(session) == [Want(4)]
    session.connection_lost(1.0)
    session.connection_made(2.0)
    sent(session)
    session.receive(encode(welcome()), 2.0)
    assert sent(session) == [Want(4)]
    granted(session, 0, 1, 3.0)
    assert session.wanted == 0


def test_grants_become_lots_with_their_attempts():
    """The lease of blocks[j] is number + j; attempts that are not 1 are named by position."""
    session = joined()
    grant = Grant(7, "a", np.array([5, 3], "<i8").tobytes(), {1: 2})
    (happening,) = session.receive(encode(Grants((grant,))), 0.0)
    assert isinstance(happening, BlocksGranted)
    (batch,) = happening.batches
    assert (batch.task, batch.numbers.tolist(), batch.blocks.tolist(), batch.attempts) == ("a", [7, 8], [5, 3], {8: 2})


def test_a_heartbeat_goes_out_when_it_is_due_and_names_what_runs():
    """Its own clock goes with it, and comes back in the answer."""
    session = joined()
    assert session.wake_at_s == HEARTBEAT_S
    session.tick(1.0)
    assert sent(session) == []
    session.tick(2.5, [(3, 0.5)])
    (beat,) = sent(session)
    assert isinstance(beat, Heartbeat)
    assert (beat.sent_s, beat.running[0].number) == (2.5, 3)


def test_a_connection_that_answers_no_heartbeat_is_given_up():
    """A half-open connection looks alive for hours."""
    session = joined()
    happenings = session.tick(100.0)
    assert any(isinstance(h, Disconnect) for h in happenings)
    assert session.state is SessionState.AWAY


def test_a_peer_that_does_not_answer_the_greeting_is_given_up():
    """Whatever listens there, it is no scheduler that works."""
    session = new_session()
    session.connection_made(0.0)
    assert session.wake_at_s == GREETING_S
    (happening,) = session.tick(GREETING_S)
    assert isinstance(happening, Disconnect)


def test_reconnects_wait_longer_each_time_with_jitter_up_to_a_limit():
    """A thousand workers must not come back in one moment."""
    session = new_session()
    waits, now = [], 0.0
    for _ in range(12):
        session.connection_lost(now)
        waits.append(session.retry_at_s - now)
        now = session.retry_at_s
    assert waits[0] <= 0.1
    assert LONGEST_RETRY_S / 2 <= waits[-1] <= LONGEST_RETRY_S
    assert len(set(waits)) == len(waits)


def test_a_standby_sends_us_to_the_leader_at_once():
    """If the leader cannot be reached, the address that we were given takes its turn again."""
    session = new_session()
    session.connection_made(0.0)
    happenings = session.receive(encode(Refused("standby", "standby", leader="two:2")), 0.5)
    assert isinstance(happenings[0], Disconnect)
    assert (session.address, session.retry_at_s) == ("two:2", 0.5)
    session.connection_lost(1.0)
    assert session.address == "one:1"


def test_two_standbys_that_name_each_other_do_not_make_a_storm():
    """After a few redirections in a row the worker waits between them."""
    session = new_session()
    now, waits = 0.0, []
    for turn in range(10):
        session.connection_made(now)
        session.receive(encode(Refused("standby", "standby", leader=("two:2", "one:1")[turn % 2])), now)
        waits.append(session.retry_at_s - now)
        now = session.retry_at_s
    assert min(waits[3:]) > 0


@pytest.mark.parametrize(("again", "over"), [(True, False), (False, True)])
def test_a_refusal_ends_the_session_unless_trying_again_can_help(again, over):
    """A wrong token stays wrong; a scheduler that is loading will be ready soon."""
    session = new_session()
    session.connection_made(0.0)
    (happening,) = session.receive(encode(Refused("no", "token", again=again)), 0.0)
    assert isinstance(happening, RefusedForGood) is over
    assert (session.state is SessionState.OVER) is over


def test_another_version_of_the_protocol_is_refused_for_good():
    """The sentence says what to do."""
    session = new_session()
    session.connection_made(0.0)
    (happening,) = session.receive(encode(welcome(protocol=99)), 0.0)
    assert "install the same blockyard" in happening.reason


def test_bytes_that_are_no_message_close_the_connection_and_nothing_else():
    """What is held stays held; the worker connects again."""
    session = joined()
    granted(session, 0, 1)
    (happening,) = session.receive(b"\0\0\0\1\xff", 1.0)
    assert isinstance(happening, Disconnect)
    assert session.held == {0}
    assert session.state is SessionState.AWAY


def test_nothing_is_taken_before_the_welcome():
    """A grant from a peer that has not said who it is would be a lease from nobody."""
    session = new_session()
    session.connection_made(0.0)
    (happening,) = granted(session, 0, 1)
    assert isinstance(happening, Disconnect)
    assert not session.held


def test_the_end_of_the_run_ends_the_session():
    """Nothing is said after it."""
    session = joined()
    assert session.receive(encode(RunOver("done")), 1.0) == [RunEnded("done")]
    session.want(3)
    assert sent(session) == []
    assert session.wake_at_s == math.inf


def test_news_of_dead_processes_is_said_again_after_a_reconnect():
    """It may not have been heard, and saying it twice is harmless."""
    session = joined()
    gone = Gone("w-1/own-0.1/", killed=True)
    session.gone(gone)
    assert sent(session) == [gone]
    session.connection_lost(1.0)
    session.connection_made(2.0)
    sent(session)
    session.receive(encode(welcome()), 2.0)
    assert gone in sent(session)


def test_leaving_says_goodbye_last():
    """A Bye says that everything is released."""
    session = joined()
    granted(session, 0, 1)
    release(session, 0, outcome=Outcome.RETURNED)
    session.leave("drained")
    assert [type(message) for message in sent(session)] == [Release, Bye]


def test_many_errors_are_split_over_releases_that_stay_small():
    """Each error goes with its own block."""
    session = joined()
    granted(session, 0, 250)
    errors = [BlockError(n, "ValueError", "x" * 1000, "y" * 16_000) for n in range(250)]
    release(session, *range(250), outcome=Outcome.FAILED, errors=errors)
    messages = sent(session)
    assert [message.seq for message in messages] == [1, 2, 3]
    for message in messages:
        assert [error.number for error in message.errors] == ids(message.numbers)


def test_a_missing_row_of_the_table_is_an_error_that_changes_nothing():
    """States are left only by the rows that are there."""
    session = joined()
    with pytest.raises(ProtocolError, match="joined cannot be connected"):
        session.connection_made(1.0)
    assert session.state is SessionState.JOINED


def test_every_state_can_be_reached_and_left():
    """OVER is the only end."""
    assert set(TRANSITIONS.values()) == set(SessionState)
    assert {state for state, _ in TRANSITIONS} == set(SessionState)
    assert all(after is SessionState.OVER for (state, _), after in TRANSITIONS.items() if state is SessionState.OVER)
    assert {cause for _, cause in TRANSITIONS} == set(Cause)


@pytest.mark.parametrize("address", ["", "host", "host:", ":1", "host:0", "host:65536", "host:x"])
def test_a_bad_address_is_a_sentence_with_the_value(address):
    """It names the setting and what it should look like."""
    with pytest.raises(SpecError, match="HOST:PORT"):
        split_address(address)


def test_grants_that_arrive_after_a_lease_s_time_are_not_taken():
    """A process that was frozen reads them before its timers ring: their leases are long over (P3)."""
    session = joined()
    happenings = session.receive(encode(Grants((Grant(7, "smooth", np.arange(2).tobytes()),))), LEASE_S + 1)
    assert [type(happening) for happening in happenings] == [Disconnect]
    assert (session.held, session.state) == (set(), SessionState.AWAY)


def test_a_welcome_that_arrives_after_a_lease_s_time_is_not_taken():
    """What it says of the leases that we hold may be over as well; we greet again."""
    session = joined()
    session.connection_lost(0.0)
    session.receive(b"", 0.0)
    session.connection_made(1.0)
    happenings = session.receive(encode(welcome()), 1.0 + LEASE_S)
    assert [type(happening) for happening in happenings] == [Disconnect]
    assert session.state is SessionState.AWAY


def test_a_wish_to_start_workers_stands_until_it_is_answered():
    """Over reconnects too; the answer ends it, and the next wish is said again, also where it is the same."""
    session = joined()
    session.want(2)
    session.connection_lost(0.0)
    session.connection_made(0.0)
    session.receive(encode(welcome()), 0.0)
    assert Want(2) in sent(session)
    assert session.receive(encode(TaskBegan("smooth", 7)), 0.0) == [TaskWaits("smooth", 7)]
    session.want(2)
    assert sent(session) == [Want(2)]


def test_a_trouble_is_said_once_to_every_leader_that_knows_the_message():
    """An older one would close the connection; what is over need not be said again."""
    session = joined()
    session.cannot_start("no module")
    assert sent(session) == []
    for _ in range(2):
        session.connection_lost(0.0)
        session.connection_made(0.0)
        session.receive(encode(welcome(knows=("cannot_start",))), 0.0)
        session.cannot_start("no module")
        assert [message for message in sent(session) if not isinstance(message, Hello)] == [CannotStart("no module")]
    session.cannot_start("")
    assert sent(session) == [CannotStart()]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP; give the port for workers"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0"),
        (b"+OK ready for work\r\n", "+OK ready"),
        (encode(Want(1)), "is no scheduler"),
    ],
)
def test_what_answers_and_is_no_scheduler_is_told_with_its_address(answer, said):
    """A wrong port is the commonest mistake; then it is tried again, for the address may be right tomorrow."""
    session = new_session()
    session.connection_made(0.0)
    (disconnect,) = session.receive(answer, 0.0)
    assert "one:1" in disconnect.reason
    assert said in disconnect.reason
    assert session.state is SessionState.AWAY


def test_what_listens_and_says_nothing_is_told_with_its_address():
    """The HTTP port of a scheduler does so."""
    session = new_session()
    session.connection_made(0.0)
    (disconnect,) = session.tick(GREETING_S)
    assert "one:1" in disconnect.reason
    assert "HTTP port" in disconnect.reason


def test_the_code_that_runs_is_said_once_a_session_where_it_is_understood():
    """Each version of each task; an older scheduler would close the connection."""
    session = joined()
    session.imported("a", "1")
    assert sent(session) == []
    said = [Imported("a", "1"), Imported("b", "1")]
    session.connection_lost(0.0)
    session.connection_made(0.0)
    session.receive(encode(welcome(knows=("imported",))), 0.0)
    session.imported("b", "1")
    session.imported("a", "1")
    assert [message for message in sent(session) if not isinstance(message, Hello)] == said
    session.connection_lost(0.0)
    session.connection_made(0.0)
    session.receive(encode(welcome(knows=("imported",))), 0.0)
    session.imported("a", "2")
    assert [message for message in sent(session) if not isinstance(message, Hello)] == [*said, Imported("a", "2")]


def test_what_is_to_be_known_of_a_task_is_said_once_a_session_where_it_is_understood():
    """The first of each kind; each new leader hears it, too."""
    session = joined()
    session.remark("a", "check_raises", "one")
    assert sent(session) == []
    for _ in range(2):
        session.connection_lost(0.0)
        session.connection_made(0.0)
        session.receive(encode(welcome(knows=("remark",))), 0.0)
        session.remark("a", "check_raises", "two")
        said = [message for message in sent(session) if not isinstance(message, Hello)]
        assert said == [Remark("a", "check_raises", "one")]

"""Who leads, and until when that is sure."""

import math

import pytest

from blockyard.leader.claim import LIVING_LOCKS, PATIENT_LOCKS, Claim, Held
from blockyard.leader.fence import Fence, Verdict

LOCK_S = 6.0


def test_the_lock_is_sure_from_the_moment_it_was_asked_for():
    """Not from the moment of the answer: the store counts from somewhere between the two."""
    claim = Claim("n", lock_s=LOCK_S)
    assert not claim.holds(0.0)
    claim.took(3, asked_s=10.0)
    assert claim.identity == "3:n"
    assert claim.holds(10.0 + LOCK_S)
    assert not claim.holds(10.0 + LOCK_S + 0.001)
    claim.confirm(asked_s=15.0)
    assert claim.holds(15.0 + LOCK_S)
    claim.resign()
    assert not claim.holds(15.0)


def test_it_is_renewed_twice_before_it_could_expire():
    """So that one lost answer costs nothing."""
    claim = Claim("n", lock_s=LOCK_S)
    assert 3 * claim.renewal_s <= LOCK_S
    assert claim.retry_s <= claim.renewal_s


def test_who_waits_knows_who_leads_and_whether_it_lives():
    """A lock that outlives its own time is being renewed. It is asked again when it may have expired, or soon."""
    claim = Claim("n", lock_s=LOCK_S)
    pause_s = claim.held(Held("there:1", 4, left_s=0.5), asked_s=0.0, now=0.0)
    assert (claim.leader, claim.seen_epoch, claim.waited) == ("there:1", 4, False)
    assert 0.5 <= pause_s <= LOCK_S / 5
    assert claim.held(Held("there:1", 4), asked_s=1.0, now=1.0) == LOCK_S / 5
    claim.held(Held("there:1", 4), asked_s=9.9, now=LIVING_LOCKS * LOCK_S + 0.1)
    assert claim.waited


def test_a_store_that_forgot_is_left_to_its_living_leader_for_a_while():
    """Then nobody comes who could write it again, and whoever waits may lead, knowing that leases were forgotten."""
    claim = Claim("n", lock_s=LOCK_S)
    claim.held(Held("there:1", 4), asked_s=0.0, now=0.0)
    forgot = Held("", 1, forgot=True)
    claim.held(forgot, asked_s=1.0, now=1.0)
    claim.held(forgot, asked_s=1.0 + PATIENT_LOCKS * LOCK_S, now=20.0)
    assert (claim.seen_epoch, claim.store_forgot) == (4, False)
    claim.held(Held("there:1", 5), asked_s=14.0, now=14.0)  # it was written again
    claim.held(forgot, asked_s=15.0, now=15.0)
    assert (claim.seen_epoch, claim.store_forgot) == (5, False)
    claim.held(forgot, asked_s=15.1 + PATIENT_LOCKS * LOCK_S, now=30.0)
    assert (claim.seen_epoch, claim.store_forgot) == (0, True)


def fence():
    known = Fence()
    known.took("3:c 2:b")
    known.loaded(17)
    return known


@pytest.mark.parametrize(
    ("answer", "writer", "last", "verdict"),
    [
        ("stored", "4:d", 18, Verdict.DONE),
        ("already", "4:d", 18, Verdict.DONE),
        ("out of order", "4:d", 12, Verdict.FORGOT),
        ("refused", "", 0, Verdict.FORGOT),
        ("refused", "3:c", 17, Verdict.FORGOT),
        ("refused", "2:b", 9, Verdict.FORGOT),
        ("refused", "3:c", 18, Verdict.REFUSED),  # an earlier leader that slept has gone on since
        ("refused", "5:e", 18, Verdict.REFUSED),
        ("refused", "5:e", 3, Verdict.REFUSED),
    ],
)
def test_a_refusal_is_the_end_only_where_somebody_else_led_since(answer, writer, last, verdict):
    """A store from before us, on which nobody went on, forgot us: the living leader writes it again."""
    known = fence()
    assert known.judge_commit(answer, writer, last, 18) is verdict
    assert known.safe_seq == (18 if verdict is Verdict.DONE else 17)


@pytest.mark.parametrize(
    ("answer", "last", "verdict"),
    [
        ("kept", 20, Verdict.DONE),
        ("kept", 21, Verdict.DONE),  # a commit was under way meanwhile
        ("kept", 19, Verdict.FORGOT),
        ("lapsed", 20, Verdict.LAPSED),
        ("lapsed", 19, Verdict.FORGOT),
        ("holed", 20, Verdict.FORGOT),
        ("forgot", 3, Verdict.FORGOT),
        ("refused", 20, Verdict.REFUSED),
    ],
)
def test_a_renewal_finds_what_the_store_lost(answer, last, verdict):
    """Records that were safe when it was asked, keys, or all of us."""
    assert Fence.judge_renewal(answer, last, 20) is verdict


def test_nothing_is_known_to_be_ours_before_it_was_taken():
    """A new claim, a new fence."""
    assert Claim("n", lock_s=LOCK_S).epoch == 0
    assert Fence().went_back("", 0)
    assert not Fence().went_back("1:a", 0)
    assert not math.isfinite(Held("x").left_s)

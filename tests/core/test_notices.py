"""What a person should know of a run now."""

from plain_run import Run

from blockyard.core.notices import MOST, Notices
from blockyard.views.observed import ObservedRun
from blockyard.wire.api import Notice


def test_a_status_carries_what_was_put_until_it_is_dropped():
    """One of a kind for a task, worker and pool; a newer text replaces an older one, in its place."""
    run = Run(5)
    put, drop = run.core.notices.put, run.core.notices.drop
    assert put(Notice("cannot_start", "it ends at once", task="a"))
    assert put(Notice("bad_worker", "it fails all", worker="w"))
    assert not put(Notice("bad_worker", "it fails all", worker="w"))
    assert put(Notice("cannot_start", "it ended 5 times", task="a"))
    assert [notice.text for notice in ObservedRun(run.core).status(0.0).notices] == ["it ended 5 times", "it fails all"]
    drop("cannot_start", task="b")
    drop("bad_worker")
    assert [notice.text for notice in ObservedRun(run.core).status(0.0).notices] == ["it ended 5 times"]


def test_a_flood_of_notices_is_counted():
    """So that a status stays small."""
    notices = Notices()
    for number in range(MOST + 7):
        notices.put(Notice("bad_worker", "it fails all", worker=f"w{number}"))
    assert len(notices.listed()) == MOST + 1
    assert notices.listed()[-1].text == "7 more notices are not shown"

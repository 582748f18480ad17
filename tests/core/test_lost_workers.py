"""Which blocks a worker that is lost was running."""

import numpy as np
import pytest

from blockyard.core.state.leases import Grant
from blockyard.core.state.workers import Worker, lost_outcomes
from blockyard.wire.messages import Outcome


def charged(running, live, slots=1, ran=None):
    """The leases charged when a worker is lost that was granted leases 10 to 19 and said that it ran `running`."""
    worker = Worker("w", slots=slots, running=tuple((number, 1.0) for number in running))
    grants = [Grant(10, 0, "w", np.arange(5), 0.0), Grant(15, 0, "w", np.arange(5), 0.0)]
    for grant in grants:
        grant.live[:] = np.isin(grant.number + np.arange(5), live)
    found = lost_outcomes(worker, grants, Outcome.KILLED, None if ran is None else np.array(ran, np.int64))
    ends = {
        grant.number + int(at): outcome
        for grant, places, outs in found
        for at, outcome in zip(places, outs, strict=True)
    }
    assert sorted(ends) == sorted(live)
    return [number for number, outcome in ends.items() if outcome == Outcome.KILLED]


@pytest.mark.parametrize(
    ("running", "slots", "expected"),
    [
        ((13,), 1, [13]),
        ((13, 16), 2, [13, 16]),
        ((), 1, [12]),
        ((), 2, [12, 13]),
        ((11,), 1, [12]),
        ((11, 13), 2, [13]),
    ],
    ids=["what it said", "both slots", "never said", "never said, two slots", "finished since", "one finished since"],
)
def test_the_blocks_that_a_lost_worker_ran_are_charged(running, slots, expected):
    """What its last heartbeat named and has not ended; else the next in order, or a poison block is never found."""
    assert charged(running, live=range(12, 20), slots=slots) == expected


@pytest.mark.parametrize(
    ("ran", "expected"),
    [((17,), [17]), ((12, 18), [12, 18]), ((11, 40), []), ((), [])],
    ids=["one", "two", "over or not its own", "none"],
)
def test_where_it_is_known_what_ran_nothing_else_is_charged(ran, expected):
    """Whatever the last heartbeat said, and also where nothing ran."""
    assert charged((13,), live=range(12, 20), ran=ran) == expected

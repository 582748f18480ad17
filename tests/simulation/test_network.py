"""The simulated network is no worse than a real one where that keeps its word: a connection's bytes stay in order."""

from __future__ import annotations

import random

import pytest

from blockyard.testing.simulation.clock import Clock, Process
from blockyard.testing.simulation.network import Connection, End


@pytest.mark.parametrize("seed", range(200))
def test_what_is_held_back_arrives_in_order(seed):
    """However late, and at whatever odd times it was sent."""
    rng, clock, heard = random.Random(seed), Clock(), []
    sender, receiver = Process(clock, "a"), Process(clock, "b")
    one = End(sender, lambda _data: None, lambda: None)
    other = End(receiver, heard.append, lambda: None)
    connection = Connection(rng, 0.003, one, other)
    connection.hold_back(rng.uniform(0.1, 1.0))
    for n in range(30):
        clock.at(rng.uniform(0.0, 0.05), lambda: None)
        clock.step()
        connection.send(one, bytes([n]))
    while clock.step():
        pass
    assert heard == [bytes([n]) for n in range(30)]

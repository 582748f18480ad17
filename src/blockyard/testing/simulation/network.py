"""Connections: bytes arrive in order after a while, or not at all."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from blockyard.testing.simulation.clock import Process

Receive = Callable[[bytes], None]
Lost = Callable[[], None]


class End:
    """One end of a connection, owned by a process."""

    def __init__(self, owner: Process, receive: Receive, lost: Lost) -> None:
        self.owner = owner
        self.receive = receive
        self.lost = lost
        self.open = True
        self.arrives_s = 0.0
        """When the last bytes sent to this end arrive; later ones not earlier."""


class Connection:
    """Two ends; either may be cut with or without the other noticing."""

    def __init__(self, rng: random.Random, delay_s: float, one: End, other: End) -> None:
        self._rng = rng
        self._delay_s = delay_s
        self.ends = (one, other)
        self.silent: set[End] = set()
        """Ends to which nothing arrives any more, and nobody is told (half-open, partitioned)."""

    def send(self, sender: End, data: bytes) -> None:
        """Send bytes to the other end."""
        other = self.ends[1] if sender is self.ends[0] else self.ends[0]
        if not data or not sender.open or other in self.silent:
            return
        clock = other.owner.clock
        other.arrives_s = max(other.arrives_s, clock.now + self._rng.expovariate(1 / self._delay_s))

        def arrive() -> None:
            if other.open and other not in self.silent:
                other.receive(data)

        other.owner.at(other.arrives_s, arrive)  # not after a delay: what is rounded could overtake

    def hold_back(self, seconds: float) -> None:
        """What is sent from now on arrives later by so much."""
        for end in self.ends:
            end.arrives_s = max(end.arrives_s, end.owner.clock.now) + seconds

    def close(self, closer: End | None = None) -> None:
        """End it. What its closer has sent still arrives before the other end notices; a cut (no closer) loses it."""
        for end in self.ends:
            if not end.open:
                continue
            if closer is None or end is closer:
                end.open = False
            if end is not closer and end not in self.silent:
                clock = end.owner.clock
                notices_s = max(end.arrives_s, clock.now + self._rng.expovariate(1 / self._delay_s))
                end.owner.at(notices_s, partial(self._notice, end))

    def _notice(self, end: End) -> None:
        end.open = False
        end.lost()

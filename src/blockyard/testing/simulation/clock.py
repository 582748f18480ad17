"""Virtual time, and processes that can be killed and frozen in it."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

Action = Callable[[], None]


class Clock:
    """Does what is due, in order of time; nothing takes time but what says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Action]] = []
        self._order = count()

    def at(self, time_s: float, action: Action) -> None:
        """Do this then, or at once where that is past."""
        heapq.heappush(self._due, (max(time_s, self.now), next(self._order), action))

    def step(self) -> bool:
        """Do the next thing; give whether there was one."""
        if not self._due:
            return False
        self.now, _, action = heapq.heappop(self._due)
        action()
        return True


class Process:
    """Something that runs: what it does later does not happen once it is dead, and waits while it is frozen."""

    def __init__(self, clock: Clock, name: str) -> None:
        self.clock = clock
        self.name = name
        self.alive = True
        self._life = 0
        self._thaws_s = 0.0
        self._waiting: list[Action] = []
        """What became due while it was frozen, in order: bytes of a connection never overtake each other."""

    @property
    def frozen(self) -> bool:
        """Whether it is stopped (SIGSTOP) at this moment."""
        return self.clock.now < self._thaws_s

    def later(self, delay_s: float, action: Action) -> None:
        """Do this after a while, in this life."""
        self.at(self.clock.now + delay_s, action)

    def at(self, time_s: float, action: Action) -> None:
        """Do this then, in this life; of two things due at the same time the one that was said first."""
        self.clock.at(time_s, self._guarded(self._life, action))

    def freeze(self, seconds: float) -> None:
        """Stop; everything due meanwhile happens when it goes on."""
        self._thaws_s = max(self._thaws_s, self.clock.now + seconds)
        self.clock.at(self._thaws_s, self._thaw)

    def _thaw(self) -> None:
        if not self.frozen:
            waiting, self._waiting = self._waiting, []
            for action in waiting:
                action()

    def die(self) -> None:
        """End at once (kill -9)."""
        self.alive = False
        self._life += 1
        self._thaws_s = 0.0
        self._waiting.clear()

    def rise(self) -> None:
        """Begin a new life."""
        self.alive = True

    def _guarded(self, life: int, action: Action) -> Action:
        def guarded() -> None:
            if life != self._life or not self.alive:
                return
            if self.frozen or self._waiting:
                self._waiting.append(guarded)
            else:
                action()

        return guarded

"""How many workers a pool gets: pure, told what is seen, giving what is wanted.

A pool wants as many pods as could run a block at this moment, halos and upstream considered, between its limits. It
grows at once, and shrinks by a quarter at a time, to what was the most wanted in the last minute, so that a short lull
costs no pods. Whoever else changes the number is a person, who keeps it until automation is asked for again. A `Note`
is what must survive this process: what we set last, and what we were about to set.
"""

from __future__ import annotations

import math
from collections import deque

import msgspec

from blockyard_scheduler.scaling.config import PoolScaling

LULL_S = 60.0
"""Fewer are wanted only when so many were the most for this long; and the pause between two steps down."""
STEP_DOWN = 0.25
"""The largest part of the pods that one step takes away."""


class Note(msgspec.Struct, frozen=True, array_like=True):
    """What a successor must know of a pool."""

    last: int | None = None
    """What we set last; None: nothing yet."""
    next: int | None = None
    """What we are setting, and may have; None: nothing is under way."""
    person: bool = False
    """Whether somebody else decides."""
    ended: bool = False
    """Whether it was scaled to zero because the run was over."""


class PoolScaler:
    """One pool."""

    def __init__(self, pool: PoolScaling, note: Note | None = None) -> None:
        """Go on from the note of an earlier scheduler, or begin."""
        self.pool = pool
        self.note = note or Note()
        self.seen: int | None = None
        """Replicas asked for in the Deployment, as seen last."""
        self._wants: deque[tuple[float, int]] = deque()
        self._changed_s = -math.inf

    @property
    def decides(self) -> str:
        """Who decides: ``auto``, ``person``, or ``nobody`` where automation is off."""
        return "person" if self.note.person else "auto" if self.pool.autoscale else "nobody"

    def observe(self, replicas: int, now: float) -> None:
        """Take what the Deployment asks for; a number that is not ours is a person's."""
        note = self.note
        ours = note.last is None or replicas in (note.last, note.next)
        if replicas != self.seen:  # also at a successor's first look: it has not seen yet what was wanted before
            self._changed_s = now
        self.seen = replicas
        if note.last is None and note.next is None:
            return
        if ours:
            self.note = msgspec.structs.replace(note, last=replicas, next=note.next if replicas != note.next else None)
        else:
            self.note = msgspec.structs.replace(note, last=replicas, next=None, person=True)

    def wanted(self, runnable: int) -> int:
        """Give the pods that `runnable` blocks could use, between the limits."""
        return min(max(math.ceil(runnable / self.pool.slots), self.pool.min), self.pool.max)

    def target(self, runnable: int, now: float, *, over: bool) -> int | None:
        """Give the number of pods to set now; None: leave it as it is."""
        if self.seen is None:
            return None
        if over:
            return self._at_end()
        if self.note.ended:  # it goes on: blocks are tried again
            self.note = msgspec.structs.replace(self.note, ended=False, person=False)
        if self.note.person:
            return self.note.next  # asked for through us, and not done yet
        if not self.pool.autoscale:
            return self.pool.workers if self.note.last is None and self.pool.workers != self.seen else None
        return self._automatic(self.wanted(runnable), now)

    def _at_end(self) -> int | None:
        """Zero, once: workers of a finished run would be started again for ever."""
        if self.note.ended or not self.pool.autoscale:
            return None
        return 0 if self.seen else None

    def _automatic(self, want: int, now: float) -> int | None:
        assert self.seen is not None
        self._wants.append((now, want))
        while self._wants[0][0] < now - LULL_S:
            self._wants.popleft()
        if want > self.seen:
            return want
        most = max(n for _, n in self._wants)
        if most >= self.seen or (self.note.last is not None and now - self._changed_s < LULL_S):
            return None
        return max(most, self.seen - max(int(self.seen * STEP_DOWN), 1))

    def setting(self, replicas: int, now: float, *, person: bool = False, ended: bool = False) -> Note:
        """Note that `replicas` are about to be set; the note is to be kept before it is done."""
        last = self.note.last if self.note.last is not None else self.seen
        self.note = Note(last, replicas, person, ended)
        self._changed_s = now
        return self.note

    def automate(self) -> Note:
        """Decide again, whatever a person has set."""
        self.note = msgspec.structs.replace(self.note, person=False)
        self._wants.clear()
        return self.note

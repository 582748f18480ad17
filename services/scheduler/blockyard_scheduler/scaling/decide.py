"""How many workers a pool gets: pure, told what is seen, giving what is wanted.

A pool wants as many pods as could run a block at this moment, halos and upstream considered, between its limits. It
grows at once, and shrinks by a quarter at a time, to what was the most wanted in the last minute, so that a short lull
costs no pods. Whoever else changes the number is a person, who keeps it until automation is asked for again. A `Note`
is what must survive this process: what we set last, and what we were about to set. It is kept from the first look on,
so that a successor knows a person's number from ours.
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

    known: tuple[int, ...] = ()
    """Numbers that are accounted for: the one seen last, and those that we may have set since."""
    next: int | None = None
    """What we are setting, and may have; None: nothing is under way."""
    person: bool = False
    """Whether somebody else decides."""
    ended: bool = False
    """Whether it was scaled to zero because the run was over."""
    uid: str = ""
    """Of the Deployment that this is about: one that is made again has another."""


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
        self._begun = bool(self.note.known)
        """Whether this pool was scaled before: the first number of all is set without waiting."""

    @property
    def decides(self) -> str:
        """Who decides: ``auto``, ``person``, or ``nobody`` where automation is off."""
        return "person" if self.note.person else "auto" if self.pool.autoscale else "nobody"

    def observe(self, replicas: int, now: float, *, uid: str = "") -> None:
        """Take what the Deployment `uid` asks for; a number that is not ours is a person's."""
        if replicas != self.seen:  # also at a successor's first look: it has not seen yet what was wanted before
            self._changed_s = now
        self.seen = replicas
        note = self.note
        if not note.known or note.uid != uid:
            self.note = self._met(replicas, uid)
        elif replicas in (*note.known, note.next):
            due = note.next if replicas != note.next else None
            self.note = msgspec.structs.replace(note, known=(replicas,), next=due)
        else:
            self.note = msgspec.structs.replace(note, known=(replicas,), next=None, person=True)

    def _met(self, replicas: int, uid: str) -> Note:
        """Note a Deployment that is new to us: what it asks for is Kubernetes' default, which nobody decided.

        (Who set `replicas` is not to be had: the API server tracks no owner of a field that no manifest has.)
        """
        note = self.note
        self._begun = False
        due = None if self.pool.autoscale else self.pool.workers
        if note.person:  # made again: what a person set before is set again
            due = note.next if note.next is not None else note.known[-1]
        return Note((replicas,), due if due != replicas else None, note.person, uid=uid)

    def wanted(self, runnable: int) -> int:
        """Return the pods that `runnable` blocks could use, between the limits."""
        return min(max(math.ceil(runnable / self.pool.slots), self.pool.min), self.pool.max)

    def target(self, runnable: int, now: float, *, over: bool) -> int | None:
        """Return the number of pods to set now; None: leave it as it is."""
        if self.seen is None:
            return None
        if over:
            return self._at_end()
        if self.note.ended:  # it goes on: blocks are tried again
            self.note = msgspec.structs.replace(self.note, next=None, person=False, ended=False)
        if self.note.person or not self.pool.autoscale:
            return self.note.next  # asked for, and not done yet
        return self._automatic(self.wanted(runnable), now)

    def _at_end(self) -> int | None:
        """Zero, once: workers of a finished run would be started again for ever."""
        if not self.pool.autoscale:
            return self.note.next if self.note.person else None
        if not (self.note.ended or self.seen):
            self.note = msgspec.structs.replace(self.note, next=None, person=False, ended=True)
        return self.note.next if self.note.ended else 0

    def _automatic(self, want: int, now: float) -> int | None:
        assert self.seen is not None
        self._wants.append((now, want))
        while self._wants[0][0] < now - LULL_S:
            self._wants.popleft()
        if want > self.seen:
            return want
        most = max(n for _, n in self._wants)
        if most >= self.seen or (self._begun and now - self._changed_s < LULL_S):
            return None
        return max(most, self.seen - max(int(self.seen * STEP_DOWN), 1))

    def setting(self, replicas: int, now: float, *, ended: bool = False) -> Note:
        """Note that `replicas` are about to be set; the note is to be kept before it is done."""
        begins_to_end = ended and not self.note.ended
        self.note = self._due(replicas, person=self.note.person and not begins_to_end, ended=ended)
        self._begun = True
        self._changed_s = now
        return self.note

    def asked(self, replicas: int | None) -> Note:
        """A person asks through us: for so many, or (None) that we decide again. To be kept before it is answered."""
        self.note = self._due(replicas, person=replicas is not None, ended=self.note.ended)
        if replicas is None:
            self._wants.clear()
        return self.note

    def _due(self, replicas: int | None, *, person: bool, ended: bool) -> Note:
        """Return the note that `replicas` come next; what was under way until now may have been done."""
        note = self.note
        known = note.known if note.next is None or not note.known else (*note.known, note.next)
        known = tuple(reversed(dict.fromkeys(reversed(known))))  # each once, the latest last
        return msgspec.structs.replace(note, known=known, next=replicas, person=person, ended=ended)

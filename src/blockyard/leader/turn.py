"""The turns of a leader: journal before speech.

A turn takes all that arrived, lets the core decide, wants what was decided to be safe in the store, and only then
speaks. What arrives while the store writes waits for the next turn, so a slow disk makes turns larger, not fewer
blocks. The caller carries out the steps::

    step = turns.begin(now)
    while not isinstance(step, Speak):
        Commit    write the record; then `step = turns.stored(now)`, or `turns.forgot(why, now)`
        Rewrite   write all of the run; then `step = turns.rewritten(asked_s, now)`
        AwaitLock wait until the lock may have been renewed; then `step = turns.look(now)`
    for peer in turns.speak(): write what it has to say

A caller whom the store refuses stops here and says nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from blockyard.core.events import (
    AnnounceRunOver,
    AnnounceTaskOver,
    CommitRecord,
    ContinueTurn,
    Effect,
    Event,
    FailureNote,
    Page,
    RerunRequested,
    RetryRequested,
    SendAck,
    SendLeases,
    SendRevoke,
    SendTaskBegan,
    SendWelcome,
    TurnEnded,
    WakeAt,
    WorkerDisconnected,
    WorkerGone,
    WorkerHeard,
    WorkerJoined,
)
from blockyard.core.scheduler import Scheduler
from blockyard.leader import convert
from blockyard.leader.claim import Claim
from blockyard.leader.peer import Peer
from blockyard.spec.errors import ProtocolError
from blockyard.spec.model import PipelineSpec, RunSpec
from blockyard.wire.frames import encode
from blockyard.wire.messages import Ack, Revoke, RunOver, TaskBegan, TaskOver, Welcome

HEARTBEATS_S = 0.25
"""Nobody waits for what a heartbeat changes: all that come in this time are one turn, or part of an earlier one."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Write this record, in one step, if we still lead and it follows the last one."""

    record: CommitRecord


@dataclass(frozen=True, slots=True)
class Rewrite:
    """The store forgot: make it hold all that we know, the record last given out included, and nothing else."""

    why: str
    """A sentence for the log."""
    run: RunSpec
    seq: int
    pages: Callable[[], Iterable[Page]]
    notes: Sequence[FailureNote]
    """Failures of the record that was not stored."""
    asked_s: float
    vouch: bool
    """Whether the store may note that it holds all there is to know."""


@dataclass(frozen=True, slots=True)
class AwaitLock:
    """Say nothing until the lock is surely ours."""


@dataclass(frozen=True, slots=True)
class Speak:
    """All is safe: `Turns.speak` may be called."""


Step: TypeAlias = Commit | Rewrite | AwaitLock | Speak


class Turns:
    """The core, what arrived for it, and the peers that are told what it decided."""

    def __init__(self, core: Scheduler, claim: Claim, welcome: Welcome) -> None:
        """Take the core of a run that is led by `claim`; `welcome` is what every worker is told, but for its own."""
        self.core = core
        self.claim = claim
        self.due_s = -math.inf
        """When a turn should begin; the first at once, to scan what is ready."""
        self.events: list[Event] = []
        """What the last turn was told, for whoever counts."""
        self.effects: list[Effect] = []
        """What the last turn decided."""
        self.committed = False
        """Whether the last turn wrote to the store."""
        self._welcome = welcome
        self._arrived: list[tuple[Event, Peer | None]] = []
        self._peers: dict[str, Peer] = {}
        """The connection on which each worker is spoken to."""
        self._leaving: list[tuple[str, Peer, str]] = []
        self._touched: dict[Peer, None] = {}
        """Peers that have something to be written, or are to be closed; in order."""
        self._notes: Sequence[FailureNote] = ()
        self._forgotten = ""
        self._tasks_over = self._find_tasks_over()
        self._told_over = False
        self.dismissed = False
        """Whether the workers were told to leave although the run is not over."""

    @property
    def pipeline(self) -> PipelineSpec:
        """The pipeline that runs."""
        return self._welcome.pipeline

    # --- what arrives ------------------------------------------------------------------------------------------

    def tell(self, event: Event, now: float, peer: Peer | None = None) -> None:
        """Take an event, from a worker's connection if `peer` is given, into the next turn. Look at `due_s` then."""
        self._arrived.append((event, peer))
        if peer is not None:
            peer.unheard += 1
        self.due_s = min(self.due_s, now + HEARTBEATS_S if isinstance(event, WorkerHeard) else -math.inf)

    def store_forgot(self, why: str) -> None:
        """Write all of the run again, before anything else is said: the store was seen to have lost some of it."""
        self._forgotten = why
        self.due_s = -math.inf

    def lapsed(self, now: float) -> None:
        """The lock had expired, and another may have led meanwhile of whom the store has nothing left."""
        self.core.store_forgot(now)

    def vouches(self, now: float) -> bool:
        """Return whether the store holds all that there is to know, so that a later restart of it can be seen."""
        return not self.core.hold.lasts(now)

    # --- a turn ------------------------------------------------------------------------------------------------

    def begin(self, now: float) -> Step:
        """Let the core decide about all that arrived; return what has to be done before anything is said."""
        arrived, self._arrived = self._arrived, []
        self.due_s = math.inf
        self.events, self.effects, self.committed = [event for event, _ in arrived], [], False
        for event, peer in arrived:
            self._handle(event, peer, now)
        self.effects += self.core.handle(TurnEnded(), now)
        for effect in self.effects:
            if isinstance(effect, CommitRecord):  # there is one at the most
                self._notes = effect.errors
                return Commit(effect)
        return self._next(now)

    def stored(self, now: float) -> Step:
        """The record is safe."""
        self._notes, self.committed = (), True
        return self._next(now)

    def forgot(self, why: str, now: float) -> Step:
        """The record is not safe: the store has lost some before it, and nobody else leads."""
        self._forgotten = why
        return self._next(now)

    def rewritten(self, asked_s: float, now: float) -> Step:
        """All of the run is in the store, which was asked at `asked_s`."""
        self._notes, self._forgotten, self.committed = (), "", True
        self.claim.confirm(asked_s)
        return self._next(now)

    def look(self, now: float) -> Step:
        """Look again whether the lock is ours, and whether the store was seen to have forgotten meanwhile."""
        return self._next(now)

    def _next(self, now: float) -> Step:
        if self._forgotten:
            if not self.claim.holds(now):  # another may have led meanwhile, of whom the store has nothing left
                self.core.store_forgot(now)
            core, vouch = self.core, self.vouches(now)
            return Rewrite(self._forgotten, core.run, core.seq, core.whole_snapshot, self._notes, now, vouch)
        # Also after a commit: a store that went back behind a successor's time takes the record of a leader that slept.
        says = any(not isinstance(effect, (WakeAt, ContinueTurn)) for effect in self.effects)
        return AwaitLock() if says and not self.claim.holds(now) else Speak()

    def _handle(self, event: Event, peer: Peer | None, now: float) -> None:
        if peer is not None:
            peer.unheard -= 1
            if isinstance(event, WorkerJoined):
                self._speak_on(event.worker, peer)
            elif isinstance(event, WorkerDisconnected):
                if self._peers.get(event.worker) is not peer:
                    return  # the worker is back on a newer connection, or has left for good
                del self._peers[event.worker]
        if isinstance(event, WorkerGone) and (leaving := self._peers.get(event.worker)) is not None:
            self._leaving.append((event.worker, leaving, event.reason or "it left"))
        try:
            self.effects += self.core.handle(event, now)
        except ProtocolError as error:
            if peer is None:
                raise
            self._end(peer, str(error))

    def _speak_on(self, worker: str, peer: Peer) -> None:
        """From now on the worker is spoken to on this connection, and no more on an older one."""
        old = self._peers.get(worker)
        if old is not None and old is not peer:
            self._end(old, f"worker {worker} is back on a new connection")
        self._peers[worker] = peer

    # --- speech ------------------------------------------------------------------------------------------------

    def speak(self) -> list[Peer]:
        """Lay out what was decided for each peer; return those with something to write or to be closed."""
        said: dict[str, list[msgspec.Struct]] = {}
        leases: dict[str, list[SendLeases]] = {}
        to_all: list[bytes] = []
        for effect in self.effects:
            match effect:
                case SendLeases():
                    leases.setdefault(effect.worker, []).append(effect)
                case SendAck():
                    said.setdefault(effect.worker, []).append(Ack(effect.seq, effect.stale))
                case SendWelcome():
                    said.setdefault(effect.worker, []).extend(self._welcomed(effect))
                case SendRevoke():
                    numbers = effect.numbers.astype(convert.IDS).tobytes()
                    said.setdefault(effect.worker, []).append(Revoke(numbers))
                case SendTaskBegan():
                    said.setdefault(effect.worker, []).append(TaskBegan(effect.task, effect.leased))
                case AnnounceTaskOver() if effect.task not in self._tasks_over:
                    self._tasks_over.add(effect.task)
                    to_all.append(encode(TaskOver(effect.task)))
                case AnnounceRunOver() if not self._told_over:
                    to_all.append(encode(RunOver(effect.state)))
                case WakeAt():
                    self.due_s = min(self.due_s, effect.time_s)
                case ContinueTurn():
                    self.due_s = -math.inf
                case _:
                    pass  # committed, or announced before and told to newcomers with their welcome
        for worker, batches in leases.items():
            said.setdefault(worker, []).append(convert.grants(batches))
        for worker, messages in said.items():
            if (peer := self._peers.get(worker)) is not None:
                self._send(peer, [encode(message) for message in messages])
        for peer in list(self._peers.values()) if to_all else ():
            self._send(peer, to_all)
        self._part()
        self._note_what_is_over()
        touched, self._touched = list(self._touched), {}
        return touched

    def dismiss(self) -> list[Peer]:
        """Tell all workers to leave, although the run is not over: this scheduler ends with a run that is paused."""
        self.dismissed = True
        for peer in self._peers.values():
            peer.send([encode(RunOver(self.core.state))])
        return list(self._peers.values())

    def _welcomed(self, effect: SendWelcome) -> list[msgspec.Struct]:
        """Return the welcome, and what was announced before this worker came."""
        if (peer := self._peers.get(effect.worker)) is not None:
            peer.welcomed = True
        revoked = effect.revoked.astype(convert.IDS).tobytes()
        messages: list[msgspec.Struct] = [msgspec.structs.replace(self._welcome, revoked=revoked)]
        messages += [TaskOver(task) for task in sorted(self._tasks_over)]
        if self.core.is_over:
            messages.append(RunOver(self.core.state))
        return messages

    def _send(self, peer: Peer, frames: Sequence[bytes]) -> None:
        peer.send(frames)
        self._touched[peer] = None

    def _end(self, peer: Peer, reason: str) -> None:
        peer.end(reason)
        self._touched[peer] = None

    def _part(self) -> None:
        """End the connections of those who left, now that they have got their last acknowledgements."""
        for worker, peer, reason in self._leaving:
            if self._peers.get(worker) is peer:
                del self._peers[worker]
            self._end(peer, reason)
        self._leaving.clear()

    # --- what is over ------------------------------------------------------------------------------------------

    @property
    def run_over(self) -> bool:
        """Whether the run is over and the workers were told."""
        return self._told_over

    def _note_what_is_over(self) -> None:
        if any(isinstance(event, (RetryRequested, RerunRequested)) for event in self.events):
            self._tasks_over = self._find_tasks_over()
        self._told_over = self.core.is_over

    def _find_tasks_over(self) -> set[str]:
        return {task.spec.id for task in self.core.tasks if not task.unfinished}

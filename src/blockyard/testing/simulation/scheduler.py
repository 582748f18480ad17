"""A scheduler process of the simulation: the service's leader in virtual time, with a simulated network and store."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

from blockyard.core.events import CommitRecord
from blockyard.core.observer import shapes_of
from blockyard.core.scheduler import CoreSettings, Scheduler
from blockyard.leader.claim import Claim, Held
from blockyard.leader.fence import Fence, Verdict
from blockyard.leader.peer import Door, Peer
from blockyard.leader.turn import AwaitLock, Commit, Rewrite, Speak, Step, Turns
from blockyard.record.run_record import RunRecord
from blockyard.testing.simulation.clock import Process
from blockyard.testing.simulation.network import Connection, End
from blockyard.testing.simulation.store import Contents
from blockyard.wire.messages import KNOWN, Welcome

if TYPE_CHECKING:
    from blockyard.testing.simulation.cluster import Cluster

STORE_S = 0.004
"""Mean time of a command to the store, one way."""
AGAIN_S = 0.05
"""A command that was lost, or met no store, is sent again after this; a lock is looked at again."""
HISTORY_BLOCKS = 10_000
TURN_S = 0.0005
"""From a bell to its turn."""


class Session:
    """The connection of one peer."""

    def __init__(self, scheduler: SchedulerProcess) -> None:
        self.peer = Peer("simulated", scheduler.clock.now)
        self.end = End(scheduler, lambda data: scheduler.receive(self, data), lambda: scheduler.left(self))
        self.connection: Connection | None = None

    def close(self) -> None:
        """End the connection."""
        if self.connection is not None:
            self.connection.close(self.end)


class SchedulerProcess(Process):
    """Waits for the lock, leads, and is started again when it dies."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        super().__init__(cluster.clock, name)
        self._cluster = cluster
        self._rng: random.Random = cluster.rng
        self.begin()

    def begin(self) -> None:
        """Start afresh, as a new process."""
        self.rise()
        self.claim = Claim(f"{self._rng.getrandbits(64):x}", lock_s=self._cluster.lock_s, address=self.name)
        self._fence = Fence()
        self._door = Door(self.claim)
        self._sessions: dict[Peer, Session] = {}
        self._turning = False
        self._told_over = False
        self._armed_s = math.inf
        self.later(0.0, self._try_to_lead)

    def die(self) -> None:
        """Die, and be started again by whatever looks after it."""
        for session in self._sessions.values():
            session.close()
        super().die()
        self.clock.at(self.clock.now + self._rng.uniform(0.2, 2.0), self.begin)

    # --- leading -----------------------------------------------------------------------------------------------

    def _try_to_lead(self) -> None:
        store, claim, now = self._cluster.store, self.claim, self.clock.now
        if not store.up:
            self.later(claim.lock_s / 5, self._try_to_lead)
            return
        self._cluster.point(self)
        answer = store.take(claim.nonce, claim.address, now, claim.lock_s, claim.seen_epoch)
        self._cluster.point(self)
        if isinstance(answer, Held):
            pause_s = claim.held(answer, now, now)
            self.later(pause_s, self._try_to_lead)
            return
        claim.took(answer, now)
        self._fence.took(" ".join(store.now.before))
        self._fence.loaded(store.now.seq)
        self._lead(self._restored())

    def _restored(self) -> Scheduler:
        cluster, now = self._cluster, self._cluster.store.now
        core = Scheduler.restore(
            cluster.run,
            list(now.pages.values()),
            sorted(now.log.items()),
            epoch=self.claim.epoch,
            settings=cluster.settings,
            now=self.clock.now,
            seed=self._rng.getrandbits(32),
        )
        core.observer = RunRecord(shapes_of(core.tasks), HISTORY_BLOCKS)
        if core.seq == now.seq:
            cluster.history.restored(core)
        if (self.claim.store_forgot or cluster.store.may_have_forgotten) and cluster.keeps_quiet:
            core.store_forgot(self.clock.now)
        return core

    def _lead(self, core: Scheduler) -> None:
        cluster = self._cluster
        welcome = Welcome(
            run=cluster.run.pipeline.name,
            epoch=core.epoch,
            heartbeat_s=cluster.heartbeat_s,
            lease_s=cluster.settings.lease_s,
            grace_s=cluster.settings.grace_s,
            pipeline=cluster.run.pipeline,
            knows=KNOWN,
        )
        self._door.turns = Turns(core, self.claim, welcome)
        self.later(self.claim.renewal_s, self._renew)
        self._arm()

    @property
    def _turns(self) -> Turns:
        assert self._door.turns is not None
        return self._door.turns

    def _renew(self) -> None:
        store, claim, asked_s = self._cluster.store, self.claim, self.clock.now
        if not store.up:
            self.later(claim.retry_s, self._renew)
            return
        self._cluster.point(self)
        answer = store.renew(claim.identity, self._fence, asked_s, claim.lock_s) if store.fenced else "kept"
        self._cluster.point(self)
        verdict = self._fence.judge_renewal(answer, store.now.seq, self._fence.safe_seq)
        if verdict is Verdict.REFUSED:
            self.die()
            return
        self.later(claim.renewal_s, self._renew)
        if verdict is Verdict.FORGOT:
            self._turns.store_forgot("the store forgot")
            self._arm()
            return
        if verdict is Verdict.LAPSED:
            self._turns.lapsed(asked_s)
        claim.confirm(asked_s)
        if self._turns.vouches(asked_s):
            store.vouch()

    # --- turns -------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Take the next turn when it is due."""
        if self._turning or self._door.turns is None or self._turns.due_s == math.inf:
            return
        at_s = max(self._turns.due_s, self.clock.now + TURN_S)
        if at_s < self._armed_s:
            self._armed_s = at_s
            self.at(at_s, self._ring)

    def _ring(self) -> None:
        if self._armed_s <= self.clock.now and not self._turning:
            self._armed_s = math.inf
            self._turning = True
            step = self._turns.begin(self.clock.now)
            if self._cluster.speaks_first:
                self._speak()
            self._carry_out(step)

    def _carry_out(self, step: Step) -> None:
        match step:
            case Commit(record):
                self._commit(record)
            case Rewrite():
                self._rewrite(step)
            case AwaitLock():
                self.later(AGAIN_S, lambda: self._carry_out(self._turns.look(self.clock.now)))
            case Speak():
                if not self._cluster.speaks_first:
                    self._speak()
                self._turning = False
                self._arm()

    def _after_a_way(self, action: object) -> None:
        self.later(self._rng.expovariate(1 / STORE_S), action)  # type: ignore[arg-type]

    def _commit(self, record: CommitRecord) -> None:
        """The command is under way: it may be lost before the store sees it, or its answer after."""
        identity, store = self.claim.identity, self._cluster.store
        self._cluster.point(self)
        lost_before, lost_after = (self._rng.random() < self._cluster.loses_answers for _ in range(2))

        def answered(answer: str, writer: str, last: int) -> None:
            verdict = self._fence.judge_commit(answer, writer, last, record.seq)
            if verdict is Verdict.REFUSED or (verdict is Verdict.FORGOT and not store.fenced):
                self.die()
            elif verdict is Verdict.FORGOT:
                self._carry_out(self._turns.forgot("the store forgot", self.clock.now))
            else:
                self._carry_out(self._turns.stored(self.clock.now))

        def reaches_store() -> None:
            if not store.up or lost_before:
                self._cluster.count("command lost")
                self.later(AGAIN_S, lambda: self._commit(record))
                return
            self._cluster.point(self)
            answer = store.commit(identity, record)
            self._cluster.point(self)
            if lost_after:
                self._cluster.count("answer lost")
                self.later(AGAIN_S, lambda: self._commit(record))
            else:
                self._after_a_way(lambda: answered(*answer))

        # Also of a process that dies meanwhile.
        self.clock.at(self.clock.now + self._rng.expovariate(1 / STORE_S), reaches_store)

    def _rewrite(self, step: Rewrite) -> None:
        """Make the store hold all that we know, then go on with the turn."""
        cluster, claim, core = self._cluster, self.claim, self._turns.core
        whole = Contents(
            epoch=core.epoch,
            before=tuple(sorted(self._fence.before)),
            leader=self.name,
            seq=step.seq,
            pages={page.key: page for page in step.pages()},
        )

        def rewritten(taken: bool) -> None:
            if not taken:
                self.die()
                return
            self._fence.rewritten(step.seq)
            self._carry_out(self._turns.rewritten(step.asked_s, self.clock.now))

        def reaches_store() -> None:
            if not cluster.store.up:
                self.later(AGAIN_S, lambda: self._rewrite(step))
                return
            taken = cluster.store.rewrite(claim.identity, self._fence, self.clock.now, claim.lock_s, whole)
            if taken and step.vouch:
                cluster.store.vouch()
            if taken:
                cluster.history.rewritten(core)
            self._after_a_way(lambda: rewritten(taken))

        self.clock.at(self.clock.now + self._rng.expovariate(1 / STORE_S), reaches_store)

    # --- speech ------------------------------------------------------------------------------------------------

    def _speak(self) -> None:
        for peer in self._turns.speak():
            if (session := self._sessions.get(peer)) is not None:
                self._flush(session)
        if self._turns.run_over and not self._told_over:
            self._told_over = True
            self._cluster.run_ended(self._turns.core.state)

    def _flush(self, session: Session) -> None:
        data = session.peer.take_outgoing()
        if data and session.connection is not None:
            self._cluster.point(self)
            session.connection.send(session.end, data)
            self._cluster.point(self)
        if session.peer.ended:
            session.close()

    # --- sessions ----------------------------------------------------------------------------------------------

    def accept(self) -> Session:
        """A worker connects."""
        session = Session(self)
        self._sessions[session.peer] = session
        return session

    def left(self, session: Session) -> None:
        """A connection broke."""
        if self._sessions.pop(session.peer, None) is not None:
            session.peer.disconnected(self._door, self.clock.now)
            self._arm()

    def receive(self, session: Session, data: bytes) -> None:
        """Bytes from a worker."""
        session.peer.receive(data, self._door, self.clock.now)
        self._flush(session)
        self._arm()


__all__ = ["CoreSettings", "SchedulerProcess", "Session"]

"""A scheduler process of the simulation: the service's turns around the real core, with a simulated store."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from blockyard.core import convert
from blockyard.core import events as ev
from blockyard.core.scheduler import CoreSettings, Scheduler
from blockyard.spec.errors import ProtocolError
from blockyard.testing.simulation.clock import Process
from blockyard.testing.simulation.network import Connection, End
from blockyard.testing.simulation.store import Contents, Known
from blockyard.wire.frames import Decoder, encode
from blockyard.wire.messages import (
    KNOWN,
    Ack,
    Bye,
    CannotStart,
    Gone,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Imported,
    Refused,
    Release,
    Revoke,
    RunOver,
    TaskBegan,
    TaskOver,
    ToScheduler,
    Want,
    Welcome,
)

if TYPE_CHECKING:
    from blockyard.testing.simulation.cluster import Cluster

STORE_S = 0.004
"""Mean time of a command to the store, one way."""


class Session:
    """One connection of a worker."""

    def __init__(self, scheduler: SchedulerProcess) -> None:
        self.worker = ""
        self.welcomed = False
        self.decoder = Decoder(ToScheduler)
        self.end = End(scheduler, lambda data: scheduler.receive(self, data), lambda: scheduler.left(self))
        self.connection: Connection | None = None

    def say(self, *frames: bytes) -> None:
        """Send frames."""
        if self.connection is not None:
            self.connection.send(self.end, b"".join(frames))

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
        self.core: Scheduler | None = None
        self.begin()

    def begin(self) -> None:
        """Start afresh, as a new process."""
        self.rise()
        self.core = None
        self.identity = ""
        self._nonce = f"{self._rng.getrandbits(64):x}"
        self._renewed_s = -1.0
        self._arrived: list[tuple[ev.Event, Session | None]] = []
        self._voices: dict[str, Session] = {}
        self._turning = False
        self._told_over = False
        self._seen_epoch = 0
        self._forgot_since_s: float | None = None
        self._safe_seq = 0
        self._known: Known = (0, ())
        """Who led before us."""
        self._forgotten = False
        """Whether the store lost what it had confirmed to us, and must be written again before we speak."""
        self.later(0.0, self._try_to_lead)

    def die(self) -> None:
        """Die, and be started again by whatever looks after it."""
        for session in list(self._voices.values()):
            session.close()
        super().die()
        self.clock.at(self.clock.now + self._rng.uniform(0.2, 2.0), self.begin)

    # --- leading -----------------------------------------------------------------------------------------------

    def _ask_store(self) -> float:
        return self._rng.expovariate(1 / STORE_S)

    def _try_to_lead(self) -> None:
        asked_s = self.clock.now
        store, settings = self._cluster.store, self._cluster
        self._cluster.point(self)
        epoch = store.take(self._nonce, self.name, asked_s, settings.lock_s, self._seen_epoch) if store.up else None
        self._cluster.point(self)
        if epoch is None or epoch < 0:
            self._wait_to_lead(forgot=epoch is not None)
            return
        self.identity, self._renewed_s = f"{epoch}:{self._nonce}", asked_s
        self._known, self._safe_seq = (store.now.seq, store.now.before), store.now.seq
        pages, records = list(store.now.pages.values()), sorted(store.now.log.items())
        self.core = Scheduler.restore(
            self._cluster.run,
            pages,
            records,
            epoch=epoch,
            settings=self._cluster.settings,
            now=self.clock.now,
            seed=self._rng.getrandbits(32),
        )
        if self.core.seq == store.now.seq:
            self._cluster.history.restored(self.core)
        forgot = self._forgot_since_s is not None or store.may_have_forgotten
        if forgot and self._cluster.keeps_quiet:
            self.core.store_forgot(self.clock.now)
        self.later(settings.lock_s / 3, self._renew)
        self._ring()

    def _wait_to_lead(self, *, forgot: bool) -> None:
        """Look again soon. A store that forgot is left to its living leader for a while."""
        lock_s, store = self._cluster.lock_s, self._cluster.store
        if not forgot:
            self._forgot_since_s = None
            self._seen_epoch = max(self._seen_epoch, store.now.epoch) if store.up else self._seen_epoch
        elif self._forgot_since_s is None:
            self._forgot_since_s = self.clock.now
        elif self.clock.now - self._forgot_since_s > 2 * lock_s:
            self._seen_epoch = 0
        self.later(lock_s / 5, self._try_to_lead)

    def _renew(self) -> None:
        assert self.core is not None
        asked_s, lock_s = self.clock.now, self._cluster.lock_s
        store = self._cluster.store
        if not store.up:
            self.later(0.1, self._renew)
            return
        self._cluster.point(self)
        answer = store.renew(self.identity, self._known, asked_s, lock_s) if store.fenced else "kept"
        self._cluster.point(self)
        if answer == "refused":
            self.die()
            return
        self.later(lock_s / 3, self._renew)
        if answer == "lapsed":
            self.core.store_forgot(asked_s)
        if answer == "forgot" or store.now.seq < self._safe_seq:
            self._forgotten = True
            self._ring()
        else:
            self._renewed_s = asked_s
            if not self.core.hold.lasts(asked_s):
                store.vouch()

    def _holds(self) -> bool:
        return self.clock.now - self._renewed_s <= self._cluster.lock_s

    # --- turns -------------------------------------------------------------------------------------------------

    def _ring(self) -> None:
        if not self._turning and self.core is not None:
            self._turning = True
            self.later(0.0005, self._turn)

    def _turn(self) -> None:
        assert self.core is not None
        arrived, self._arrived = self._arrived, []
        for event, session in arrived:
            if isinstance(event, ev.WorkerJoined) and session is not None:
                self._voices[event.worker] = session
            elif isinstance(event, ev.WorkerDisconnected):
                if self._voices.get(event.worker) is not session:
                    continue
                del self._voices[event.worker]
            self.core.handle(event, self.clock.now)
        effects = self.core.handle(ev.TurnEnded(), self.clock.now)
        if self._cluster.speaks_first:
            self._speak(effects)
        commits = [effect for effect in effects if isinstance(effect, ev.CommitRecord)]
        if commits:
            self._send_commit(commits[0], effects)
        else:
            self._confirmed(effects)

    def _send_commit(self, commit: ev.CommitRecord, effects: list[ev.Effect]) -> None:
        """The command is under way: it may be lost before the store sees it, or its answer after."""
        identity, store = self.identity, self._cluster.store
        self._cluster.point(self)
        lost_before, lost_after = (self._rng.random() < self._cluster.loses_answers for _ in range(2))

        def answered(answer: str) -> None:
            if answer == "refused" or (answer == "forgot" and not store.fenced):
                self.die()
            elif answer == "forgot":
                self._rewrite(effects)
            else:
                self._safe_seq = commit.seq
                self._confirmed(effects)

        def reaches_store() -> None:
            if not store.up or lost_before:
                self._cluster.count("command lost")
                self.later(0.05, lambda: self._send_commit(commit, effects))
                return
            self._cluster.point(self)
            answer = store.commit(identity, self._known, commit)
            self._cluster.point(self)
            if lost_after:
                self._cluster.count("answer lost")
                self.later(0.05, lambda: self._send_commit(commit, effects))
            else:
                self.later(self._ask_store(), lambda: answered(answer))

        self.clock.at(self.clock.now + self._ask_store(), reaches_store)

    def _rewrite(self, effects: list[ev.Effect]) -> None:
        """Make the store hold all that we know, then speak."""
        core, cluster, asked_s = self.core, self._cluster, self.clock.now
        assert core is not None
        identity, known = self.identity, self._known
        if not self._holds():  # another may have led meanwhile, of whom the store has nothing left
            core.store_forgot(asked_s)
        whole = Contents(
            epoch=core.epoch,
            before=known[1],
            leader=self.name,
            seq=core.seq,
            pages={page.key: page for page in core.whole_snapshot()},
        )

        def rewritten(taken: bool) -> None:
            if not taken:
                self.die()
                return
            self._forgotten, self._safe_seq, self._renewed_s = False, core.seq, asked_s
            self._confirmed(effects)

        def reaches_store() -> None:
            if not cluster.store.up:
                self.later(0.05, lambda: self._rewrite(effects))
                return
            taken = cluster.store.rewrite(identity, known, self.clock.now, cluster.lock_s, whole)
            if taken and not core.hold.lasts(self.clock.now):
                cluster.store.vouch()
            if taken:
                cluster.history.rewritten(core)
            self.later(self._ask_store(), lambda: rewritten(taken))

        self.clock.at(self.clock.now + self._ask_store(), reaches_store)

    def _confirmed(self, effects: list[ev.Effect]) -> None:
        if self._forgotten:
            self._rewrite(effects)
        elif self._holds() or all(isinstance(effect, (ev.WakeAt, ev.ContinueTurn)) for effect in effects):
            self._end_turn(effects)
        else:
            self.later(0.05, lambda: self._confirmed(effects))

    def _end_turn(self, effects: list[ev.Effect]) -> None:
        self._turning = False
        if not self._cluster.speaks_first:
            self._speak(effects)
        if self._arrived:
            self._ring()

    def _speak(self, effects: list[ev.Effect]) -> None:
        assert self.core is not None
        for effect in effects:
            match effect:
                case ev.SendLeases():
                    self._say(effect.worker, encode(convert.grants([effect])))
                case ev.SendAck():
                    self._say(effect.worker, encode(Ack(effect.seq, effect.stale)))
                case ev.SendRevoke():
                    self._say(effect.worker, encode(Revoke(effect.numbers.astype(convert.IDS).tobytes())))
                case ev.SendWelcome():
                    self._welcome(effect)
                case ev.SendTaskBegan():
                    self._say(effect.worker, encode(TaskBegan(effect.task, effect.leased)))
                case ev.AnnounceTaskOver():
                    self._say_all(encode(TaskOver(effect.task)))
                case ev.AnnounceRunOver():
                    self._say_all(encode(RunOver(effect.state)))
                    if not self._told_over:
                        self._told_over = True
                        self._cluster.run_ended(effect.state)
                case ev.WakeAt():
                    self.later(max(effect.time_s - self.clock.now, 0.01), self._ring)
                case ev.ContinueTurn():
                    self._ring()
                case _:
                    pass

    def _welcome(self, effect: ev.SendWelcome) -> None:
        assert self.core is not None
        cluster = self._cluster
        welcome = Welcome(
            run=cluster.run.pipeline.name,
            epoch=self.core.epoch,
            heartbeat_s=cluster.heartbeat_s,
            lease_s=cluster.settings.lease_s,
            grace_s=cluster.settings.grace_s,
            pipeline=cluster.run.pipeline,
            knows=KNOWN,
            revoked=effect.revoked.astype(convert.IDS).tobytes(),
        )
        if (session := self._voices.get(effect.worker)) is not None:
            session.welcomed = True
        self._say(effect.worker, encode(welcome))

    def _say(self, worker: str, frame: bytes) -> None:
        if (session := self._voices.get(worker)) is not None:
            self._cluster.point(self)
            session.say(frame)
            self._cluster.point(self)

    def _say_all(self, frame: bytes) -> None:
        for session in self._voices.values():
            session.say(frame)

    # --- sessions ----------------------------------------------------------------------------------------------

    def accept(self) -> Session:
        """A worker connects."""
        return Session(self)

    def left(self, session: Session) -> None:
        """A connection broke."""
        if session.worker:
            self._tell(ev.WorkerDisconnected(session.worker), session)

    def receive(self, session: Session, data: bytes) -> None:
        """Bytes from a worker."""
        try:
            for message in session.decoder.feed(data):
                self._hear(session, message)
        except ProtocolError:
            session.close()

    def _tell(self, event: ev.Event, session: Session | None) -> None:
        self._arrived.append((event, session))
        self._ring()

    def _hear(self, session: Session, message: object) -> None:
        if self.core is None:
            session.say(
                encode(Refused("another leads this run", "standby", leader=self._cluster.store.now.leader, again=True))
            )
            session.close()
            return
        match message:
            case Hello():
                session.worker = message.worker
                self._tell(convert.joined(message, self._cluster.run.pipeline), session)
            case Want():
                self._tell(convert.wanted(session.worker, message), session)
            case Release():
                self._tell(convert.released(session.worker, message), session)
            case Heartbeat():
                self._tell(convert.heard(session.worker, message), session)
                if session.welcomed and self._holds():
                    session.say(encode(HeartbeatAck(message.sent_s, self.core.epoch)))
            case Bye() | Gone():
                for event in convert.gone(session.worker, message, list(self._voices)):
                    self._tell(event, session)
            case CannotStart():
                self._tell(convert.cannot_start(session.worker, message), session)
            case Imported():
                self._tell(convert.imported(message), session)
            case _:
                raise ProtocolError("not a message for a scheduler")


__all__ = ["CoreSettings", "SchedulerProcess", "Session"]

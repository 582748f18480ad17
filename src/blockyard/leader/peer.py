"""One connection as the leader's end sees it, without the socket.

The life of a peer::

    connect -- hello in time --> door open? -- yes --> WorkerJoined -- turn --> Welcome, Grants, Acks ...
        |            |                |
        |            | no             | standby, loading, wrong token
        v            v                v
      close       refusal          refusal

Whatever a peer sends, the worst that can happen is that its own connection ends: frames are measured before they are
decoded, decoded by type, checked by `convert`, and what it says is heard at the pace of the turns.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blockyard.core.events import WorkerDisconnected
from blockyard.leader import convert
from blockyard.leader.claim import Claim
from blockyard.spec.errors import ProtocolError
from blockyard.wire.frames import HELLO_LIMIT_BYTES, LIMIT_BYTES, Decoder, encode
from blockyard.wire.messages import (
    PROTOCOL_VERSION,
    Bye,
    CannotStart,
    Gone,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Imported,
    Refused,
    Release,
    Remark,
    ToScheduler,
    Want,
)

if TYPE_CHECKING:
    from blockyard.leader.turn import Turns

UNHEARD = 64
"""Messages of one peer that may wait for a turn; then nothing more should be read from it until the turn is over."""


@dataclass(slots=True)
class Door:
    """Whether workers may come in; changed by whoever runs the scheduler."""

    claim: Claim
    token: str = ""
    turns: Turns | None = None
    """None: this scheduler does not lead, or is still reading the run."""


class Peer:
    """One connection. After each call write what `take_outgoing` gives, then close the connection if `ended`."""

    def __init__(self, address: str, now: float) -> None:
        """Begin with a connection from `address`."""
        self.address = address
        self.worker = ""
        """Name of the worker, once it was let in."""
        self.offers = ""
        """Its pool and slots, for a log line."""
        self.welcomed = False
        """Whether it knows which of its leases are still its own."""
        self.unheard = 0
        """Its messages that wait for a turn."""
        self.heard_s = now
        """When bytes came from it last."""
        self.ended = ""
        """Why the connection is to be closed: a sentence for the log; "" while it is not."""
        self.broke_protocol = False
        """Whether it is closed for something that no worker of ours says."""
        self.refused = ""
        """What a refusal counts as; "" where it was not refused."""
        self._outgoing: list[bytes] = []
        self._decoder = Decoder(ToScheduler, HELLO_LIMIT_BYTES)

    @property
    def name(self) -> str:
        """Who this is, for a log line."""
        return f"worker {self.worker} at {self.address}" if self.worker else f"peer at {self.address}"

    @property
    def overloads(self) -> bool:
        """Whether nothing more should be read from it until the next turn is over."""
        return self.unheard > UNHEARD

    # --- speaking ----------------------------------------------------------------------------------------------

    def send(self, frames: Sequence[bytes]) -> None:
        """Lay frames out to be written, in this order; of a peer that has ended they are dropped."""
        if not self.ended:
            self._outgoing += frames

    def take_outgoing(self) -> bytes:
        """Return what is to be written now; it is not given again."""
        frames, self._outgoing = self._outgoing, []
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def end(self, reason: str) -> None:
        """Close the connection once what was laid out is written; `reason` is a sentence for the log."""
        self.ended = self.ended or reason

    def refuse(self, refused: Refused, counts_as: str = "") -> None:
        """Say why the peer can't come in, and close the connection."""
        self.refused = counts_as or refused.code
        self.send([encode(refused)])
        self.end(refused.reason)

    # --- hearing -----------------------------------------------------------------------------------------------

    def receive(self, data: bytes, door: Door, now: float) -> None:
        """Take bytes that came; what they mean is told to the door's turns."""
        self.heard_s = now
        try:
            for message in self._decoder.feed(data):
                if self.ended:
                    return
                if self.worker:
                    self._hear(message, door, now)
                else:
                    self._greet(message, door, now)
        except ProtocolError as error:
            if self.worker:
                self.broke_protocol = True
                self.end(str(error))
            else:
                self.refuse(Refused(str(error), "protocol"), "malformed")

    def disconnected(self, door: Door, now: float) -> None:
        """The connection is gone. Call once, at its end, whoever ended it."""
        if self.worker and door.turns is not None:
            door.turns.tell(WorkerDisconnected(self.worker), now, self)

    def _greet(self, message: Any, door: Door, now: float) -> None:
        """Let a worker in, or say why not. The token comes first: a stranger learns nothing else."""
        if (refused := _refusal(message, door)) is not None:
            self.refuse(refused)
            return
        assert door.turns is not None
        try:
            event = convert.joined(message, door.turns.pipeline)
        except ProtocolError as error:
            self.refuse(Refused(str(error), "pool"))
            return
        self.worker = message.worker
        self.offers = f"pool {message.pool}, {message.slots} slots"
        self._decoder.limit_bytes = LIMIT_BYTES
        door.turns.tell(event, now, self)

    def _hear(self, message: Any, door: Door, now: float) -> None:
        """Turn a message into an event. Raises ProtocolError for one that cannot be meant."""
        turns = door.turns
        if turns is None:
            self.end("this scheduler does not lead any more")
            return
        match message:
            case Want():
                turns.tell(convert.wanted(self.worker, message), now, self)
            case Release():
                turns.tell(convert.released(self.worker, message), now, self)
            case Heartbeat():
                turns.tell(convert.heard(self.worker, message), now, self)
                # The worker counts its lease from this echo, so it is for a leader that surely leads, and only to a
                # worker that knows which of its leases are still its own.
                if self.welcomed and door.claim.holds(now):
                    self.send([encode(HeartbeatAck(message.sent_s, door.claim.epoch))])
            case Bye() | Gone():
                for event in convert.gone(self.worker, message, turns.core.workers):
                    turns.tell(event, now, self)
            case CannotStart():
                turns.tell(convert.cannot_start(self.worker, message), now, self)
            case Imported():
                turns.tell(convert.imported(self.worker, message), now, self)
            case Remark():
                turns.tell(convert.remarked(message), now, self)
            case _:
                raise ProtocolError("a second hello on one connection")


def _refusal(hello: Any, door: Door) -> Refused | None:
    """Return why a peer can't come in whatever it is for; None where it can."""
    if not isinstance(hello, Hello):
        return Refused("the first message must be a hello", "protocol")
    if not hmac.compare_digest(hello.token.encode(), door.token.encode()):
        return Refused(
            "the token is not that of this scheduler; give the worker the same --token or --token-file", "token"
        )
    if hello.protocol != PROTOCOL_VERSION:
        return Refused(
            f"the worker speaks protocol {hello.protocol}, this scheduler {PROTOCOL_VERSION}; install the same"
            " blockyard on both",
            "protocol",
        )
    if door.turns is None and door.claim.epoch:
        return Refused("the scheduler is reading the state of the run", "busy", again=True)
    if door.turns is None:
        return Refused("another scheduler leads this run", "standby", leader=door.claim.leader, again=True)
    return None

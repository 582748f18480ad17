"""Every message of the protocol, one union a direction; `docs/protocol.md` is the prose.

A frame is a 4-byte big-endian length and a msgpack map with a ``"t"`` tag. New fields have defaults, so that an older
peer can be understood. Lease numbers, block ids, outcomes and durations travel as packed little-endian arrays
(``bytes``): ``<i8`` for numbers and ids, ``u1`` for outcomes, ``<f4`` for seconds.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec
from msgspec.structs import force_setattr

from blockyard.spec.model import PipelineSpec
from blockyard.wire.text import bounded, one_line

PROTOCOL_VERSION = 1
LONGEST_KIND = 200
LONGEST_MESSAGE = 2_000
LONGEST_TRACEBACK = 16_000
LONGEST_PLACE = 4_096
"""Of a path."""
_LONGEST = (
    ("kind", LONGEST_KIND),
    ("message", LONGEST_MESSAGE),
    ("traceback", LONGEST_TRACEBACK),
    ("worker", LONGEST_KIND),
    ("log", LONGEST_PLACE),
)
_ONE_LINE = ("kind", "worker", "log")


class Outcome(enum.IntEnum):
    """What became of one leased block, in the words of its worker."""

    SUCCESS = 0
    """Done."""
    SKIPPED = 1
    """Its `before` check said it was done already; counts as done for all that wait for it."""
    FAILED = 2
    """The attempt failed (an exception, an `after` check, a time limit); spends a retry."""
    FATAL = 3
    """Failed, and a retry cannot help; no retry."""
    KILLED = 4
    """It was seen to kill its slot (a signal, an exit, out of memory); spends its kill budget, no retry."""
    LOST = 5
    """Its worker is gone and nobody knows why; spends nothing by itself."""
    RETURNED = 6
    """Handed back unfinished (drain, scale-down, preemption); spends nothing."""


class BlockError(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why an attempt failed."""

    number: int
    """The lease it is about."""
    kind: str
    """The exception's class, or ``"signal"``, ``"exit"``, ``"timeout"``, ``"check"``."""
    message: str
    """One sentence."""
    traceback: str = ""
    worker: str = ""
    log: str = ""
    """Where the worker's log of this block is, for a person."""

    def __post_init__(self) -> None:
        """Make all of it safe to show and to keep, whoever wrote it: user code, a program, a worker of another kind."""
        for name, longest in _LONGEST:
            given = getattr(self, name)
            safe = bounded(one_line(given) if name in _ONE_LINE else given, longest)
            if safe is not given:
                force_setattr(self, name, safe)


# ----- worker to scheduler ----------------------------------------------------------------------------------------


class Hello(msgspec.Struct, frozen=True, tag="hello", tag_field="t", omit_defaults=True, kw_only=True):
    """First message of a connection."""

    protocol: int = PROTOCOL_VERSION
    software: str = ""
    token: str = ""
    worker: str
    """Unique for the life of the worker process, kept over reconnects: ``host-pid-nonce``."""
    pool: str = "default"
    slots: int = 1
    task: str | None = None
    """Only blocks of this task (a user's own worker), or None for all tasks of the pool."""
    own: bool = False
    """A user's own worker (`blockyard.Client`) that runs its own loop; takes tasks with `worker` set."""
    holds: bytes = b""
    """Numbers of the leases it still holds (``<i8``), with those it has released but not seen acknowledged; any other
    lease of this worker ends here."""


class Want(msgspec.Struct, frozen=True, tag="want", tag_field="t"):
    """The worker could take up to `n` blocks more, now; replaces what it wanted before. A grant sets it to 0.

    One who only listens (slots 0) could start `n` workers of its task; TaskBegan answers, and sets it to 0.
    """

    n: int


class Release(msgspec.Struct, frozen=True, tag="release", tag_field="t", omit_defaults=True):
    """What became of leases. Resent after a reconnect until acknowledged; `seq` makes that harmless."""

    seq: int
    """Counts up by 1 from 1 for each Release of this worker id."""
    numbers: bytes
    """Lease numbers, ``<i8``."""
    outcomes: bytes
    """One `Outcome` each, ``u1``."""
    seconds: bytes = b""
    """How long each block ran, ``<f4``; empty: unknown."""
    errors: tuple[BlockError, ...] = ()


class Running(msgspec.Struct, frozen=True, array_like=True):
    """One slot's block."""

    number: int
    seconds: float


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat", tag_field="t", omit_defaults=True):
    """The worker lives. The answer echoes `sent_s`; from there the worker counts its lease time."""

    sent_s: float
    """The worker's own monotonic clock."""
    running: tuple[Running, ...] = ()


class Bye(msgspec.Struct, frozen=True, tag="bye", tag_field="t", omit_defaults=True):
    """The worker has released all it held and leaves."""

    reason: str = ""

    def __post_init__(self) -> None:
        force_setattr(self, "reason", bounded(one_line(self.reason), LONGEST_MESSAGE))


class Gone(msgspec.Struct, frozen=True, tag="gone", tag_field="t", omit_defaults=True):
    """An agent saw the processes of a user's own worker end: proof that their leases are free."""

    worker: str
    """Worker id, or a prefix that ends with ``/`` for all that one process and its children used."""
    killed: bool = False
    """It ended by a signal or a bad exit status: evidence against the blocks it ran."""
    reason: str = ""
    ran: bytes | None = None
    """Leases of the blocks that ran as it ended (``<i8``; all others are returned); None: not known."""

    def __post_init__(self) -> None:
        force_setattr(self, "reason", bounded(one_line(self.reason), LONGEST_MESSAGE))


class CannotStart(msgspec.Struct, frozen=True, tag="cannot_start", tag_field="t", omit_defaults=True):
    """What this worker starts ends before its first block, again and again; only for one that knows this message."""

    text: str = ""
    """Why, for a person; empty: it works now."""


class Imported(msgspec.Struct, frozen=True, tag="imported", tag_field="t"):
    """What code the worker runs for a task; only for one that knows this message. Said again to every new leader."""

    task: str
    code: str
    """Digest of the source of the task's functions, equal where the source is."""


class Remark(msgspec.Struct, frozen=True, tag="remark", tag_field="t"):
    """What a person should know of a task that failed no block; only for one that knows this message."""

    task: str
    kind: str
    """``check_raises``, or a newer one."""
    text: str


# ----- scheduler to worker ----------------------------------------------------------------------------------------


class Welcome(msgspec.Struct, frozen=True, tag="welcome", tag_field="t", omit_defaults=True, kw_only=True):
    """Answer to a good Hello."""

    protocol: int = PROTOCOL_VERSION
    software: str = ""
    run: str
    """Name of the run."""
    epoch: int
    """The leader's counter; grows with every takeover."""
    heartbeat_s: float
    lease_s: float
    grace_s: float
    pipeline: PipelineSpec
    """All a worker needs to know of the tasks."""
    revoked: bytes = b""
    """Leases of `holds` that are no longer the worker's (``<i8``): stop them, do not release them."""
    knows: tuple[str, ...] = ()
    """Tags of messages that came after the first schedulers of this protocol: this one sends them, or takes them."""


class Refused(msgspec.Struct, frozen=True, tag="refused", tag_field="t", omit_defaults=True):
    """Answer to a Hello that cannot be taken; the connection is closed."""

    reason: str
    """A sentence for the user."""
    code: str = ""
    """``token``, ``protocol``, ``standby``, ``pool``, ``busy``."""
    leader: str = ""
    """HOST:PORT of the scheduler that leads, when this one does not."""
    again: bool = False
    """Whether trying again can help."""


class Grant(msgspec.Struct, frozen=True, omit_defaults=True):
    """A batch of leases on blocks of one task; the lease of ``blocks[j]`` has the number ``number + j``."""

    number: int
    task: str
    blocks: bytes
    """Block ids, ``<i8``, in the order in which they should run."""
    attempts: dict[int, int] = {}
    """Position to attempt number, where that is not 1."""
    max_running: int = msgspec.field(default=0, name="at_once")
    """The most blocks of this task that the worker may run at once, from now on; 0: as many as it has slots."""


class Grants(msgspec.Struct, frozen=True, tag="grants", tag_field="t"):
    """Blocks for the worker. Pushed when it wants some and some are ready."""

    grants: tuple[Grant, ...]


class Ack(msgspec.Struct, frozen=True, tag="ack", tag_field="t", omit_defaults=True):
    """The Release with this `seq` is safe in Redis, and need not be sent again."""

    seq: int
    stale: int = 0
    """How many of its leases were no longer the worker's; those were refused."""


class HeartbeatAck(msgspec.Struct, frozen=True, tag="heartbeat_ack", tag_field="t"):
    """Echo of a heartbeat from a living leader."""

    sent_s: float
    epoch: int


class Revoke(msgspec.Struct, frozen=True, tag="revoke", tag_field="t"):
    """These leases ended (cancel, rerun): stop their blocks, release nothing."""

    numbers: bytes


class TaskBegan(msgspec.Struct, frozen=True, tag="task_began", tag_field="t", omit_defaults=True):
    """Blocks of this task are ready that no worker has taken: answer to the Want of one who only listens (slots 0)."""

    task: str
    leased: int = 0
    """How many blocks those were leased, since this leader leads, whose ids begin with the listener's and a slash."""


class TaskOver(msgspec.Struct, frozen=True, tag="task_over", tag_field="t"):
    """No block of this task will run any more (all done, failed or orphaned)."""

    task: str


class RunOver(msgspec.Struct, frozen=True, tag="run_over", tag_field="t"):
    """The run has ended; workers leave with exit status 0."""

    state: str
    """``done``, ``failed`` or ``cancelled``."""


ToScheduler = Hello | Want | Release | Heartbeat | Bye | Gone | CannotStart | Imported | Remark
ToWorker = Welcome | Refused | Grants | Ack | HeartbeatAck | Revoke | TaskBegan | TaskOver | RunOver

KNOWN = ("task_began", "cannot_start", "imported", "remark")
"""What this version says in `Welcome.knows`."""


def describe(message: Any) -> str:
    """Name a message for a log line, without its arrays."""
    return type(message).__name__

"""What the scheduler can be told (events, past tense) and what it answers (effects, imperative).

Both carry batches: block ids and lease numbers are numpy int64 arrays. Times are seconds on the caller's monotonic
clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from blockyard.spec.model import RoiSpec
from blockyard.wire.messages import BlockError

Ids: TypeAlias = npt.NDArray[np.int64]

# ----- events -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker said hello, for the first time or again after its connection broke."""

    worker: str
    pool: str = "default"
    slots: int = 1
    task: str | None = None
    own: bool = False
    holds: Ids | None = None
    """Leases it still holds; None: as far as we know (used by in-process runs)."""


@dataclass(frozen=True, slots=True)
class BlocksWanted:
    """A worker could take up to `n` blocks more (one without slots: start `n` workers); replaces what it wanted."""

    worker: str
    n: int


@dataclass(frozen=True, slots=True)
class BlocksReleased:
    """A worker says what became of leases."""

    worker: str
    seq: int
    numbers: Ids
    outcomes: npt.NDArray[np.uint8]
    seconds: npt.NDArray[np.float32] | None = None
    errors: tuple[BlockError, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerHeard:
    """A heartbeat."""

    worker: str
    running: tuple[tuple[int, float], ...] = ()
    """(lease number, seconds it has run) for each busy slot."""


@dataclass(frozen=True, slots=True)
class WorkerDisconnected:
    """A connection broke. Frees nothing: the worker may come back within its lease."""

    worker: str


@dataclass(frozen=True, slots=True)
class WorkerGone:
    """Proof that a worker's processes are dead (it said goodbye, its exit was seen, its pod is gone)."""

    worker: str
    killed: bool = False
    """Whether its death is evidence against the blocks it ran (an exit or signal seen, OOMKilled)."""
    reason: str = ""
    ran: Ids | None = None
    """Leases of the blocks that ran as it ended; None: not known, so what its last heartbeat said."""


@dataclass(frozen=True, slots=True)
class WorkerCannotStart:
    """What a worker starts ends before its first block, again and again; without a text: it works now."""

    worker: str
    text: str


@dataclass(frozen=True, slots=True)
class TaskRemarked:
    """A worker says what a person should know of a task."""

    task: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class CodeImported:
    """A worker runs code of this digest for a task."""

    worker: str
    task: str
    code: str


@dataclass(frozen=True, slots=True)
class RetryRequested:
    """Failed blocks are to be tried again; their orphans become pending.

    Those of `task` (None: of all) that write into `roi` (None: all) and are among `blocks` (ids; None: all).
    """

    task: str | None = None
    roi: RoiSpec | None = None
    blocks: Ids | None = None


@dataclass(frozen=True, slots=True)
class RerunRequested:
    """Blocks are to be run again although they are done, with all that depends on them.

    Those of `task` (None: of all) that write into `roi` (None: all).
    """

    task: str | None = None
    roi: RoiSpec | None = None


@dataclass(frozen=True, slots=True)
class PauseRequested:
    """Lease nothing more until resumed."""


@dataclass(frozen=True, slots=True)
class ResumeRequested:
    """Lease again."""


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """End the run: leases end, nothing more is leased."""


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """All that arrived has been told: expire leases, scan, hand out blocks. Gives the record to commit."""


Event: TypeAlias = (
    WorkerJoined
    | BlocksWanted
    | BlocksReleased
    | WorkerHeard
    | WorkerDisconnected
    | WorkerGone
    | WorkerCannotStart
    | CodeImported
    | TaskRemarked
    | RetryRequested
    | RerunRequested
    | PauseRequested
    | ResumeRequested
    | CancelRequested
    | TurnEnded
)

# ----- effects ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """Write all of this in one atomic step before any other effect of the turn is carried out."""

    seq: int
    """Place of the record in the journal; counts up by 1."""
    record: bytes
    """Append to the journal."""
    errors: tuple[FailureNote, ...] = ()
    """Keep beside the journal, the last few of each block."""
    pages: tuple[Page, ...] = ()
    """Snapshot pages to overwrite."""
    drop_below: int = 0
    """Journal records below this sequence are in the pages; drop them."""


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of a snapshot: it contains all records up to `seq` as far as they concern it."""

    key: str
    """``head``, or ``task number:kind:page number``."""
    seq: int
    data: bytes


@dataclass(frozen=True, slots=True)
class FailureNote:
    """An attempt that failed, to be kept beside the journal for `failures` and `explain`."""

    task: str
    block_id: int
    attempt: int
    final: bool
    error: BlockError


@dataclass(frozen=True, slots=True)
class SendLeases:
    """Send a worker a batch of leases on blocks of one task; the lease of ``blocks[j]`` is ``number + j``."""

    worker: str
    number: int
    task: str
    blocks: Ids
    attempts: dict[int, int] = field(default_factory=dict)
    """Position to attempt number, where that is not 1."""
    max_running: int = 0
    """The most blocks of this task that the worker may run at once, from now on; 0: as many as it has slots."""


@dataclass(frozen=True, slots=True)
class SendAck:
    """Tell a worker that its release is safe; `stale` of its leases were not its own any more."""

    worker: str
    seq: int
    stale: int = 0


@dataclass(frozen=True, slots=True)
class SendWelcome:
    """Tell a worker that it has joined, and which of the leases it holds are no longer its own."""

    worker: str
    revoked: Ids


@dataclass(frozen=True, slots=True)
class SendRevoke:
    """Tell a worker that these leases ended."""

    worker: str
    numbers: Ids


@dataclass(frozen=True, slots=True)
class SendTaskBegan:
    """Tell one who listens, and could start workers of its task, that blocks are ready that nobody has taken."""

    worker: str
    task: str
    leased: int
    """How many blocks the workers that it started were leased."""


@dataclass(frozen=True, slots=True)
class AnnounceTaskOver:
    """No block of the task will run any more."""

    task: str


@dataclass(frozen=True, slots=True)
class AnnounceRunOver:
    """The run has ended: ``done``, ``failed`` or ``cancelled``."""

    state: str


@dataclass(frozen=True, slots=True)
class WakeAt:
    """End a turn again no later than this time (a lease may expire, a backoff may end); earlier is harmless."""

    time_s: float


@dataclass(frozen=True, slots=True)
class ContinueTurn:
    """The turn's budget for scanning is used up and workers still want blocks: end a turn again at once."""


Effect: TypeAlias = (
    CommitRecord
    | SendLeases
    | SendAck
    | SendWelcome
    | SendRevoke
    | SendTaskBegan
    | AnnounceTaskOver
    | AnnounceRunOver
    | WakeAt
    | ContinueTurn
)

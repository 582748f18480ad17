"""What a run looks like from outside: the structs behind `blockyard status`, the HTTP API, the page and the metrics."""

from __future__ import annotations

import msgspec

from blockyard.wire.states import ENDED
from blockyard.wire.text import bounded, one_line

LONGEST_NOTICE = 2000


def _progress(finished: int, total: int) -> float:
    """Return how much is done. The one definition: done and skipped blocks of all; a failed block is no progress."""
    return finished / total if total else 1.0


class TaskStatus(msgspec.Struct, kw_only=True):
    """One task. Always total = pending + ready + leased + done + skipped + failed + orphaned."""

    id: str
    pool: str
    total: int
    """Blocks of the run (those a request does not want are not counted)."""
    pending: int
    ready: int
    """Found ready; exact up to twice what all workers can hold."""
    leased: int
    done: int
    skipped: int
    failed: int
    orphaned: int
    retries: int = 0
    """Attempts that failed and were tried again."""
    num_workers: int | None = None
    """The most that may run at once, if the task says so."""
    rate: float | None = None
    """Blocks finished per second over the last 2 minutes; None while unknown."""
    eta_s: float | None = None
    """Seconds to the end (see `views/eta.py`); None while unknown."""
    eta_p10_s: float | None = None
    """It takes longer than this nine times of ten."""
    eta_p90_s: float | None = None
    """It takes less than this nine times of ten."""
    voxels_per_s: float | None = None
    """Voxels that done blocks wrote, per second over the last 2 minutes; a clipped block counts what it wrote."""
    over: bool = False
    """No block of it will run any more."""
    stopped: str = ""
    """Why it is leased no more, because its first attempts all failed alike; "": that was not so."""
    finished: int = 0
    """Done or skipped. What failed or never ran is not finished."""
    progress: float = 0.0
    """`finished` of `total`, 0 to 1; 1 only where all are, and for a task without blocks."""

    @property
    def runnable(self) -> int:
        """Blocks that run or could run now."""
        return self.leased + (0 if self.stopped else self.ready)

    def __post_init__(self) -> None:
        self.finished = self.done + self.skipped
        self.progress = _progress(self.finished, self.total)


class WorkerStatus(msgspec.Struct, kw_only=True):
    """One worker process."""

    id: str
    pool: str
    slots: int
    task: str | None
    connected: bool
    leases: int
    busy: int
    heard_s_ago: float
    finished: int


class RunningBlock(msgspec.Struct, kw_only=True):
    """A block that a worker runs now."""

    task: str
    index: tuple[int, ...]
    seconds: float
    """Since it began."""


class Straggler(msgspec.Struct, kw_only=True):
    """A block that runs much longer than the others of its task."""

    task: str
    index: tuple[int, ...]
    worker: str
    seconds: float
    median_s: float
    """Of the blocks of its task."""


class PoolStatus(msgspec.Struct, kw_only=True):
    """A pool of workers that Kubernetes runs, one pod each."""

    pool: str
    desired: int
    """Pods that could run a block now, between the pool's limits."""
    replicas: int = 0
    """Pods asked for."""
    ready: int = 0
    """Pods there."""
    pending: int = 0
    """Pods that wait for a node, an image, or a quota."""
    decides: str = "auto"
    """Who decides how many: ``auto`` (the scheduler), ``person`` (until `blockyard scale POOL --auto`), ``nobody``."""
    reasons: list[str] = []
    """Why pods are not there, in Kubernetes' words."""
    error: str = ""
    """Why the Kubernetes API did not do what was asked last; "" where it did."""

    def __post_init__(self) -> None:
        """Make safe to show what Kubernetes, and what others told it, say."""
        self.reasons = [bounded(one_line(reason), LONGEST_NOTICE) for reason in self.reasons]
        self.error = bounded(one_line(self.error), LONGEST_NOTICE)


class Notice(msgspec.Struct, frozen=True):
    """Something that a person should know now, in a sentence; it is gone when it no longer holds."""

    kind: str
    """``failing_fast``, ``bad_worker``, ``cannot_start``, ``slow_start``, ``plan_warning``, ``code_changed``,
    ``check_raises``, or a newer one."""
    text: str
    """What, where, and what to do."""
    task: str = ""
    worker: str = ""
    pool: str = ""

    def __post_init__(self) -> None:
        """Make it safe to show: it may quote what user code said."""
        msgspec.structs.force_setattr(self, "text", bounded(one_line(self.text), LONGEST_NOTICE))


class RunStatus(msgspec.Struct, kw_only=True):
    """The run."""

    run: str
    state: str
    """``running``, ``paused``, ``done``, ``failed`` or ``cancelled``; ``stopped`` in the file of a scheduler that was
    told to end before the run had ended."""
    epoch: int
    elapsed_s: float
    """Since this scheduler began to lead, until the run was over."""
    eta_s: float | None
    """Seconds to the end of all tasks; None while that of one is unknown."""
    tasks: list[TaskStatus]
    workers: list[WorkerStatus]
    stale_releases: int
    leases_expired: int
    leases_granted: int
    stragglers: list[Straggler] = []
    """Blocks that run longer than 3 times the median."""
    quiet_s: float = 0.0
    """For so long nothing is leased, because Redis may have forgotten leases; 0: blocks are leased."""
    eta_p10_s: float | None = None
    """It takes longer than this nine times of ten."""
    eta_p90_s: float | None = None
    """It takes less than this nine times of ten."""
    pools: list[PoolStatus] = []
    """Of a scheduler that scales its workers on Kubernetes."""
    reason: str = ""
    """Why nothing runs until a person resumes it; "" also where a person paused it."""
    notices: list[Notice] = []
    """What a person should know now; oldest first."""
    total: int = 0
    """Blocks of all tasks."""
    finished: int = 0
    """Of those, done or skipped."""
    progress: float = 0.0
    """`finished` of `total`, as of a task."""

    def __post_init__(self) -> None:
        self.total = sum(task.total for task in self.tasks)
        self.finished = sum(task.finished for task in self.tasks)
        self.progress = _progress(self.finished, self.total)

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        return self.state in ENDED

    @property
    def has_stopped(self) -> bool:
        """Whether nothing will run unless a person does something: it has ended, or is paused for a reason."""
        return self.is_over or bool(self.reason)


class FailureStatus(msgspec.Struct, kw_only=True):
    """One failed attempt, as kept beside the journal."""

    task: str
    block_id: int
    index: tuple[int, ...]
    attempt: int
    final: bool
    kind: str
    message: str
    traceback: str = ""
    worker: str = ""
    log: str = ""


class Explanation(msgspec.Struct, kw_only=True):
    """Why a block is in the state it is in."""

    task: str
    block_id: int
    index: tuple[int, ...]
    read_roi: str
    write_roi: str
    state: str
    """``pending``, ``ready``, ``leased``, ``done``, ``skipped``, ``failed``, ``orphaned``, or ``outside`` (not in this
    run)."""
    attempt: int
    """Of a block that is done or has failed the last one, else the one that goes on or is next; 0: it is not known."""
    text: str
    """A sentence for a person."""
    worker: str = ""
    """That has it, or ran it last, as far as that is known."""
    waits_for: list[str] = []
    """Up to 10 blocks it waits for, each with its state."""


class TaskRecord(msgspec.Struct, kw_only=True):
    """What is recorded of the blocks of one task: arrays of one entry a block, little-endian, as bytes."""

    id: str
    shape: tuple[int, ...]
    """Blocks on each axis of the grid."""
    blocks: bytes
    """Ids, ``<i8``, ascending."""
    seconds: bytes
    """``<f4``."""
    attempts: bytes
    """``u1``."""
    workers: bytes
    """Numbers of `Record.workers`, ``<u2``."""
    ended_s: bytes
    """Seconds since `Record.began_s`, ``<f4``."""


class RegionsRecord(msgspec.Struct, kw_only=True):
    """What is recorded of a task by region of its grid: arrays of one entry a region, in C order, as bytes."""

    id: str
    side: tuple[int, ...]
    """Blocks of a region on each axis; fewer at the end of the grid."""
    regions: tuple[int, ...]
    """Regions on each axis."""
    blocks: bytes
    """How many blocks are recorded, ``<i4``."""
    seconds: bytes
    """Of all of them together, ``<f8``."""
    retries: bytes
    """Their attempts beyond the first, ``<i4``."""


class Record(msgspec.Struct, kw_only=True):
    """The record of a run, as `/api/v1/record` gives it."""

    run: str
    software: str
    """Version of blockyard."""
    began_s: float
    """When the first block ended, in Unix seconds; 0: none has."""
    workers: list[str]
    tasks: list[TaskRecord]
    """Those that are recorded block by block."""
    regions: list[RegionsRecord] = []
    """The others: those that are too large for that."""
    wasted_s: dict[str, float]
    """Seconds of attempts that came to nothing, by reason, since this scheduler leads."""


class FailureGroup(msgspec.Struct, kw_only=True):
    """Failed attempts of one task with the same error, apart from the numbers in its message."""

    task: str
    kind: str
    message: str
    """Of the first of them."""
    attempts: int
    failed: int
    """Blocks among them that have failed for good."""
    blocks: list[int]
    """Ids of the first blocks among them."""
    example: FailureStatus


class Failures(msgspec.Struct, kw_only=True):
    """What failed, as `/api/v1/failures` gives it."""

    attempts: int
    failed: int
    """Blocks that have failed for good."""
    groups: list[FailureGroup]
    """Most frequent first."""
    n_groups: int = 0
    """So many there are; not all of them may be given."""
    failures: list[FailureStatus]
    """The first of all, by task, block and attempt."""


class Changed(msgspec.Struct, kw_only=True):
    """What `pause`, `resume` and `cancel` are answered with."""

    state: str
    """Of the run, then."""


class Undone(msgspec.Struct, kw_only=True):
    """What `retry` and `rerun` are answered with."""

    state: str
    blocks: int
    """So many that were over wait again."""


class Scaled(msgspec.Struct, kw_only=True):
    """What `scale` is answered with."""

    pools: list[PoolStatus]
    error: str = ""
    """Why it could not be done yet; "": it is."""


class PodLog(msgspec.Struct, kw_only=True):
    """What one pod wrote about a block."""

    pod: str
    lines: int = 0
    """So many were read."""
    text: str = ""
    """Those about the block, as they are."""
    cut: bool = False
    """Whether there was more to read, or to keep."""
    error: str = ""
    """Why its log can't be had."""


class PodLogs(msgspec.Struct, kw_only=True):
    """What is found of a block in the logs of pods."""

    namespace: str
    pods: list[PodLog]
    left: int = 0
    """Pods of the pool that were not read: there was no time."""

"""Wire messages to events of the core, and effects of the core to wire messages; no I/O.

What a peer sends is checked here, once and for whole arrays: the core is only told what can be true.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from blockyard.core.events import (
    BlocksReleased,
    BlocksWanted,
    CodeImported,
    Event,
    Ids,
    SendLeases,
    TaskRemarked,
    WorkerCannotStart,
    WorkerGone,
    WorkerHeard,
    WorkerJoined,
)
from blockyard.spec.errors import ProtocolError, nearest
from blockyard.spec.model import PipelineSpec
from blockyard.wire.messages import (
    Bye,
    CannotStart,
    Gone,
    Grant,
    Grants,
    Heartbeat,
    Hello,
    Imported,
    Outcome,
    Release,
    Remark,
    Want,
)

IDS = np.dtype("<i8")
SECONDS = np.dtype("<f4")
MOST_WANTED = 2**20
"""Blocks asked for at once; more is taken as this."""
MOST_SLOTS = 2**16
LONGEST_NAME = 250
LONGEST_KIND = 64
LONGEST_DIGEST = 64
LONGEST_TEXT = 2000


def numbers_of(packed: bytes, what: str) -> Ids:
    """Read packed ``<i8``. Raises ProtocolError for a length that is no multiple of 8."""
    if len(packed) % IDS.itemsize:
        raise ProtocolError(f"{what} has {len(packed)} bytes, which is no multiple of {IDS.itemsize}")
    return np.frombuffer(packed, IDS)


def released(worker: str, message: Release) -> BlocksReleased:
    """Read a release. Raises ProtocolError where its arrays do not agree or hold what cannot be."""
    numbers = numbers_of(message.numbers, "numbers of a release")
    outcomes = np.frombuffer(message.outcomes, np.uint8)
    if len(outcomes) != len(numbers):
        raise ProtocolError(f"a release has {len(numbers)} numbers and {len(outcomes)} outcomes")
    if len(outcomes) and outcomes.max() > max(Outcome):
        raise ProtocolError(f"a release has the outcome {outcomes.max()}; the largest there is is {max(Outcome)}")
    if message.seq < 1:
        raise ProtocolError(f"a release has the sequence {message.seq}; the first is 1")
    return BlocksReleased(worker, message.seq, numbers, outcomes, _seconds(message, len(numbers)), message.errors)


def _seconds(message: Release, n: int) -> npt.NDArray[np.float32] | None:
    if not message.seconds:
        return None
    if len(message.seconds) != n * SECONDS.itemsize:
        raise ProtocolError(f"a release has {n} numbers and {len(message.seconds)} bytes of seconds, not 4 for each")
    seconds = np.frombuffer(message.seconds, SECONDS)
    if not np.isfinite(seconds).all() or seconds.min() < 0:
        raise ProtocolError("a release has seconds that are negative or no numbers")
    return seconds


def heard(worker: str, message: Heartbeat) -> WorkerHeard:
    """Read a heartbeat. Raises ProtocolError for times that are no numbers."""
    if not all(math.isfinite(run.seconds) for run in message.running):
        raise ProtocolError("a heartbeat has seconds that are no numbers")
    return WorkerHeard(worker, tuple((run.number, run.seconds) for run in message.running))


def wanted(worker: str, message: Want) -> BlocksWanted:
    """Read a wish for blocks. Raises ProtocolError for a negative one."""
    if message.n < 0:
        raise ProtocolError(f"a worker wants {message.n} blocks")
    return BlocksWanted(worker, min(message.n, MOST_WANTED))


def cannot_start(worker: str, message: CannotStart) -> WorkerCannotStart:
    """Read why a worker can't start what it should, on one line of what can be printed."""
    text = "".join(sign if sign.isprintable() else " " for sign in message.text[:LONGEST_TEXT])
    return WorkerCannotStart(worker, text)


def imported(worker: str, message: Imported) -> CodeImported:
    """Read what code a worker runs for a task. Raises ProtocolError for what is no digest."""
    if len(message.code) > LONGEST_DIGEST or not message.code.isalnum():
        raise ProtocolError("a worker imported code whose digest is none")
    return CodeImported(worker, message.task, message.code)


def remarked(message: Remark) -> TaskRemarked:
    """Read what a worker says of a task. Raises ProtocolError for a kind that is none."""
    if not 0 < len(message.kind) <= LONGEST_KIND or not message.kind.isidentifier():
        raise ProtocolError("a worker remarked something whose kind is none")
    return TaskRemarked(message.task, message.kind, message.text[:LONGEST_TEXT])


def joined(message: Hello, pipeline: PipelineSpec) -> WorkerJoined:
    """Read a hello. Raises ProtocolError, with a sentence for the user, where the run has no work for this worker."""
    for what, name in (("worker", message.worker), ("pool", message.pool)):
        if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
            raise ProtocolError(f"the name of a {what} must have 1 to {LONGEST_NAME} printable characters")
    if not 0 <= message.slots <= MOST_SLOTS:  # 0: the agent of a user's own workers, which only listens
        raise ProtocolError(f"worker {message.worker} has {message.slots} slots; it must have 0 to {MOST_SLOTS}")
    tasks = {task.id: task for task in pipeline.tasks}
    pools = {task.pool for task in pipeline.tasks}
    if message.task is not None and message.task not in tasks:
        raise ProtocolError(f"run '{pipeline.name}' has no task '{message.task}'{nearest(message.task, tasks)}")
    if message.task is None and message.pool not in pools:
        raise ProtocolError(
            f"no task of run '{pipeline.name}' has the pool '{message.pool}'{nearest(message.pool, pools)}"
        )
    holds = numbers_of(message.holds, "holds of a hello")
    return WorkerJoined(message.worker, message.pool, message.slots, message.task, message.own, holds)


def gone(worker: str, message: Bye | Gone, known: Iterable[str]) -> list[Event]:
    """Read a goodbye, or an agent's word about others: all of `known` where it names a prefix that ends with '/'.

    Raises ProtocolError where the leases that ran are no packed numbers.
    """
    if isinstance(message, Bye):
        return [WorkerGone(worker, False, message.reason)]
    names = [name for name in known if name.startswith(message.worker)] if message.worker.endswith("/") else []
    ran = None if message.ran is None else numbers_of(message.ran, "the leases of a dead worker")
    return [WorkerGone(name, message.killed, message.reason, ran) for name in names or [message.worker]]


def grants(leases: Iterable[SendLeases]) -> Grants:
    """Return one frame's message for all leases of one worker."""
    return Grants(
        tuple(
            Grant(
                lease.number,
                lease.task,
                np.ascontiguousarray(lease.blocks, IDS).tobytes(),
                lease.attempts,
                lease.max_running,
            )
            for lease in leases
        )
    )

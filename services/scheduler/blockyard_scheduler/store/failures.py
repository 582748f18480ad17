"""Failed attempts as Redis keeps them, and as users see them."""

from __future__ import annotations

import numpy as np

from blockyard.core.events import FailureNote
from blockyard.core.scheduler import Scheduler
from blockyard.core.state.task import Kind, Task, Tries
from blockyard.views.attempts import under_way
from blockyard.wire.api import FailureStatus

NO_BLOCKS = np.empty(0, np.int64)


def failure_statuses(core: Scheduler, notes: list[FailureNote]) -> list[FailureStatus]:
    """Return failed attempts as seen from outside; `final` only the one by which a block has failed, and still has.

    Attempts are counted anew after a retry, so notes of the time before it may be of later attempts.
    """
    by_task: dict[str, list[FailureNote]] = {}
    for note in notes:
        by_task.setdefault(note.task, []).append(note)
    statuses = []
    for name, ours in by_task.items():
        if (task := core.by_id.get(name)) is None:
            continue
        last = _last_attempts(task, sorted({note.block_id for note in ours}), core.settings.losses)
        statuses += [_failure_status(task, note, note.attempt == last.get(note.block_id)) for note in ours]
    return statuses


def _last_attempts(task: Task, blocks: list[int], losses: int) -> dict[int, int]:
    """Return the last attempt of each of the blocks that have failed for good."""
    ids = np.array(blocks, np.int64)
    addresses = task.layout.addresses(task.grid.unravel(ids))
    failed = task.bits[Kind.FAILED].test(addresses)
    trouble = [(address, task.tries.get(address, Tries())) for address in addresses[failed].tolist()]
    attempts = dict(zip(*(array.tolist() for array in under_way(task, trouble, NO_BLOCKS, losses)), strict=True))
    return {block: attempts.get(address, 1) for block, (address, _) in zip(ids[failed].tolist(), trouble, strict=True)}


def _failure_status(task: Task, note: FailureNote, by_this: bool) -> FailureStatus:
    error = note.error
    return FailureStatus(
        task=note.task,
        block_id=note.block_id,
        index=task.grid.index_of(note.block_id),
        attempt=note.attempt,
        final=note.final and by_this,
        kind=error.kind,
        message=error.message,
        traceback=error.traceback,
        worker=error.worker,
        log=error.log,
    )

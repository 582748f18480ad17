"""Failed attempts as Redis keeps them, and as users see them."""

from __future__ import annotations

import numpy as np

from blockyard.core.events import FailureNote
from blockyard.core.scheduler import Scheduler
from blockyard.core.state.task import Kind, Task
from blockyard.wire.api import FailureStatus


def failure_statuses(core: Scheduler, notes: list[FailureNote]) -> list[FailureStatus]:
    """Return failed attempts as seen from outside; `final` only where the block has not been retried since."""
    by_task: dict[str, list[FailureNote]] = {}
    for note in notes:
        by_task.setdefault(note.task, []).append(note)
    statuses = []
    for name, ours in by_task.items():
        if (task := core.by_id.get(name)) is None:
            continue
        failed = _have_failed(task, [note.block_id for note in ours])
        last: dict[int, int] = {}  # a block that failed, was retried and failed again has failed by its last error
        for note in ours:
            last[note.block_id] = max(note.attempt, last.get(note.block_id, 0))
        statuses += [
            _failure_status(task, note, final and note.attempt == last[note.block_id])
            for note, final in zip(ours, failed, strict=True)
        ]
    return statuses


def _have_failed(task: Task, blocks: list[int]) -> list[bool]:
    addresses = task.layout.addresses(task.grid.unravel(np.array(blocks, np.int64)))
    failed: list[bool] = task.bits[Kind.FAILED].test(addresses).tolist()
    return failed


def _failure_status(task: Task, note: FailureNote, failed: bool) -> FailureStatus:
    error = note.error
    return FailureStatus(
        task=note.task,
        block_id=note.block_id,
        index=task.grid.index_of(note.block_id),
        attempt=note.attempt,
        final=note.final and failed,
        kind=error.kind,
        message=error.message,
        traceback=error.traceback,
        worker=error.worker,
        log=error.log,
    )

"""Taking back: a retry of failed blocks, and a rerun of a region with all that depends on it.

Both clear durable bits and then derive everything else anew from them (orphans, counts, what is ready). They are rare
and asked for by a person, so they may cost a pass over the chunks.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from blockyard.core.events import RerunRequested, RetryRequested, SendRevoke
from blockyard.core.ready.orphans import orphan_waiters
from blockyard.core.state.bitmap import Bitmap
from blockyard.core.state.task import DURABLE, Bools, Kind, Task, failed_addresses
from blockyard.plan.edges import expand
from blockyard.plan.grid import Ints
from blockyard.spec.errors import SpecError, nearest
from blockyard.spec.model import RoiSpec

if TYPE_CHECKING:
    from blockyard.core.runstate import RunState


def retry(core: RunState, event: RetryRequested) -> None:
    """Make failed blocks pending again; orphans remain of those failures only that are left."""
    for task in _tasks(core, event.task):
        addresses = failed_addresses(task)
        if event.roi is not None:
            indices = task.layout.indices(addresses)
            addresses = addresses[_writes_into(task, indices, event.roi)]
        if event.blocks is not None:
            addresses = addresses[np.isin(task.grid.ravel(task.layout.indices(addresses)), event.blocks)]
        if len(addresses):
            _clear(core, task, addresses)
    rebuild(core)


def rerun(core: RunState, event: RerunRequested) -> None:
    """Make the blocks that write into the ROI pending again, with all that waits for them, directly or through others.

    Leases on any of them end first: their workers are told to stop, and their releases are stale.
    """
    undone = {task.number: Bitmap(task.layout.chunks * task.layout.capacity) for task in core.tasks}
    for task in _tasks(core, event.task):
        lo, hi = task.grid.writers(event.roi) if event.roi is not None else ((0,) * task.grid.ndim, task.grid.shape)
        for batch in expand(np.array([lo]), np.array([hi])):
            _walk(task, batch, undone)
    for task in core.tasks:
        bitmap = undone[task.number]
        for worker, numbers in core.revoke(task, bitmap).items():
            core.turn.effects.append(SendRevoke(worker, numbers))
        core.retries.drop_delayed(task.number, bitmap)
        addresses = bitmap.addresses()
        if len(addresses):
            _clear(core, task, addresses)
    rebuild(core)


def rebuild(core: RunState) -> None:
    """Derive anew what follows from the durable state: counts, orphans, frontiers."""
    core.turn.finished.clear()  # the bits say it all, and everything is looked at again
    for task in core.tasks:
        task.bits[Kind.ORPHANED].zero(0)
        task.recount()
    for task in core.tasks:
        failed = failed_addresses(task)
        if len(failed):
            orphan_waiters(task, task.layout.indices(failed), 0, lambda *_: None)
    for frontier in core.frontiers.values():
        frontier.reset()
    core.over.tasks.clear()


def _tasks(core: RunState, task_id: str | None) -> list[Task]:
    """Return the named task, or all. Raises SpecError for a name the run does not have."""
    if task_id is None:
        return core.tasks
    if task_id not in core.by_id:
        raise SpecError(f"this run has no task '{task_id}'{nearest(task_id, core.by_id)}")
    return [core.by_id[task_id]]


def _writes_into(task: Task, indices: Ints, roi: RoiSpec) -> Bools:
    lo, hi = task.grid.writers(roi)
    return np.asarray(((indices >= np.array(lo)) & (indices < np.array(hi))).all(axis=1))


def _clear(core: RunState, task: Task, addresses: Ints) -> None:
    """Clear the durable bits of these blocks, and what they have cost."""
    for kind in DURABLE:
        were_set = addresses[task.bits[kind].test(addresses)]
        if len(were_set):
            task.bits[kind].clear(were_set, core.seq + 1)
            core.turn.note_bits(task, kind, were_set, value=False)
    for address in [address for address in addresses.tolist() if address in task.tries]:
        core.turn.set_tries(task, address, None)
        core.retries.forget(task.number, address)


def _walk(task: Task, indices: Ints, undone: dict[int, Bitmap]) -> None:
    """Mark blocks and all that waits for them, breadth first, each once; of an earlier request those that are done."""
    walk: deque[tuple[Task, Ints]] = deque([(task, indices)])
    while walk:
        at, batch = walk.popleft()
        addresses = np.unique(at.layout.addresses(batch[at.grid.holds(batch)]))
        addresses = addresses[at.concerns(addresses) & ~undone[at.number].test(addresses)]
        if not len(addresses):
            continue
        undone[at.number].set(addresses, 0)
        new = at.layout.indices(addresses)
        walk.extend((at, waiters) for waiters in at.levels.waiters(new))
        for edge, down in at.downstream:
            lo, hi = edge.waiters(new)
            boxes = np.unique(np.concatenate([lo, hi], axis=1), axis=0)
            ndim = lo.shape[1]
            walk.extend((down, waiters) for waiters in expand(boxes[:, :ndim], boxes[:, ndim:]))

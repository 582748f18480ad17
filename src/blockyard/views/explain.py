"""Why a block is in the state it is in, in a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from blockyard.core.state.leases import Grant
from blockyard.core.state.task import Kind, Task, Tries
from blockyard.plan.edges import expand
from blockyard.plan.grid import Index, Ints
from blockyard.record.durations import decode
from blockyard.record.history import History
from blockyard.spec.errors import SpecError, nearest
from blockyard.views.attempts import under_way
from blockyard.wire.api import Explanation
from blockyard.wire.report import duration
from blockyard.wire.states import BlockState, RunPhase

if TYPE_CHECKING:
    from blockyard.core.runstate import RunState

MOST_NAMED = 10
NO_BLOCKS = np.empty(0, np.int64)


def explain(core: RunState, history: History, task_id: str, block_id: int, now: float) -> Explanation:
    """Describe one block. Raises SpecError for a task or block that the run does not have."""
    task = core.by_id.get(task_id)
    if task is None:
        raise SpecError(f"this run has no task '{task_id}'{nearest(task_id, core.by_id)}")
    if not 0 <= block_id < task.grid.size:
        raise SpecError(f"task '{task_id}' has no block {block_id}; its ids are 0 .. {task.grid.size - 1}")
    index = task.grid.index_of(block_id)
    state = block_state(core, task, index)
    address = _address(task, index)
    waits = _unfinished_blockers(core, task, index, now) if state in {BlockState.PENDING, BlockState.ORPHANED} else []
    attempt = _attempt(core, history, task, address, state)
    return Explanation(
        task=task_id,
        block_id=block_id,
        index=index,
        read_roi=str(task.grid.read_roi(index)),
        write_roi=str(task.grid.write_roi(index)),
        state=state,
        attempt=attempt,
        text=f"block {index} of {task_id} {_text(core, history, task, address, state, attempt, waits, now)}",
        waits_for=waits,
        worker=_worker(core, history, task, address),
    )


def _attempt(core: RunState, history: History, task: Task, address: int, state: BlockState) -> int:
    """Return the attempt at which a block was done or failed for good, or else the one that goes on or is next."""
    tries = task.tries.get(address)
    if state is BlockState.FAILED:
        _, tried = under_way(task, [(address, tries or Tries())], NO_BLOCKS, core.settings.losses)
        return int(tried.max(initial=1))
    if state in {BlockState.DONE, BlockState.SKIPPED}:
        row = _row(history, task, address) if state is BlockState.DONE else None
        return 0 if row is None else int(row["attempt"])
    return (tries or Tries()).attempt


def block_state(core: RunState, task: Task, index: Index) -> BlockState:
    """Name the state of one block."""
    if not task.in_run(np.array([index]))[0]:
        return BlockState.OUTSIDE
    address = _address(task, index)
    for kind in (Kind.SKIPPED, Kind.DONE, Kind.FAILED, Kind.ORPHANED):
        if task.bits[kind].test(np.array([address]))[0]:
            return BlockState[kind.name]
    if core.leases.find_block(task.number, address) is not None:
        return BlockState.LEASED
    if core.retries.awaits(task.number, address) or address in core.frontiers[task.number].ready.addresses():
        return BlockState.READY
    return BlockState.PENDING


def _text(
    core: RunState,
    history: History,
    task: Task,
    address: int,
    state: BlockState,
    attempt: int,
    waits: list[str],
    now: float,
) -> str:
    if state is BlockState.OUTSIDE:
        return "is not part of this run: no request wants it"
    if state is BlockState.LEASED:
        found = core.leases.find_block(task.number, address)
        assert found is not None
        return f"is {_holder(found[0], attempt, now)}"
    if state is BlockState.PENDING:
        if not waits:
            held = _held_back(core, task)
            return "waits for nothing" + (held or " and will be found ready when more ready blocks are wanted")
        return f"waits for {waits[0]}" + (f", and {len(waits) - 1} more" if len(waits) > 1 else "")
    if state is BlockState.ORPHANED:
        return f"will not run: it waits for {waits[0]}" if waits else "will not run: a block it waits for has failed"
    if state is BlockState.READY:
        held = _held_back(core, task) or f" {core.retries.awaits(task.number, address)}"
        return f"is ready for attempt {attempt}{held}".rstrip()
    if state is BlockState.DONE:
        return "is done" + _how(core, history, task, address)
    return {BlockState.SKIPPED: "was skipped: its check said it was done already"}.get(state, "has failed for good")


def _held_back(core: RunState, task: Task) -> str:
    """Say why no block of a task is leased now, whether it is ready or not; "" where they are."""
    if task.number in core.fail_fast.stops:
        return ", but its task is leased no more until the run is resumed"
    return {
        RunPhase.PAUSED: ", but the run is paused: 'blockyard resume' goes on",
        RunPhase.CANCELLED: ", but the run was cancelled",
    }.get(core.state, "")


def _holder(grant: Grant, attempt: int, now: float) -> str:
    least = "more than " if grant.inherited else ""
    return f"leased to worker {grant.worker} for {least}{duration(now - grant.granted_s)}, attempt {attempt}"


def _unfinished_blockers(core: RunState, task: Task, index: Index, now: float) -> list[str]:
    """Name up to `MOST_NAMED` blocks that this one waits for."""
    named: list[str] = []
    at = np.array([index])
    for neighbours in task.levels.blockers(at):
        named += _name(core, task, neighbours[task.in_run(neighbours)], MOST_NAMED - len(named), now)
    for edge, up in task.upstream:
        lo, hi = edge.blockers(at)
        for blockers in expand(lo, hi):
            if len(named) >= MOST_NAMED:
                break
            named += _name(core, up, blockers, MOST_NAMED - len(named), now)
    return named


def _name(core: RunState, task: Task, indices: Ints, most: int, now: float) -> list[str]:
    undone = indices[~task.bits[Kind.DONE].test(task.layout.addresses(indices))]
    rows = (tuple(row) for row in undone[: max(most, 0)].tolist())
    return [f"block {row} of {task.spec.id}, {_state_of(core, task, row, now)}" for row in rows]


def _state_of(core: RunState, task: Task, index: Index, now: float) -> str:
    """Return a block's state; of a leased one also by whom and since when."""
    state, address = block_state(core, task, index), _address(task, index)
    found = core.leases.find_block(task.number, address) if state is BlockState.LEASED else None
    return state if found is None else _holder(found[0], task.tries.get(address, Tries()).attempt, now)


def _address(task: Task, index: Index) -> int:
    return int(task.layout.addresses(np.array([index]))[0])


def _worker(core: RunState, history: History, task: Task, address: int) -> str:
    """Name the worker that has a block, or that ran it last, as far as that is known."""
    found = core.leases.find_block(task.number, address)
    if found is not None:
        return found[0].worker
    if (row := _row(history, task, address)) is None:
        return core.retries.failers.get((task.number, address), ("",))[-1]
    return next((name for name, known in history.workers.items() if known == row["worker"]), "")


def _row(history: History, task: Task, address: int) -> Any | None:
    """Return what is recorded of a block that was done (see `history.ROW`)."""
    recorded = history.tasks.get(task.number)
    if recorded is None or recorded.rows is None or not recorded.rows["code"][address]:
        return None
    return recorded.rows[address]


def _how(core: RunState, history: History, task: Task, address: int) -> str:
    """Say how long a block took, where and at which attempt, as far as that is recorded."""
    if (row := _row(history, task, address)) is None:
        return ""
    seconds, attempt = float(decode(row["code"].reshape(1))[0]), row["attempt"]
    return f": {seconds:.3g} s on worker {_worker(core, history, task, address)}" + (
        f", attempt {attempt}" if attempt > 1 else ""
    )

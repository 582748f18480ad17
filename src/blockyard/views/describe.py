"""A run as others see it: counts, rates, workers, stragglers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from blockyard.core.state.task import Kind, Task
from blockyard.core.state.workers import Worker
from blockyard.record.measures import Measures
from blockyard.views.eta import Eta, whole_run
from blockyard.wire.api import RunningBlock, RunStatus, Straggler, TaskStatus, WorkerStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blockyard.core.runstate import RunState

STRAGGLER_TIMES_MEDIAN = 3
STRAGGLER_FEWEST_DONE = 10
UNKNOWN = (None, None, None)
"""Instead of an Eta."""


def describe_task(core: RunState, measures: Measures, task: Task, eta: Eta | None, now: float) -> TaskStatus:
    """Describe one task."""
    ready, leased = core.ready_count(task.number), core.leases.count_by_task.get(task.number, 0)
    rate = measures.rates[task.number].per_second(now)
    unfinished = task.unfinished
    eta_s, low_s, high_s = eta or UNKNOWN
    return TaskStatus(
        id=task.spec.id,
        pool=task.spec.pool,
        total=task.total,
        pending=unfinished - ready - leased,
        ready=ready,
        leased=leased,
        done=task.counts[Kind.DONE] - task.counts[Kind.SKIPPED],
        skipped=task.counts[Kind.SKIPPED],
        failed=task.counts[Kind.FAILED],
        orphaned=task.counts[Kind.ORPHANED],
        retries=task.retries,
        num_workers=task.spec.num_workers,
        rate=rate,
        eta_s=eta_s,
        eta_p10_s=low_s,
        eta_p90_s=high_s,
        voxels_per_s=measures.voxel_rates[task.number].per_second(now),
        over=not unfinished,
        stopped=stop.text if (stop := core.fail_fast.stops.get(task.number)) else "",
    )


def describe_run(core: RunState, measures: Measures, etas: Sequence[Eta | None], now: float) -> RunStatus:
    """Describe the run; `etas` are those of its tasks."""
    eta_s, low_s, high_s = whole_run(etas) or UNKNOWN
    return RunStatus(
        run=core.run.pipeline.name,
        state=core.state,
        epoch=core.epoch,
        elapsed_s=(now if core.over.ended_s is None else core.over.ended_s) - core.started_s,
        eta_s=eta_s,
        eta_p10_s=low_s,
        eta_p90_s=high_s,
        tasks=[describe_task(core, measures, task, eta, now) for task, eta in zip(core.tasks, etas, strict=True)],
        workers=[_describe_worker(core, worker, now) for worker in core.workers.values()],
        stale_releases=measures.stale,
        leases_expired=measures.expired,
        leases_granted=measures.granted,
        stragglers=_stragglers(core, measures, now),
        quiet_s=core.hold.left_s(now),
        reason=core.reason,
        notices=core.notices.listed(),
    )


def _describe_worker(core: RunState, worker: Worker, now: float) -> WorkerStatus:
    held = core.leases.held_by(worker.id)
    return WorkerStatus(
        id=worker.id,
        pool=worker.pool,
        slots=worker.slots,
        task=worker.task,
        connected=worker.connected,
        leases=held,
        busy=min(held, max(worker.slots, 1)),
        heard_s_ago=now - worker.heard_s,
        finished=worker.finished,
    )


def _stragglers(core: RunState, measures: Measures, now: float) -> list[Straggler]:
    """Name blocks that run longer than 3 times the median, in tasks of which at least 10 and half are done."""
    medians = {
        task.number: float(np.median(measures.recent_s[task.number]))
        for task in core.tasks
        if task.number in measures.recent_s and task.counts[Kind.DONE] >= max(STRAGGLER_FEWEST_DONE, task.total / 2)
    }
    found = []
    for worker in core.workers.values() if medians else ():
        for task, address, seconds in _running(core, worker, now):
            median = medians.get(task.number)
            if median is not None and seconds > STRAGGLER_TIMES_MEDIAN * median:
                found.append(
                    Straggler(
                        task=task.spec.id,
                        index=task.layout.index_of(address),
                        worker=worker.id,
                        seconds=seconds,
                        median_s=median,
                    )
                )
    return found


def running_blocks(core: RunState, worker: str, now: float) -> list[RunningBlock]:
    """Return what a worker runs, by its last heartbeat, without what it has finished since; longest first."""
    known = core.workers.get(worker)
    found = [
        RunningBlock(task=task.spec.id, index=task.layout.index_of(address), seconds=seconds)
        for task, address, seconds in (_running(core, known, now) if known is not None else ())
    ]
    return sorted(found, key=lambda block: -block.seconds)


def _running(core: RunState, worker: Worker, now: float) -> Iterator[tuple[Task, int, float]]:
    """Return (task, address, seconds since it began) of the blocks that a worker runs."""
    for number, seconds in worker.running:
        for grant, _, positions in core.leases.find(np.array([number])):
            if grant is not None and grant.live[positions[0]]:
                address = int(grant.addresses[positions[0]])
                yield core.tasks[grant.task], address, seconds + now - worker.heard_s

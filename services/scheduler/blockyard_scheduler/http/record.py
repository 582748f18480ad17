"""`GET /api/v1/record`: the record of the run, for `blockyard report` (msgpack; 19 bytes a block, 16 a region)."""

from __future__ import annotations

import asyncio
from importlib.metadata import version

import msgspec
import numpy as np

from blockyard.core.state.task import Task
from blockyard.record import durations
from blockyard.record.history import TaskHistory
from blockyard.views.observed import ObservedRun
from blockyard.wire.api import Record, RegionsRecord, TaskRecord
from blockyard_scheduler.http.api import Api


class RecordHandler(Api):
    """The record."""

    async def get(self) -> None:
        """Answer with a Record."""
        observed = self.turns.observed
        await self.record_all()
        wasted = dict(self.run.meter.wasted_s)
        body = await asyncio.get_running_loop().run_in_executor(None, lambda: encode(observed, wasted))
        self.set_header("Content-Type", "application/msgpack")
        self.finish(body)


def encode(observed: ObservedRun, wasted_s: dict[str, float]) -> bytes:
    """Return the record of a run as bytes."""
    core, kept = observed.core, observed.record.history
    recorded = [(task, kept.tasks[task.number]) for task in core.tasks if task.number in kept.tasks]
    record = Record(
        run=core.run.pipeline.name,
        software=version("blockyard"),
        began_s=kept.began_s or 0.0,
        workers=list(kept.workers),
        tasks=[_task(task, history) for task, history in recorded if history.rows is not None],
        regions=[_regions(task, history) for task, history in recorded if history.rows is None],
        wasted_s=wasted_s,
    )
    return msgspec.msgpack.encode(record)


def _regions(task: Task, history: TaskHistory) -> RegionsRecord:
    sums = history.sums
    return RegionsRecord(
        id=task.spec.id,
        side=task.layout.side,
        regions=task.layout.counts,
        blocks=sums["blocks"].tobytes(),
        seconds=sums["seconds"].tobytes(),
        retries=sums["retries"].tobytes(),
    )


def _task(task: Task, history: TaskHistory) -> TaskRecord:
    assert history.rows is not None
    addresses = np.flatnonzero(history.rows["code"])
    blocks = task.grid.ravel(task.layout.indices(addresses))
    order = np.argsort(blocks)
    rows = history.rows[addresses[order]]
    return TaskRecord(
        id=task.spec.id,
        shape=task.grid.shape,
        blocks=blocks[order].astype("<i8").tobytes(),
        seconds=durations.decode(rows["code"]).astype("<f4").tobytes(),
        attempts=rows["attempt"].tobytes(),
        workers=rows["worker"].tobytes(),
        ended_s=(rows["ended_ds"] / 10).astype("<f4").tobytes(),
    )

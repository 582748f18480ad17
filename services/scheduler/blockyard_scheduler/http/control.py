"""What controls the run over HTTP: pause, resume, cancel, retry, rerun, scale."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
import numpy as np

from blockyard.core.events import Event, RerunRequested, RetryRequested
from blockyard.spec.errors import SpecError
from blockyard.spec.model import PipelineSpec, RoiSpec
from blockyard.wire.api import Changed, Scaled, Undone
from blockyard.wire.failures import failed_like
from blockyard_scheduler.http.api import Api, Guard, Run, check_task


class Change(Api):
    """Controls the run."""

    event: Event

    def initialize(self, run: Run, guard: Guard, event: Event) -> None:  # type: ignore[override]
        """Take what is to be told (called by tornado)."""
        super().initialize(run, guard)
        self.event = event

    async def post(self) -> None:
        """Tell it, and answer when it is safe in Redis."""
        await self.turns.ask(self.event)
        self.give(Changed(state=self.turns.core.state))


class Region(msgspec.Struct, forbid_unknown_fields=True):
    """Blocks of a task, or of all, that write into an ROI, or all of them."""

    task: str | None = None
    roi: RoiSpec | None = None


class Cause(msgspec.Struct, forbid_unknown_fields=True):
    """What went wrong, as a group of failures says it."""

    kind: str
    message: str


class RetryBody(Region, forbid_unknown_fields=True):
    """What is to be tried again."""

    error: Cause | None = None
    """Only blocks whose last attempt failed like this, whatever numbers its message has."""


B = TypeVar("B", bound=Region)


class OnBlocks(Api):
    """Controls some of the blocks."""

    def body(self, kind: type[B], what: str, *, task_needed: bool) -> B:
        """Return what is asked for. Raises SpecError for what the run does not have."""
        try:
            body = msgspec.json.decode(self.request.body or b"{}", type=kind)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise SpecError(f"the body is no {what} request: {error}") from None
        task = check_task(self.run.pipeline, body.task, needed=task_needed)
        if body.roi is not None:
            check_roi(self.run.pipeline, task, body.roi)
        return body

    async def undo(self, event: RetryRequested | RerunRequested) -> None:
        """Tell it, and answer with the number of blocks that were over and wait again, when that is safe in Redis."""
        measures, core = self.turns.observed.record.measures, self.turns.core
        before = measures.undone
        await self.turns.ask(event)
        self.give(Undone(state=core.state, blocks=measures.undone - before))


class Retry(OnBlocks):
    """Tries failed blocks again."""

    async def post(self) -> None:
        """Answer with the number of blocks that wait again, orphans among them."""
        body = self.body(RetryBody, "retry", task_needed=False)
        blocks = None
        if body.error is not None:
            if body.task is None:
                raise SpecError(f"say of which task the blocks are that failed with {body.error.kind}")
            blocks = failed_like(await self.run.failures(body.task), body.error.kind, body.error.message)
        named = None if blocks is None else np.array(blocks, np.int64)
        await self.undo(RetryRequested(body.task, body.roi, named))


class ScaleBody(msgspec.Struct, forbid_unknown_fields=True):
    """How many workers a pool shall have; None: as many as the scheduler thinks right."""

    pool: str
    workers: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Scale(Api):
    """Scales a pool of workers."""

    async def post(self) -> None:
        """Answer with the pools, and why it could not be done yet (``error``, else ""), when it is safe in Redis."""
        try:
            body = msgspec.json.decode(self.request.body, type=ScaleBody)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise SpecError(f"the body is no scale request: {error}") from None
        if self.run.scaler is None:
            raise SpecError(
                f"the workers of run '{self.run.pipeline.name}' are not scaled by its scheduler: start or stop them"
                " where they run ('blockyard worker', kubectl scale), or give the scheduler --scaling"
            )
        why_not = await self.run.scaler.ask(body.pool, body.workers)
        self.give(Scaled(pools=self.run.scaler.status(), error=why_not))


class Rerun(OnBlocks):
    """Runs blocks again although they are done, with all that depends on them."""

    async def post(self) -> None:
        """Answer with the number of blocks that were over and run again, those downstream among them."""
        body = self.body(Region, "rerun", task_needed=True)
        await self.undo(RerunRequested(body.task, body.roi))


def check_roi(pipeline: PipelineSpec, task: str | None, roi: RoiSpec) -> None:
    """Raise SpecError for an ROI that does not have the axes of the tasks it is about."""
    for spec in pipeline.tasks:
        if task in (None, spec.id) and not len(roi.offset) == len(roi.shape) == spec.total_roi.ndim:
            raise SpecError(
                f"roi has {len(roi.offset)} offsets and {len(roi.shape)} sizes; task '{spec.id}' has"
                f" {spec.total_roi.ndim} axes"
            )

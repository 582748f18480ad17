"""From what Redis holds of a run to a core that goes on with it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import TypeVar

from blockyard.core.events import ResumeRequested
from blockyard.core.scheduler import Scheduler
from blockyard.spec.errors import SpecError, StoreError
from blockyard.spec.model import RunSpec
from blockyard_scheduler.leadership import Leadership
from blockyard_scheduler.resume import other_request, resumed
from blockyard_scheduler.settings import Settings
from blockyard_scheduler.store.redis import Store

T = TypeVar("T")
log = logging.getLogger("blockyard.scheduler")


async def load_run(settings: Settings, store: Store, leadership: Leadership) -> Scheduler:
    """Begin the run, or go on with what is in Redis; only for the leader.

    Raises SpecError where the settings' pipeline can't go on with it or does not fit into memory, StoreError where
    records are missing.
    """
    # A standby that takes over goes on: --fresh was meant for the day it was typed.
    fresh = settings.fresh and not leadership.claim.waited
    if not fresh:
        await store.check_whole()
    before = None if fresh else await store.read_spec()
    run = settings.run if before is None else resumed(before, settings.run, accept_changes=settings.accept_changes)
    if before is not None and (change := other_request(before, run)):
        log.info("%s: what is done stays done", change)
    await store.write_spec(leadership.identity, run, fresh=fresh)
    seq = await store.last_seq()
    core = await _restore(settings, store, run, leadership.epoch)
    if core.seq != seq:
        raise StoreError(
            f"the journal of run '{run.pipeline.name}' ends at record {core.seq}, not {seq}: Redis at {store.place}"
            " lost records; restore it from its file, or start over with --fresh"
        )
    if leadership.claim.store_forgot or await store.may_have_forgotten():
        core.store_forgot(time.monotonic())
    if settings.exit_when_done and core.reason and not leadership.claim.waited:
        core.handle(ResumeRequested(), time.monotonic())  # it ended for that reason: who starts it again has mended it
    return core


async def _restore(settings: Settings, store: Store, run: RunSpec, epoch: int) -> Scheduler:
    loop = asyncio.get_running_loop()
    # Pages go into the bitmaps as they come: all at once they would be as large again as what they fill.
    restore = partial(
        Scheduler.restore,
        run,
        in_thread(store.pages(), loop),
        in_thread(store.records(), loop),
        epoch=epoch,
        settings=settings.core,
        now=time.monotonic(),
        seed=secrets.randbits(32),
    )
    try:
        return await loop.run_in_executor(None, restore)
    except MemoryError as error:
        raise SpecError(
            f"the blocks of run '{run.pipeline.name}' do not fit into memory, at a bit or two each ({error}); make the"
            " write_roi of its tasks larger"
        ) from error


def in_thread(pieces: AsyncIterator[list[T]], loop: asyncio.AbstractEventLoop) -> Iterator[T]:
    """Return one by one, in another thread than the loop's, what comes in pieces on the loop."""

    async def following() -> list[T] | None:
        return await anext(pieces, None)

    while (piece := asyncio.run_coroutine_threadsafe(following(), loop).result()) is not None:
        yield from piece

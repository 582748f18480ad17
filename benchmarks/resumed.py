"""Large runs that are resumed: Redis holds snapshot pages in which many blocks are done, scattered over the whole grid.

The pages are written by the scheduler's own store, so that what is read back is what a scheduler would have left.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pipelines import local_run, pipeline

from blockyard.core.events import CommitRecord, Page
from blockyard.core.state import journal
from blockyard.core.state.bitmap import PAGE_BITS, PAGE_BYTES
from blockyard.core.state.layout import Layout
from blockyard.core.state.task import Kind
from blockyard.local.redis import EmbeddedRedis
from blockyard.local.run import LocalRun
from blockyard.plan.grid import Grid
from blockyard.spec.model import RunSpec
from blockyard_scheduler.store.redis import Store

PAGES_AT_ONCE = 256
DRAWN = 64
"""Pages drawn at random; each page written is one of them, rotated by a random number of bytes."""
PATIENCE_S = 600.0


@contextlib.contextmanager
def resumed_run(arguments: argparse.Namespace, folder: Path, block_s: float) -> Iterator[tuple[LocalRun, int]]:
    """Give a run of which about `arguments.done` blocks are done, once one more has begun, and how many they are."""
    notes = folder / "notes"
    notes.mkdir()
    spec = pipeline(arguments.shape, arguments.side, notes, block_s)
    done_before = fill(spec, folder / "run", arguments.done)
    began = time.monotonic()
    with local_run(spec, folder / "run", workers=arguments.workers) as run:
        first_block(notes, began + PATIENCE_S)
        yield run, done_before


def first_block(notes: Path, until: float) -> float:
    """Give when the first block of any slot began."""
    while time.monotonic() < until:
        for note in notes.glob("*.json"):
            began_s: float = json.loads(note.read_text())["began_s"]
            return began_s
        time.sleep(0.005)
    raise SystemExit("no block ran")


def fill(spec: RunSpec, folder: Path, done: int) -> int:
    """Leave a run in the Redis of `folder` in which so many of the first task's blocks are done; give how many."""
    with EmbeddedRedis(folder / "redis") as redis:
        return asyncio.run(write_pages(Store(redis.url, spec.pipeline.name), spec, done))


async def write_pages(store: Store, spec: RunSpec, wanted: int) -> int:
    """Write the run, and its snapshot in commits of a few pages each."""
    await store.check()  # it notes that this Redis keeps all: else whoever follows leases nothing for a while
    epoch = await store.take_lock("bench", "127.0.0.1:1", 60.0)
    identity = f"{epoch}:bench"
    await store.write_spec(identity, spec, fresh=True)
    done, seq = 0, 0
    batch: list[Page] = []
    for key, content in scattered(spec, wanted):
        done += int(np.bitwise_count(content).sum())
        batch.append(Page(key, seq + 1, content.tobytes()))
        if len(batch) == PAGES_AT_ONCE:
            seq += 1
            await store.commit(identity, CommitRecord(seq, journal.encode(journal.Record()), pages=tuple(batch)))
            batch = []
    seq += 1
    head = Page("head", seq, journal.encode(journal.Head([], 1, [], {}, "running", {})))
    record = journal.encode(journal.Record())
    await store.commit(identity, CommitRecord(seq, record, pages=(*batch, head), drop_below=seq))
    await store.free_lock(identity)
    await store.close()
    return done


def scattered(spec: RunSpec, wanted: int):
    """Give (key, content) of each page of the first task, with random bits on whole chunks inside the grid."""
    task = spec.pipeline.tasks[0]
    layout = Layout(Grid.of(task))
    whole = np.ones(layout.counts, np.bool_)
    for axis, (n, side) in enumerate(zip(layout.grid.shape, layout.side, strict=True)):
        if n % side:
            whole[(slice(None),) * axis + (-1,)] = False
    random = np.random.default_rng(0)
    share = wanted / (np.count_nonzero(whole) * layout.capacity)
    drawn = np.packbits(random.random((DRAWN, PAGE_BITS)) < share, axis=1)
    bytes_a_chunk = layout.capacity // 8
    inside = np.repeat(whole.ravel(), bytes_a_chunk)
    pages = -(-layout.chunks * layout.capacity // PAGE_BITS)
    for number in range(pages):
        content = np.roll(drawn[random.integers(DRAWN)], random.integers(PAGE_BYTES))
        mask = inside[number * PAGE_BYTES : (number + 1) * PAGE_BYTES]
        content[: len(mask)][~mask] = 0
        content[len(mask) :] = 0
        yield f"0:{Kind.DONE.value}:{number}", content

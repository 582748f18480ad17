"""Orphans: blocks that wait, directly or through other orphans, for a block that failed for good.

A breadth-first walk in batches. A block with a huge fan-out (a one-block task that a whole volume waits for) is walked
by boxes and whole chunks instead of blocks, so that each block is touched once, by a vector operation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from blockyard.core.state.task import Kind, Task
from blockyard.plan.edges import expand
from blockyard.plan.grid import Index, Ints

WIDE = 4096
"""A fan-out of more blocks than this is walked by boxes."""

Marked = Callable[[Task, Ints, Ints], None]
"""Told (task, addresses, chunks this finished) of each batch of new orphans."""


def orphan_waiters(task: Task, indices: Ints, seq: int, marked: Marked) -> None:
    """Orphan all that waits for these failed blocks, shape (n, axes); each block once."""
    walk: deque[tuple[Task, Ints]] = deque([(task, indices)])
    while walk:
        at, batch = walk.popleft()
        for waiters in at.levels.waiters(batch):
            _mark(at, waiters, seq, marked, walk)
        for edge, down in at.downstream:
            lo, hi = edge.waiters(batch)
            boxes = np.unique(np.concatenate([lo, hi], axis=1), axis=0)
            lo, hi = boxes[:, : lo.shape[1]], boxes[:, lo.shape[1] :]
            wide = np.clip(hi - lo, 0, None).prod(axis=1) > WIDE
            for waiters in expand(lo[~wide], hi[~wide]):
                _mark(down, waiters, seq, marked, walk)
            for first, last in zip(lo[wide].tolist(), hi[wide].tolist(), strict=True):
                _mark_box(down, tuple(first), tuple(last), seq, marked, walk)


def _mark(task: Task, indices: Ints, seq: int, marked: Marked, walk: deque[tuple[Task, Ints]]) -> None:
    if not task.whole:
        indices = indices[task.in_run(indices)]
    addresses = np.unique(task.layout.addresses(indices))
    addresses = addresses[~task.is_final(addresses)]
    if len(addresses):
        marked(task, addresses, task.mark(Kind.ORPHANED, addresses, seq))
        walk.append((task, task.layout.indices(addresses)))


def _mark_box(task: Task, lo: Index, hi: Index, seq: int, marked: Marked, walk: deque[tuple[Task, Ints]]) -> None:
    """Orphan a large box chunk by chunk."""
    chunks = np.arange(task.layout.chunks).reshape(task.layout.counts)[task.layout.chunks_meeting(lo, hi)]
    for chunk in chunks.ravel()[task.remaining[chunks.ravel()] > 0].tolist():
        first, last = task.layout.chunk_box(chunk)
        first = tuple(max(a, b) for a, b in zip(first, lo, strict=True))
        last = tuple(min(a, b) for a, b in zip(last, hi, strict=True))
        axes = np.meshgrid(*(np.arange(b, e) for b, e in zip(first, last, strict=True)), indexing="ij")
        _mark(task, np.stack([axis.ravel() for axis in axes], axis=1), seq, marked, walk)

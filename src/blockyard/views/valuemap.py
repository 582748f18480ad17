"""The map coloured by a value: the mean duration, or attempts, of the blocks in each cell of a picture.

No request looks at all that is recorded: cells that hold whole chunks add up the chunks' sums, others look at the
places of the chunks that the picture meets and of which anything is recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from blockyard.core.state.task import Task
from blockyard.plan.grid import Index, Ints
from blockyard.record import durations
from blockyard.record.history import TaskHistory
from blockyard.views.blockmap import BlockMap, Picture, View

VALUES = ("duration", "attempts")
"""Seconds that blocks took, and how often they have been tried."""

Floats = npt.NDArray[np.float64]
SECONDS = np.nan_to_num(durations.decode(np.arange(2**16, dtype=np.uint16)))
"""By code; a look into 256 kB costs less than the arithmetic."""
NONE: tuple[Ints, Ints] = (np.empty(0, np.int64), np.empty(0, np.int64))
"""No block, with no value."""


@dataclass(frozen=True, slots=True)
class ValueMap:
    """Means by cell."""

    frame: BlockMap
    """Without planes."""
    means: npt.NDArray[np.float32]
    """Of the blocks in each cell, shape `cells`; NaN where none is known."""
    together: Index = ()
    """Blocks on each axis of which only the mean is known; (): each is known."""


def value_map(
    task: Task, history: TaskHistory | None, view: View, value: str, under_way: tuple[Ints, Ints] = NONE
) -> ValueMap:
    """Return the mean `value` of the blocks in each cell of a view: of the blocks that are done and recorded.

    `under_way` are the addresses and attempts of blocks that are not done (see `attempts.py`): they count by attempts,
    in place of what is recorded of an earlier time they were done. Of a task that is recorded by chunk only, a cell
    within a chunk has the mean of that chunk, or by attempts that of its own blocks under way where there are any.
    """
    picture = Picture(task, view)
    frame = BlockMap(picture.begin, picture.step, picture.cells, {}, 1)
    addresses, attempts = under_way if value == "attempts" else NONE
    sums, counts = picture.sum_addresses(addresses, attempts.astype(np.float32))
    if history is None:
        return ValueMap(frame, _mean(sums, counts))
    if history.rows is None:
        of_chunks = _by_chunk(picture, history, value)
        if picture.has_whole_chunks:
            return ValueMap(frame, _mean(sums + of_chunks[0], counts + of_chunks[1]))
        return ValueMap(frame, np.where(counts > 0, _mean(sums, counts), _mean(*of_chunks)), task.layout.side)
    earlier = addresses[history.rows["code"][addresses] > 0]
    old_sums, old_counts = picture.sum_addresses(earlier, history.rows["attempt"][earlier].astype(np.float32))
    recorded = _by_chunk if picture.has_whole_chunks else _by_place
    its_sums, its_counts = recorded(picture, history, value)
    return ValueMap(frame, _mean(its_sums + sums - old_sums, its_counts + counts - old_counts))


def _by_place(picture: Picture, history: TaskHistory, value: str) -> tuple[Floats, Floats]:
    """Return the sums of a value and the number of recorded blocks in each cell, block by block."""
    assert history.rows is not None
    rows = history.rows.reshape(len(history.sums), -1)
    recorded = history.sums["blocks"] > 0
    counts = picture.sum_places(rows["code"], recorded, lambda codes: (codes > 0).astype(np.uint8), np.uint32)
    if value == "attempts":
        return picture.sum_places(rows["attempt"], recorded, lambda tried: tried.astype(np.uint32), np.uint32), counts
    return picture.sum_places(rows["code"], recorded, lambda codes: SECONDS[codes], np.float32), counts


def _by_chunk(picture: Picture, history: TaskHistory, value: str) -> tuple[Floats, Floats]:
    """Likewise of all chunks in a cell, or of the chunk around it."""
    sums = history.sums
    blocks = sums["blocks"].astype(np.float64)
    values = sums["seconds"] if value == "duration" else blocks + sums["retries"]
    shape = picture.task.layout.counts
    hidden = tuple(axis for axis in range(len(shape)) if axis not in picture.view.shown)
    chosen = tuple(slice(*picture.chunks_along(axis)) for axis in range(len(shape)))
    found = (_in_cells(picture, part.reshape(shape)[chosen].sum(axis=hidden)) for part in (values, blocks))
    in_values, in_blocks = (part.reshape(picture.cells) for part in found)
    return in_values, in_blocks


def _in_cells(picture: Picture, part: Floats) -> Floats:
    for at, axis in enumerate(picture.view.shown):
        chunks = picture.chunk_of_cells(axis)
        larger = picture.step[at] >= picture.task.layout.side[axis]
        part = np.add.reduceat(part, chunks, axis=at) if larger else np.take(part, chunks, axis=at)
    return part


def _mean(sums: Floats, counts: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0).astype(np.float32)

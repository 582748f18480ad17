"""The map coloured by what was recorded: the mean duration, or attempts, of the blocks in each cell of a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from blockyard.core import durations
from blockyard.core.blockmap import BlockMap, Picture, View
from blockyard.core.history import TaskHistory
from blockyard.core.task import Task
from blockyard.plan.grid import Ints

VALUES = ("duration", "attempts")
"""Seconds of a block, and at which attempt it was done."""

Plane = npt.NDArray[np.float32]


def value_map(task: Task, history: TaskHistory | None, view: View, value: str) -> tuple[BlockMap, Plane]:
    """Give the frame of a picture and the mean `value` in each of its cells, shape `cells`; NaN where none is known.

    Of a task that is recorded by chunk only, a cell has the mean duration of the chunks that it lies in.
    """
    picture = Picture(task, view)
    frame = BlockMap(picture.begin, picture.step, picture.cells, {}, 1)
    if history is None:
        return frame, np.full(picture.cells, np.nan, np.float32)
    if history.rows is None:
        return frame, _by_chunk(picture, history, value)
    addresses = np.flatnonzero(history.rows["code"])
    rows = history.rows[addresses]
    values = durations.decode(rows["code"]) if value == "duration" else rows["attempt"].astype(np.float32)
    return frame, _mean(*picture.sum_addresses(addresses, values))


def _by_chunk(picture: Picture, history: TaskHistory, value: str) -> Plane:
    if value != "duration":
        return np.full(picture.cells, np.nan, np.float32)
    shape = picture.task.layout.counts
    hidden = tuple(axis for axis in range(len(shape)) if axis not in picture.view.shown)
    chosen = tuple(slice(*picture.chunks_along(axis)) for axis in range(len(shape)))
    sums, counts = (
        _in_cells(picture, part.reshape(shape)[chosen].sum(axis=hidden)) for part in (history.sum_s, history.count)
    )
    return _mean(sums, counts).reshape(picture.cells)


def _in_cells(picture: Picture, part: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give for each cell the sum over the chunks in it, or what the chunk around it has."""
    for at, axis in enumerate(picture.view.shown):
        chunks = picture.chunk_of_cells(axis)
        larger = picture.step[at] >= picture.task.layout.side[axis]
        part = np.add.reduceat(part, chunks, axis=at) if larger else np.take(part, chunks, axis=at)
    return part


def _mean(sums: npt.NDArray[np.float64], counts: Ints) -> Plane:
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0).astype(np.float32)

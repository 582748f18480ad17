"""The map and what is asked about its cells, for the page.

`GET /api/v1/map` answers in binary: 4 bytes (little-endian) with the length of a JSON header, the header (`MapHeader`),
and for each state that it names the counts of all cells, row by row; with ``value=duration`` or ``attempts`` the means
of that as one plane of ``<f4``. `axis` names an axis that is not shown and `slice` the index to cut it at, or
``projection`` to look through it; grids of more than three axes repeat the pair. A window is ``from=10,20&to=50,60``,
blocks on the shown axes.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import numpy as np

from blockyard.core.scheduler import Scheduler
from blockyard.core.state.task import Task
from blockyard.plan.grid import Ints
from blockyard.record.history import TaskHistory
from blockyard.spec.errors import SpecError, nearest
from blockyard.spec.model import RoiSpec
from blockyard.views.attempts import under_way
from blockyard.views.blockmap import BlockMap, View, block_map, blocks_in, view_of
from blockyard.views.valuemap import NONE, VALUES, value_map
from blockyard.wire.states import BlockState
from blockyard_scheduler.http.api import Api, Guard, Run

MOST_CELLS = 1024
USUAL_CELLS = 512
MOST_BLOCKS = 100
USUAL_BLOCKS = 8
DEFLATE_FROM_BYTES = 2**14


class TaskGrid(msgspec.Struct, kw_only=True):
    """The grid of one task, and what its blocks read and write."""

    id: str
    requires: tuple[str, ...]
    pool: str
    shape: tuple[int, ...]
    """Blocks on each axis."""
    total: int
    """Blocks of the run."""
    total_roi: RoiSpec
    read_roi: RoiSpec
    write_roi: RoiSpec
    fit: str


class MapHeader(msgspec.Struct, kw_only=True):
    """What the counts that follow mean."""

    task: str
    seq: int
    shape: tuple[int, ...]
    """Blocks on each axis of the grid."""
    shown: tuple[int, ...]
    """The axis of the rows and that of the columns; a grid of one axis has columns only."""
    begin: tuple[int, ...]
    """Index of the first block of the first cell, for each shown axis."""
    step: tuple[int, ...]
    """Blocks of a cell, for each shown axis."""
    cells: tuple[int, int]
    """Rows and columns of cells."""
    item: str
    """Of the counts: ``u1``, ``u2`` or ``u4``, little-endian."""
    states: list[str]
    """Of the planes that follow, in this order; a state that is missing has none of these blocks."""
    value: str = ""
    """What is the mean of each cell, in the one plane that follows (NaN: none is known); "" for counts by state."""
    least: float | None = None
    most: float | None = None
    """The smallest and the largest mean; None where none is known."""
    together: tuple[int, ...] = ()
    """Blocks on each axis of which only the mean is recorded; (): each is."""


class Map(Api):
    """The map of a task."""

    def initialize(self, run: Run, guard: Guard, lock: asyncio.Lock) -> None:  # type: ignore[override]
        """Take the lock: one map at a time is made (called by tornado)."""
        super().initialize(run, guard)
        self.lock = lock

    async def get(self) -> None:
        """Answer with header and planes."""
        task = core_task(self)
        view = self._view(task)
        value = self.get_query_argument("value", "state")
        if value not in ("state", *VALUES):
            raise SpecError(f"there is no value '{value}'{nearest(value, ('state', *VALUES))}")
        packed_for_wire = "deflate" in self.request.headers.get("Accept-Encoding", "")
        async with self.lock:
            core = self.turns.core
            leased, ready = in_hand(core, task)
            loop = asyncio.get_running_loop()
            if value == "state":
                make = partial(_counts, task, view, core.seq, leased, ready)
            else:
                trouble = list(task.tries.items()) if value == "attempts" else []  # the core goes on meanwhile
                tried = partial(under_way, task, trouble, leased, core.settings.losses)
                history = self.turns.observed.record.history.tasks.get(task.number)
                make = partial(_values, task, history, view, core.seq, value, tried)
            body = await loop.run_in_executor(None, make)
            if packed_for_wire:
                body = await loop.run_in_executor(None, zlib.compress, body, 1)
        if packed_for_wire:
            self.set_header("Content-Encoding", "deflate")
        self.set_header("Content-Type", "application/octet-stream")
        self.finish(body)

    def _view(self, task: Task) -> View:
        axes = [_integer("axis", text) for text in self.get_query_arguments("axis")]
        slices = self.get_query_arguments("slice")
        cuts = [
            (axis, None if at in ("", "projection") else _integer("slice", at))
            for axis, at in zip(axes, slices + [""] * (len(axes) - len(slices)), strict=False)
        ]
        most = _integer("max", self.get_query_argument("max", str(USUAL_CELLS)))
        if not 1 <= most <= MOST_CELLS:
            raise SpecError(f"max is {most}; give 1 .. {MOST_CELLS} cells")
        window = (self._indices("from"), self._indices("to"))
        return view_of(task.grid.shape, cuts, window, most)

    def _indices(self, name: str) -> tuple[int, ...]:
        text = self.get_query_argument(name, "")
        return tuple(_integer(name, part) for part in text.split(",")) if text else ()


class Blocks(Api):
    """Which blocks a cell of the map has, by state."""

    async def get(self) -> None:
        """Answer with ``{state: [{block_id, index}, ...]}``, the first blocks of each state that is in the box."""
        task = core_task(self)
        box = (self._corner("from", task), self._corner("to", task))
        if not all(0 <= b < e <= n for b, e, n in zip(*box, task.grid.shape, strict=True)):
            raise SpecError(f"the box from {box[0]} to {box[1]} is not inside the grid {task.grid.shape}")
        wanted = self.get_query_argument("states", ",".join(BlockState)).split(",")
        if unknown := [state for state in wanted if state not in set(BlockState)]:
            raise SpecError(f"there is no state '{unknown[0]}'; states are {', '.join(BlockState)}")
        most = min(_integer("limit", self.get_query_argument("limit", str(USUAL_BLOCKS))), MOST_BLOCKS)
        leased, ready = in_hand(self.turns.core, task)
        found: dict[str, Any] = {}
        for state in wanted:
            ids = blocks_in(task, BlockState(state), box, leased, ready, most)
            if len(ids):
                indices = task.grid.unravel(ids).tolist()
                found[state] = [{"block_id": b, "index": i} for b, i in zip(ids.tolist(), indices, strict=True)]
        self.give(found)

    def _corner(self, name: str, task: Task) -> tuple[int, ...]:
        corner = tuple(_integer(name, part) for part in self.get_query_argument(name, "").split(","))
        if len(corner) != task.grid.ndim:
            raise SpecError(f"'{name}' needs an index for each of the {task.grid.ndim} axes")
        return corner


class Tasks(Api):
    """The grids of the run's tasks."""

    def get(self) -> None:
        """Answer with a list of TaskGrid."""
        self.give([_task_grid(task) for task in self.turns.core.tasks])


def core_task(handler: Api) -> Task:
    """Return the task that is asked about. Raises SpecError for one that is not in the run."""
    name = handler.task_argument(needed=True)
    assert name is not None
    task = handler.turns.core.by_id.get(name)
    if task is None:
        raise SpecError(f"task '{name}' is not part of this run: no target needs it")
    return task


def in_hand(core: Scheduler, task: Task) -> tuple[Ints, Ints]:
    """Return the addresses of a task's blocks that are leased and ready, as of now."""
    return core.leases.addresses(task.number), core.ready_addresses(task.number)


def _integer(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise SpecError(f"'{name}' is '{text}', which is no integer") from None


def _task_grid(task: Task) -> TaskGrid:
    spec = task.spec
    return TaskGrid(
        id=spec.id,
        requires=spec.requires,
        pool=spec.pool,
        shape=task.grid.shape,
        total=task.total,
        total_roi=spec.total_roi,
        read_roi=spec.read_roi,
        write_roi=spec.write_roi,
        fit=spec.fit,
    )


def _counts(task: Task, view: View, seq: int, leased: Ints, ready: Ints) -> bytes:
    return pack_map(task, view, seq, block_map(task, view, leased, ready))


def _values(
    task: Task, history: TaskHistory | None, view: View, seq: int, value: str, tried: Callable[[], tuple[Ints, Ints]]
) -> bytes:
    found = value_map(task, history, view, value, tried() if value == "attempts" else NONE)
    known = found.means[~np.isnan(found.means)]
    least, most = (float(known.min()), float(known.max())) if len(known) else (None, None)
    header = _header(
        task, view, seq, found.frame, item="f4", value=value, least=least, most=most, together=found.together
    )
    return _packed(header, [found.means.astype("<f4").tobytes()])


def pack_map(task: Task, view: View, seq: int, found: BlockMap) -> bytes:
    """Return header and planes as bytes."""
    item = "u1" if found.volume < 2**8 else "u2" if found.volume < 2**16 else "u4"
    header = _header(task, view, seq, found, item=item)
    return _packed(header, [plane.astype(f"<{item}").tobytes() for plane in found.planes.values()])


def _header(task: Task, view: View, seq: int, found: BlockMap, **more: Any) -> MapHeader:
    return MapHeader(
        task=task.spec.id,
        seq=seq,
        shape=task.grid.shape,
        shown=view.shown,
        begin=found.begin,
        step=found.step,
        cells=(found.cells[0], found.cells[1]),
        states=list(found.planes),
        **more,
    )


def _packed(header: MapHeader, planes: list[bytes]) -> bytes:
    text = msgspec.json.encode(header)
    text += b" " * (-len(text) % 4)  # the planes begin at a whole number of their items
    return b"".join([struct.pack("<I", len(text)), text, *planes])

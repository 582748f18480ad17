"""When a task and the run will be done, as a point and a range.

Not "pending / rate": that is wrong as soon as workers come or go, a task waits for another, or blocks differ. Instead::

    seconds of a block    from the window of the last two minutes and from all of the run, the window more where it has
                          seen many blocks (slow regions end, warming up does not come back)
    slots at work         those that are there now, times the share of them that was busy in the window: halos, waiting
                          for upstream and the time between blocks are in that share
    work left             blocks left times seconds of a block; half of each block that runs is taken as done

A pool's tasks share its slots as they did in the window; what a finished task leaves free goes to the others. So a task
that waits for upstream is done when the work of both is, and never before its upstream. The time of the last blocks,
when slots run dry, comes on top.

The range widens with how different blocks are, how few were seen, how far the window is from the rest of the run, and
how large one block is beside what is left. Its constants are set by `benchmarks/eta.py` on its own seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from blockyard.views.usage import Usage

TENTH = 1.2816
"""Standard deviations from the middle of a normal distribution to its tenth."""
UNFORESEEN = 0.10
"""Relative error that remains however much was seen: workers will come and go, regions differ."""
DRIFT = 0.5
"""How much of the difference (as a logarithm) between window and whole run is uncertain."""
LAST_BLOCKS = 0.5
"""Time of the end, in which slots run dry, in blocks."""
LAST_BLOCKS_SPREAD = 0.5
WINDOW_BLOCKS = 6.0
"""Blocks a slot that the window must have seen to count as much as all of the run before."""


class Eta(NamedTuple):
    """Seconds to the end."""

    point_s: float
    low_s: float
    """It takes longer than this nine times of ten."""
    high_s: float
    """It takes less than this nine times of ten."""


@dataclass(frozen=True, slots=True)
class BlockTime:
    """How long a block of a task keeps a slot."""

    seconds: float
    relative_error: float
    """Of that mean, as a standard deviation of its logarithm."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is left of a task."""

    pool: int
    unfinished: int
    running: float
    """Of those, how many a slot works at."""
    block: BlockTime | None
    """None: no block of it was measured."""
    share: float
    """Of the busy slots of its pool in the window."""
    num_workers: int | None = None
    upstream: tuple[int, ...] = ()
    """Places of the tasks it reads from, all before its own."""

    @property
    def work_s(self) -> float:
        """Slot-seconds to do."""
        return (self.unfinished - self.running / 2) * self.block.seconds if self.block else 0.0


def block_time(window: Usage, whole: Usage, *, slots: float, variation: float) -> BlockTime | None:
    """Return how long a block takes, from the last two minutes and all of the run; None where none was done.

    `slots` is how many the task kept busy; `variation` the standard deviation over the mean of single blocks.
    """
    busy_s, work_s, done = window
    all_busy_s, all_work_s, all_done = whole
    if not all_done or not (all_work_s or all_busy_s):
        return None
    said = all_work_s / all_done if all_work_s else all_busy_s / all_done
    slots = max(slots, 1.0)
    recent = work_s / done if done and work_s else said
    recent = (busy_s + slots * recent) / (done + slots)  # with few blocks, those that run say little
    weight = done / (done + WINDOW_BLOCKS * slots)
    overhead = max(all_busy_s / (all_work_s + slots * said), 1.0) if all_work_s else 1.0
    before = said * overhead
    mean = recent**weight * before ** (1 - weight)
    error = math.hypot(variation / math.sqrt(all_done), DRIFT * math.log(recent / before))
    return BlockTime(mean, error)


def forecast(loads: Sequence[Load], slots_at_work: Sequence[float]) -> list[Eta | None]:
    """Return the end of each task; None where it is unknown: nothing of it was measured, or nobody works.

    `slots_at_work` are those of each pool. Tasks stand after those they read from.
    """
    ends: list[Eta | None] = [Eta(0.0, 0.0, 0.0) if not load.unfinished else None for load in loads]
    for pool, slots in enumerate(slots_at_work):
        ours = [n for n, load in enumerate(loads) if load.pool == pool and load.unfinished and load.block]
        if slots > 0 and ours:
            for n, end_s in zip(ours, _shared([loads[n] for n in ours], slots), strict=True):
                ends[n] = _range(loads[n], end_s, slots)
    for n, load in enumerate(loads):
        if load.unfinished:
            ends[n] = _after(ends[n], [ends[up] for up in load.upstream], load)
    return ends


def whole_run(ends: Sequence[Eta | None]) -> Eta | None:
    """Return the end of all; None where one is unknown."""
    known = [end for end in ends if end is not None]
    if len(known) < len(ends):
        return None
    if not known:
        return Eta(0.0, 0.0, 0.0)
    return Eta(*map(max, zip(*known, strict=True)))


def _shared(loads: Sequence[Load], slots: float) -> list[float]:
    """Return the ends of tasks that share slots: each gets its share until it is done, then the others have it.

    With work left L and share w, tasks end in the order of L / w; between two ends, all that are left work together
    at the speed of the slots. O(n log n).
    """
    least = 1e-6  # a task that had nothing in the window has its turn when the others are done
    shares = [max(load.share, least) for load in loads]
    order = sorted(range(len(loads)), key=lambda n: loads[n].work_s / shares[n])
    at_work, now_s, level = sum(shares), 0.0, 0.0
    at_once = min(slots, sum(load.unfinished for load in loads))
    ends = [0.0] * len(loads)
    for n in order:
        reached = loads[n].work_s / shares[n]
        now_s += (reached - level) * at_work / at_once
        ends[n], level = now_s, reached
        at_work -= shares[n]
    return ends


def _range(load: Load, end_s: float, slots: float) -> Eta:
    assert load.block is not None
    block_s, at_once = load.block.seconds, min(slots, load.unfinished)
    if load.num_workers is not None:
        at_once = min(at_once, load.num_workers)
        end_s = max(end_s, load.work_s / at_once)
    last_s = LAST_BLOCKS * block_s * (1 - 1 / max(load.unfinished, 1))
    point_s = end_s + last_s
    error = math.hypot(load.block.relative_error, UNFORESEEN, LAST_BLOCKS_SPREAD * block_s / point_s)
    return Eta(point_s, point_s * math.exp(-TENTH * error), point_s * math.exp(TENTH * error))


def _after(end: Eta | None, upstream: Sequence[Eta | None], load: Load) -> Eta | None:
    """Put the end of a task after those of its upstream tasks, by one block."""
    known = [up for up in upstream if up is not None]
    if end is None or load.block is None or len(known) < len(upstream):
        return None
    more_s = load.block.seconds / 2
    later = [Eta(*(seconds + more_s for seconds in up)) for up in known if up.point_s]
    return Eta(*map(max, zip(end, *later, strict=True)))

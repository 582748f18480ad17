"""What waits for what in a run, block by block: for checks from outside, which may be slow and must be plain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from blockyard.core.scheduler import Scheduler
from blockyard.core.state.task import Task
from blockyard.plan.edges import expand

Name = tuple[str, int]
"""Task and block id."""


def waits_of(core: Scheduler) -> dict[Name, frozenset[Name]]:
    """Return for every block of the run those that must be done before it begins."""
    found = {}
    for task in core.tasks:
        for block_id in range(task.grid.size):
            index = task.grid.unravel(np.array([block_id]))
            if task.in_run(index)[0]:
                found[task.spec.id, block_id] = frozenset(_waited_for(task, index))
    return found


def beside_which(waits: Mapping[Name, frozenset[Name]]) -> dict[Name, set[Name]]:
    """Return for every block those that must not run beside it: itself, what it waits for, and what waits for it."""
    found = {name: {name, *others} for name, others in waits.items()}
    for name, others in waits.items():
        for other in others:
            found[other].add(name)
    return found


def _waited_for(task: Task, index: npt.NDArray[Any]) -> Iterator[Name]:
    for blockers in task.levels.blockers(index):
        for block_id in task.grid.ravel(blockers[task.in_run(blockers)]).tolist():
            yield task.spec.id, block_id
    for edge, up in task.upstream:
        for blockers in expand(*edge.blockers(index)):
            for block_id in up.grid.ravel(blockers).tolist():
                yield up.spec.id, block_id

"""Whether a pipeline is still the run that Redis holds, or has become another one.

Block ids, journal and snapshot mean something only on the grid they were written on, so a changed grid is refused.
What of it is wanted may change: bits are those of the full grid, and what is done stays done.
Parameters, arrays, requirements and the conflict flag change what the finished blocks are worth: the user must accept
that.
Everything else (function, image, workers, retries, time limits, checks) is how the work is done, and may change.
"""

from __future__ import annotations

from typing import Any

from blockyard.plan.requests import numbered_alike
from blockyard.spec.errors import SpecError
from blockyard.spec.model import PipelineSpec, RunSpec, Target, TaskSpec

GRID = ("total_roi", "read_roi", "write_roi", "fit")
TO_ACCEPT = ("params", "reads", "writes", "requires", "read_write_conflict")


def resumed(old: RunSpec, new: RunSpec, *, accept_changes: bool) -> RunSpec:
    """Return the run to go on with: `new`, with its tasks in the order of `old`, by which the journal numbers them.

    Raises SpecError, with a sentence that says what changed and what to do.
    """
    name = new.pipeline.name
    before = {task.id: task for task in old.pipeline.tasks}
    after = {task.id: task for task in new.pipeline.tasks}
    if grid := [*_tasks(before, after), *_changes(before, after, GRID)]:
        raise SpecError(
            f"run '{name}' was begun with other blocks: {_list(grid)}; undo that, give the pipeline another name, or"
            " start over with --fresh"
        )
    if (meaning := _changes(before, after, TO_ACCEPT)) and not accept_changes:
        raise SpecError(
            f"run '{name}' was begun differently: {_list(meaning)}; keep the finished blocks as they are with"
            " --accept-changes, or start over with --fresh"
        )
    tasks = tuple(after[task.id] for task in old.pipeline.tasks)
    return numbered_alike(old, RunSpec(PipelineSpec(name=name, tasks=tasks), new.targets))


def other_request(old: RunSpec, new: RunSpec) -> str:
    """Return what was wanted of a run and what is now, as a clause; "" where that is the same."""
    was, now = _wanted(old), _wanted(new)
    return "" if was == now else f"the request was {_asked(was)} and is {_asked(now)}"


def _tasks(before: dict[str, TaskSpec], after: dict[str, TaskSpec]) -> list[str]:
    gone = [f"task '{name}' is gone" for name in before if name not in after]
    return gone + [f"task '{name}' is new" for name in after if name not in before]


def _changes(before: dict[str, TaskSpec], after: dict[str, TaskSpec], fields: tuple[str, ...]) -> list[str]:
    changes = []
    for name, task in before.items():
        if name not in after:
            continue
        for field in fields:
            was, now = getattr(task, field), getattr(after[name], field)
            if field == "requires":
                was, now = sorted(was), sorted(now)
            if was != now:
                changes.append(f"{field} of task '{name}' was {_shown(was)} and is {_shown(now)}")
    return changes


def _wanted(run: RunSpec) -> dict[str, tuple[Target, ...]]:
    """Return the targets of each task; an order of tasks means nothing, nor does asking for every task."""
    targets = run.targets
    if targets is None:
        targets = tuple(Target(task.id) for task in run.pipeline.tasks)
    return {target.task: tuple(t for t in targets if t.task == target.task) for target in targets}


def _asked(wanted: dict[str, tuple[Target, ...]]) -> str:
    shown = []
    for name, targets in sorted(wanted.items()):
        rois = [str(roi) for target in targets for roi in target.request or ()]
        whole = any(target.request is None for target in targets)
        shown.append(f"{name} {'whole' if whole else ' and '.join(rois) or 'nothing'}")
    return "(" + ", ".join(shown) + ")"


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _list(changes: list[str]) -> str:
    return "; ".join(changes[:3]) + (f"; and {len(changes) - 3} more" if len(changes) > 3 else "")

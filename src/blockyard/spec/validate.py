"""What can be known to be wrong before anything runs, told as one sentence with the task, the axis and both values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, get_args

from blockyard.spec.errors import SpecError, brief, nearest
from blockyard.spec.functions import is_reference
from blockyard.spec.model import CheckSpec, Fit, PipelineSpec, RoiSpec, RunSpec, TaskSpec
from blockyard.spec.validate_arrays import check_arrays

LONGEST_ID = 200
"""A task's id is part of file names, which end at 255 bytes."""
LONGEST_NAME = 63
"""Names of runs and pools become Kubernetes labels, which end at 63 characters."""
NAME_PATTERN = r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?"
"""What works as a key, a label and a file name everywhere, and is never taken for an option."""
LARGEST_COORDINATE = 2**61
"""Coordinates and their sums and differences are 64-bit integers."""

SMALLEST, LARGEST = -(2**63), 2**64 - 1
"""Whole numbers that a parameter can be."""

MOST = 2**31 - 1
"""The largest number of workers and of retries."""

Where = tuple[str | int, ...]


def validate(pipeline: PipelineSpec) -> None:
    """Raise SpecError for the first fault of a pipeline: nothing that passes can fail for its specification alone."""
    check_name(pipeline.name, "the pipeline's name", ("name",), LONGEST_NAME)
    if not pipeline.tasks:
        raise SpecError.at(("tasks",), f"pipeline '{pipeline.name}' has no tasks")
    first: dict[str, int] = {}
    for number, task in enumerate(pipeline.tasks):
        where: Where = ("tasks", number)
        check_name(task.id, f"the id of task number {number + 1}", (*where, "id"), LONGEST_ID)
        if task.id in first:
            raise SpecError.at(
                (*where, "id"),
                f"task number {number + 1} has the id '{task.id}' that task number {first[task.id] + 1} has already",
            )
        first[task.id] = number
    for number, task in enumerate(pipeline.tasks):
        check_task(task, ("tasks", number))
    _check_requires(pipeline)


def validate_run(run: RunSpec) -> None:
    """Raise SpecError for the first fault of a run: its pipeline's, a target that is no task, a request outside it."""
    validate(run.pipeline)
    tasks = {task.id: task for task in run.pipeline.tasks}
    for target in run.targets or ():
        if target.task not in tasks:
            raise SpecError(f"there is no task '{target.task}' to run{nearest(target.task, tasks)}")
        for request in target.request or ():
            _check_request(request, tasks[target.task])


def check_name(name: str, what: str, where: Where, longest: int) -> None:
    """Raise SpecError unless `name` can be part of keys, labels and file names."""
    if not isinstance(name, str):
        raise SpecError.at(where, f"{what} must be text, not {name!r}")
    if len(name) > longest:
        raise SpecError.at(where, f"{what}, {name!r}, has {len(name)} characters; at most {longest} can be used")
    if not re.fullmatch(NAME_PATTERN, name):
        raise SpecError.at(
            where,
            f"{what}, {name!r}, cannot be used as a key, label or file name; write letters, digits, '.', '_' and '-',"
            " with a letter, digit or '_' first and last",
        )


# ----- one task ---------------------------------------------------------------------------------------------------


def check_task(task: TaskSpec, where: Where) -> None:
    """Raise SpecError for the first fault of one task, seen alone."""
    _check_code(task, where)
    check_plain(task.params, f"task '{task.id}', params", (*where, "params"))
    check_rois(task, where)
    check_arrays(task, where)
    _check_numbers(task, where)
    check_name(task.pool, f"the pool of task '{task.id}'", (*where, "pool"), LONGEST_NAME)


def _check_code(task: TaskSpec, where: Where) -> None:
    given = [name for name in ("function", "worker", "command", "map") if getattr(task, name) is not None]
    if len(given) != 1:
        has = f"has both {' and '.join(given)}" if given else "does not say what to run"
        raise SpecError.at(where, f"task '{task.id}' {has}; write exactly one of function, worker, command and map")
    for name, reference in code_references(task):
        if not is_reference(reference):
            raise SpecError.at(
                (*where, *name.split(".")),
                f"task '{task.id}', {name}: '{reference}' names no function; write '{_reference_like(reference)}'",
            )
    if task.command is not None and not (task.command and task.command[0]):
        raise SpecError.at((*where, "command"), f"task '{task.id}': command is empty; write [program, argument, ...]")
    for place, word in enumerate(task.command or ()):
        check_text(word, f"task '{task.id}', command[{place}]", (*where, "command", place))
    if task.worker is not None and task.params:
        raise SpecError.at(
            (*where, "params"),
            f"task '{task.id}' has params, but its worker '{task.worker}' is called without any; remove them, or use"
            " function",
        )


def _reference_like(text: str) -> str:
    """Return how what somebody wrote for a function is written, as far as that can be seen.

    >>> _reference_like("steps.smooth"), _reference_like("steps.py"), _reference_like("em.steps.smooth()")
    ('steps:smooth', 'steps:name', 'em.steps:smooth')
    """
    words = text.strip().removesuffix("()").replace(":", ".").split(".")
    if len(words) < 2 or not all(word.isidentifier() for word in words):
        return "module:name"
    words = [*words[:-1], "name"] if words[-1] == "py" else words
    return ".".join(words[:-1]) + ":" + words[-1]


def code_references(task: TaskSpec) -> list[tuple[str, str]]:
    """Return (field, reference) of all user code of a task."""
    named = [("function", task.function), ("worker", task.worker), ("map", task.map)]
    if isinstance(task.check, CheckSpec):
        named += [("check.before", task.check.before), ("check.after", task.check.after)]
    else:
        named.append(("check", task.check))
    return [(name, reference) for name, reference in named if reference is not None]


def check_plain(value: Any, what: str, where: Where) -> None:
    """Raise SpecError unless `value` is data that JSON can carry unchanged: it travels to workers as such."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise SpecError.at(where, f"{what}: the key {key!r} is not text; put it in quotes")
            check_text(key, f"{what}: the key {key!r}", where)
            check_plain(item, f"{what}.{key}", (*where, key))
    elif isinstance(value, list | tuple):
        if {*map(type, value)} <= {int} and (not value or (min(value) >= SMALLEST and max(value) <= LARGEST)):
            return  # a list of a million seeds in 20 ms
        for number, item in enumerate(value):
            check_plain(item, f"{what}[{number}]", (*where, number))
    elif isinstance(value, str):
        check_text(value, what, where)
    elif isinstance(value, float) and not math.isfinite(value):
        raise SpecError.at(where, f"{what} is {value}, which JSON cannot carry; write it as text, or leave it out")
    elif isinstance(value, int) and not isinstance(value, bool) and not SMALLEST <= value <= LARGEST:
        raise SpecError.at(where, f"{what} is {_digits(value)}, which does not fit 64 bits; write it as text")
    elif value is not None and type(value) not in (bool, int, float, str):
        raise SpecError.at(
            where,
            f"{what} is {brief(value)} ({type(value).__name__}); only text, numbers, true, false, null, lists and"
            f" mappings travel to workers: {_advice(value)}",
        )


def check_text(value: str, what: str, where: Where) -> None:
    """Raise SpecError for text that is none in UTF-8, such as a file name whose bytes Python could not read."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SpecError.at(
            where, f"{what}, {brief(value)}, is no text: a file name in another encoding, perhaps; rename the file"
        ) from None


def _digits(value: int) -> str:
    return str(value) if value.bit_length() < 400 else f"a number of {value.bit_length()} bits"


def _advice(value: Any) -> str:
    """Say how a value of Python can reach a function all the same."""
    if hasattr(value, "tolist"):
        return "give a list (.tolist()), or the path of a file; or make it inside the function"
    if isinstance(value, set | frozenset):
        return "give a sorted list, or make it inside the function"
    if hasattr(value, "__dataclass_fields__"):
        return "give dataclasses.asdict() of it, or make it inside the function"
    return "put it in quotes, or make it inside the function"


def check_rois(task: TaskSpec, where: Where) -> None:
    """Raise SpecError unless the three ROIs of a task make a grid, be it of 0 blocks."""
    rois = {name: getattr(task, name) for name in ("total_roi", "read_roi", "write_roi")}
    for name, roi in rois.items():
        _check_roi(roi, f"task '{task.id}', {name}", (*where, name), smallest=0 if name == "total_roi" else 1)
    ndim = task.total_roi.ndim
    for name, roi in rois.items():
        if roi.ndim != ndim:
            raise SpecError.at(
                (*where, name),
                f"task '{task.id}': {name} {roi} has {_axes(roi.ndim)}, total_roi {task.total_roi} has {_axes(ndim)}",
            )
    read, write = task.read_roi, task.write_roi
    for axis, (rb, re_, wb, we) in enumerate(zip(read.begin, read.end, write.begin, write.end, strict=True)):
        if wb < rb or we > re_:
            raise SpecError.at(
                (*where, "write_roi"),
                f"task '{task.id}': write_roi reaches outside read_roi on axis {axis}: it writes {wb}:{we} and reads"
                f" {rb}:{re_}; a block must read all that it writes",
            )


def _check_roi(roi: RoiSpec, what: str, where: Where, smallest: int) -> None:
    if len(roi.offset) != len(roi.shape):
        raise SpecError.at(
            where,
            f"{what}: offset {list(roi.offset)} has {_axes(len(roi.offset))}, shape {list(roi.shape)} has"
            f" {_axes(len(roi.shape))}",
        )
    if not roi.shape:
        raise SpecError.at(where, f"{what} has no axes")
    for axis, (offset, size) in enumerate(zip(roi.offset, roi.shape, strict=True)):
        if size < smallest:
            raise SpecError.at(
                (*where, "shape"),
                f"{what}: shape {list(roi.shape)} is {size} on axis {axis}; it must be at least {smallest}",
            )
        if max(abs(offset), size) > LARGEST_COORDINATE:
            raise SpecError.at(where, f"{what} is {offset}:{offset + size} on axis {axis}, which does not fit 64 bits")


def _check_numbers(task: TaskSpec, where: Where) -> None:
    if task.fit not in get_args(Fit):
        raise SpecError.at(
            (*where, "fit"), f"task '{task.id}': unknown fit '{task.fit}'{nearest(str(task.fit), get_args(Fit))}"
        )
    if task.submits and task.worker is None:
        raise SpecError.at(
            (*where, "submits"),
            f"task '{task.id}' has submits, which is for a task with worker: a function of no argument that submits a"
            " job, which drives the Client",
        )
    if task.num_workers is not None and task.num_workers < 1:
        raise SpecError.at(
            (*where, "num_workers"), f"task '{task.id}': num_workers is {task.num_workers}; it must be at least 1"
        )
    if task.max_retries < 0:
        raise SpecError.at(
            (*where, "max_retries"), f"task '{task.id}': max_retries is {task.max_retries}; it must be at least 0"
        )
    for name in ("num_workers", "max_retries"):
        if (getattr(task, name) or 0) > MOST:
            raise SpecError.at((*where, name), f"task '{task.id}': {name} is more than {MOST}; no run has so many")
    if task.timeout_s is not None and not (task.timeout_s > 0 and math.isfinite(task.timeout_s)):
        raise SpecError.at(
            (*where, "timeout_s"),
            f"task '{task.id}': timeout_s is {task.timeout_s}; it must be more than 0 seconds, and finite",
        )


def _axes(n: int) -> str:
    return f"{n} axis" if n == 1 else f"{n} axes"


# ----- between tasks ----------------------------------------------------------------------------------------------


def _check_requires(pipeline: PipelineSpec) -> None:
    tasks = {task.id: task for task in pipeline.tasks}
    for number, task in enumerate(pipeline.tasks):
        for place, required in enumerate(task.requires):
            where: Where = ("tasks", number, "requires", place)
            if required not in tasks:
                others = [name for name in tasks if name != task.id]
                raise SpecError.at(
                    where, f"task '{task.id}' requires '{required}', which is no task{nearest(required, others)}"
                )
            if required in task.requires[:place]:
                raise SpecError.at(where, f"task '{task.id}' requires '{required}' twice")
            other = tasks[required].total_roi
            if other.ndim != task.total_roi.ndim:
                raise SpecError.at(
                    where,
                    f"task '{task.id}' has {_axes(task.total_roi.ndim)} (total_roi {task.total_roi}), but the task"
                    f" '{required}' that it requires has {_axes(other.ndim)} (total_roi {other})",
                )
    order_of({task.id: task.requires for task in pipeline.tasks})


def order_of(requires: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the ids in an order in which each comes after those it requires. Raises SpecError that names a cycle."""
    try:
        return list(TopologicalSorter(requires).static_order())
    except CycleError as error:
        raise _cycle(list(error.args[1]), list(requires)) from None


def _cycle(cycle: Sequence[str], ids: Sequence[str]) -> SpecError:
    path = " requires ".join(f"'{name}'" for name in reversed(cycle))
    return SpecError.at(
        ("tasks", ids.index(cycle[-1]), "requires"),
        f"the tasks require each other in a cycle: {path}; nothing could start",
    )


def _check_request(request: RoiSpec, task: TaskSpec) -> None:
    total = task.total_roi
    _check_roi(request, f"the request for task '{task.id}'", (), smallest=0)
    if request.ndim != total.ndim:
        raise SpecError(
            f"the request {request} for task '{task.id}' has {_axes(request.ndim)}, its total_roi {total} has"
            f" {_axes(total.ndim)}"
        )
    for axis, (rb, re_, tb, te) in enumerate(zip(request.begin, request.end, total.begin, total.end, strict=True)):
        if rb < tb or re_ > te:
            raise SpecError(
                f"the request {request} for task '{task.id}' reaches outside its total_roi {total} on axis {axis}:"
                f" {rb}:{re_} is not inside {tb}:{te}"
            )

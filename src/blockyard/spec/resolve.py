"""From tasks to a run.

`resolve` follows ``requires()`` from the targets, merges equal tasks of one id, calls ``prepare()`` once each,
dependencies first, checks what they scheduled, and turns it into a `RunSpec`. Functions are named last, so that bad
input has pickled nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blockyard.spec.errors import SpecError, brief, nearest
from blockyard.spec.functions import is_own_worker, load_function, reference_of
from blockyard.spec.model import CheckSpec, PipelineSpec, RoiSpec, RunSpec, Target, TaskSpec
from blockyard.spec.pickles import name_of
from blockyard.spec.rois import roi_spec
from blockyard.spec.task import UNDEFINED, Task
from blockyard.spec.user_code import call_fault
from blockyard.spec.validate import LONGEST_ID, LONGEST_NAME, check_name, order_of, validate_run

if TYPE_CHECKING:
    from blockyard.spec.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class ResolvedRun:
    """A run, ready to be started."""

    run: RunSpec
    """Its tasks in an order in which each comes after those it requires."""
    tasks: dict[str, Task]
    """The instance of each task id, for its hooks and its parameters; empty for a pipeline file."""


def resolve(tasks: Pipeline | Task | Iterable[Any], pickle_dir: str | None, *, name: str | None = None) -> ResolvedRun:
    """Return the run that ``distribute(tasks)`` asks for, checked; `prepare` has run once for each task.

    `tasks` is a Pipeline, or a list of tasks and of ``{"task": task, "request": [Roi, ...]}``. Functions that cannot be
    imported are pickled into `pickle_dir`, which is made when needed; None (a cluster) refuses them. `name` names the
    run, by default the first target does. Raises SpecError, and whatever the user's own hooks raise.
    """
    from blockyard.spec.pipeline import Pipeline

    if isinstance(tasks, Pipeline):
        return tasks.resolve(pickle_dir)
    return prepare_tasks(tasks, name=name).resolve(pickle_dir)


@dataclass(frozen=True, slots=True)
class PreparedTasks:
    """Tasks whose `prepare` has run, and what of them is wanted."""

    name: str
    tasks: dict[str, Task]
    """In an order in which each comes after those it requires."""
    requires: dict[str, tuple[str, ...]]
    targets: tuple[Target, ...]

    def resolve(self, pickle_dir: str | None) -> ResolvedRun:
        """Return the run, checked before the first function is pickled: bad input leaves nothing."""
        self._check()
        return ResolvedRun(self._run(lambda function, what: _refer(function, what, pickle_dir)), dict(self.tasks))

    def resolve_here(self) -> ResolvedRun:
        """Return the run for this process alone: functions stay the objects that `tasks` hold, nothing is pickled."""
        self._check()
        run = self._run(lambda function, _: function if isinstance(function, str) else "this.process:function")
        return ResolvedRun(run, dict(self.tasks))

    def _check(self) -> None:
        validate_run(self._run(lambda function, _: function if isinstance(function, str) else "not.yet:named"))
        for task in self.tasks.values():
            check_calls(task)

    def _run(self, refer: Callable[[Any, str], str]) -> RunSpec:
        specs = tuple(task_spec(task, self.requires[name], refer) for name, task in self.tasks.items())
        return RunSpec(PipelineSpec(name=self.name, tasks=specs), self.targets)


def prepare_tasks(tasks: Task | Iterable[Any], *, name: str | None = None) -> PreparedTasks:
    """Find all tasks that the targets need, check that they fit together, and call `prepare`, dependencies first."""
    wanted = [_target(item) for item in ([tasks] if isinstance(tasks, Task) else tasks)]
    if not wanted:
        raise SpecError("there is no task to run; give a list of tasks or of {'task': task, 'request': [Roi, ...]}")
    graph = _Graph()
    for task, _ in wanted:
        graph.add(task)
    order = order_of(graph.requires)
    for task_id in order:
        for task in graph.instances[task_id]:
            task.prepare()
    graph.merge()
    chosen = {task_id: graph.instances[task_id][0] for task_id in order}
    targets = tuple(_request(chosen[task.task_id], request) for task, request in wanted)
    return PreparedTasks(
        name or wanted[0][0].task_id[:LONGEST_NAME], chosen, {key: tuple(graph.requires[key]) for key in order}, targets
    )


def task_spec(task: Task, requires: tuple[str, ...], refer: Callable[[Any, str], str]) -> TaskSpec:
    """Return the specification of a task that has been prepared; ``refer(function, what)`` names its functions."""
    plan, what = task.scheduled, f"of task '{task.task_id}'"
    code: dict[str, Any] = {}
    if plan.command is None or plan.process_function is not None:
        own = is_own_worker(_loaded(plan.process_function, what))
        code["worker" if own else "function"] = refer(plan.process_function, f"the process function {what}")
    before = None if plan.before is None else refer(plan.before, f"the check function {what}")
    after = None if plan.after is None else refer(plan.after, f"the check function {what}")
    return TaskSpec(
        id=task.task_id,
        command=plan.command,
        params=plan.params,
        total_roi=plan.total_roi,
        read_roi=plan.read_roi,
        write_roi=plan.write_roi,
        fit=plan.fit,
        read_write_conflict=plan.read_write_conflict,
        max_retries=plan.max_retries,
        timeout_s=plan.timeout_s,
        num_workers=plan.num_workers,
        check=before if plan.before is plan.after else CheckSpec(before, after),
        pool=plan.pool,
        submits=plan.submits,
        reads=plan.reads,
        writes=plan.writes,
        block=None if plan.block is None else tuple(plan.block),
        halo=tuple(plan.halo) or 0,
        requires=requires,
        **code,
    )


def check_calls(task: Task) -> None:
    """Raise SpecError where a function of a prepared task cannot be called as it will be."""
    plan, what = task.scheduled, f"of task '{task.task_id}'"
    arrays = [*plan.reads, *plan.writes]
    process = "worker" if is_own_worker(_loaded(plan.process_function, what)) else "function"
    for name, function in ((process, plan.process_function), ("check", plan.before), ("check", plan.after)):
        fault = None if function is None else call_fault(_loaded(function, what), name, plan.params, arrays)
        if fault is not None:
            raise SpecError(f"task '{task.task_id}', {name}: {name_of(function)} {fault}")


def _loaded(function: Any, what: str) -> Any:
    """Return a function, imported where it is named. Raises SpecError, with `what` it is the function of."""
    if not isinstance(function, str):
        return function
    try:
        return load_function(function, pickle_dir=None)
    except SpecError as error:
        raise SpecError(f"the function {what}: {error}") from error


def _refer(function: Any, what: str, pickle_dir: str | None) -> str:
    try:
        return reference_of(function, pickle_dir)
    except SpecError as error:
        raise SpecError(f"{what}: {error}") from error


def _target(item: Any) -> tuple[Task, Any]:
    """Return (task, request or None) of one entry of the list that `distribute` takes."""
    if isinstance(item, Task):
        return item, None
    if not isinstance(item, Mapping):
        raise SpecError(f"a target must be a task or {{'task': task, 'request': [Roi, ...]}}, not {brief(item)}")
    for key in item:
        if key not in ("task", "request"):
            raise SpecError(f"a target has no field '{key}'{nearest(str(key), ('task', 'request'))}")
    task = item.get("task")
    if not isinstance(task, Task):
        example = f"; write {task.__name__}(...)" if isinstance(task, type) else ""
        raise SpecError(f"the 'task' of a target must be an instance of a task, not {brief(task)}{example}")
    return task, item.get("request")


def _request(task: Task, request: Any) -> Target:
    if request is None:
        return Target(task.task_id)
    rois = [request] if hasattr(request, "offset") else list(request)
    what = f"the request for task '{task.task_id}'"
    return Target(task.task_id, tuple(_request_roi(roi, task.scheduled.total_roi, what) for roi in rois))


def _request_roi(roi: Any, total: RoiSpec, what: str) -> RoiSpec:
    """Take an empty intersection, whose offset is None, as a box of no voxels inside the total ROI."""
    offset, shape = getattr(roi, "offset", ()), getattr(roi, "shape", ())
    if None in offset and None not in shape and 0 in shape:
        return RoiSpec(total.offset, (0,) * total.ndim)
    return roi_spec(roi, what)


class _Graph:
    """The tasks found from the targets: by id the instances that differ as objects, and the ids each requires."""

    def __init__(self) -> None:
        self.instances: dict[str, list[Task]] = {}
        self.requires: dict[str, list[str]] = {}
        self._requires_of: dict[int, list[str]] = {}

    def add(self, target: Task) -> None:
        """Add a task and all it requires, and raise SpecError for a different task of an id already known."""
        waiting = [target]
        while waiting:
            task = waiting.pop()
            check_name(task.task_id, "the id of a task", (), LONGEST_ID)
            known = self.instances.setdefault(task.task_id, [])
            if any(_same(task, other) for other in known):
                continue
            known.append(task)
            required = _required(task)
            self._requires_of[id(task)] = list(dict.fromkeys(other.task_id for other in required))
            union = self.requires.setdefault(task.task_id, [])
            union += [name for name in self._requires_of[id(task)] if name not in union]
            waiting += reversed(required)

    def merge(self) -> None:
        """Raise SpecError where prepared tasks of one id, of different classes, do not come to the same."""
        for first, *others in self.instances.values():
            for other in others:
                _check_same_spec(self._spec(first), self._spec(other), first, other)

    def _spec(self, task: Task) -> TaskSpec:
        return task_spec(task, tuple(self._requires_of[id(task)]), lambda function, _: _identity(function))


def _identity(function: Any) -> str:
    """Name a function so that equal names mean the same code."""
    try:
        return reference_of(function, None)
    except SpecError:
        return f"object {id(function)}"


def _required(task: Task) -> list[Task]:
    required: Any = task.requires()
    tasks: list[Any] = [required] if isinstance(required, Task) else list(required or ())
    for other in tasks:
        if not isinstance(other, Task):
            raise SpecError(f"requires() of task '{task.task_id}' must give instances of tasks, not {brief(other)}")
    return tasks


def _same(task: Task, other: Task) -> bool:
    """Tell whether two tasks of one id are equal; raise SpecError where they are of one class and differ."""
    if task is other:
        return True
    if type(task) is not type(other):
        return False
    ours, theirs = _state(task), _state(other)
    for name in sorted({*ours, *theirs}):
        if not _equal(ours.get(name, UNDEFINED), theirs.get(name, UNDEFINED)):
            raise SpecError(
                f"two different tasks have the id '{task.task_id}': {name} is {brief(theirs.get(name))} in one and"
                f" {brief(ours.get(name))} in the other; give one of them another task_id"
            )
    return True


def _state(task: Task) -> dict[str, Any]:
    return {name: value for name, value in vars(task).items() if name not in ("_schedule", "global_config")}


def _equal(ours: Any, theirs: Any) -> bool:
    """Compare parameter values, which may be arrays, containers of arrays, or other tasks."""
    if ours is theirs:
        return True
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, Task):
        return ours.task_id == theirs.task_id and _same(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(_equal(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(map(_equal, ours, theirs))
    try:
        same = ours == theirs
        return bool(same.all()) if hasattr(same, "all") else bool(same)
    except Exception:  # noqa: BLE001 - a value that cannot be compared is not known to be equal
        return False


def _check_same_spec(ours: TaskSpec, theirs: TaskSpec, task: Task, other: Task) -> None:
    differ = [name for name in ours.__struct_fields__ if getattr(ours, name) != getattr(theirs, name)]
    if differ:
        raise SpecError(
            f"two different tasks have the id '{task.task_id}': {_class_name(task)} and {_class_name(other)}, which"
            f" differ in {', '.join(differ)}; give one of them another task_id"
        )


def _class_name(task: Task) -> str:
    return f"{type(task).__module__}.{type(task).__qualname__}"

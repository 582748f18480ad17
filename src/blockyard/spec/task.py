"""Tasks as Python classes: parameters, hooks, and the way from task instances to the specification of a run.

The interface is that of release 0.2 of the field's common library, so that its users feel at home::

    class Smooth(Task):
        source = Parameter()
        sigma = Parameter(default=1.0)

        def requires(self):
            return [Denoise(source=self.source)]

        def prepare(self):
            self.schedule(total_roi, read_roi, write_roi, process_function=self.smooth_block)

`resolve` follows ``requires()`` from the targets, merges tasks of the same id, calls ``prepare()`` once each,
dependencies first, and turns what they scheduled into a `RunSpec`.
"""

from __future__ import annotations

import copy
import enum
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from funlib.geometry import Roi

from blockyard.spec.errors import SpecError, nearest
from blockyard.spec.functions import is_own_worker, load_function, reference_of
from blockyard.spec.model import CheckSpec, PipelineSpec, RoiSpec, RunSpec, Target, TaskSpec
from blockyard.spec.validate import LONGEST_ID, LONGEST_NAME, check_name, order_of, validate_run

if TYPE_CHECKING:
    from blockyard.spec.pipeline import Pipeline


class _Undefined(enum.Enum):
    """A value that is itself again after pickling, unlike a bare object."""

    UNDEFINED = "no default"


UNDEFINED = _Undefined.UNDEFINED


class Parameter:
    """A parameter of a task class; without a default it must be given to each instance."""

    def __init__(self, default: Any = UNDEFINED) -> None:
        self.default = default
        self.name = "?"

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Parameter: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Any: ...
    def __get__(self, instance: object | None, owner: type) -> Any:
        """Give the parameter itself on a class. Instances hold values of their own, set by `Task.__init__`."""
        if instance is None:
            return self
        raise AttributeError(f"parameter '{self.name}' of {owner.__name__} has no value before Task.__init__() has run")

    def value(self) -> Any:
        """Give the default, a list, dict or set as a copy, so that no two instances share one."""
        return copy.deepcopy(self.default) if type(self.default) in (list, dict, set) else self.default


@dataclass(frozen=True, slots=True)
class Schedule:
    """What a task said in `Task.schedule`: the functions as objects, the ROIs in voxels."""

    total_roi: RoiSpec
    read_roi: RoiSpec
    write_roi: RoiSpec
    process_function: Any
    """A function or class of a block, a worker of no argument, or None where `command` is given."""
    before: Any
    """Check function that skips finished blocks, or None."""
    after: Any
    """Check function that fails unfinished blocks, or None."""
    read_write_conflict: bool
    num_workers: int | None
    max_retries: int
    fit: Any
    params: dict[str, Any] = field(default_factory=dict)
    timeout_s: float | None = None
    pool: str = "default"
    command: tuple[str, ...] | None = None


class Task:
    """A step of a pipeline: override `prepare`, which calls `schedule`, and `requires` where it needs other tasks.

    ``Task(task_id=None, global_config=None, **parameters)``: a keyword beats ``global_config[task_id]`` beats the
    parameter's default. Raises SpecError (a RuntimeError) for an unknown or missing parameter.
    """

    log_to_files = Parameter(default=False)
    """Whether each worker of this task writes files of its own into the run's log folder."""
    log_to_stdout = Parameter(default=True)
    """Whether what workers print is shown."""

    task_id: str
    _schedule: Schedule | None = None

    def __init__(
        self,
        task_id: str | None = None,
        global_config: Mapping[str, Mapping[str, Any]] | None = None,
        **parameters: Any,
    ) -> None:
        self.task_id = task_id or type(self).__name__
        self.global_config = global_config
        known = parameters_of(type(self))
        configured = (global_config or {}).get(self.task_id) or {}
        for given, origin in ((configured, "global_config"), (parameters, "its arguments")):
            for name in given:
                if name not in known:
                    raise SpecError(f"task '{self.task_id}' has no parameter '{name}' ({origin}){nearest(name, known)}")
        for name, parameter in known.items():
            value = parameters.get(name, configured.get(name, UNDEFINED))
            value = parameter.value() if value is UNDEFINED else value
            if value is UNDEFINED:
                raise SpecError(
                    f"task '{self.task_id}' needs a value for its parameter '{name}', which has no default; write"
                    f" {type(self).__name__}({name}=...)"
                )
            setattr(self, name, value)

    # --- for tasks to override -------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Get ready and call `schedule`; runs once, after `prepare` of the tasks this one requires."""
        raise SpecError(
            f"task '{self.task_id}': {type(self).__name__} has no prepare(), which must call self.schedule()"
        )

    def requires(self) -> Iterable[Task]:
        """Give the tasks whose blocks this one reads."""
        return []

    def cleanup(self) -> None:
        """Tidy up; runs once when no block of the task will run any more, whatever became of them."""

    def _periodic_callback(self) -> None:
        """Do what should be done from time to time; runs with every status report (10 s)."""

    # --- for tasks to call -----------------------------------------------------------------------------------

    def schedule(
        self,
        total_roi: Roi | RoiSpec,
        read_roi: Roi | RoiSpec,
        write_roi: Roi | RoiSpec,
        process_function: Callable[..., Any] | tuple[Callable[..., Any], Sequence[Any]] | str | None = None,
        check_function: Callable[..., Any] | Sequence[Callable[..., Any] | None] | str | None = None,
        read_write_conflict: bool = True,
        num_workers: int | None = 1,
        max_retries: int = 2,
        fit: str = "valid",
        *,
        params: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        pool: str = "default",
        command: Sequence[str] | None = None,
    ) -> None:
        """Say what the blocks of this task are and what runs for each; the names are those of the pipeline file.

        `process_function` takes a block, or nothing: then it is a worker of the user's own. `check_function` is one
        function, or a pair (before, after). What follows `fit` is beyond 0.2. Raises SpecError for what has no meaning
        at all; the rest is checked with the pipeline.
        """
        before, after = _pair(check_function, self.task_id)
        self._schedule = Schedule(
            total_roi=roi_spec(total_roi, f"total_roi of task '{self.task_id}'"),
            read_roi=roi_spec(read_roi, f"read_roi of task '{self.task_id}'"),
            write_roi=roi_spec(write_roi, f"write_roi of task '{self.task_id}'"),
            process_function=_block_function(process_function),
            before=before,
            after=after,
            read_write_conflict=bool(read_write_conflict),
            num_workers=None if num_workers is None else _whole(num_workers, f"task '{self.task_id}': num_workers"),
            max_retries=_whole(max_retries, f"task '{self.task_id}': max_retries"),
            fit=fit,
            params=dict(params or {}),
            timeout_s=timeout_s,
            pool=pool,
            command=None if command is None else tuple(command),
        )

    @property
    def scheduled(self) -> Schedule:
        """What `prepare` has scheduled. Raises SpecError before."""
        if self._schedule is None:
            raise SpecError(f"task '{self.task_id}': its prepare() has not called self.schedule(), so it has no blocks")
        return self._schedule

    def __getstate__(self) -> dict[str, Any]:
        """Leave the schedule behind when a bound method is pickled: its other functions need not be picklable."""
        return {name: value for name, value in vars(self).items() if name != "_schedule"}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(task_id={self.task_id!r})"


def parameters_of(task_class: type) -> dict[str, Parameter]:
    """Give the parameters of a task class by name, inherited ones included; what a derived class says holds.

    A plain value that a derived class puts in the place of a parameter is its new default.
    """
    found: dict[str, Parameter] = {}
    for base in reversed(task_class.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, Parameter):
                found[name] = value
            elif name in found and not hasattr(value, "__get__"):
                found[name] = Parameter(default=value)
            elif name in found:
                del found[name]
    return found


# ----- values of a schedule ---------------------------------------------------------------------------------------


def roi_spec(roi: Any, what: str) -> RoiSpec:
    """Give the integers of a Roi. Raises SpecError, in which `what` names it, for anything else or no bounds."""
    try:
        offset, shape = tuple(roi.offset), tuple(roi.shape)
    except (AttributeError, TypeError):
        raise SpecError(f"{what} must be a Roi, not {roi!r}") from None
    if None in shape or None in offset:
        raise SpecError(f"{what} is {roi}, which has no bounds; give an offset and a shape for each axis")
    return RoiSpec(tuple(int(x) for x in offset), tuple(int(x) for x in shape))


def _whole(value: Any, what: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise SpecError(f"{what} is {value!r}; it must be a whole number") from None


def _pair(check: Any, task_id: str) -> tuple[Any, Any]:
    """Give (before, after) of a check function or a pair of them."""
    if check is None or callable(check) or isinstance(check, str):
        return check, check
    try:
        before, after = check
    except (TypeError, ValueError):
        raise SpecError(
            f"check_function of task '{task_id}' must be a function or a pair (before, after), not {check!r}"
        ) from None
    return before, after


@dataclass(frozen=True, slots=True)
class WithArguments:
    """The pair (function, arguments) of 0.2 as one function of a block."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    def __call__(self, block: Any) -> Any:
        """Call the function with the block first."""
        return self.function(block, *self.arguments)


def _block_function(function: Any) -> Any:
    if isinstance(function, tuple) and len(function) == 2 and callable(function[0]):
        return WithArguments(function[0], tuple(function[1]))
    return function


# ----- from tasks to a run ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ResolvedRun:
    """A run, ready to be started."""

    run: RunSpec
    """Its tasks in an order in which each comes after those it requires."""
    tasks: dict[str, Task]
    """The instance of each task id, for its hooks and its parameters; empty for a pipeline file."""


def resolve(tasks: Pipeline | Task | Iterable[Any], pickle_dir: str | None, *, name: str | None = None) -> ResolvedRun:
    """Give the run that ``distribute(tasks)`` asks for, checked; `prepare` has run once for each task.

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
        """Give the run. Its specification is checked before the first function is pickled: bad input leaves nothing."""
        validate_run(self._run(lambda _function, _what: "not.yet:named"))
        return ResolvedRun(self._run(lambda function, what: _refer(function, what, pickle_dir)), dict(self.tasks))

    def resolve_here(self) -> ResolvedRun:
        """Give the run for this process alone: functions stay the objects that `tasks` hold, nothing is pickled."""
        run = self._run(lambda function, _: function if isinstance(function, str) else "this.process:function")
        validate_run(run)
        return ResolvedRun(run, dict(self.tasks))

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
    """Give the specification of a task that has been prepared; ``refer(function, what)`` names its functions."""
    plan, what = task.scheduled, f"of task '{task.task_id}'"
    code: dict[str, Any] = {}
    if plan.command is None or plan.process_function is not None:
        own = is_own_worker(_loaded(plan.process_function))
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
        requires=requires,
        **code,
    )


def _loaded(function: Any) -> Any:
    return load_function(function, pickle_dir=None) if isinstance(function, str) else function


def _refer(function: Any, what: str, pickle_dir: str | None) -> str:
    try:
        return reference_of(function, pickle_dir)
    except SpecError as error:
        raise SpecError(f"{what}: {error}") from error


def _target(item: Any) -> tuple[Task, Any]:
    """Give (task, request or None) of one entry of the list that `distribute` takes."""
    if isinstance(item, Task):
        return item, None
    if not isinstance(item, Mapping):
        raise SpecError(f"a target must be a task or {{'task': task, 'request': [Roi, ...]}}, not {item!r}")
    for key in item:
        if key not in ("task", "request"):
            raise SpecError(f"a target has no field '{key}'{nearest(str(key), ('task', 'request'))}")
    task = item.get("task")
    if not isinstance(task, Task):
        example = f"; write {task.__name__}(...)" if isinstance(task, type) else ""
        raise SpecError(f"the 'task' of a target must be an instance of a task, not {task!r}{example}")
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
        names: dict[str, Any] = {}
        return task_spec(task, tuple(self._requires_of[id(task)]), lambda function, _: _identity(function, names))


def _identity(function: Any, _names: dict[str, Any]) -> str:
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
            raise SpecError(f"requires() of task '{task.task_id}' must give instances of tasks, not {other!r}")
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
                f"two different tasks have the id '{task.task_id}': {name} is {theirs.get(name)!r} in one and"
                f" {ours.get(name)!r} in the other; give one of them another task_id"
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
    for name in ours.__struct_fields__:
        if getattr(ours, name) != getattr(theirs, name):
            raise SpecError(
                f"two different tasks have the id '{task.task_id}': {_class_name(task)} and {_class_name(other)}, whose"
                f" {name} differ ({getattr(ours, name)} and {getattr(theirs, name)}); give one of them another task_id"
            )


def _class_name(task: Task) -> str:
    return f"{type(task).__module__}.{type(task).__qualname__}"

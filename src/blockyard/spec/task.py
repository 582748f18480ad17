"""Tasks as Python classes: parameters, hooks, and what a task schedules.

The interface is that of release 0.2 of the field's common library, so that its users feel at home::

    class Smooth(Task):
        source = Parameter()
        sigma = Parameter(default=1.0)

        def requires(self):
            return [Denoise(source=self.source)]

        def prepare(self):
            self.schedule(total_roi, read_roi, write_roi, process_function=self.smooth_block)

`blockyard.spec.resolve` makes a run of them.
"""

from __future__ import annotations

import copy
import enum
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, overload

import msgspec
import numpy as np
from funlib.geometry import Roi

from blockyard.spec.errors import SpecError, brief, nearest
from blockyard.spec.given import plain, seconds, text, whole
from blockyard.spec.model import ArraySpec, RoiSpec
from blockyard.spec.rois import roi_spec


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
        """Return the parameter itself on a class. Instances hold values of their own, set by `Task.__init__`."""
        if instance is None:
            return self
        raise AttributeError(f"parameter '{self.name}' of {owner.__name__} has no value before Task.__init__() has run")

    def value(self) -> Any:
        """Return the default, a list, dict or set as a copy, so that no two instances share one."""
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
    submits: bool = False
    reads: dict[str, str | ArraySpec] = field(default_factory=dict)
    writes: dict[str, str | ArraySpec] = field(default_factory=dict)
    block: Sequence[int] | None = None
    halo: Sequence[int] = ()


OF_DAISY_1 = {"total_roi", "read_roi", "write_roi", "process_function", "upstream_tasks", "init_callback_fn"}
"""Arguments of a task of daisy 1.x and 2.0."""
DAISY_1 = (
    "that is how tasks of daisy 1.x and 2.0 are made, and blockyard has the API of daisy 0.2; derive a class from"
    " blockyard.Task, call self.schedule(total_roi, read_roi, write_roi, process_function, ...) in prepare(), return"
    " upstream tasks from requires(), and run it by blockyard.distribute([{'task': task}]); or call"
    " blockyard.run_blockwise(total_roi, read_roi, write_roi, process_function, ...) for one task. docs/from-daisy.md"
    " says more"
)
"""What a script for daisy 1.x or 2.0 has to change."""


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
        *of_daisy_1: object,
        **parameters: Any,
    ) -> None:
        if of_daisy_1 or not (global_config is None or isinstance(global_config, Mapping)):
            raise SpecError(f"task '{task_id}' has more than an id, a global_config and parameters: {DAISY_1}")
        self.task_id = text(task_id) or type(self).__name__
        self.global_config = global_config
        known = parameters_of(type(self))
        configured = (global_config or {}).get(self.task_id) or {}
        for given, origin in ((configured, "global_config"), (parameters, "its arguments")):
            for name in given:
                if name not in known and name in OF_DAISY_1:
                    raise SpecError(f"task '{self.task_id}' has no parameter '{name}': {DAISY_1}")
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
        """Return the tasks whose blocks this one reads."""
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
        submits: bool = False,
        reads: Arrays | None = None,
        writes: Arrays | None = None,
        block: Sequence[int] | None = None,
        halo: Sequence[int] = (),
    ) -> None:
        """Say what the blocks of this task are and what runs for each; the names are those of the pipeline file.

        `process_function` takes a block, or nothing: then it is a worker of the user's own; with `submits` one that
        submits a job, which drives the Client later, and returns. `check_function` is one function, or a pair (before,
        after). What follows `fit` is beyond 0.2; `reads` and `writes` are arrays by name; `block`
        and `halo` are for `map_blocks`, whose ROIs follow from the arrays.
        Raises SpecError for what has no meaning at all; the rest is checked with the pipeline.
        """
        before, after = _pair(check_function, self.task_id)
        task = f"task '{self.task_id}'"
        self._schedule = Schedule(
            total_roi=roi_spec(total_roi, f"total_roi of task '{self.task_id}'"),
            read_roi=roi_spec(read_roi, f"read_roi of task '{self.task_id}'"),
            write_roi=roi_spec(write_roi, f"write_roi of task '{self.task_id}'"),
            process_function=_process(process_function, command, self.task_id),
            before=before,
            after=after,
            read_write_conflict=bool(read_write_conflict),
            num_workers=None if num_workers is None else whole(num_workers, f"{task}: num_workers"),
            max_retries=whole(max_retries, f"{task}: max_retries"),
            fit=text(fit),
            params=_params(params, f"{task}, params"),
            timeout_s=None if timeout_s is None else seconds(timeout_s, f"{task}: timeout_s"),
            pool=text(pool),
            command=None if command is None else _command(command, f"{task}, command"),
            submits=bool(submits),
            reads=_arrays(reads, f"{task}, reads"),
            writes=_arrays(writes, f"{task}, writes"),
            block=block,
            halo=halo,
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
    """Return the parameters of a task class by name, inherited ones included; what a derived class says holds.

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


def _params(params: Any, what: str) -> dict[str, Any]:
    if params is None:
        return {}
    if not isinstance(params, Mapping):
        raise SpecError(f"{what} is {brief(params)}; it must be a dict of keyword arguments")
    given: dict[str, Any] = plain(params, what)
    return given


ArrayPath: TypeAlias = str | os.PathLike[str] | Mapping[str, Any]
"""An array: a path or URL, or a mapping of the fields of `ArraySpec`."""
Arrays: TypeAlias = Mapping[str, ArrayPath]
"""Arrays by name."""


def _arrays(given: Any, what: str) -> dict[str, str | ArraySpec]:
    """Return declared arrays as a pipeline file has them. Raises SpecError, in which `what` names them."""
    arrays = _params(given, what)
    known = ArraySpec.__struct_fields__
    for name, array in arrays.items():
        for key in array if isinstance(array, dict) else ():
            if key not in known:
                raise SpecError(f"{what}: '{name}' has an unknown field '{key}'{nearest(str(key), known)}")
        if isinstance(array, dict) and isinstance(array.get("dtype"), type | np.dtype):
            array["dtype"] = np.dtype(array["dtype"]).name
    try:
        return msgspec.convert(arrays, dict[str, str | ArraySpec])
    except msgspec.ValidationError as error:
        raise SpecError(f"{what}: {error}") from None


def _command(command: Any, what: str) -> tuple[str, ...]:
    """Return the words of a command: texts and paths."""
    words = [] if isinstance(command, str | bytes) or not isinstance(command, Iterable) else list(command)
    taken = [os.fspath(word) if isinstance(word, os.PathLike) else text(word) for word in words]
    if not taken or not all(isinstance(word, str) for word in taken):
        raise SpecError(f"{what} is {brief(command)}; it must be a list of a program and its arguments, each text")
    return tuple(taken)


def _pair(check: Any, task_id: str) -> tuple[Any, Any]:
    """Return (before, after) of a check function or a pair of them."""
    if check is None or callable(check) or isinstance(check, str):
        return check, check
    try:
        before, after = check
    except (TypeError, ValueError):
        raise SpecError(
            f"check_function of task '{task_id}' must be a function or a pair (before, after), not {brief(check)}"
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


def _process(function: Any, command: Any, task_id: str) -> Any:
    if isinstance(function, tuple) and len(function) == 2 and callable(function[0]):
        return WithArguments(function[0], tuple(function[1]))
    if callable(function) or isinstance(function, str) or (function is None and command is not None):
        return function
    raise SpecError(f"the process_function of task '{task_id}' must be a function, not {brief(function)}")

"""From a task to one callable of a block: its function, class or program, with its checks around it.

The same rules hold in a slot, in a user's own worker and in a serial run: who runs a block calls `block_call(task)`
once and the result for each block, and learns what became of it from the value and the exception::

    None, or anything else    success, where `failure_of` finds nothing in it or in the status that user code set
    1                         failed (the integer; True is not 1 here)
    a coroutine, a generator  failed: nothing of it has run
    an enum                   what its name says, of `MEANINGS`; failed where that has no meaning here
    SKIPPED                   the check said that the block was done already
    an exception              failed; FatalBlockError: failed, and trying again cannot help
"""

from __future__ import annotations

import enum
import functools
import inspect
import json
import logging
import numbers
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from funlib.geometry import Roi

from blockyard.arrays.opened import TaskArrays
from blockyard.client import main_module, remarks
from blockyard.client.binding import Bound, bind
from blockyard.client.forked import OneProcess
from blockyard.spec.block import Block
from blockyard.spec.errors import BlockyardError, SpecError, brief
from blockyard.spec.functions import PICKLE, load_function
from blockyard.spec.model import CheckSpec, TaskSpec, declared
from blockyard.spec.pickles import name_of
from blockyard.spec.randomness import SeededGlobals, random_sources, said_of, seeding
from blockyard.spec.unrun import unrun_function, unrun_result
from blockyard.wire.messages import LONGEST_KIND, LONGEST_MESSAGE, LONGEST_TRACEBACK
from blockyard.wire.text import bounded, one_line

Call: TypeAlias = Callable[[Block], Any]

STDERR_LINES = 40

log = logging.getLogger("blockyard")


class Skipped:
    """The type of `SKIPPED`."""


SKIPPED = Skipped()
"""What a call gives for a block that its check found done."""


class BlockFailedError(BlockyardError):
    """A block failed in a way that has no exception of the user's; `kind` and `details` go into its BlockError."""

    def __init__(self, kind: str, message: str, details: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.details = details


MEANINGS = {
    "success": ("success", "succeeded", "successful", "ok", "done", "complete", "completed", "finished", "skipped"),
    "failure": ("failed", "failure", "fail", "error", "fatal", "killed", "aborted", "cancelled", "canceled", "timeout"),
}
"""What statuses are called, in any case: every library has an enum of its own."""
_FAILURE = "which means failure"
_NO_MEANING = "which has no meaning here; give 0 or SUCCESS, or 1 or FAILED"
_FINISH = "so what it stands for is not done; run it to its end (asyncio.run, a loop, .result()) and return nothing"


def failure_of(result: object, status: object = None) -> BlockFailedError | None:
    """Return what failed a block whose function returned `result` and had set the block's `status`; None: nothing.

    >>> [failure_of(value) is None for value in (0, None, True, 1.0, "1", 1, np.int64(1), (_ for _ in ()))]
    [True, True, True, True, True, False, False, False]
    """
    if isinstance(result, enum.Enum):
        failure = _failure_of_name(result.name, "returned", f"it returned {_member(result)}")
    elif isinstance(result, numbers.Integral) and not isinstance(result, bool):
        failed = int(result) == 1
        failure = BlockFailedError("returned", f"it returned {result!r}, {_FAILURE}") if failed else None
    else:
        unrun = None if result is None else unrun_result(result)
        failure = BlockFailedError("returned", f"it returned {unrun}, {_FINISH}") if unrun else None
    return failure or failure_of_status(status)


def failure_of_status(status: object) -> BlockFailedError | None:
    """Return what failed a block of this status: 0, None and a bool are success, any other number is failure.

    An enum or a text is what its name says (`MEANINGS`). What has no meaning is a failure that says so.
    """
    if status is None or isinstance(status, bool | np.bool_):
        return None
    if isinstance(status, enum.Enum):
        return _failure_of_name(status.name, "status", f"the block ended with status {_member(status)}")
    said = f"the block ended with status {brief(status)}"
    if isinstance(status, str):
        return _failure_of_name(status, "status", said)
    if isinstance(status, numbers.Real):
        return BlockFailedError("status", f"{said}, {_FAILURE}") if status else None
    if (unrun := unrun_result(status)) is not None:
        return BlockFailedError("status", f"the block ended with {unrun} as its status, {_FINISH}")
    return BlockFailedError("status", f"{said}, {_NO_MEANING}")


def _failure_of_name(name: str | None, kind: str, said: str) -> BlockFailedError | None:
    meaning = next((key for key, names in MEANINGS.items() if str(name).lower() in names), None)
    if meaning == "success":
        return None
    return BlockFailedError(kind, f"{said}, {_FAILURE if meaning else _NO_MEANING}")


def _member(member: enum.Enum) -> str:
    return f"{type(member).__name__}.{member.name}"


class LoadedTask(NamedTuple):
    """What runs the blocks of a task."""

    call: Call
    """Runs one block, checks and all."""
    functions: tuple[Any, ...]
    """The user's own that it calls."""


def block_call(task: TaskSpec, pickle_dir: str | None) -> Call:
    """Return the callable that runs one block of `task`, checks and all; see `load_task`."""
    return load_task(task, pickle_dir).call


def load_task(task: TaskSpec, pickle_dir: str | None) -> LoadedTask:
    """Return what runs the blocks of `task`.

    Imports user code, and builds a class given as function. Raises what the user's module or class raises, and
    SpecError for a reference that names nothing.
    """
    arrays = TaskArrays(task)
    with SEEDED.watching():
        command = _command_call(task) if task.command is not None else None
        call, function = Bound(command, command) if command else _function_call(task, pickle_dir, arrays)
        checks = load_checks(task, pickle_dir, arrays)
    functions = (*(() if command else (function,)), *(checks.functions if checks is not None else ()))
    drawn = random_sources(*functions) + SEEDED.sources if functions else []
    if drawn and not inspect.isroutine(getattr(function, "func", function)):  # of a function it was said before the run
        log.warning("task '%s': %s", task.id, said_of(drawn))
    return LoadedTask(seeding(checks.around(call) if checks is not None else call, drawn), functions)


SEEDED = SeededGlobals()
"""Random generators of this process that the user code seeded which was loaded here."""


def _function_call(task: TaskSpec, pickle_dir: str | None, arrays: TaskArrays) -> Bound:
    if task.map is not None:
        from blockyard.arrays.mapped import run_mapped

        function = _load(task.map, pickle_dir)
        bound = bind(functools.partial(run_mapped, function, task.params, task.pad), {}, arrays)
        return Bound(bound.call, function)
    if task.function is None:
        raise SpecError(f"task '{task.id}' has no function; its worker drives a Client itself")
    return bind(_load(task.function, pickle_dir), task.params, arrays)


def _load(reference: str, pickle_dir: str | None) -> Any:
    function = load_function(reference, pickle_dir=pickle_dir)
    main_module.show(function)
    if (fault := unrun_function(function)) is not None:  # a run on a cluster is not checked before it starts
        raise SpecError(f"{name_of(function) if reference.startswith(PICKLE) else repr(reference)} {fault}")
    return function


# ----- checks -------------------------------------------------------------------------------------------------------


MISTAKES = (TypeError, NameError, AttributeError, ImportError, SyntaxError, NotImplementedError)
"""What a check raises that is wrong; others may be how it finds that nothing is there (FileNotFoundError, KeyError)."""


class Checks:
    """A task's check functions; each takes a block, and those of the task's parameters that it has names for."""

    def __init__(self, before: Call | None, after: Call | None, functions: Sequence[Any] = ()) -> None:
        self._before = before
        self._after = after
        self.functions = functions
        """The user's own that these call."""
        self._has_raised = False

    def is_done(self, block: Block) -> bool:
        """Tell whether the `before` check finds the block done; an exception in it means that it is not.

        Raises BlockFailedError where what it returns is no answer, and true whatever it found.
        """
        if self._before is None:
            return False
        try:
            with OneProcess():
                found = self._before(block)
            return _is_true(found, "before") if found else False
        except BlockFailedError:
            raise
        except Exception as error:  # noqa: BLE001 - the check of a block whose output is missing may fail in any way
            self._raised(block, error)
            return False

    def _raised(self, block: Block, error: Exception) -> None:
        """Say once that the check before a block raises: one that always does skips nothing, and nobody would know."""
        if self._has_raised:
            return
        self._has_raised = True
        kind, message, frames = describe_exception(error)
        text = (
            f"task '{block.task_id}': the check before block {list(block.index)} raised {kind}: {message}; such a block"
            " counts as not done, and runs. Of further blocks this is not said"
        )
        log.warning("%s\n%s", text, frames)
        if isinstance(error, MISTAKES):
            remarks.new.append(text)

    def confirm(self, block: Block) -> None:
        """Raise BlockFailedError where the `after` check does not find the block done, or what the check raises."""
        if self._after is not None and not _is_true(self._after(block), "after"):
            raise BlockFailedError("check", "the check after the block says that it is not done")

    def around(self, call: Call) -> Call:
        """Return `call` with the checks before and after it."""

        def checked(block: Block) -> Any:
            if self.is_done(block):
                return SKIPPED
            with OneProcess():
                result = call(block)
            if failure_of(result, block.status) is None:
                self.confirm(block)
            return result

        return checked


def _is_true(found: object, name: str) -> bool:
    """Tell whether a check's answer is true. Raises BlockFailedError for what is true although nobody has looked."""
    what = unrun_result(found)
    if what is None and inspect.isroutine(found):
        what = f"the function '{getattr(found, '__qualname__', found)}' itself"
    if what is not None:
        raise BlockFailedError("check", f"the check {name} the block returned {what}, which is true whatever it finds")
    return bool(found)


def load_checks(task: TaskSpec, pickle_dir: str | None, arrays: TaskArrays) -> Checks | None:
    """Return the checks of a task, or None where it has none. Raises SpecError for a reference that names nothing."""
    spec = task.check
    if spec is None:
        return None
    pair = spec if isinstance(spec, CheckSpec) else CheckSpec(spec, spec)
    loaded = {
        reference: bind(_load(reference, pickle_dir), task.params, arrays, by_name=True)
        for reference in (pair.before, pair.after)
        if reference is not None
    }
    before, after = (None if at is None else loaded[at].call for at in (pair.before, pair.after))
    return Checks(before, after, [check.function for check in loaded.values()])


# ----- programs -----------------------------------------------------------------------------------------------------


def block_json(block: Block, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a block as a program gets it on standard input: plain integers, half-open boxes, array axis order."""
    return {
        "task_id": block.task_id,
        "block_id": block.block_id,
        "index": list(block.index),
        "read_roi": _roi_json(block.read_roi),
        "write_roi": _roi_json(block.write_roi),
        "attempt": block.attempt,
        "params": dict(params),
    }


def _roi_json(roi: Roi) -> dict[str, list[int]]:
    return {"offset": [int(x) for x in roi.offset], "shape": [int(x) for x in roi.shape]}


def _command_call(task: TaskSpec) -> Call:
    assert task.command is not None
    command = list(task.command)
    paths = {
        kind: {name: declared(array).path for name, array in arrays.items()}
        for kind, arrays in (("reads", task.reads), ("writes", task.writes))
        if arrays
    }

    def run(block: Block) -> None:
        with tempfile.TemporaryFile() as stdin:  # a file: a program that never reads it cannot block us
            stdin.write(json.dumps(block_json(block, task.params) | paths).encode())
            stdin.seek(0)
            try:
                process = subprocess.Popen(command, stdin=stdin, stderr=subprocess.PIPE, text=True, errors="replace")
            except OSError as error:
                raise BlockFailedError("command", f"'{command[0]}' cannot be started: {error.strerror}") from error
        with process:
            tail = _forward(process)
        if process.returncode != 0:
            raise _command_failed(command[0], process.returncode, tail)

    return run


def _forward(process: subprocess.Popen[str]) -> deque[str]:
    """Copy a program's standard error to ours as it comes; give its last lines."""
    tail: deque[str] = deque(maxlen=STDERR_LINES)
    assert process.stderr is not None
    for line in process.stderr:
        sys.stderr.write(line)
        tail.append(line)
    return tail


def _command_failed(program: str, status: int, tail: deque[str]) -> BlockFailedError:
    ended = f"ended with exit status {status}" if status > 0 else f"was killed by {signal_name(-status)}"
    last = next((line.strip() for line in reversed(tail) if line.strip()), "")
    message = f"'{program}' {ended}" + (f": {last}" if last else "")
    return BlockFailedError("exit" if status > 0 else "signal", bounded(message, LONGEST_MESSAGE), "".join(tail))


# ----- errors as text -----------------------------------------------------------------------------------------------


def signal_name(number: int) -> str:
    """Return ``SIGKILL`` for 9, or ``signal 77`` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def describe_exception(error: BaseException) -> tuple[str, str, str]:
    """Return kind, message and traceback of an exception of user code, of bounded length, without our frames."""
    if isinstance(error, BlockFailedError):
        return _bounded(error.kind, str(error), error.details)
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - an exception whose text cannot be made must not hide that the block failed
        message = ""
    if isinstance(error, SystemExit):
        message = f"the function ended its program: sys.exit({message})"
    elif isinstance(error, KeyboardInterrupt) and not message:
        message = "the function raised KeyboardInterrupt itself: no signal came to its process"
    kind = type(error).__name__
    frames = error.__traceback__
    while frames is not None and _is_ours(frames.tb_frame.f_globals.get("__package__")):
        frames = frames.tb_next
    shown = error.with_traceback(frames)
    text = "".join(traceback.format_exception(type(shown), shown, frames))
    return _bounded(kind, message or kind, text)


def _bounded(kind: str, message: str, details: str) -> tuple[str, str, str]:
    return (
        bounded(one_line(kind), LONGEST_KIND),
        bounded(message, LONGEST_MESSAGE),
        bounded(details, LONGEST_TRACEBACK),
    )


def _is_ours(package: str | None) -> bool:
    return (package or "").partition(".")[0] in ("blockyard", "blockyard_worker")

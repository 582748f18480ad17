"""Is the user code that a pipeline names there, and can it be called as it will be?

The only way to know whether a module can be imported is to import it, which runs it. So `python -m` of this module does
it in a process of its own (`blockyard.local.preflight` starts that), where nothing of it stays behind.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from blockyard.spec.errors import NotImportableError, SpecError, nearest
from blockyard.spec.functions import PICKLE, has_call, is_own_worker, load_function
from blockyard.spec.model import PipelineSpec, TaskSpec
from blockyard.spec.module_path import join_folders, search_in, split_folders
from blockyard.spec.pickles import name_of
from blockyard.spec.randomness import SeededGlobals, random_sources, said_of
from blockyard.spec.unrun import unrun_function
from blockyard.spec.validate import Where, code_references

BAD = 2
"""Exit status when the fault is on standard output."""


def check_functions(pipeline: PipelineSpec, module_path: Sequence[str]) -> list[str]:
    """Import all user code that a pipeline names, as a worker would, and see that it can be called as it will be.

    Return what should be known of it: random numbers that each worker would draw alike. Runs the modules' code in this
    process, with `module_path` put before what is installed. Raises SpecError that names task, field, function and
    where it was looked for, with the nearest name there is. Pickles of a local run are passed over.
    """
    said: dict[str, list[str]] = {}
    seeded = SeededGlobals()
    with _searching(module_path):
        for number, task in enumerate(pipeline.tasks):
            functions: list[Any] = []
            with seeded.watching():
                for name, reference in code_references(task):
                    if not reference.startswith(PICKLE):
                        functions.append(_check(task, name, reference, ("tasks", number, *name.split("."))))
            if functions and (found := random_sources(*functions) + seeded.sources):
                said.setdefault(said_of(found), []).append(task.id)
    return [f"{_named(task_ids)}: {sentence}" for sentence, task_ids in said.items()]


def _named(task_ids: Sequence[str]) -> str:
    more = f" and {len(task_ids) - 1:,} more" if len(task_ids) > 1 else ""
    return f"task '{task_ids[0]}'{more}"


def call_fault(found: Any, name: str, params: Mapping[str, Any], arrays: Iterable[str] = ()) -> str | None:
    """Say why ``found`` cannot be called as field `name` of a task calls it, or None where it can or nobody knows.

    `arrays` are the names of the arrays of its task, which are given where there is an argument of that name.
    """
    if (fault := unrun_function(found)) is not None:
        return fault
    if inspect.isabstract(found):
        return "is an abstract class, of which no instance can be built"
    if name == "worker" and isinstance(found, functools.partial) and has_call(found.func):
        return f"is a partial of a class: it builds {name_of(found.func)}, and nothing calls that; give an instance"
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return None
    if name == "worker":
        return None if is_own_worker(found) else "takes arguments, but a worker is called without any; use function"
    params = {**params, **{array: None for array in arrays if array in signature.parameters}}
    if isinstance(found, type) and not has_call(found):
        return "is a class without __call__(self, block): it is built once a slot, and then called with each block"
    if name != "function":
        return _bind_fault(signature, found, {key: params[key] for key in params if key in signature.parameters})
    if is_own_worker(found):
        return "takes no block, but a function is called with one; use worker if it drives a Client itself"
    return _bind_fault(signature, found, params)


def _check(task: TaskSpec, name: str, reference: str, where: Where) -> Any:
    try:
        function = load_function(reference, pickle_dir=None)
        if name == "map":  # called with arrays, as its own library says
            return function
        fault = call_fault(function, name, task.params, task.arrays)
    except SpecError as error:
        raise type(error).at(where, f"task '{task.id}', {name}: {error}") from error
    if fault is not None:
        raise SpecError.at(where, f"task '{task.id}', {name}: '{reference}' {fault}")
    return function


def _bind_fault(signature: inspect.Signature, found: Any, params: Mapping[str, Any]) -> str | None:
    """Bind ``(block, **params)``, or ``(**params)`` to build a class."""
    args = () if isinstance(found, type) else (None,)
    takes = list(signature.parameters.values())
    known = [parameter.name for parameter in takes if parameter.kind is not parameter.POSITIONAL_ONLY][len(args) :]
    for key in params:
        if key not in known and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes):
            return f"has no parameter '{key}', which params gives{nearest(key, known)}"
    try:
        signature.bind(*args, **params)
    except TypeError as error:
        return f"cannot be called as ({', '.join([*['block'] * len(args), *params])}): {error}"
    return None


@contextmanager
def _searching(folders: Sequence[str]) -> Iterator[None]:
    before = list(sys.path), list(sys.meta_path)
    search_in(folders)
    try:
        yield
    finally:
        sys.path[:], sys.meta_path[:] = before


# ----- in a process of its own ------------------------------------------------------------------------------------


def question(pipeline: PipelineSpec, module_path: Sequence[str]) -> bytes:
    """Return the standard input of ``python -m blockyard.spec.user_code``."""
    return msgspec.json.encode((pipeline, join_folders(module_path)))


def fault_in(answer: bytes) -> SpecError | None:
    """Return the fault that it wrote on its standard output before it ended with status `BAD`; None: it wrote none."""
    try:
        where, message, importable = msgspec.json.decode(answer, type=tuple[tuple[str | int, ...], str, bool])
    except (msgspec.DecodeError, ValueError):
        return None
    return (SpecError if importable else NotImportableError).at(where, message)


def said_in(answer: bytes) -> list[str]:
    """Return the sentences that it wrote there where it found no fault."""
    return msgspec.json.decode(answer or b"[]", type=list[str])


def main() -> int:
    """Answer the question on standard input."""
    pipeline, folders = msgspec.json.decode(sys.stdin.buffer.read(), type=tuple[PipelineSpec, str])
    answer = os.dup(1)
    os.dup2(2, 1)  # user code may print when it is imported
    try:
        said = check_functions(pipeline, split_folders(folders))
    except SpecError as error:
        importable = not isinstance(error, NotImportableError)
        os.write(answer, msgspec.json.encode((error.where, str(error), importable)))
        return BAD
    os.write(answer, msgspec.json.encode(said))
    return 0


if __name__ == "__main__":
    sys.exit(main())

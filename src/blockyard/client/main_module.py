"""`__main__` in a process of ours that runs functions of a user's script: that script's.

Python pickles a function by the name of its module, and one of a script is `__main__.name`. So a `multiprocessing.Pool`
in a block, or anything else that pickles, looks in `__main__`, where in our process nothing of the script would be.
Processes that are started afresh (``spawn``, ``forkserver``) run the script's file, as they do without us.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from blockyard.spec.pickles import MAIN

_kept: list[types.ModuleType] = []
"""The module that this process was started with: its functions run."""


def take() -> None:
    """Make room, in a process of ours, before user code runs."""
    _kept.append(sys.modules["__main__"])
    show()


def show(*functions: Any) -> None:
    """Have `__main__` hold what these functions brought along of their script; nothing where this is that script."""
    if not _kept:
        return
    module = types.ModuleType("__main__")
    for names in _namespaces(functions):
        vars(module).update(names)
    file, package = vars(module).get("__file__"), vars(module).get("__package__")
    if not (isinstance(file, str) and Path(file).is_file()):  # a notebook's, or none at all
        vars(module).pop("__file__", None)
    module.__spec__ = ModuleSpec(f"{package}.{Path(file).stem}", None) if file and package else None
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module  # what spawned processes call it


def _namespaces(functions: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    """Yield the global names of functions of a script, however they are wrapped."""
    waiting, seen = list(functions), set()
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, types.FunctionType):
            if thing.__globals__.get("__name__") in MAIN:
                yield thing.__globals__
                yield {thing.__name__: thing} if thing.__qualname__ == thing.__name__ else {}
        elif isinstance(thing, types.MethodType):
            waiting += [thing.__func__, type(thing.__self__)]
        elif isinstance(thing, functools.partial):
            waiting.append(thing.func)
        elif not isinstance(thing, type):
            waiting.append(type(thing))
        elif thing.__module__ in MAIN:
            yield {thing.__name__: thing}
            waiting += [value for value in vars(thing).values() if isinstance(value, types.FunctionType)]
            waiting += thing.__bases__
        waiting += [inner] if (inner := getattr(thing, "__wrapped__", None)) is not None else []

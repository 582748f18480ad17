"""Code that a call does not run: coroutine and generator functions, and the objects that they return.

Calling ``async def f`` or a function with ``yield`` runs nothing of its body and raises nothing, so a block would be
done that nobody worked on. What is certain of a function is said before anything runs (`unrun_function`); the rest
shows in what it returns (`unrun_result`), for a plain function may return the coroutine of another, or may drive it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Generator
from contextlib import suppress
from typing import Any

from blockyard.spec.errors import article
from blockyard.spec.task import WithArguments

_CACHED = type(functools.lru_cache(len))
"""Gives back whatever the function behind it returns; any other decorator may drive a coroutine."""


def unrun_function(function: Any) -> str | None:
    """Say why calling `function` (of a class: its instances) runs nothing of it; None where it runs, or nobody knows.

    The answer goes on after the function's name: ``is a coroutine function (async def): ...``.
    """
    called: Any = function
    while called is not None:
        if inspect.iscoroutinefunction(called):
            return (
                "is a coroutine function (async def): a call runs nothing of it; write a plain def, which calls"
                " asyncio.run(...) for what must be awaited"
            )
        if inspect.isasyncgenfunction(called):
            return (
                "is an async generator function (async def with yield): a call runs nothing of it; write a plain def"
                " without yield, which calls asyncio.run(...) for what must be awaited"
            )
        if inspect.isgeneratorfunction(called):
            return (
                "is a generator function (it has a yield): a call runs nothing of it; take the yield out, or loop over"
                " the generator in a plain def"
            )
        called = _behind(called)
    return None


def _behind(function: Any) -> Any:
    """Return what a call of `function` is sure to call, and to give back the result of; None: itself, or unknown."""
    if isinstance(function, functools.partial):
        return function.func
    if isinstance(function, WithArguments):
        return function.function
    if isinstance(function, _CACHED):
        return function.__wrapped__
    if inspect.isroutine(function):
        return None
    kind = function if isinstance(function, type) else type(function)
    defined = any("__call__" in vars(base) for base in kind.__mro__)  # else it would be that of its metaclass
    return kind.__call__ if defined else None


def unrun_result(result: Any) -> str | None:
    """Say what `result` is where it stands for work that is not done, as ``a coroutine``; None where it is a value.

    A coroutine or generator is closed, so that Python does not warn of it later, somewhere else.
    """
    what = _unrun(result)
    if isinstance(result, Coroutine | Generator):
        with suppress(Exception):  # it may have code of its own for that
            result.close()
    return what


def _unrun(result: Any) -> str | None:
    if isinstance(result, Coroutine):
        return "a coroutine"
    if isinstance(result, AsyncGenerator):
        return "an async generator"
    if isinstance(result, Generator):
        return "a generator"
    if isinstance(result, map | filter):
        return f"a {type(result).__name__} object, which nobody has looped over"
    if type(result).__module__ == "contextlib" and hasattr(result, "gen"):
        return "a context manager that nobody has entered"
    if isinstance(result, Awaitable) or hasattr(type(result), "add_done_callback"):  # futures, of threads too
        return f"{article(type(result).__name__)}, which nobody has waited for"
    return None

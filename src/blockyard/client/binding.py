"""User code with what its task gives it besides the block: parameters, and arrays where it has arguments of their name.

A function gets them at each call; a class what its constructor takes when it is built, and other arrays at each call.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from blockyard.arrays.opened import TaskArrays
from blockyard.spec.block import Block

if TYPE_CHECKING:
    from blockyard.arrays.array import Array


class Bound(NamedTuple):
    """What runs a block."""

    call: Callable[[Block], Any]
    function: Any
    """The user's own that it calls, with its parameters."""


def bind(function: Any, params: Mapping[str, Any], arrays: TaskArrays, *, by_name: bool = False) -> Bound:
    """Return user code as a callable of a block, a class as an instance.

    `by_name`: with those of the parameters that it has names for (a check), else with all of them.
    """
    given = {name: params[name] for name in parameter_names(function, params)} if by_name else dict(params)
    names = list(arrays.declared)
    if isinstance(function, type):
        built = parameter_names(function, names)
        function = function(**given, **{name: arrays[name] for name in built})
        names = [name for name in names if name not in built]
    elif given:
        function = functools.partial(function, **given)
    taken = {name: arrays[name] for name in parameter_names(function, names)}
    return Bound(_with_arrays(function, taken) if taken else function, function)


def _with_arrays(function: Callable[..., Any], arrays: Mapping[str, Array]) -> Callable[[Block], Any]:
    def call(block: Block) -> Any:
        return function(block, **{name: array.of(block) for name, array in arrays.items()})

    return call


def parameter_names(function: Callable[..., Any], names: Iterable[str]) -> list[str]:
    """Return those of `names` that `function` has parameters for, besides its first, the block."""
    if not names:
        return []
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []
    if not isinstance(function, type):
        parameters = parameters[1:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return list(names)
    named = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    return [name for name in names if name in named]

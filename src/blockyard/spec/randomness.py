"""Random generators that user code brings along: found, and seeded anew for each block.

A generator made in a script travels with the function, and one made in a module with a fixed seed is made in every
process: each worker would draw the same numbers for other blocks, and a retry others for the same block. So the
generators that a function can reach are seeded before each block: by what they were when the function was loaded (the
user's own seed counts), by run, task and block. `Block.rng` is the same without anything to find.
"""

from __future__ import annotations

import copy
import functools
import gc
import hashlib
import random
import sys
import sysconfig
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from blockyard.spec.block import Block
from blockyard.spec.pickles import MAIN

MOST_OBJECTS = 20_000
"""Looked at for each function; what a function holds beyond that is data."""
MOST_ITEMS = 1_000
"""Looked at in each container."""
MOST_NAMES = 3
"""Named in a sentence."""
_LEAVES = (str, bytes, int, float, complex, bool, type(None), np.ndarray, np.generic)


@dataclass(frozen=True, slots=True)
class Source:
    """A source of random numbers that is not the block's own."""

    name: str
    """What user code calls it, as far as that is known."""
    entropy: int
    """What it was when it was found."""
    seed: Callable[[np.random.SeedSequence], None]
    """Begins it anew."""


def random_sources(*functions: Any) -> list[Source]:
    """Return the generators that functions of user code can reach, each once, in an order that is always the same.

    Followed are variables, defaults and bound arguments, the objects behind methods, and their attributes; of modules
    only those of the user's. The global generators of `random` and `numpy.random` are none of them: see
    `SeededGlobals`.
    """
    found: dict[int, Source] = {}
    with suppress(Exception):  # objects of the user's may do anything when looked at, and looking must not end a run
        for name, value in _Reach(functions).objects():
            with suppress(Exception):
                if (source := _source(name, value)) is not None:
                    found.setdefault(id(_bits_of(value)), source)
    return list(found.values())


def said_of(sources: Iterable[Source]) -> str:
    """Return a sentence about the sources of a function."""
    names = list(dict.fromkeys(source.name for source in sources))
    shown = ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES:,} more" if names[MOST_NAMES:] else "")
    return (
        f"random numbers come from {shown}, which each worker has a copy of; it is seeded anew for each block, by its"
        " own state, run, task and block. block.rng is a generator of the block's own"
    )


def seeding(call: Callable[[Block], Any], sources: list[Source]) -> Callable[[Block], Any]:
    """Return `call` with the sources seeded before each block; `call` itself where there are none."""
    if not sources:
        return call

    def seeded(block: Block) -> Any:
        seed_for(block, sources)
        return call(block)

    return seeded


def seed_for(block: Block, sources: Iterable[Source]) -> None:
    """Seed the sources for a block, each otherwise."""
    for number, source in enumerate(sources):
        source.seed(block.seed(source.entropy, number))


# ----- kinds of generators ------------------------------------------------------------------------------------------


def _source(name: str, value: Any) -> Source | None:
    if any(_bits_of(value) is _bits_of(shared) for shared in (_numpy_global(), _python_global()) if shared is not None):
        return None
    if isinstance(value, np.random.Generator | np.random.RandomState | np.random.BitGenerator):
        return _numpy_source(name, value)
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        return _python_source(name, value)
    if isinstance(value, getattr(sys.modules.get("torch"), "Generator", ())):
        return _torch_source(name, value)
    return None


def _bits_of(value: Any) -> Any:
    """Return what makes the numbers: several generators of numpy may share it."""
    if isinstance(value, np.random.Generator):
        return value.bit_generator
    return value._bit_generator if isinstance(value, np.random.RandomState) else value  # noqa: SLF001 - no other way


def _numpy_source(name: str, value: Any) -> Source:
    bits = _bits_of(value)

    def seed(sequence: np.random.SeedSequence) -> None:
        bits.state = type(bits)(sequence).state

    entropy = int.from_bytes(copy.deepcopy(bits).random_raw(2).tobytes())
    return Source(f"'{name}' ({type(value).__name__} of numpy)", entropy, seed)


def _python_source(name: str, value: random.Random) -> Source:
    def seed(sequence: np.random.SeedSequence) -> None:
        value.seed(int.from_bytes(sequence.generate_state(8).tobytes()))

    copied = random.Random()  # noqa: S311 - only to look at what comes next
    copied.setstate(value.getstate())
    return Source(f"'{name}' (random.Random)", copied.getrandbits(128), seed)


def _torch_source(name: str, value: Any) -> Source:
    def seed(sequence: np.random.SeedSequence) -> None:
        value.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))

    return Source(f"'{name}' (torch.Generator)", _digest(value.get_state()), seed)


def _digest(state: Any) -> int:
    return int.from_bytes(hashlib.sha256(bytes(state.numpy())).digest()[:16])


# ----- generators of a whole process --------------------------------------------------------------------------------


def _numpy_global() -> Any:
    return getattr(np.random.mtrand, "_rand", None)


def _python_global() -> Any:
    return getattr(random, "_inst", None)


class SeededGlobals:
    """The generators of a whole process that user code seeds while it is loaded.

    A fresh process has its own numbers for `numpy.random.rand` and `random.random`, which is all that is needed; but a
    module that calls ``numpy.random.seed(0)`` gives every worker the same ones. So does torch, of itself.
    """

    def __init__(self) -> None:
        self._found: dict[str, Source] = {}

    @property
    def sources(self) -> list[Source]:
        """Those that were seeded so far."""
        return list(self._found.values())

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Load user code inside."""
        numpy_before, python_before = _state_of_numpy(), random.getstate()
        try:
            yield
        finally:
            if _state_of_numpy() != numpy_before:
                self._found.setdefault("numpy", _numpy_source("numpy.random", _numpy_global()))
            if random.getstate() != python_before:
                self._found.setdefault("python", _python_source("random", _python_global()))
            torch = sys.modules.get("torch")
            if "torch" not in self._found and hasattr(torch, "manual_seed") and hasattr(torch, "initial_seed"):
                self._found["torch"] = _torch_global(torch)


def _state_of_numpy() -> bytes:
    shared = _numpy_global()
    return b"" if shared is None else copy.deepcopy(_bits_of(shared)).random_raw(8).tobytes()


def _torch_global(torch: Any) -> Source:
    def seed(sequence: np.random.SeedSequence) -> None:
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))

    return Source("torch", int(torch.initial_seed()), seed)


# ----- what a function can reach ------------------------------------------------------------------------------------


class _Reach:
    """A walk from functions to all that they can reach."""

    def __init__(self, roots: Iterable[Any]) -> None:
        self._roots = list(roots)
        self._packages = {
            str(getattr(part, "__module__", None)).partition(".")[0]
            for root in self._roots
            for part in (root, getattr(root, "func", None), type(root))
        }
        """Those of the roots are the user's, wherever they are installed."""

    def objects(self) -> Iterator[tuple[str, Any]]:
        """Return (name, object), breadth first, each object once."""
        waiting: deque[tuple[str, Any]] = deque(("the function", root) for root in self._roots)
        seen: dict[int, Any] = {}  # keeps them alive: an id is only good as long as its object
        while waiting and len(seen) < MOST_OBJECTS:
            name, value = waiting.popleft()
            if id(value) in seen or isinstance(value, _LEAVES):
                continue
            seen[id(value)] = value
            yield name, value
            waiting.extend(self._held_by(name, value))

    def _held_by(self, name: str, value: Any) -> Iterable[tuple[str, Any]]:
        if isinstance(value, types.FunctionType):
            return self._held_by_function(value) if self._is_users(value.__module__) else ()
        if isinstance(value, types.MethodType):
            return (name, value.__func__), (name, value.__self__)
        if isinstance(value, types.BuiltinMethodType):
            return () if isinstance(value.__self__, types.ModuleType | type | None) else ((name, value.__self__),)
        if isinstance(value, functools.partial):
            return [(name, value.func), *((name, item) for item in value.args), *value.keywords.items()]
        if isinstance(value, type):
            held = [*vars(value).items(), *((name, base) for base in value.__bases__)]
            return held if self._is_users(value.__module__) else ()
        if isinstance(value, types.ModuleType | types.FrameType | types.CodeType):
            return ()
        if type(value) is dict:
            return [(str(key), item) for key, item in islice(value.items(), MOST_ITEMS)]
        if isinstance(value, list | tuple | set | frozenset | deque):
            return [(name, item) for item in islice(value, MOST_ITEMS)]
        return _held_by_object(name, value)

    def _held_by_function(self, function: types.FunctionType) -> Iterator[tuple[str, Any]]:
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
            yield from ((name, value) for value in gc.get_referents(cell))
        yield from (("a default", value) for value in function.__defaults__ or ())
        yield from (function.__kwdefaults__ or {}).items()
        for names in _names_in(function.__code__):
            for name in names:
                value = function.__globals__.get(name)
                if isinstance(value, types.ModuleType):
                    yield from self._named_of(value, names)
                elif value is not None:
                    yield name, value

    def _named_of(self, module: types.ModuleType, names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        if self._is_users(module.__name__):
            yield from ((f"{module.__name__}.{name}", vars(module)[name]) for name in names if name in vars(module))

    def _is_users(self, module_name: str | None) -> bool:
        """Whether a module is code of the user's, and neither Python's own nor a library's."""
        root = (module_name or "").partition(".")[0]
        if root in sys.stdlib_module_names or root in ("blockyard", "blockyard_worker"):
            return False
        if root in self._packages or root in MAIN:
            return True
        file = getattr(sys.modules.get(module_name or ""), "__file__", None)
        return file is None or not str(file).startswith(_INSTALLED)


_INSTALLED = tuple(sysconfig.get_paths()[key] for key in ("purelib", "platlib"))


def _held_by_object(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    yield name, type(value)
    attributes = getattr(value, "__dict__", None)
    if type(attributes) is dict:
        yield from islice(attributes.items(), MOST_ITEMS)
    for item in islice(gc.get_referents(value), MOST_ITEMS):
        if item is not attributes and item is not type(value):
            yield name, item


def _names_in(code: types.CodeType) -> Iterator[tuple[str, ...]]:
    """Return the names of variables and attributes of a function's code, and of what is defined inside it."""
    yield code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)

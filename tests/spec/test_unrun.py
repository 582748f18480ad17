"""Code that a call does not run is refused, or fails its block, however it is wrapped; code that runs never is."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import enum
import functools
import gc
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard import Roi, Task
from blockyard.client.calls import BlockFailedError, Checks, failure_of, failure_of_status
from blockyard.spec.errors import SpecError
from blockyard.spec.resolve import resolve
from blockyard.spec.task import WithArguments
from blockyard.spec.unrun import unrun_function, unrun_result

RAN: list[int] = []


@pytest.fixture(autouse=True)
def _no_coroutine_is_left() -> Iterator[None]:
    """What is refused or failed is closed too: Python has nothing to warn of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


def plain(block: Any) -> None:
    RAN.append(block)


async def coroutine(block: Any) -> None:
    RAN.append(block)


def generator(block: Any) -> Iterator[int]:
    RAN.append(block)
    yield block


async def async_generator(block: Any) -> Any:
    RAN.append(block)
    yield block


@types.coroutine
def old_coroutine(block: Any) -> Iterator[None]:
    RAN.append(block)
    yield


LAZY = [coroutine, generator, async_generator, old_coroutine]


def decorated(function: Any) -> Any:
    def inner(*args: Any, **named: Any) -> Any:
        return function(*args, **named)

    return inner


def callable_object(function: Any) -> Any:
    class Model:
        __call__ = staticmethod(function)

    return Model()


def bound_method(function: Any) -> Any:
    class Model:
        def method(self, block: Any) -> Any:
            return function(block)

    return Model().method


CERTAIN: list[Callable[[Any], Any]] = [
    lambda function: function,
    functools.partial,
    functools.lru_cache,
    lambda function: WithArguments(function, ()),
    callable_object,
]
"""Ways to wrap a function through which it is still known what it is."""
UNCERTAIN: list[Callable[[Any], Any]] = [
    decorated,
    lambda function: functools.wraps(function)(decorated(function)),
    lambda function: lambda block=0: function(block),
    bound_method,
    functools.singledispatch,
]
"""Ways that could as well drive it: only the result tells."""


def wrap(function: Any, ways: list[Callable[[Any], Any]]) -> Any:
    for way in ways:
        function = way(function)
    return function


@given(st.sampled_from(LAZY), st.lists(st.sampled_from(CERTAIN), max_size=4))
def test_what_runs_nothing_is_known_before_anything_runs(function: Any, ways: list[Callable[[Any], Any]]) -> None:
    """Behind partials, caches, callable objects and pairs of a function and its arguments."""
    assert "a call runs nothing of it" in (unrun_function(wrap(function, ways)) or "")


@given(st.sampled_from(LAZY), st.lists(st.sampled_from(CERTAIN + UNCERTAIN), max_size=4))
def test_what_runs_nothing_is_refused_or_fails_its_block(function: Any, ways: list[Callable[[Any], Any]]) -> None:
    """Whatever wraps it, it never counts as done; and nothing of it has run."""
    wrapped = wrap(function, ways)
    if unrun_function(wrapped) is None:
        RAN.clear()
        failure = failure_of(wrapped(7))
        assert RAN == []
        assert "is not done; run it to its end" in str(failure)


@given(st.lists(st.sampled_from(CERTAIN + UNCERTAIN), max_size=4))
def test_what_runs_is_never_refused(ways: list[Callable[[Any], Any]]) -> None:
    """The same wrappers around a plain function."""
    wrapped = wrap(plain, ways)
    RAN.clear()
    assert unrun_function(wrapped) is None
    assert failure_of(wrapped(7)) is None
    assert RAN == [7]


def test_a_decorator_that_drives_a_coroutine_is_what_it_says() -> None:
    """``functools.wraps`` leaves the coroutine function in sight, but a call runs it."""

    @functools.wraps(coroutine)
    def driven(block: Any) -> None:
        asyncio.run(coroutine(block))

    RAN.clear()
    assert unrun_function(driven) is None
    assert failure_of(driven(3)) is None
    assert RAN == [3]


class AsyncModel:
    def __init__(self, scale: int = 1) -> None: ...
    async def __call__(self, block: Any) -> None: ...
    async def method(self, block: Any) -> None: ...
    @classmethod
    async def of_class(cls, block: Any) -> None: ...
    @staticmethod
    def static(block: Any) -> Any:
        yield block


class Derived(AsyncModel): ...


METHODS = [AsyncModel, Derived, AsyncModel(), Derived().method, AsyncModel.of_class, AsyncModel.static]


@pytest.mark.parametrize("function", METHODS)
def test_methods_and_classes_are_known_too(function: Any) -> None:
    """A class is what its instances do when they are called."""
    assert unrun_function(function) is not None


async def own_worker() -> None: ...


@pytest.mark.parametrize("serial", [False, True])
@pytest.mark.parametrize(
    ("functions", "says"),
    [
        ((coroutine,), "task 'T', function: 'coroutine' is a coroutine function"),
        ((own_worker,), "task 'T', worker: 'own_worker' is a coroutine function"),
        ((plain, generator), "task 'T', check: 'generator' is a generator function"),
        ((plain, (None, async_generator)), "task 'T', check: 'async_generator' is an async generator function"),
        ((f"{__name__}:coroutine",), "is a coroutine function"),
    ],
)
def test_tasks_of_such_functions_are_refused_in_a_sentence(
    tmp_path: Any, functions: tuple[Any, ...], says: str, *, serial: bool
) -> None:
    """Before anything is pickled or run."""

    class T(Task):
        def prepare(self) -> None:
            self.schedule(Roi((0,), (4,)), Roi((0,), (2,)), Roi((0,), (2,)), *functions)

    from blockyard import distribute

    with pytest.raises(SpecError) as error:
        distribute([T()], serial=True) if serial else resolve(T(), str(tmp_path / "functions"))
    assert says in str(error.value)
    assert list(tmp_path.iterdir()) == []


# ----- results ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def managed(_block: Any) -> Iterator[None]:
    yield


def future() -> Any:
    return concurrent.futures.Future()


UNRUN = [
    (lambda: coroutine(1), "a coroutine"),
    (lambda: generator(1), "a generator"),
    (lambda: (x for x in [1]), "a generator"),
    (lambda: async_generator(1), "an async generator"),
    (lambda: map(plain, [1]), "a map object"),
    (lambda: managed(1), "a context manager that nobody has entered"),
    (future, "a Future, which nobody has waited for"),
]


@pytest.mark.parametrize(("make", "says"), UNRUN)
def test_a_result_that_stands_for_work_is_a_failure(make: Callable[[], Any], says: str) -> None:
    """As result of a function, as status, and as answer of a check, where it would be true."""
    assert str(failure_of(make())).startswith(f"it returned {says}")
    assert str(failure_of_status(make())).startswith(f"the block ended with {says}")
    with pytest.raises(BlockFailedError, match="the check before the block returned"):
        Checks(lambda _: make(), None).is_done(None)  # type: ignore[arg-type]
    with pytest.raises(BlockFailedError, match="the check after the block returned"):
        Checks(None, lambda _: make()).confirm(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [[1], {"a": 1}, "text", np.zeros(3), iter([1]), 2.5, object(), range(3), open, print])
def test_any_other_value_is_none_of_that(value: Any) -> None:
    """What a function returns is of no interest otherwise."""
    assert unrun_result(value) is None
    assert failure_of(value) is None


def test_a_check_that_returns_a_function_has_not_looked() -> None:
    """``return path.exists`` for ``return path.exists()``: true whatever there is."""
    with pytest.raises(BlockFailedError, match=r"returned the function 'str.upper' itself, which is true whatever"):
        Checks(lambda _: "x".upper, None).is_done(None)  # type: ignore[arg-type]


# ----- statuses -----------------------------------------------------------------------------------------------------


class Enum1(enum.Enum):
    CREATED = 0
    PROCESSING = 1
    SUCCESS = 2
    FAILED = 3


class Enum2(enum.IntEnum):
    Ok = 1
    Error = 0
    Odd = 2


class Enum3(enum.StrEnum):
    DONE = "done"
    FAILURE = "failure"
    FLAG = ""


GOOD_STATUS = [None, 0, False, True, np.int64(0), np.bool_(True), 0.0, Enum1.SUCCESS, Enum2.Ok, Enum3.DONE, "success"]
BAD_STATUS = [1, 2, -1, np.uint8(1), 1.0, Enum1.FAILED, Enum2.Error, Enum3.FAILURE, "FAILED"]
ODD_STATUS = [Enum1.CREATED, Enum1.PROCESSING, Enum2.Odd, Enum3.FLAG, "", "yes", b"ok", [], np.zeros(2), object()]


@pytest.mark.parametrize("status", GOOD_STATUS)
def test_a_status_of_success(status: Any) -> None:
    """0 and what is called success."""
    assert failure_of_status(status) is None
    assert failure_of(None, status) is None


@pytest.mark.parametrize("status", BAD_STATUS)
def test_a_status_of_failure(status: Any) -> None:
    """Any other number and what is called failure, also for a function that returns nothing, or a value."""
    assert str(failure_of_status(status)).endswith(", which means failure")
    assert str(failure_of(None, status)).endswith(", which means failure")
    assert str(failure_of("a value", status)).endswith(", which means failure")


@pytest.mark.parametrize("status", ODD_STATUS)
def test_a_status_without_a_meaning_fails_and_says_so(status: Any) -> None:
    """It never counts as success, and never fails a block without a word."""
    assert "has no meaning here; give 0 or SUCCESS, or 1 or FAILED" in str(failure_of_status(status))


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (1, "it returned 1, which means failure"),
        (np.int32(1), "which means failure"),
        (Enum1.FAILED, "it returned Enum1.FAILED, which means failure"),
        (Enum2.Error, "it returned Enum2.Error, which means failure"),
        (Enum1.PROCESSING, "it returned Enum1.PROCESSING, which has no meaning here"),
        (Enum2.Ok, None),
        (0, None),
        (2, None),
        (True, None),
        (False, None),
    ],
)
def test_what_a_function_returns(result: Any, says: str | None) -> None:
    """The integer 1 has failed, an enum is what it is called, and all the rest is success."""
    failure = failure_of(result)
    assert failure is None if says is None else says in str(failure)

"""What Python gives for ROIs, settings and parameters works, or is refused in a sentence; never cut down or lost."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import gc
import pathlib
import types
from typing import Any

import funlib.geometry
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard import Coordinate, Pipeline, Roi, Task
from blockyard.local.distribute import distribute, run_blockwise
from blockyard.spec import rois
from blockyard.spec.errors import SpecError
from blockyard.spec.model import RoiSpec
from blockyard.spec.resolve import resolve
from blockyard.spec.rois import roi_spec

TEN = Roi((0,), (10,))


def nothing(block: object, **params: object) -> None:
    pass


class Asks(Task):
    """Schedules what a test gives it."""

    def __init__(self, *positional: Any, **more: Any) -> None:
        super().__init__(more.pop("task_id", "t"))
        self.positional, self.more = positional or (TEN, TEN, TEN, nothing), more

    def prepare(self) -> None:
        self.schedule(*self.positional, **self.more)


def scheduled(**more: Any) -> Any:
    """The task of a run as it is after it was written to the run's file and read back."""
    run = resolve([Asks(**more)], None).run
    assert msgspec.json.decode(msgspec.json.encode(run), type=type(run)) == run
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(run), type=type(run)) == run
    return run.pipeline.tasks[0]


# ----- ROIs -----------------------------------------------------------------------------------------------------------

HALVES = [0.5, np.float32(2.5), fractions.Fraction(1, 3), decimal.Decimal("0.1"), -0.25]


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(
    "make",
    [
        lambda half: Roi((half,), (10,)),
        lambda half: Roi([0], [half + 10 if isinstance(half, float) else half]),
        lambda half: Roi(np.array([float(half)]), (10,)),
        lambda half: Roi(offset=(x for x in [half]), shape=(10,)),
        lambda half: funlib.geometry.Roi((half,), (10,)),
        lambda half: RoiSpec((half,), (10,)),
    ],
)
@pytest.mark.parametrize(
    "use",
    [
        lambda roi: distribute([Asks(roi, TEN, TEN, nothing)]),
        lambda roi: distribute([Asks(TEN, TEN, roi, nothing)], serial=True),
        lambda roi: run_blockwise(TEN, roi, TEN, nothing),
        lambda roi: Pipeline.from_tasks([Asks(roi, TEN, TEN, nothing)]),
        lambda roi: resolve([{"task": Asks(), "request": [TEN, roi]}], None),
    ],
)
def test_a_roi_with_a_fraction_is_refused_wherever_it_is_given(half: Any, make: Any, use: Any) -> None:
    """As a pipeline file refuses it: with what it is of, the place and the value."""
    roi = make(half)
    with pytest.raises(SpecError, match=r"(total_roi|read_roi|write_roi|request).*\[0\]: expected a whole number, got"):
        use(roi)


@pytest.mark.parametrize(
    "roi",
    [
        Roi((2.0,), (10.0,)),
        Roi(np.array([2]), np.array([10], np.uint8)),
        Roi((np.int64(2),), (np.float64(10),)),
        Roi((True + 1,), (10,)),
        Roi((x for x in [2]), iter([10])),
        Roi(Coordinate(2), Coordinate(10)),
        Roi((1,), (5,)) * 2,
        RoiSpec((np.int64(2),), (10.0,)),  # type: ignore[arg-type]
    ],
)
def test_whole_numbers_of_any_library_are_whole(roi: Any) -> None:
    """As integers of Python, so that they can be written down."""
    spec = roi_spec(roi, "total_roi")
    assert spec == RoiSpec((2,), (10,))
    assert {*map(type, (*spec.offset, *spec.shape))} == {int}


def test_what_is_noted_of_a_roi_goes_with_it() -> None:
    """Nothing is kept of a Roi that is gone, and a sound one made in its place is sound."""
    made = [Roi((n + 0.5,), (10,)) for n in range(100)]
    noted = {id(roi) for roi in made}
    assert noted <= set(rois._fractions)
    del made
    gc.collect()
    assert noted.isdisjoint(rois._fractions)
    assert all(roi_spec(Roi((n,), (10,)), "x") == RoiSpec((n,), (10,)) for n in range(100))
    assert Roi((0.5,), (10,)) == Roi((0,), (10,))
    assert copy.deepcopy(TEN) == TEN


# ----- settings -------------------------------------------------------------------------------------------------------


class Words(enum.Enum):
    SHRINK = "shrink"


class Texts(str, enum.Enum):  # noqa: UP042 - as people wrote it before there was StrEnum
    SHRINK = "shrink"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"num_workers": np.int64(2)}, {"num_workers": 2}),
        ({"num_workers": np.uint8(2), "max_retries": np.int32(0)}, {"num_workers": 2, "max_retries": 0}),
        ({"timeout_s": np.float32(2.5)}, {"timeout_s": 2.5}),
        ({"timeout_s": decimal.Decimal(10)}, {"timeout_s": 10.0}),
        ({"timeout_s": np.int64(10)}, {"timeout_s": 10.0}),
        ({"fit": np.str_("shrink"), "pool": np.str_("gpu")}, {"fit": "shrink", "pool": "gpu"}),
        ({"fit": Words.SHRINK}, {"fit": "shrink"}),
        ({"fit": Texts.SHRINK, "task_id": Texts.SHRINK}, {"fit": "shrink", "id": "shrink"}),
        ({"read_write_conflict": np.bool_(False)}, {"read_write_conflict": False}),
        ({"task_id": np.str_("a")}, {"id": "a"}),
    ],
)
def test_settings_of_numpy_and_enums_are_what_they_say(given: dict[str, Any], taken: dict[str, Any]) -> None:
    """They are written to the run's file and to workers."""
    task = scheduled(**given)
    assert {name: getattr(task, name) for name in taken} == taken
    assert [name for name, value in taken.items() if type(getattr(task, name)) is not type(value)] == []


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"num_workers": 2.0}, "num_workers is 2.0; it must be a whole number"),
        ({"num_workers": "2"}, "num_workers is '2'"),
        ({"num_workers": np.float64(2)}, "num_workers is"),
        ({"num_workers": np.int64(0)}, "num_workers is 0"),
        ({"max_retries": None}, "max_retries is None"),
        ({"max_retries": 10**30}, "max_retries is more than 2147483647"),
        ({"timeout_s": "10"}, "timeout_s is '10'; it must be a number of seconds"),
        ({"timeout_s": dt.timedelta(seconds=1)}, "it must be a number of seconds"),
        ({"timeout_s": float("nan")}, "timeout_s is nan"),
        ({"timeout_s": 10**400}, "it must be a number of seconds"),
        ({"pool": 7}, "pool of task 't' must be text, not 7"),
        ({"task_id": 7}, "must be text, not 7"),
        ({"fit": None}, "unknown fit 'None'"),
        ({"params": [1]}, "params is [1]; it must be a dict"),
    ],
)
def test_settings_that_mean_nothing_get_a_sentence(given: dict[str, Any], says: str) -> None:
    """Never an error of another library."""
    with pytest.raises(SpecError) as error:
        scheduled(**given)
    assert says in str(error.value)


@pytest.mark.parametrize("workers", [0, -1, 2.5, "2", np.float64(2), np.int64(0)])
@pytest.mark.parametrize("name", ["workers", "num_workers"])
def test_a_number_of_workers_that_is_none_is_refused(name: str, workers: Any) -> None:
    """Before anything starts."""
    with pytest.raises(SpecError, match=f"^{name} is "):
        distribute([Asks()], **{name: workers})


def test_a_command_takes_paths() -> None:
    """And nothing that is no list of words."""
    task = scheduled_command([pathlib.Path("/bin/true"), np.str_("a")])
    assert task.command == ("/bin/true", "a")
    for bad in ("true", [], [1], 7, [b"true"]):
        with pytest.raises(SpecError, match="command"):
            scheduled_command(bad)


def scheduled_command(command: Any) -> Any:
    return resolve([Asks(TEN, TEN, TEN, command=command)], None).run.pipeline.tasks[0]


# ----- parameters -----------------------------------------------------------------------------------------------------


class Number(enum.IntEnum):
    TWO = 2


class Flag(enum.Flag):
    A = 1
    B = 2


Pair = collections.namedtuple("Pair", "x y")  # noqa: PYI024 - as scripts have them


@dataclasses.dataclass
class Data:
    x: int = 1


class NoText:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        ((1, 2), [1, 2]),
        (Pair(1, "a"), [1, "a"]),
        (Coordinate(1, 2), [1, 2]),
        (np.int64(7), 7),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        ([np.int8(1), [np.float64(2.0)]], [1, [2.0]]),
        (pathlib.PurePosixPath("a/b"), "a/b"),
        ({"p": pathlib.PurePosixPath("a")}, {"p": "a"}),
        (Words.SHRINK, "shrink"),
        (Number.TWO, 2),
        (Flag.A | Flag.B, 3),
        (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        ({np.str_("a"): 1, Texts.SHRINK: 2}, {"a": 1, "shrink": 2}),
        (list(range(10**5)), list(range(10**5))),
        ("a\0b\u2028\x85\ufeff🧠", "a\0b\u2028\x85\ufeff🧠"),
        (-(2**63), -(2**63)),
        ({}, {}),
        (None, None),
    ],
)
def test_a_parameter_that_can_only_mean_one_thing_arrives_as_that(value: Any, arrives: Any) -> None:
    """The same in a serial run as in another process: what is converted is converted before both."""
    got = scheduled(params={"value": value}).params["value"]
    assert got == arrives
    assert repr(got) == repr(arrives)


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


REFUSED = [
    (np.arange(3), "(ndarray); only text"),
    (np.arange(3), ".tolist()"),
    ({1, 2}, "give a sorted list"),
    (frozenset(), "give a sorted list"),
    (Data(), "give dataclasses.asdict() of it"),
    (b"abc", "(bytes)"),
    (1j, "(complex)"),
    (np.complex64(1), "(complex)"),
    (np.datetime64("2026-01-01"), "(datetime64)"),
    (np.timedelta64(3, "ns"), "(timedelta64)"),
    (dt.date(2026, 1, 1), "(date)"),
    (range(3), "(range)"),
    (slice(3), "(slice)"),
    (TEN, "(Roi)"),
    (int, "(type)"),
    (NoText(), "a NoText that has no text (NoText)"),
    ([NoText()], "value[0]"),
    (float("nan"), "value is nan"),
    ([1, float("-inf")], "value[1] is -inf"),
    (np.float32("nan"), "value is nan"),
    (2**64, "does not fit 64 bits"),
    ([1, -(2**63) - 1], "value[1] is -9223372036854775809"),
    (10**5000, "a number of 16610 bits, which does not fit 64 bits"),
    ("\udcf6", "is no text: a file name in another encoding, perhaps"),
    ({"a": ["b", "\ud83e"]}, "value.a[1]"),
    ({"\udcf6": 1}, "is no text"),
    ({1: 2}, "the key 1 is not text"),
    ({np.int64(1): 2}, "the key 1 is not text"),
    (endless(), "nested more than 100 deep, or holds itself"),
    (deep(2000), "nested more than 100 deep"),
]


@pytest.mark.parametrize(("value", "says"), REFUSED, ids=[str(n) for n in range(len(REFUSED))])
def test_a_parameter_that_cannot_travel_gets_a_sentence(value: Any, says: str) -> None:
    """With its place in the parameters, and what to do; the same for serial runs and for processes."""
    said = []
    for serial in (False, True):
        with pytest.raises(SpecError) as error:
            distribute([Asks(params={"value": value})], serial=serial)
        said.append(str(error.value))
    assert says in said[0]
    assert said[0] == said[1]
    said[0].encode()


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.floats()
        | st.text()
        | st.binary(max_size=2)
        | st.dates()
        | st.sampled_from([*Words, *Number, np.int8(1), np.float16(2), pathlib.PurePosixPath("a"), {1}, TEN]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.tuples(inner, inner)
            | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        ),
        max_leaves=6,
    )
)
def test_any_parameter_is_taken_or_refused(value: Any) -> None:
    """What is taken is the same after it was written down and read; all else is a SpecError."""
    said = ""
    try:
        params = scheduled(params={"value": value}).params
    except SpecError as error:
        said = str(error)
    assert "\n" not in said
    assert said or repr(msgspec.json.decode(msgspec.json.encode(params))) == repr(params)

"""Tasks as classes: parameters, hooks and schedules, as scripts written for 0.2 use them."""

from __future__ import annotations

import pickle
from typing import Any

import cloudpickle
import numpy as np
import pytest

from blockyard import Coordinate, Parameter, Roi, Task
from blockyard.spec.errors import SpecError
from blockyard.spec.model import RoiSpec
from blockyard.spec.task import parameters_of

LINE = Roi((0,), (10,))
BLOCK = Roi((0,), (1,))


class Base(Task):
    a = Parameter(default=True)
    b = Parameter(default=False)
    c = Parameter()


class Derived(Base):
    a = Parameter()
    d = Parameter(default="d")
    c = Parameter(default=3)


# ----- parameters -------------------------------------------------------------------------------------------------


def test_a_parameter_has_its_default_or_what_is_given() -> None:
    """And is then an attribute of the instance, like any other."""
    task = Base(c=42)
    assert (task.a, task.b, task.c) == (True, False, 42)
    assert (task.log_to_files, task.log_to_stdout) == (False, True)
    assert (task.task_id, Base("other", c=1).task_id, Base(task_id="third", c=1).task_id) == ("Base", "other", "third")
    task.a = 5
    assert (task.a, Base(c=1).a) == (5, True)


@pytest.mark.parametrize("error_type", [RuntimeError, ValueError, SpecError])
def test_a_missing_or_unknown_parameter_is_an_error_that_names_it(error_type: type[Exception]) -> None:
    """A RuntimeError, as it was in 0.2, with the nearest name."""
    with pytest.raises(error_type, match=r"task 'Base' needs a value for its parameter 'c', which has no default"):
        Base()
    with pytest.raises(error_type, match=r"task 'x' has no parameter 'cc' \(its arguments\); did you mean 'c'\?"):
        Base("x", cc=1)
    with pytest.raises(error_type, match=r"task 'Base' has no parameter 'log_to_file' \(global_config\); did you mean"):
        Base(c=1, global_config={"Base": {"log_to_file": 1}})
    with pytest.raises(error_type, match="'a', which has no default"):
        Derived()


def test_a_keyword_beats_the_configuration_beats_the_default() -> None:
    """The configuration maps task ids to parameters; that of other tasks does not concern this one."""
    config: dict[str, dict[str, Any]] = {"Base": {"a": 23, "c": 3.14}, "other": {"c": None}, "Else": {"nothing": 1}}
    task = Base(global_config=config)
    assert (task.a, task.b, task.c) == (23, False, 3.14)
    assert (Base(a=1, global_config=config).a, Base("other", config).c) == (1, None)
    assert task.global_config is config
    assert Base("unknown", config, c=1).a is True


def test_parameters_are_inherited_and_may_be_overridden_even_to_remove_a_default() -> None:
    """The class nearest to the instance decides; a plain value in the place of a parameter is its new default."""
    task = Derived(a=1)
    assert (task.a, task.b, task.c, task.d) == (1, False, 3, "d")
    assert set(parameters_of(Derived)) == {"a", "b", "c", "d", "log_to_files", "log_to_stdout"}

    class Plain(Base):
        c = 7
        log_to_files = True

        def b(self) -> str:  # type: ignore[override]
            return "a method now"

    assert (Plain().c, Plain(c=8).c, Plain().log_to_files, Plain().b()) == (7, 8, True, "a method now")  # type: ignore[operator]
    with pytest.raises(SpecError, match="no parameter 'b'"):
        Plain(b=1)

    class Mixin:
        e = Parameter(default="mixed in")

    class Both(Mixin, Base):
        pass

    assert Both(c=1).e == "mixed in"


def test_values_of_one_instance_never_leak_to_another() -> None:
    """Not even by way of a list that is a default, and not to the class."""

    class Lists(Task):
        items = Parameter(default=[1, [2]])
        table = Parameter(default={"a": {1}})

    first, second = Lists(), Lists()
    first.items[1].append(3)
    first.table["a"].add(2)
    first.log_to_files = True
    assert (second.items, second.table, second.log_to_files) == ([1, [2]], {"a": {1}}, False)
    assert (Lists().items, Lists(items=[9]).items, Lists().items) == ([1, [2]], [9], [1, [2]])
    assert isinstance(Lists.items, Parameter)


def test_none_is_a_value() -> None:
    """As a default and as an argument."""

    class Optional(Task):
        a = Parameter(default=None)
        b = Parameter(default=1)

    assert (Optional().a, Optional(b=None).b, Optional(global_config={"Optional": {"b": None}}).b) == (None, None, None)


def test_a_task_with_its_own_constructor_works() -> None:
    """As long as it calls that of Task; before that, its parameters say so."""

    class Own(Task):
        a = Parameter(default=1)

        def __init__(self, outdir: str) -> None:
            with pytest.raises(AttributeError, match=r"parameter 'a' of Own has no value before Task\.__init__"):
                _ = self.a
            super().__init__(task_id=f"own-{outdir}")
            self.outdir = outdir

    assert (Own("x").task_id, Own("x").outdir, Own("x").a) == ("own-x", "x", 1)


def test_a_task_can_be_pickled() -> None:
    """By name and with its class, so that worker processes of the user's own can have it."""
    task = Derived(a=1, task_id="t")
    for copy in (pickle.loads(pickle.dumps(task)), cloudpickle.loads(cloudpickle.dumps(task))):
        assert (copy.task_id, copy.a, copy.c) == ("t", 1, 3)

    class Local(Task):
        needed = Parameter()

    rebuilt = cloudpickle.loads(cloudpickle.dumps(Local))
    with pytest.raises(SpecError, match="'needed', which has no default"):
        rebuilt()


# ----- hooks and schedule -----------------------------------------------------------------------------------------


def test_hooks_do_nothing_unless_overridden() -> None:
    """Except prepare(), without which there are no blocks."""
    task = Base(c=1)
    assert list(task.requires()) == []
    assert task.cleanup() is None
    assert task._periodic_callback() is None
    with pytest.raises(RuntimeError, match=r"task 'Base': Base has no prepare\(\), which must call self.schedule\(\)"):
        task.prepare()


def scheduled(*args: Any, **kwargs: Any) -> Any:
    task = Base("t", c=1)
    task.schedule(*args, **kwargs)
    return task.scheduled


def test_a_schedule_has_the_defaults_and_positions_of_0_2() -> None:
    """One worker, two retries, valid, with conflicts, no check; what is newer comes by keyword only."""
    plan = scheduled(LINE, BLOCK, BLOCK, print)
    assert (plan.num_workers, plan.max_retries, plan.fit, plan.read_write_conflict) == (1, 2, "valid", True)
    assert (plan.before, plan.after, plan.params, plan.timeout_s, plan.pool) == (None, None, {}, None, "default")
    plan = scheduled(LINE, BLOCK, BLOCK, print, max, False, 7, 0, "shrink")
    assert (plan.before, plan.after) == (max, max)
    assert (plan.read_write_conflict, plan.num_workers, plan.max_retries, plan.fit) == (False, 7, 0, "shrink")
    assert scheduled(LINE, BLOCK, BLOCK, print, num_workers=np.int32(3)).num_workers == 3
    assert scheduled(LINE, BLOCK, BLOCK, print, num_workers=None).num_workers is None


def test_checks_are_one_function_or_a_pair() -> None:
    """(before, after); either may be missing."""
    assert (scheduled(LINE, BLOCK, BLOCK, print, (min, max)).before) is min
    assert (scheduled(LINE, BLOCK, BLOCK, print, [min, None]).after) is None
    for bad in (3, (min,), (min, max, min)):
        with pytest.raises(SpecError, match="check_function of task 't' must be a function or a pair"):
            scheduled(LINE, BLOCK, BLOCK, print, bad)


def test_a_function_with_its_arguments_is_a_function_of_a_block() -> None:
    """The pair (function, arguments) that 0.2 took."""
    plan = scheduled(LINE, BLOCK, BLOCK, (lambda block, a, b: (block, a, b), ["x", 2]))
    assert plan.process_function(5) == (5, "x", 2)
    with pytest.raises(SpecError, match="process_function of task 't' must be a function, not None"):
        scheduled(LINE, BLOCK, BLOCK, None)
    with pytest.raises(SpecError, match="process_function of task 't' must be a function, not 3"):
        scheduled(LINE, BLOCK, BLOCK, 3)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (Roi((3,), (5,)), RoiSpec((3,), (5,))),
        (Roi(3, 5), RoiSpec((3,), (5,))),
        (Roi(Coordinate(-1, 2), Coordinate((4, 5))), RoiSpec((-1, 2), (4, 5))),
        (Roi(np.array([1, 2]), np.array([3, 4])), RoiSpec((1, 2), (3, 4))),
        (RoiSpec((3,), (5,)), RoiSpec((3,), (5,))),
    ],
)
def test_rois_of_all_kinds_are_taken(given: Any, taken: RoiSpec) -> None:
    """Also of one axis written as numbers."""
    assert scheduled(given, given, given, print).total_roi == taken


@pytest.mark.parametrize("bad", [None, (0, 10), ((0,), (10,)), "0:10", Roi((0, 0), (None, 5))])
def test_what_is_no_bounded_roi_is_refused(bad: Any) -> None:
    """The sentence names task and argument."""
    with pytest.raises(SpecError, match="read_roi of task 't' "):
        scheduled(LINE, bad, BLOCK, print)
    with pytest.raises(SpecError, match="num_workers is 'many'; it must be a whole number"):
        scheduled(LINE, BLOCK, BLOCK, print, num_workers="many")

"""From targets to a run: all tasks that are needed, once, dependencies first, or a sentence before anything runs."""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from blockyard import Coordinate, Parameter, Pipeline, Roi, Task
from blockyard.spec.errors import SpecError
from blockyard.spec.functions import load_function
from blockyard.spec.model import CheckSpec, RoiSpec, Target
from blockyard.spec.resolve import resolve

LINE = Roi((0,), (10,))
BLOCK = Roi((0,), (1,))


def block_function(block: Any) -> None: ...


def scaled(block: Any, factor: int = 1) -> None: ...


def own_worker() -> None: ...


class Step(Task):
    """A task that requires others and notes when it is prepared."""

    needs = Parameter(default=())
    value = Parameter(default=0)
    total = Parameter(default=LINE)
    log: list[str] = []  # noqa: RUF012 - emptied before each test

    def requires(self) -> list[Task]:
        return list(self.needs)

    def prepare(self) -> None:
        self.log.append(self.task_id)
        block = Roi((0,) * self.total.dims, (1,) * self.total.dims)
        self.schedule(self.total, block, block, block_function)


@pytest.fixture(autouse=True)
def _empty_log() -> None:
    Step.log.clear()


def ids(tasks: Any) -> list[str]:
    return [task.id for task in resolve(tasks, None).run.pipeline.tasks]


def with_schedule(**kwargs: Any) -> Task:
    """Give a task that schedules what is given."""

    class Scheduled(Task):
        def prepare(self) -> None:
            self.schedule(**({"total_roi": LINE, "read_roi": BLOCK, "write_roi": BLOCK} | kwargs))

    return Scheduled("t")


# ----- tasks and targets ------------------------------------------------------------------------------------------


def test_a_target_brings_all_it_requires_in_order() -> None:
    """Each task comes after those it requires, is prepared once, and has their ids in its spec."""
    a = Step("a")
    b, c = Step("b", needs=[a]), Step("c", needs=[a])
    d = Step("d", needs=[b, c])
    resolved = resolve([{"task": d}], None)
    assert [task.id for task in resolved.run.pipeline.tasks] == ["a", "b", "c", "d"] == Step.log
    assert [task.requires for task in resolved.run.pipeline.tasks] == [(), ("a",), ("a",), ("b", "c")]
    assert resolved.tasks == {"a": a, "b": b, "c": c, "d": d}
    assert resolved.run.targets == (Target("d"),)
    assert resolved.run.pipeline.name == "d"


def test_targets_are_written_in_several_ways() -> None:
    """A task, a list of tasks, dictionaries with and without request, a single ROI as request."""
    a, b = Step("a"), Step("b")
    request = Roi((3,), (2,))
    assert resolve(a, None).run.targets == (Target("a"),)
    assert resolve([a, {"task": b, "request": None}], None).run.targets == (Target("a"), Target("b"))
    spec = RoiSpec((3,), (2,))
    assert resolve([{"task": a, "request": [request]}], None).run.targets == (Target("a", (spec,)),)
    assert resolve([{"task": a, "request": request}], None).run.targets == (Target("a", (spec,)),)
    twice = [{"task": a, "request": [request]}, {"task": a, "request": [Roi((7,), (1,)), request]}]
    assert resolve(twice, None).run.targets == (Target("a", (spec,)), Target("a", (RoiSpec((7,), (1,)), spec)))
    assert resolve([{"task": a, "request": []}], None).run.targets == (Target("a", ()),)


def test_an_empty_intersection_is_a_request_of_no_voxels() -> None:
    """Its offset is None, so it lies nowhere; it runs nothing and is no error."""
    empty = Roi((0,), (2,)).intersect(Roi((5,), (2,)))
    assert resolve([{"task": Step("a"), "request": [empty]}], None).run.targets == (
        Target("a", (RoiSpec((0,), (0,)),)),
    )


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        ([], "there is no task to run"),
        ([3], "a target must be a task or"),
        ([{"tsk": Step("a")}], "a target has no field 'tsk'; did you mean 'task'?"),
        ([{"task": "a"}], "the 'task' of a target must be an instance of a task, not 'a'"),
        ([{"task": Step}], "must be an instance of a task, not <class 'test_resolve.Step'>; write Step(...)"),
        (
            [{"task": Step("a"), "request": [Roi((3,), (17,))]}],
            "the request [3:20] for task 'a' reaches outside its total",
        ),
        ([{"task": Step("a"), "request": [Roi((3,), (None,))]}], "the request for task 'a' is"),
        ([{"task": Step("a"), "request": ["3:5"]}], "the request for task 'a' must be a Roi, not '3:5'"),
        ([Step("a b")], "the id of a task, 'a b', cannot be used"),
        ([Step("a", needs=["b"])], "requires() of task 'a' must give instances of tasks, not 'b'"),
        ([Step("a", needs=[Step("b", total=Roi((0, 0), (5, 5)))])], "but the task 'b' that it requires has 2 axes"),
    ],
)
def test_what_cannot_be_run_is_refused(targets: Any, says: str) -> None:
    """By one sentence, and before any function has been pickled."""
    with pytest.raises(SpecError) as error:
        resolve(targets, None)
    assert says in str(error.value)


def test_requires_may_give_nothing_or_one_task() -> None:
    """A list is what it should give; what can only mean one thing is taken as that."""

    class Loose(Step):
        def requires(self) -> Any:
            return self.value

    assert ids([Loose("a", value=None)]) == ["a"]
    assert ids([Loose("a", value=Step("b"))]) == ["b", "a"]


def test_a_cycle_is_refused_before_anything_is_prepared() -> None:
    """Also when every call of requires() makes new instances."""

    class Ping(Step):
        def requires(self) -> list[Task]:
            return [Pong()]

    class Pong(Step):
        def requires(self) -> list[Task]:
            return [Ping()]

    with pytest.raises(SpecError, match=r"in a cycle: 'P.ng' requires 'P.ng' requires 'P.ng'"):
        resolve([Ping()], None)
    assert Step.log == []


def test_long_chains_are_no_problem() -> None:
    """Nothing recurses over tasks."""
    task = Step("t0")
    for n in range(1, 3000):
        task = Step(f"t{n}", needs=[task])
    assert len(ids([task])) == 3000


# ----- the same id ------------------------------------------------------------------------------------------------


def test_equal_tasks_of_one_id_are_one_task() -> None:
    """Class and parameters are compared, also arrays, containers and tasks among them; it is prepared once."""
    first = {"value": {"x": [np.arange(3), Roi((0,), (2,))]}, "needs": (Step("up", value=1),)}
    second = {"value": {"x": [np.arange(3), Roi((0,), (2,))]}, "needs": (Step("up", value=1),)}
    a, b = Step("a", **first), Step("a", **second)
    resolved = resolve([a, b, Step("end", needs=[b])], None)
    assert Step.log == ["up", "a", "end"]
    assert resolved.tasks["a"] is a


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        ({"value": 1}, {"value": 2}, "value is 1 in one and 2 in the other"),
        ({"value": 1}, {"value": True}, "value is 1 in one and True in the other"),
        ({"value": np.arange(3)}, {"value": np.arange(1, 4)}, "value is array"),
        ({"value": [1, 2]}, {"value": [1]}, "value is [1, 2] in one and [1]"),
        ({"value": {"a": 1}}, {"value": {"b": 1}}, "value is {'a': 1} in one"),
        ({"total": Roi((0,), (3,))}, {"total": Roi((0,), (4,))}, "total is [0:3] (3) in one"),
        ({"log_to_files": True}, {}, "log_to_files is True in one and False in the other"),
    ],
)
def test_different_tasks_of_one_id_are_refused(ours: Any, theirs: Any, says: str) -> None:
    """Before anything is prepared; the sentence names the id, the parameter and both values."""
    with pytest.raises(SpecError) as error:
        resolve([Step("a", **ours), Step("b", needs=[Step("a", **theirs)])], None)
    assert "two different tasks have the id 'a'" in str(error.value)
    assert says in str(error.value)
    assert Step.log == []


def test_tasks_of_different_classes_are_one_task_if_they_come_to_the_same() -> None:
    """A class that was defined twice, as notebooks do; one that schedules something else is another task."""

    def definition(function: Callable[..., Any]) -> type[Step]:
        class Again(Step):
            def prepare(self) -> None:
                super().prepare()
                self.schedule(LINE, BLOCK, BLOCK, function)

        return Again

    assert ids([definition(block_function)("a"), definition(block_function)("a")]) == ["a"]
    with pytest.raises(
        SpecError, match=r"two different tasks have the id 'a': .*Again and .*Again, which differ in func"
    ):
        resolve([definition(block_function)("a"), definition(scaled)("a")], None)
    with pytest.raises(SpecError, match="which differ in requires"):
        resolve([definition(block_function)("a"), definition(block_function)("a", needs=[Step("b")])], None)


# ----- what runs --------------------------------------------------------------------------------------------------


def test_all_that_is_scheduled_reaches_the_spec() -> None:
    """Under the names of the pipeline file."""
    task = with_schedule(
        process_function=scaled,
        check_function=(block_function, scaled),
        read_write_conflict=False,
        num_workers=5,
        max_retries=4,
        fit="shrink",
        params={"factor": 3},
        timeout_s=1.5,
        pool="gpu",
    )
    (spec,) = resolve(task, None).run.pipeline.tasks
    assert (spec.function, spec.params) == (f"{__name__}:scaled", {"factor": 3})
    assert spec.check == CheckSpec(f"{__name__}:block_function", f"{__name__}:scaled")
    assert (spec.read_write_conflict, spec.num_workers, spec.max_retries, spec.fit) == (False, 5, 4, "shrink")
    assert (spec.timeout_s, spec.pool) == (1.5, "gpu")


def test_parameters_of_a_schedule_become_plain_data() -> None:
    """What can only mean one thing is taken as that; a change of the caller's objects comes too late to matter."""

    class Mode(enum.Enum):
        FAST = "fast"

    sizes = [np.int64(1), 2]
    params = {
        "a": np.float64(1.5),
        "b": {"c": (np.bool_(True), Mode.FAST)},
        "d": Path("x/y"),
        "e": Coordinate(1, 2),
        "f": sizes,
    }
    task = with_schedule(process_function=lambda block, **params: None, params=params)
    pipeline = Pipeline.from_tasks(task)
    sizes.append(3)
    plain = {"a": 1.5, "b": {"c": [True, "fast"]}, "d": "x/y", "e": [1, 2], "f": [1, 2]}
    for spec in (task.scheduled.params, pipeline.resolve_here().run.pipeline.tasks[0].params):
        assert spec == plain
        assert msgspec.json.decode(msgspec.json.encode(spec)) == plain
    for bad in (object(), np.arange(3), Roi((0,), (1,)), {1: 2}, {1, 2}):
        with pytest.raises(SpecError, match=r"task 't', params"):
            resolve(with_schedule(process_function=scaled, params={"factor": bad}), None)


def test_a_function_of_no_argument_is_a_worker() -> None:
    """And one named by text is looked at to know which it is."""
    name = f"{__name__}:own_worker"
    for function in (own_worker, name):
        (spec,) = resolve(with_schedule(process_function=function), None).run.pipeline.tasks
        assert (spec.function, spec.worker) == (None, name)
    (spec,) = resolve(with_schedule(process_function=block_function), None).run.pipeline.tasks
    assert (spec.function, spec.worker) == (f"{__name__}:block_function", None)


def test_a_program_takes_the_place_of_a_function() -> None:
    """As in a pipeline file."""
    (spec,) = resolve(with_schedule(command=["run", "--fast"]), None).run.pipeline.tasks
    assert (spec.command, spec.function, spec.worker) == (("run", "--fast"), None, None)


def test_one_check_for_both_is_one_check() -> None:
    """Which the pipeline file writes as text."""
    (spec,) = resolve(with_schedule(process_function=scaled, check_function=block_function), None).run.pipeline.tasks
    assert spec.check == f"{__name__}:block_function"


def test_closures_are_pickled_for_local_runs_and_refused_elsewhere(tmp_path: Path) -> None:
    """The refusal names the task, why, and what to do."""
    factor = 3
    task = with_schedule(process_function=lambda block: factor * block, check_function=lambda block: factor == block)
    (spec,) = resolve(task, str(tmp_path)).run.pipeline.tasks
    assert spec.function is not None
    assert isinstance(spec.check, str)
    assert load_function(spec.function, pickle_dir=str(tmp_path))(4) == 12
    assert load_function(spec.check, pickle_dir=str(tmp_path))(3) is True
    with pytest.raises(SpecError, match=r"process function of task 't': function .* only work in local runs"):
        resolve(task, None)


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"num_workers": 0}, "task 't': num_workers is 0; it must be at least 1"),
        ({"max_retries": -1}, "task 't': max_retries is -1"),
        ({"fit": "shrnk"}, "task 't': unknown fit 'shrnk'; did you mean 'shrink'?"),
        (
            {"write_roi": Roi((0,), (2,))},
            "task 't': write_roi reaches outside read_roi on axis 0: it writes 0:2 and reads",
        ),
        ({"read_roi": Roi((0,), (-1,))}, "task 't', read_roi: shape [-1] is -1 on axis 0"),
        (
            {"params": {"fctor": 1}, "process_function": scaled},
            "'scaled' has no parameter 'fctor', which params gives; did",
        ),
        ({"process_function": lambda a, b: None}, "cannot be called as (block): missing a required argument: 'b'"),
        ({"check_function": lambda: True}, "task 't', check: "),
        (
            {"process_function": "nowhere_at_all:f"},
            "the function of task 't': 'nowhere_at_all:f': there is no module 'nowhere_at_all'",
        ),
        ({"process_function": own_worker, "params": {"a": 1}}, "task 't' has params, but its worker"),
        ({"command": ["x"]}, "task 't' has both function and command"),
    ],
)
def test_bad_input_leaves_nothing_behind(tmp_path: Path, kwargs: dict[str, Any], says: str) -> None:
    """Everything is checked before the first function is pickled."""
    closure = with_schedule(**({"process_function": lambda block: None} | kwargs))
    with pytest.raises(SpecError) as error:
        resolve(closure, str(tmp_path / "functions"))
    assert says in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_task_that_schedules_nothing_is_told_so() -> None:
    """By its id."""

    class Idle(Task):
        def prepare(self) -> None: ...

    with pytest.raises(SpecError, match=r"task 'Idle': its prepare\(\) has not called self.schedule\(\)"):
        resolve(Idle(), None)


def test_what_a_hook_raises_arrives_as_it_is() -> None:
    """It is user code, and its traceback is what the user needs."""

    class Fails(Task):
        def prepare(self) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        resolve(Fails(), None)


# ----- pipelines --------------------------------------------------------------------------------------------------


def test_a_pipeline_of_tasks_is_prepared_once(tmp_path: Path) -> None:
    """However often it is looked at or run; requests are part of it."""
    pipeline = Pipeline.from_tasks([{"task": Step("b", needs=[Step("a")]), "request": [Roi((3,), (2,))]}], name="mine")
    assert Step.log == ["a", "b"]
    assert list(pipeline.tasks) == ["a", "b"]
    assert [task.id for task in pipeline.spec.tasks] == ["a", "b"]
    resolved = resolve(pipeline, str(tmp_path))
    assert resolved.run.targets == (Target("b", (RoiSpec((3,), (2,)),)),)
    assert (resolved.run.pipeline.name, resolved.run.pipeline) == ("mine", pipeline.spec)
    assert resolved.tasks == pipeline.tasks
    assert Step.log == ["a", "b"]
    assert pipeline.folder is None


def test_a_pipeline_of_a_file_has_its_folder(tmp_path: Path) -> None:
    """Which is on the module path of its workers; it has no Task instances."""
    from examples import GOOD

    (tmp_path / "em.yaml").write_text(GOOD)
    pipeline = Pipeline.load(tmp_path / "em.yaml")
    assert pipeline.folder == tmp_path
    assert pipeline.tasks == {}
    assert [task.id for task in pipeline.spec.tasks] == ["smooth", "fragments"]
    assert resolve(pipeline, None).run.pipeline == pipeline.spec
    assert resolve(pipeline, None).run.targets is None


def test_resolving_for_this_process_pickles_nothing() -> None:
    """Serial runs call the functions that the tasks hold."""
    lock = object()
    task = with_schedule(process_function=lambda block: lock)
    pipeline = Pipeline.from_tasks(task)
    resolved = pipeline.resolve_here()
    assert resolved.run.pipeline.tasks[0].id == "t"
    assert resolved.tasks["t"].scheduled.process_function(None) is lock

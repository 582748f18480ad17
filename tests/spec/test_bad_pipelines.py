"""What can be known to be wrong is refused before anything runs, with the task, the axis and both values."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from examples import pipeline, roi, task

from blockyard.spec.errors import SpecError
from blockyard.spec.model import CheckSpec, PipelineSpec, RoiSpec, RunSpec, Target
from blockyard.spec.validate import LARGEST_COORDINATE, validate, validate_run


def refusal(spec: PipelineSpec) -> str:
    with pytest.raises(SpecError) as error:
        validate(spec)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"total_roi": RoiSpec((5,), (0,))},
        {"total_roi": roi((0, 4))},
        {"total_roi": roi((-7, 9)), "read_roi": roi((-3, 3)), "write_roi": roi((-1, 0))},
        {"read_roi": roi((0, 1)), "write_roi": roi((0, 1)), "num_workers": 1, "max_retries": 0, "timeout_s": 0.1},
        {"function": None, "worker": "a.b:c.d"},
        {"function": None, "command": ("run",), "params": {"a": [1, 2.5, "x", None, True, {"b": {}}]}},
        {"function": "pickle:/tmp/run/functions/f.pkl", "check": CheckSpec(after="m:f")},
        {"id": "A.b-c_9", "pool": "gpu-2"},
    ],
)
def test_a_task_that_can_run_passes(changes: dict[str, Any]) -> None:
    """Also one whose total ROI has room for no block: it has 0 blocks and succeeds."""
    validate(pipeline(task(**changes)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"submits": True}, "task 'a' has submits, which is for a task with worker"),
        ({"num_workers": 0}, "task 'a': num_workers is 0; it must be at least 1"),
        ({"num_workers": -3}, "task 'a': num_workers is -3; it must be at least 1"),
        ({"max_retries": -1}, "task 'a': max_retries is -1; it must be at least 0"),
        ({"timeout_s": 0.0}, "task 'a': timeout_s is 0.0; it must be more than 0"),
        ({"timeout_s": float("nan")}, "task 'a': timeout_s is nan"),
        ({"fit": "shrnk"}, "task 'a': unknown fit 'shrnk'; did you mean 'shrink'?"),
        ({"total_roi": RoiSpec((0,), (-4,))}, "task 'a', total_roi: shape [-4] is -4 on axis 0; it must be at least 0"),
        ({"read_roi": RoiSpec((0,), (0,))}, "task 'a', read_roi: shape [0] is 0 on axis 0; it must be at least 1"),
        ({"write_roi": RoiSpec((1,), (0,))}, "task 'a', write_roi: shape [0] is 0 on axis 0; it must be at least 1"),
        ({"write_roi": roi((-1, 4))}, "write_roi reaches outside read_roi on axis 0: it writes -1:4 and reads 0:5"),
        ({"write_roi": roi((1, 6))}, "write_roi reaches outside read_roi on axis 0: it writes 1:6 and reads 0:5"),
        ({"read_roi": roi((0, 5), (0, 5))}, "read_roi [0:5, 0:5] has 2 axes, total_roi [0:12] has 1 axis"),
        ({"write_roi": RoiSpec((1, 0), (3,))}, "write_roi: offset [1, 0] has 2 axes, shape [3] has 1 axis"),
        ({"total_roi": RoiSpec((), ())}, "task 'a', total_roi has no axes"),
        ({"total_roi": roi((0, 2**62))}, f"total_roi is 0:{2**62} on axis 0, which does not fit 64 bits"),
        ({"total_roi": RoiSpec((-LARGEST_COORDINATE - 1,), (5,))}, "which does not fit 64 bits"),
        (
            {"function": None},
            "task 'a' does not say what to run; write exactly one of function, worker, command and map",
        ),
        ({"command": ("x",)}, "task 'a' has both function and command; write exactly one"),
        ({"function": None, "command": ()}, "task 'a': command is empty; write [program, argument, ...]"),
        ({"function": "smooth"}, "task 'a', function: 'smooth' names no function; write 'module:name'"),
        ({"function": "m:f()"}, "task 'a', function: 'm:f()' names no function"),
        ({"function": "pickle:here.pkl"}, "task 'a', function: 'pickle:here.pkl' names no function"),
        ({"check": "m.f"}, "task 'a', check: 'm.f' names no function"),
        ({"check": CheckSpec(before="m:")}, "task 'a', check.before: 'm:' names no function"),
        ({"function": None, "worker": "m:f", "params": {"x": 1}}, "has params, but its worker 'm:f' is called without"),
        ({"params": {"x": object}}, "task 'a', params.x is <class 'object'> (type); only text, numbers"),
        ({"params": {"x": [0, {"y": {1}}]}}, "task 'a', params.x[1].y is {1} (set)"),
        ({"params": {"x": 2**64}}, "params.x is 18446744073709551616, which does not fit 64 bits"),
        ({"id": ""}, "the id of task number 1, '', cannot be used"),
        ({"id": "a b"}, "the id of task number 1, 'a b', cannot be used"),
        ({"id": "../a"}, "cannot be used"),
        ({"id": "-a"}, "cannot be used"),
        ({"id": "a:b"}, "cannot be used"),
        ({"id": "ä"}, "cannot be used"),
        ({"id": "a\n"}, "cannot be used"),
        ({"id": "a" * 201}, "has 201 characters; at most 200 can be used"),
        ({"pool": ""}, "the pool of task 'a', '', cannot be used"),
        ({"pool": "p" * 64}, "has 64 characters; at most 63"),
    ],
)
def test_a_task_that_cannot_run_is_refused(changes: dict[str, Any], says: str) -> None:
    """The sentence names task and field, and for a ROI the axis and both values."""
    assert says in refusal(pipeline(task(**changes)))


def test_the_axis_that_is_wrong_is_the_one_that_is_named() -> None:
    """In three dimensions with one bad axis."""
    spec = task(
        total_roi=roi((0, 9), (0, 9), (0, 9)),
        read_roi=roi((0, 3), (0, 3), (0, 3)),
        write_roi=roi((0, 3), (1, 4), (0, 3)),
    )
    assert "on axis 1: it writes 1:4 and reads 0:3" in refusal(pipeline(spec))


def test_tasks_must_fit_together() -> None:
    """Ids are unique, requirements exist, once, have the same axes, and lead nowhere back."""
    plane = {"total_roi": roi((0, 9), (0, 9)), "read_roi": roi((0, 1), (0, 1)), "write_roi": roi((0, 1), (0, 1))}
    a, b = task("a"), task("b")
    assert "task number 2 has the id 'a' that task number 1 has already" in refusal(pipeline(a, a))
    assert "task 'a' requires 'bb', which is no task; did you mean 'b'?" in refusal(pipeline(task(requires=("bb",)), b))
    assert "task 'a' requires 'b' twice" in refusal(pipeline(task(requires=("b", "b")), b))
    assert "'a' requires 'a'" in refusal(pipeline(task(requires=("a",))))
    assert "task 'a' has 1 axis (total_roi [0:12]), but the task 'b' that it requires has 2 axes" in refusal(
        pipeline(task(requires=("b",)), task("b", **plane))
    )
    assert "has no tasks" in refusal(pipeline())
    assert "the pipeline's name, 'a/b', cannot be used" in refusal(pipeline(a, name="a/b"))


def test_a_cycle_is_named_in_the_direction_of_its_requirements() -> None:
    """And only it, not the tasks that merely lead to it."""
    cycle = [task("a", requires=("b",)), task("b", requires=("c",)), task("c", requires=("a",))]
    message = refusal(pipeline(task("before", requires=("a",)), *cycle))
    assert "before" not in message
    path = message.partition("in a cycle: ")[2].partition(";")[0].split(" requires ")
    assert len(path) == 4
    assert path[0] == path[-1]
    assert set(itertools.pairwise(path)) == {("'a'", "'b'"), ("'b'", "'c'"), ("'c'", "'a'")}


@pytest.mark.parametrize(
    ("request_roi", "says"),
    [
        (roi((3, 5)), None),
        (roi((0, 12)), None),
        (RoiSpec((3,), (0,)), None),
        (RoiSpec((12,), (0,)), None),
        (roi((11, 12)), None),
        (
            roi((3, 20)),
            "the request [3:20] for task 'a' reaches outside its total_roi [0:12] on axis 0: 3:20 is not inside",
        ),
        (roi((-1, 2)), "on axis 0: -1:2 is not inside 0:12"),
        (RoiSpec((40,), (0,)), "reaches outside its total_roi"),
        (RoiSpec((3,), (-1,)), "the request for task 'a': shape [-1] is -1 on axis 0; it must be at least 0"),
        (roi((0, 1), (0, 1)), "the request [0:1, 0:1] for task 'a' has 2 axes, its total_roi [0:12] has 1 axis"),
    ],
)
def test_a_request_lies_in_the_total_roi_of_its_task(request_roi: RoiSpec, says: str | None) -> None:
    """Otherwise the error names task, request and total ROI; one of no voxels is fine and runs nothing."""
    run = RunSpec(pipeline(task("a")), (Target("a", (request_roi,)),))
    if says is None:
        validate_run(run)
    else:
        with pytest.raises(SpecError) as error:
            validate_run(run)
        assert says in str(error.value)


def test_a_target_is_a_task_of_the_pipeline() -> None:
    """Otherwise the nearest name is given."""
    with pytest.raises(SpecError, match=r"there is no task 'smoth' to run; did you mean 'smooth'\?"):
        validate_run(RunSpec(pipeline(task("smooth")), (Target("smoth"),)))
    with pytest.raises(SpecError, match="num_workers"):
        validate_run(RunSpec(pipeline(task(num_workers=0))))
    validate_run(RunSpec(pipeline(task("smooth"))))

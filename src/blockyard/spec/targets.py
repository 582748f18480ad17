"""What of a pipeline a command asks for: ``--only TASK`` and ``--request begin:end,...`` become a run."""

from __future__ import annotations

from blockyard.spec.errors import SpecError, nearest
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, Target
from blockyard.spec.validate import validate_run


def choose(pipeline: PipelineSpec, only: str = "", request: str = "") -> RunSpec:
    """Return the run of a pipeline, checked: all of it, or the task `only`, or the blocks that write into `request`.

    A request is for the task `only`, else for the last tasks: those that no other requires. Upstream tasks run as far
    as they are needed. Raises SpecError for an unknown task and for a request that is none or lies outside the task.
    """
    if not only and not request:
        return RunSpec(pipeline)
    known = [task.id for task in pipeline.tasks]
    if only and only not in known:
        raise SpecError(f"pipeline '{pipeline.name}' has no task '{only}'{nearest(only, known)}")
    required = {task_id for task in pipeline.tasks for task_id in task.requires}
    chosen = [only] if only else [task_id for task_id in known if task_id not in required]
    rois = (parse_request(request),) if request else None
    run = RunSpec(pipeline, tuple(Target(task_id, rois) for task_id in chosen))
    validate_run(run)
    return run


def parse_request(text: str) -> RoiSpec:
    """Return the ROI that ``"begin:end,begin:end,..."`` names, one pair an axis; brackets and spaces are allowed.

    >>> str(parse_request("[0:20, -16:128]"))
    '[0:20, -16:128]'
    """
    begins, ends = [], []
    for axis, part in enumerate(text.strip().strip("[]()").split(",")):
        try:
            begin, end = (int(number) for number in part.split(":"))
        except ValueError:
            raise SpecError(
                f"the request '{text}' is not of the form 'begin:end,begin:end,...': axis {axis} is '{part.strip()}'"
            ) from None
        if end < begin:
            raise SpecError(f"the request '{text}' ends at {end} before it begins at {begin} on axis {axis}")
        begins.append(begin)
        ends.append(end)
    return RoiSpec(tuple(begins), tuple(end - begin for begin, end in zip(begins, ends, strict=True)))

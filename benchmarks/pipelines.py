"""The shapes of `shapes.py` as pipelines of blockyard."""

from __future__ import annotations

from pathlib import Path

from shapes import boxes

from blockyard.local.run import LocalRun
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec

HERE = str(Path(__file__).parent)


def pipeline(shape: str, side: int, notes: Path, block_s: float = 0.0, worker: str | None = None) -> RunSpec:
    """Give a run of no-op blocks, of blocks that take `block_s`, or of a user's own worker."""
    function = None if worker else "noop:Timed" if block_s else "blockyard.testing.noop:Nothing"
    params = {} if worker else {"notes": str(notes)} | ({"seconds": block_s} if block_s else {})
    tasks = [
        TaskSpec(
            id=f"task{number}",
            function=function,
            worker=worker,
            params=params,
            total_roi=RoiSpec(*total),
            read_roi=RoiSpec(*read),
            write_roi=RoiSpec(*write),
            read_write_conflict=conflict,
            requires=(f"task{number - 1}",) if number else (),
        )
        for number, (total, read, write, conflict) in enumerate(boxes(shape, side))
    ]
    return RunSpec(PipelineSpec(name="bench", tasks=tuple(tasks)))


def local_run(run: RunSpec, folder: Path, **options: object) -> LocalRun:
    """Give a run in `folder` whose slots find the functions of this folder."""
    return LocalRun(run, folder, module_path=[HERE], **options)

"""Pipelines that the tests of this folder start from."""

from __future__ import annotations

from typing import Any

from blockyard.spec.model import PipelineSpec, RoiSpec, TaskSpec

GOOD = """\
name: em-cells
tasks:
  - id: smooth
    function: em_cells:smooth
    params: {source: data/raw.zarr, sigma: 1.5, tiny: 1e-3, levels: [1, 2], deep: {ok: true, none: null}}
    total_roi: &all {offset: [0, 0, 0], shape: [20, 1024, 1024]}
    read_roi:  {offset: [-1, -16, -16], shape: [7, 160, 160]}
    write_roi: {offset: [0, 0, 0], shape: [5, 128, 128]}
    fit: shrink
    read_write_conflict: false
    max_retries: 3
    timeout_s: 600
    check: em_cells:smooth_done
    pool: default
  - id: fragments
    requires: [smooth]
    command: [fragments, --fast]
    num_workers: 4
    check: {before: em_cells:is_done}
    total_roi: *all
    read_roi:  {offset: [0, 0, 0], shape: [5, 128, 128]}
    write_roi: {offset: [0, 0, 0], shape: [5, 128, 128]}
"""


def line_of(text: str, part: str) -> int:
    """Give the line, from 1, on which `part` begins."""
    return text[: text.index(part)].count("\n") + 1


def roi(*bounds: tuple[int, int]) -> RoiSpec:
    """Give the ROI of (begin, end) pairs."""
    return RoiSpec(tuple(b for b, _ in bounds), tuple(e - b for b, e in bounds))


def task(task_id: str = "a", **changes: Any) -> TaskSpec:
    """Give a good task of one axis, changed."""
    fields: dict[str, Any] = {
        "id": task_id,
        "function": "m:f",
        "total_roi": roi((0, 12)),
        "read_roi": roi((0, 5)),
        "write_roi": roi((1, 4)),
    }
    return TaskSpec(**(fields | changes))


def pipeline(*tasks: TaskSpec, name: str = "p") -> PipelineSpec:
    """Give a pipeline of tasks."""
    return PipelineSpec(name=name, tasks=tasks)

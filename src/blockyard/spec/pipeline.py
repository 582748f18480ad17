"""A pipeline as a user holds it, be it written in Python or in a file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from blockyard.spec.load import load_pipeline
from blockyard.spec.model import PipelineSpec, RunSpec
from blockyard.spec.resolve import PreparedTasks, ResolvedRun, prepare_tasks
from blockyard.spec.task import Task


class Pipeline:
    """Tasks to run, from `load` (a file) or `from_tasks` (Python); ``distribute`` takes it, ``spec`` shows it."""

    def __init__(
        self, spec: PipelineSpec | None = None, prepared: PreparedTasks | None = None, folder: Path | None = None
    ) -> None:
        self._spec = spec
        self._prepared = prepared
        self.folder = folder
        """The folder of the pipeline's file, which belongs on the module path of workers; None: not from a file."""

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Pipeline:
        """Read a pipeline file. Raises SpecError that names file, line, task and field."""
        return cls(spec=load_pipeline(path), folder=Path(path).absolute().parent)

    @classmethod
    def from_tasks(cls, tasks: Task | Iterable[Any], name: str | None = None) -> Pipeline:
        """Take tasks, or the list that ``distribute`` takes; their `prepare` runs here, once, dependencies first."""
        return cls(prepared=prepare_tasks(tasks, name=name))

    @property
    def spec(self) -> PipelineSpec:
        """The pipeline as data. Raises SpecError where a function cannot be imported (`resolve` can pickle those)."""
        return self.resolve(None).run.pipeline

    @property
    def tasks(self) -> dict[str, Task]:
        """The task instances by id, dependencies first; empty for a pipeline file."""
        return dict(self._prepared.tasks) if self._prepared is not None else {}

    def resolve(self, pickle_dir: str | None) -> ResolvedRun:
        """Return the run of this pipeline; see `blockyard.spec.resolve.resolve`."""
        if self._prepared is not None:
            return self._prepared.resolve(pickle_dir)
        assert self._spec is not None
        return ResolvedRun(RunSpec(self._spec), {})

    def resolve_here(self) -> ResolvedRun:
        """Return the run of this pipeline for this process alone; see `PreparedTasks.resolve_here`."""
        if self._prepared is not None:
            return self._prepared.resolve_here()
        return self.resolve(None)

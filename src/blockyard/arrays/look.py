"""The arrays that a run's parameters name, as far as they can be opened from here: enough to warn, never to decide."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from blockyard.arrays.metadata import ArrayMetadata, is_group, read_metadata
from blockyard.plan.units import ArrayFacts
from blockyard.spec.model import RunSpec, TaskSpec

READ_WORDS = frozenset({"source", "input", "inputs", "in", "src", "raw", "read", "reads", "from", "mask", "model"})
WRITE_WORDS = frozenset(
    {"target", "output", "outputs", "out", "dst", "dest", "destination", "write", "writes", "result", "results"}
)
"""Words in names of parameters, as people choose them."""
LONGEST_PATH = 4096
MOST_NAMES = 200
"""Texts in the parameters of one task that may be paths; more are data."""


def arrays_of(run: RunSpec, folder: Path) -> list[ArrayFacts]:
    """Return the arrays that parameters name; relative paths begin in `folder`, where blocks run."""
    known: dict[Path, ArrayMetadata | None] = {}
    return [facts for task in run.pipeline.tasks for facts in _arrays_of_task(task, folder, known)]


def declared_of(run: RunSpec, folder: Path) -> list[ArrayFacts]:
    """Return the arrays that tasks declare, of those that can be looked at without a library.

    Who started the run has filled in how they lie in the world.
    """
    found = []
    for task in run.pipeline.tasks:
        for name, spec in task.arrays.items():
            array = read_metadata(folder / spec.path.removeprefix("file://"))
            if array is None or spec.voxel_size is None or len(array.shape) < task.total_roi.ndim:
                continue
            facts = _facts(task, name, spec.path, "writes" if name in task.writes else "reads", array)
            found.append(replace(facts, voxel_size=spec.voxel_size, offset=spec.offset, declared=True))
    return found


def _arrays_of_task(task: TaskSpec, folder: Path, known: dict[Path, ArrayMetadata | None]) -> Iterator[ArrayFacts]:
    texts = [(name, text) for name, text in _texts(task.params, "") if _may_be_path(text)][:MOST_NAMES]
    containers = []
    for name, text in texts:
        path = folder / text.removeprefix("file://")
        if (array := _known(path, known)) is not None:
            yield _facts(task, name, text, _role(name), array)
        elif _is_container(path):
            containers.append((name, text, path))
    # Volume and array in two parameters: out_file and out_dataset.
    for name, text, path in containers:
        for inner, rest in texts:
            if inner == name or {_role(name), _role(inner)} == {"reads", "writes"} or Path(rest).is_absolute():
                continue
            if (array := _known(path / rest, known)) is not None:
                yield _facts(task, f"{name} and {inner}", f"{text}/{rest}", _role(f"{name} {inner}"), array)


def _known(path: Path, known: dict[Path, ArrayMetadata | None]) -> ArrayMetadata | None:
    if path not in known:
        known[path] = read_metadata(path)
    return known[path]


def _is_container(path: Path) -> bool:
    try:
        return is_group(path)
    except (OSError, ValueError):
        return False


def _facts(task: TaskSpec, name: str, path: str, role: str, array: ArrayMetadata) -> ArrayFacts:
    ndim, attributes = task.write_roi.ndim, array.attributes
    return ArrayFacts(
        task=task.id,
        parameter=name,
        path=path,
        role=role,
        unit_name="shard" if array.is_sharded else "chunk",
        shape=array.shape,
        unit=array.unit,
        voxel_size=_whole(attributes.get("voxel_size", attributes.get("resolution")), ndim, least=1),
        offset=_whole(attributes.get("offset"), ndim, least=None),
    )


def _whole(value: Any, ndim: int, least: int | None) -> tuple[int, ...] | None:
    """Return a list of whole numbers, one for each of the last axes; None for anything else."""
    if not isinstance(value, list) or len(value) < ndim:
        return None
    numbers = value[-ndim:]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and n == n // 1 for n in numbers):
        return None
    whole = tuple(int(n) for n in numbers)
    return whole if least is None or min(whole) >= least else None


def _role(name: str) -> str:
    words = set(re.findall(r"[a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()))
    reads, writes = bool(words & READ_WORDS), bool(words & WRITE_WORDS)
    return "" if reads == writes else "reads" if reads else "writes"


def _texts(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield the texts in parameters with their names; long lists are data, not paths."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and len(value) <= MOST_NAMES:
        for number, item in enumerate(value):
            yield from _texts(item, f"{name}[{number}]")


def _may_be_path(text: str) -> bool:
    return 0 < len(text) <= LONGEST_PATH and "\0" not in text and ("://" not in text or text.startswith("file://"))

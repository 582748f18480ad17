"""Pipeline files: YAML text to a checked `PipelineSpec`, with errors that name file, line, task and field.

The text becomes plain data first (`yaml_text`, which sees duplicate keys, doubtful values and the line of each), whose
field names are compared with the model; then structs, with their types; and then `validate` looks at the whole. So the
first fault is told by the step that can say most about it.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from blockyard.spec import advice
from blockyard.spec.errors import SpecError, brief, nearest
from blockyard.spec.functions import PICKLE
from blockyard.spec.maps import task_of_map
from blockyard.spec.model import RESOLVED, ArraySpec, CheckSpec, Fit, PipelineSpec, RoiSpec, TaskSpec
from blockyard.spec.validate import Where, code_references, validate
from blockyard.spec.yaml_text import Lines, read_yaml

PYTHON = (".py", ".ipynb")


def load_pipeline(path: str | os.PathLike[str]) -> PipelineSpec:
    """Return the pipeline of a YAML or JSON file, checked. Raises SpecError that names file, line, task and field."""
    source = os.fspath(path)
    if Path(path).suffix in PYTHON:
        raise SpecError(
            f"{source} is Python, and no pipeline file (YAML): a script that calls blockyard runs by itself"
        )
    if Path(path).is_dir():
        raise SpecError(f"'{source}' is a folder; give the pipeline file (YAML) in it")
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise SpecError(f"pipeline file {source} cannot be read: {error.strerror or error}") from None
    return load_text(data, source)


def load_text(text: str | bytes, source: str = "pipeline.yaml") -> PipelineSpec:
    """Return the pipeline of YAML or JSON text, checked; `source` is how errors call it. Raises SpecError."""
    value, lines = read_yaml(text, source, _subject)
    if not lines:
        raise SpecError(f"{source} is empty; a pipeline file has a name and tasks")
    return _parse(value, source, lines)


def parse_pipeline(mapping: Any, source: str = "pipeline.yaml") -> PipelineSpec:
    """Return the pipeline of a mapping, such as a chart's ``pipeline:`` value, checked. Raises SpecError.

    `source` is how errors call it; they have no lines here.
    """
    return _parse(mapping, source, {})


# ----- data to structs --------------------------------------------------------------------------------------------


def _parse(value: Any, source: str, lines: Lines) -> PipelineSpec:
    try:
        value = _with_maps(value)
        _check_names(value)
        pipeline = msgspec.convert(value, PipelineSpec)
        _refuse_pickles(pipeline)
        validate(pipeline)
    except msgspec.ValidationError as error:
        where, fault = _type_fault(str(error), value)
        raise _located(f"{_subject(where, value)}: {fault}", where, source, lines) from None
    except SpecError as error:
        raise _located(str(error), error.where, source, lines) from None
    return pipeline


def _located(message: str, where: Where, source: str, lines: Lines) -> SpecError:
    """Put file and line before a message: the line of the value, or of the nearest value around it that has one."""
    around = next((lines[where[:n]] for n in range(len(where), -1, -1) if where[:n] in lines), None)
    one_line = message.translate({ord(end): repr(end)[1:-1] for end in "\n\r\v\f\x85\u2028\u2029"})
    return SpecError.at(where, f"{source}{f':{around}' if around else ''}: {one_line}")


def _check_names(value: Any) -> None:
    """Raise SpecError for the first unknown or missing field, so that a slip of the pen is told with the right name."""
    _check_fields(value, PipelineSpec, (), value)
    for number, task in enumerate(_items(value, "tasks")):
        where: Where = ("tasks", number)
        _check_fields(task, TaskSpec, where, value)
        for name in ("total_roi", "read_roi", "write_roi"):
            _check_fields(_item(task, name), RoiSpec, (*where, name), value)
        _check_fields(_item(task, "check"), CheckSpec, (*where, "check"), value)
        for kind in ("reads", "writes"):
            _check_arrays(_item(task, kind), (*where, kind), value)


OF_MAPS = ("block", "halo", "pad")


def _with_maps(value: Any) -> Any:
    """Give tasks that say `map` what others have; the arrays that say the numbers are not looked at here."""
    tasks = list(_items(value, "tasks"))
    for number, task in enumerate(tasks):
        where: Where = ("tasks", number)
        if isinstance(task, Mapping) and task.get("map") is not None:
            try:
                tasks[number] = task_of_map(task, _subject(where, value))
            except SpecError as error:
                raise SpecError.at(where, str(error)) from None
        elif given := [name for name in OF_MAPS if _item(task, name) is not None]:
            raise SpecError.at(
                (*where, given[0]), f"{_subject(where, value)}: {given[0]} is for a task with map; write ROIs instead"
            )
    return {**value, "tasks": tasks} if tasks else value


def _check_arrays(arrays: Any, where: Where, whole: Any) -> None:
    """Check the form of each declared array: msgspec does not say which entry of a mapping it means."""
    for name, array in arrays.items() if isinstance(arrays, Mapping) else ():
        if not isinstance(name, str):
            raise SpecError.at(where, f"{_subject(where, whole)}: the key {name!r} is not text; put it in quotes")
        inside = (*where, name)
        _check_fields(array, ArraySpec, inside, whole)
        try:
            msgspec.convert(array, str | ArraySpec)
        except msgspec.ValidationError as error:
            at, fault = _type_fault(str(error), array)
            raise SpecError.at((*inside, *at), f"{_subject((*inside, *at), whole)}: {fault}") from None


@functools.cache
def _fields(struct: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """Return the fields of a struct; msgspec compiles their annotations anew each time, a millisecond for a task."""
    return msgspec.structs.fields(struct)


def _check_fields(value: Any, struct: type[msgspec.Struct], where: Where, whole: Any) -> None:
    if not isinstance(value, Mapping):
        return
    fields = _fields(struct)
    known = [field.encode_name for field in fields if field.name not in RESOLVED]
    for name in value:
        if name not in known:
            raise SpecError.at(
                (*where, name), f"{_subject(where, whole)}: unknown field '{name}'{nearest(str(name), known)}"
            )
    for field in fields:
        if field.required and field.encode_name not in value:
            raise SpecError.at(where, f"{_subject(where, whole)}: the field '{field.encode_name}' is missing")


def _item(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _items(value: Any, name: str) -> Sequence[Any]:
    items = _item(value, name)
    return items if isinstance(items, list | tuple) else ()


def _refuse_pickles(pipeline: PipelineSpec) -> None:
    for number, task in enumerate(pipeline.tasks):
        for name, reference in code_references(task):
            if reference.startswith(PICKLE):
                raise SpecError.at(
                    ("tasks", number, *name.split(".")),
                    f"task '{task.id}', {name}: '{reference}' is a pickle, which only a local run makes for itself;"
                    " write 'module:name'",
                )


# ----- words ------------------------------------------------------------------------------------------------------

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}


def _path(where: Where) -> str:
    """Write a path as a person would: ``tasks[0].read_roi.offset``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)
    return text.removeprefix(".") or "the file"


def _subject(where: Where, whole: Any) -> str:
    """Name what a path leads to: by the task's id where it has one, by its number where not."""
    if len(where) < 2 or where[0] != "tasks" or not isinstance(where[1], int):
        return "the pipeline" if not where else f"the pipeline, {_path(where)}"
    task_id = _item(_at(whole, where[:2]), "id")
    task = f"task '{task_id}'" if isinstance(task_id, str) else f"task number {where[1] + 1}"
    return f"{task}, {_path(where[2:])}" if len(where) > 2 else task


def _at(value: Any, where: Where) -> Any:
    for part in where:
        value = value[part]
    return value


def _type_fault(message: str, whole: Any) -> tuple[Where, str]:
    """Take apart what msgspec says of a value of the wrong type: (path of the value, sentence with both)."""
    said, _, at = message.partition(" - at ")
    path = re.search(r"\$(.*?)`", at)
    where = tuple(int(n) if n else name for n, name in re.findall(r"\[(\d+)\]|\.(\w+)", path[1])) if path else ()
    if at.startswith("`key`"):
        keys = [key for key in _at(whole, where) if not isinstance(key, str)]
        return where, f"the key {keys[0]!r} is not text; put it in quotes"
    value = _at(whole, where)
    expected = re.match(r"Expected `([^`]*)`( [<>]=? \S+)?", said)
    if expected is None:
        if where[-1:] == ("fit",):
            return where, f"there is no fit {brief(value)}{nearest(str(value), get_args(Fit))}"
        return where, f"{said[:1].lower()}{said[1:]}"
    kinds = " or ".join(_WORDS.get(kind, kind) for kind in expected[1].split(" | "))
    limit = (expected[2] or "").replace(">=", "of at least").replace(">", "of more than").removesuffix(".0")
    return where, f"expected {kinds}{limit}, got {_shown(value)}{advice.of_kind(where, expected[1], value)}"


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"text '{value}'" if len(value) < 80 else f"text of {len(value)} characters"
    kind = "the list " if isinstance(value, list) else "the mapping " if isinstance(value, dict) else ""
    shown = str(value)
    return f"{kind}{shown if len(shown) < 80 else shown[:77] + '...'}"

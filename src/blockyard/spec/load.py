"""Pipeline files: YAML text to a checked `PipelineSpec`, with errors that name file, line, task and field.

The text becomes a tree of nodes first, in which duplicate keys and endless aliases are seen and every value has its
line; then plain data, whose field names are compared with the model; then structs, with their types; and then
`validate` looks at the whole. So the first fault is told by the step that can say most about it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec
import yaml

from blockyard.spec.errors import SpecError, brief, nearest
from blockyard.spec.functions import PICKLE
from blockyard.spec.model import CheckSpec, Fit, PipelineSpec, RoiSpec, TaskSpec
from blockyard.spec.validate import Where, code_references, validate

MOST_VALUES = 1_000_000
"""Values of one file with its aliases written out: a few lines of aliases of aliases could be more than any memory."""

DEEPEST = 100
"""Levels of lists and mappings in one file."""
MERGE_TAG = "tag:yaml.org,2002:merge"
"""The tag of the key ``<<``, which may stand more than once."""

Lines = dict[Where, int]
"""Line, from 1, of the value at a path; an alias has the lines of its anchor at the first path only."""


def load_pipeline(path: str | os.PathLike[str]) -> PipelineSpec:
    """Return the pipeline of a YAML file, checked. Raises SpecError that names file, line, task and field."""
    source = os.fspath(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise SpecError(f"pipeline file {source} cannot be read: {error.strerror or error}") from None
    return load_text(data, source)


def load_text(text: str | bytes, source: str = "pipeline.yaml") -> PipelineSpec:
    """Return the pipeline of YAML text, checked; `source` is how errors call it. Raises SpecError."""
    try:
        value, lines = _read_yaml(text)
    except yaml.YAMLError as error:
        raise SpecError(f"{source}{_place(error)}: not valid YAML: {_problem(error, text)}") from None
    except SpecError as error:
        raise SpecError(f"{source}{error}") from None
    return _parse(value, source, lines)


def parse_pipeline(mapping: Any, source: str = "pipeline.yaml") -> PipelineSpec:
    """Return the pipeline of a mapping, such as a chart's ``pipeline:`` value, checked. Raises SpecError.

    `source` is how errors call it; they have no lines here.
    """
    return _parse(mapping, source, {})


# ----- YAML -------------------------------------------------------------------------------------------------------


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # chosen where libyaml is there
    """Plain data only; numbers such as 1e3 are numbers, as they are for Helm (YAML 1.2) and not for YAML 1.1."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"), list("-+.0123456789")
)


def _read_yaml(text: str | bytes) -> tuple[Any, Lines]:
    _check_depth(text)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise SpecError(" is empty; a pipeline file has a name and tasks")
        walk = _Walk(_outline(node))
        walk.visit(node, ())
        return _construct(loader, node), walk.lines  # last: it writes merge keys out, in the nodes themselves
    finally:
        loader.dispose()


def _construct(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    try:
        return loader.construct_document(node)
    except (ValueError, LookupError, TypeError, ArithmeticError) as error:
        # PyYAML lets these pass for a date or number that cannot be one (2020-13-01), and for tags on odd values.
        raise SpecError(
            f": not valid YAML: a value is not what its form or tag says ({error}); put it in quotes"
        ) from None


def _check_depth(text: str | bytes) -> None:
    """Raise SpecError, which begins with the line, before libyaml builds a tree so deep that the process crashes."""
    too_deep = f"values nested more than {DEEPEST} deep are no pipeline"
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > DEEPEST:
                raise SpecError(f":{_line(event)}: {too_deep}")
    except yaml.MarkedYAMLError as error:
        if "nesting depth" in str(error.problem):  # newer libyaml, which looks ahead, has a limit of its own
            raise SpecError(f"{_place(error)}: {too_deep}") from None
        raise


def _line(item: yaml.Event | yaml.Node) -> int:
    return item.start_mark.line + 1 if item.start_mark is not None else 1


def _outline(node: yaml.Node) -> Any:
    """Return as much of the data as names the tasks: ``{"tasks": [{"id": ...}, ...]}``."""
    tasks = _child(node, "tasks")
    items = tasks.value if isinstance(tasks, yaml.SequenceNode) else []
    ids = [_child(item, "id") for item in items]
    return {"tasks": [{"id": found.value} if isinstance(found, yaml.ScalarNode) else {} for found in ids]}


def _child(node: yaml.Node, name: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for key, value in pairs if isinstance(key, yaml.ScalarNode) and key.value == name), None)


class _Walk:
    """One pass over the nodes: lines, duplicate keys, aliases that contain themselves or too much."""

    def __init__(self, whole: Any) -> None:
        self.lines: Lines = {}
        self._whole = whole
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()

    def visit(self, node: yaml.Node, where: Where) -> int:
        """Return the number of values in `node`, aliases written out. Raises SpecError that begins with the line."""
        line = _line(node)
        self.lines.setdefault(where, line)
        if id(node) in self._open:
            raise self._fault(line, where, "it contains itself by an alias")
        if id(node) not in self._sizes:
            self._open.add(id(node))
            self._sizes[id(node)] = 1 + sum(self.visit(child, path) for child, path in self._children(node, where))
            self._open.discard(id(node))
        if self._sizes[id(node)] > MOST_VALUES:
            raise self._fault(line, where, f"it has more than {MOST_VALUES} values, with its aliases written out")
        return self._sizes[id(node)]

    def _children(self, node: yaml.Node, where: Where) -> list[tuple[yaml.Node, Where]]:
        if isinstance(node, yaml.SequenceNode):
            return [(child, (*where, number)) for number, child in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return []
        first: dict[tuple[str, str], yaml.Node] = {}
        for key, _ in node.value:
            line = _line(key)
            if not isinstance(key, yaml.ScalarNode):
                raise self._fault(line, where, "a key is a list or a mapping; keys are text")
            before = first.setdefault((key.tag, key.value), key)
            if before is not key and key.tag != MERGE_TAG:
                other = _line(before)
                raise self._fault(
                    line, where, f"'{key.value}' is given twice, first in line {other}; remove one of them"
                )
        return [(value, (*where, key.value)) for key, value in node.value]

    def _fault(self, line: int, where: Where, message: str) -> SpecError:
        return SpecError(f":{line}: {_subject(where, self._whole)}: {message}")


def _place(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""


def _problem(error: yaml.YAMLError, text: str | bytes) -> str:
    """Say what is wrong in one line: the parser's own words, after the context they need."""
    problem, context = getattr(error, "problem", None), getattr(error, "context", None)
    if problem is None:
        return " ".join(str(error).split())
    hint = "; indent with spaces, not with tabs" if _is_tab(error, text) else ""
    return f"{context}, {problem}{hint}" if context else f"{problem}{hint}"


def _is_tab(error: yaml.YAMLError, text: str | bytes) -> bool:
    mark = getattr(error, "problem_mark", None)
    lines = (text.decode(errors="replace") if isinstance(text, bytes) else text).splitlines()
    return mark is not None and mark.line < len(lines) and lines[mark.line][mark.column : mark.column + 1] == "\t"


# ----- data to structs --------------------------------------------------------------------------------------------


def _parse(value: Any, source: str, lines: Lines) -> PipelineSpec:
    try:
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


def _check_fields(value: Any, struct: type[msgspec.Struct], where: Where, whole: Any) -> None:
    if not isinstance(value, Mapping):
        return
    fields = msgspec.structs.fields(struct)
    known = [field.encode_name for field in fields]
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
    return where, f"expected {kinds}{limit}, got {_shown(value)}{_advice(expected[1], value)}"


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


def _advice(expected: str, value: Any) -> str:
    if "array" in expected and isinstance(value, str):
        return f"; write [{value}]"
    if "str" in expected and isinstance(value, bool | int | float):
        return "; put it in quotes"
    return ""

"""YAML text to plain data and back, with one meaning for every reader: the only place of blockyard that knows YAML.

What is read is the core schema of YAML 1.2, with ``<<``: numbers, ``true``, ``false``, ``null``, and all else is text,
``10:20`` and ``2026-11-27`` too. Helm, through which the same file reaches a cluster, still reads some of YAML 1.1
(``yes`` is true, ``017`` is 15, ``1_000`` a number, the last of two equal keys counts). Where the two differ nothing
is guessed: the value is refused, with its line. JSON is YAML, with the few escapes added that PyYAML lacks.

The parser is PyYAML's, in C where there is one; its resolver, which is that of YAML 1.1, is replaced (20 lines).
ruamel.yaml has a resolver for 1.2, but takes dates, ``1_000`` and tags there too, and is pure Python.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NoReturn

import yaml

from blockyard.spec.advice import of_syntax
from blockyard.spec.errors import SpecError

MOST_VALUES = 1_000_000
"""Values of one file with its aliases written out: a few lines of aliases of aliases could be more than any memory."""
DEEPEST = 100
"""Levels of lists and mappings in one file."""

Where = tuple[str | int, ...]
Lines = dict[Where, int]
"""Line, from 1, of the value at a path; an alias has the lines of its anchor at the first path only."""
Subject = Callable[[Where, Any], str]
"""Names what a path leads to, in data of which so much is there as names the tasks."""


def read_yaml(text: str | bytes, source: str, subject: Subject | None = None) -> tuple[Any, Lines]:
    """Return the data of YAML or JSON text and the lines of its values; (None, {}) where there is none.

    Raises SpecError that begins with `source` and the line; `subject` puts a path into words.
    """
    try:
        text = _plain_json(text)
        _check_events(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        if node is None:
            return None, {}
        walk = _Walk(_outline(node), subject or _path)
        walk.visit(node, ())
        return _Build().value(node), walk.lines
    except yaml.YAMLError as error:
        raise SpecError(f"{source}{_place(error, text)}: not valid YAML: {_problem(error, text)}") from None
    except SpecError as error:
        raise SpecError(f"{source}{error}") from None


def write_yaml(value: Any) -> str:
    """Return plain data as YAML text, in ASCII, that readers of YAML 1.1, of 1.2 and Helm read as the same data."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=math.inf))


# ----- scalars --------------------------------------------------------------------------------------------------------

_TAG = "tag:yaml.org,2002:"
_NULL, _BOOL, _INT, _FLOAT = _TAG + "null", _TAG + "bool", _TAG + "int", _TAG + "float"
_STR, _MERGE = _TAG + "str", _TAG + "merge"
_AMBIGUOUS = "!ambiguous"

_DIGITS = r"(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
_CORE = {
    _NULL: r"null|Null|NULL|~|",
    _BOOL: r"true|True|TRUE|false|False|FALSE",
    _INT: r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    _FLOAT: rf"[-+]?{_DIGITS}|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
}
_HELM_TRUE, _HELM_FALSE = r"y|Y|yes|Yes|YES|on|On|ON", r"n|N|no|No|NO|off|Off|OFF"
_LEADING_ZERO = r"[-+]?0[0-9]+"
# Numbers to Helm, which takes "_" out of whatever begins like a number, and octals and signs as C has them.
_HELM_NUMBER = (
    rf"{_LEADING_ZERO}|[-+]?0[bB][01]+|[-+]?0[oO][0-7]+|[-+]?0[xX][0-9a-fA-F]+"
    r"|(?=[^_]*_)(?=.*[0-9])[-+.0-9]"
    r"(?:[0-9_]*+(?:\.[0-9_]*+)?(?:[eE][-+]?[0-9_]+)?|0?_*+[xX][0-9a-fA-F_]+|0?_*+[oObB][0-7_]+)"
)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # chosen where libyaml is there
    """PyYAML's parser with the core schema; its constructors are not used."""

    yaml_implicit_resolvers: ClassVar[dict[str | None, list[tuple[str, re.Pattern[str]]]]] = {}


def _resolvers() -> Iterator[tuple[str, str]]:
    """Yield (tag, pattern): the first that fits a plain scalar says what it is."""
    yield _MERGE, "<<"
    yield _INT, r"0o[0-7]+|0x[0-9a-fA-F]+"
    yield _AMBIGUOUS, f"{_HELM_TRUE}|{_HELM_FALSE}|{_HELM_NUMBER}"
    yield from _CORE.items()


for _tag, _pattern in _resolvers():
    _Loader.add_implicit_resolver(_tag, re.compile(f"(?:{_pattern})\\Z"), None)


def _scalar(node: yaml.ScalarNode) -> Any:
    """Return the value of a scalar. Raises SpecError where it is not what its tag says."""
    tag, text = node.tag, node.value
    if tag in (_STR, _MERGE):  # "<<" that is no key is text
        return text
    if re.fullmatch(_CORE[tag], text) is None or re.fullmatch(_LEADING_ZERO, text):
        raise SpecError(f":{_line(node)}: not valid YAML: {text!r} is not what its tag says; leave out the tag")
    if tag == _NULL:
        return None
    if tag == _BOOL:
        return text.lower() == "true"
    if tag == _FLOAT:
        lower = text.lower()
        return float(lower.replace(".", "") if lower.endswith(("inf", "nan")) else lower)
    return _whole(text, _line(node))


def _whole(text: str, line: int) -> int:
    try:
        return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
    except ValueError:  # Python takes 4300 digits at most
        raise SpecError(f":{line}: a number of {len(text)} digits does not fit 64 bits; write it as text") from None


def _readings(text: str) -> str:
    """Return what an ambiguous scalar means to whom, and what to write instead."""
    if re.fullmatch(_LEADING_ZERO, text):
        return (
            f"{text} begins with a 0, which makes a number octal in YAML 1.1 and to Helm (017 is 15), not in YAML 1.2;"
            f" write it without the 0, as 0o17, or '{text}' in quotes"
        )
    if re.fullmatch(f"{_HELM_TRUE}|{_HELM_FALSE}", text):
        helm = "true" if re.fullmatch(_HELM_TRUE, text) else "false"
    else:
        helm = _helm_number(text.replace("_", "").lower())
    return f"{text} is {helm} in YAML 1.1 and to Helm, but text in YAML 1.2; write {helm}, or '{text}' in quotes"


def _helm_number(text: str) -> str:
    sign, digits = ("-" if text.startswith("-") else ""), text.lstrip("+-")
    prefixed = re.fullmatch("0[xob][0-9a-f]+", digits)
    return sign + (str(int(digits, 0)) if prefixed else digits.lstrip("0") or "0")


# ----- before there are nodes -----------------------------------------------------------------------------------------


_ESCAPES = re.compile(
    r"\\(?:u(?P<high>d[89ab][0-9a-f]{2})\\u(?P<low>d[c-f][0-9a-f]{2})|.)"
    "|(?P<raw>[\t\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff])",
    re.IGNORECASE | re.DOTALL,
)
"""What JSON may hold and PyYAML does not take: pairs of escapes for one character, some characters bare, tabs."""


def _plain_json(text: str | bytes) -> str | bytes:
    """Return JSON as YAML with the same lines, and anything else as it is."""
    if text.lstrip()[:1] not in ("{", b"{"):
        return text
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        json.loads(decoded)
    except (ValueError, RecursionError):  # bytes that are no text, flow YAML and the rest are for the parser of YAML
        return text
    return _ESCAPES.sub(_character, decoded)


def _character(found: re.Match[str]) -> str:
    if raw := found["raw"]:
        return " " if raw == "\t" else f"\\u{ord(raw):04x}"
    if high := found["high"]:
        return chr(0x10000 + ((int(high, 16) & 0x3FF) << 10) + (int(found["low"], 16) & 0x3FF))
    return found[0]


def _check_events(text: str | bytes) -> None:
    """Raise SpecError, which begins with the line, for what the nodes no longer show.

    Those are tags, and a tree so deep that libyaml crashes the process that builds it.
    """
    too_deep = f"values nested more than {DEEPEST} deep are no pipeline"
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise SpecError(f":{_line(event)}: {too_deep}")
            tag = getattr(event, "tag", None)
            if tag is not None and tag not in (*_CORE, _STR, _TAG + "seq", _TAG + "map"):
                shown = tag.replace(_TAG, "!!")
                raise SpecError(
                    f":{_line(event)}: the tag {shown} says what YAML has no plain value for; write text, numbers,"
                    " lists and mappings without tags"
                )
    except yaml.MarkedYAMLError as error:
        if "nesting depth" in str(error.problem):  # newer libyaml, which looks ahead, has a limit of its own
            raise SpecError(f"{_place(error, text)}: {too_deep}") from None
        raise


def _line(item: yaml.Event | yaml.Node) -> int:
    return item.start_mark.line + 1 if item.start_mark is not None else 1


# ----- nodes ----------------------------------------------------------------------------------------------------------


def _outline(node: yaml.Node) -> Any:
    """Return as much of the data as names the tasks: ``{"tasks": [{"id": ...}, ...]}``."""
    tasks = _child(node, "tasks")
    items = tasks.value if isinstance(tasks, yaml.SequenceNode) else []
    ids = [_child(item, "id") for item in items]
    return {"tasks": [{"id": found.value} if isinstance(found, yaml.ScalarNode) else {} for found in ids]}


def _child(node: yaml.Node, name: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for key, value in pairs if isinstance(key, yaml.ScalarNode) and key.value == name), None)


def _path(where: Where, _whole: Any) -> str:
    return ".".join(map(str, where)) or "the file"


class _Walk:
    """One pass over the nodes: lines, doubtful values, duplicate keys, aliases that contain themselves or too much."""

    def __init__(self, outline: Any, subject: Subject) -> None:
        self.lines: Lines = {}
        self._outline, self._subject = outline, subject
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()

    def visit(self, node: yaml.Node, where: Where) -> int:
        """Return the number of values in `node`, aliases written out. Raises SpecError that begins with the line."""
        self.lines.setdefault(where, _line(node))
        if id(node) in self._open:
            raise self._fault(node, where, "it contains itself by an alias")
        if id(node) not in self._sizes:
            self._open.add(id(node))
            self._sizes[id(node)] = 1 + sum(self.visit(child, path) for child, path in self._children(node, where))
            self._open.discard(id(node))
        if self._sizes[id(node)] > MOST_VALUES:
            raise self._fault(node, where, f"it has more than {MOST_VALUES} values, with its aliases written out")
        return self._sizes[id(node)]

    def _children(self, node: yaml.Node, where: Where) -> list[tuple[yaml.Node, Where]]:
        if isinstance(node, yaml.SequenceNode):
            return [(child, (*where, number)) for number, child in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            self._check_scalar(node, where)
            return []
        self._check_keys(node, where)
        return [(value, (*where, key.value)) for key, value in node.value]

    def _check_scalar(self, node: yaml.Node, where: Where) -> None:
        if node.tag == _AMBIGUOUS:
            raise self._fault(node, where, _readings(node.value))

    def _check_keys(self, node: yaml.MappingNode, where: Where) -> None:
        first: dict[tuple[str, str], yaml.Node] = {}
        merged: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._fault(key, where, "a key is a list or a mapping; keys are text")
            self._check_scalar(key, where)
            if key.tag == _MERGE:
                self._check_merge(value, where, first, merged)
                continue
            before = first.setdefault((key.tag, key.value), key)
            if before is not key:
                other = _line(before)
                raise self._fault(
                    key, where, f"{key.value!r} is given twice, first in line {other}; remove one of them"
                )

    def _check_merge(
        self, value: yaml.Node, where: Where, first: dict[tuple[str, str], yaml.Node], merged: dict[str, yaml.Node]
    ) -> None:
        """Refuse a merge that has a key of before it: in YAML the earlier one counts, to Helm the merged one."""
        sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
        if not all(isinstance(source, yaml.MappingNode) for source in sources):
            raise self._fault(value, where, "'<<' takes a mapping or a list of mappings")
        for source in sources:
            for key, _ in source.value:
                own = isinstance(key, yaml.ScalarNode) and ((key.tag, key.value) in first or key.value in merged)
                if own and merged.get(key.value) is not value:
                    raise self._fault(
                        value,
                        where,
                        f"{key.value!r} stands before the '<<' that has it too: the first counts in YAML, the second to"
                        " Helm; write one '<<' and put it first",
                    )
                merged[str(key.value)] = value

    def _fault(self, node: yaml.Node, where: Where, message: str) -> SpecError:
        return SpecError(f":{_line(node)}: {self._subject(where, self._outline)}: {message}")


class _Build:
    """Data of nodes that `_Walk` has passed; what an alias names is one object, as often as it is named."""

    def __init__(self) -> None:
        self._built: dict[int, Any] = {}

    def value(self, node: yaml.Node) -> Any:
        if id(node) not in self._built:
            self._built[id(node)] = self._new(node)
        return self._built[id(node)]

    def _new(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item) for item in node.value]
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        merged: dict[Any, Any] = {}
        own: dict[Any, Any] = {}
        for key, value in node.value:
            if key.tag != _MERGE:
                own[_scalar(key)] = self.value(value)
                continue
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                merged = self.value(source) | merged
        return merged | own


# ----- words ----------------------------------------------------------------------------------------------------------


def _place(error: yaml.YAMLError, text: str | bytes) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        before = (text if isinstance(text, bytes) else text.encode())[: error.position]
        return f":{1 + before.count(10)}"  # ends of line
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""


def _problem(error: yaml.YAMLError, text: str | bytes) -> str:
    """Return what is wrong in one line: the parser's own words, after the context they need, and what to do."""
    if isinstance(error, yaml.reader.ReaderError):
        return f"it is no text in UTF-8, or holds control characters (byte {error.position})"
    problem, context = getattr(error, "problem", None), getattr(error, "context", None)
    if problem is None:
        return " ".join(str(error).split())
    line, at = _line_of(error, text)
    hint = "; indent with spaces, not with tabs" if at == "\t" else of_syntax(problem, line)
    return f"{context}, {problem}{hint}" if context else f"{problem}{hint}"


def _line_of(error: yaml.YAMLError, text: str | bytes) -> tuple[str, str]:
    """Return the line where the parser stopped, and the character there; "" where that is past the end."""
    mark = getattr(error, "problem_mark", None)
    lines = (text.decode(errors="replace") if isinstance(text, bytes) else text).splitlines()
    if mark is None or mark.line >= len(lines):
        return "", ""
    return lines[mark.line], lines[mark.line][mark.column : mark.column + 1]


# ----- writing --------------------------------------------------------------------------------------------------------

_SAFE_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*(?::[A-Za-z_][A-Za-z0-9_./-]*)?\Z")
_WORDS = re.compile(f"(?:{_HELM_TRUE}|{_HELM_FALSE}|null|true|false)\\Z", re.IGNORECASE)


class _Dumper(yaml.SafeDumper):
    """Text in quotes wherever some reader could take it for something else; no anchors, which hide what is meant."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = _SAFE_TEXT.match(text) and not _WORDS.match(text)
    return dumper.represent_scalar(_STR, text, style=None if plain else '"')


def _refuse(_dumper: yaml.SafeDumper, value: Any) -> NoReturn:
    raise SpecError(f"{value!r} ({type(value).__name__}) is nothing that YAML has a plain value for")


_Dumper.add_representer(str, _text)
_Dumper.add_representer(tuple, yaml.SafeDumper.represent_list)
_Dumper.add_multi_representer(object, _refuse)

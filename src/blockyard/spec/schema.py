"""The JSON schema of a pipeline file, made from the model, so that editors, charts and the loader say the same.

It is one closed object without references, in words that drafts 7 and 2020-12 share, so that a chart can put it under
its ``pipeline`` value as it is. What a schema cannot say (a cycle, a write ROI outside its read ROI) `validate` says.
"""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import itertools
from typing import Any

import msgspec

from blockyard.spec import model
from blockyard.spec.functions import REFERENCE_PATTERN
from blockyard.spec.maps import ROIS
from blockyard.spec.model import RESOLVED, PipelineSpec
from blockyard.spec.validate import LONGEST_ID, LONGEST_NAME, NAME_PATTERN

Schema = dict[str, Any]

_REFERENCE: Schema = {"pattern": f"^{REFERENCE_PATTERN}$"}
_NAME: Schema = {"pattern": f"^{NAME_PATTERN}$", "maxLength": LONGEST_NAME}
_SMALLEST = {"total_roi": 0, "read_roi": 1, "write_roi": 1}
"""The smallest size of each ROI on any axis; 0: no blocks."""
_NARROWER: dict[str, dict[str, Schema]] = {
    "PipelineSpec": {"name": _NAME, "tasks": {"minItems": 1}},
    "TaskSpec": {
        "id": {**_NAME, "maxLength": LONGEST_ID},
        "function": _REFERENCE,
        "worker": _REFERENCE,
        "map": _REFERENCE,
        "block": {"minItems": 1},
        "command": {"minItems": 1},
        "check": _REFERENCE,
        "pool": _NAME,
        "requires": {"uniqueItems": True},
    },
    "ArraySpec": {
        "path": {"minLength": 1},
        "dtype": {"minLength": 1},
        "like": {"minLength": 1},
        **{name: {"minItems": 1} for name in ("voxel_size", "offset", "write_unit", "chunks", "shards")},
    },
    "CheckSpec": {"before": _REFERENCE, "after": _REFERENCE},
    "RoiSpec": {"offset": {"minItems": 1}, "shape": {"minItems": 1}},
}
"""What the types of the model do not say, by struct and field."""


def json_schema() -> Schema:
    """Return the schema of a pipeline file: closed objects, and each field's docstring as its description."""
    _, structs = msgspec.json.schema_components([PipelineSpec], ref_template="{name}")
    return {"$schema": "http://json-schema.org/draft-07/schema#", **_struct(PipelineSpec.__name__, structs)}


def field_docs(struct: str) -> dict[str, str]:
    """Return the docstring under each field of a struct of the model, as one line."""
    body = _classes()[struct].body
    docs: dict[str, str] = {}
    for field, below in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            docs[field.target.id] = " ".join(str(ast.literal_eval(below.value)).split())
    return docs


@functools.cache
def _classes() -> dict[str, ast.ClassDef]:
    tree = ast.parse(inspect.getsource(model))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _struct(name: str, structs: dict[str, Any]) -> Schema:
    """Return the schema of one struct with those of its fields written out, descriptions and limits added."""
    schema: Schema = {
        key: value for key, value in structs[name].items() if value != [] and key not in ("title", "properties")
    }
    schema["properties"] = {
        field: _field(name, field, value, structs)
        for field, value in structs[name]["properties"].items()
        if field not in RESOLVED
    }
    if name == "TaskSpec":
        schema["oneOf"] = [
            {"required": [code], "properties": {code: {"not": {"type": "null"}}}}
            for code in ("function", "worker", "command", "map")
        ]
        _let_maps(schema, _struct("ArraySpec", structs))
    return schema


def _let_maps(schema: Schema, array: Schema) -> None:
    """Let a task with `map` have `block` in the place of ROIs, and arrays without names."""
    schema["required"] = [name for name in schema["required"] if name not in ROIS]
    schema["anyOf"] = [{"required": [*ROIS]}, {"required": ["map", "block", "reads", "writes"]}]
    for name in ("reads", "writes"):
        named = schema["properties"][name]
        described = named.pop("description")
        schema["properties"][name] = {"description": described, "anyOf": [named, {"type": "string"}, array]}


def _field(struct: str, field: str, value: Schema, structs: dict[str, Any]) -> Schema:
    schema = _written_out(value, structs)
    for alternative in schema.get("anyOf", [schema]):
        if alternative.get("type") in ("string", "array"):
            alternative.update(_NARROWER[struct].get(field, {}))
    if field in _SMALLEST:
        schema["properties"]["shape"]["items"]["minimum"] = _SMALLEST[field]
    described = [field_docs(struct).get(field), schema.pop("description", None)]
    return {"description": " ".join(text for text in described if text), **schema}


def _written_out(value: Any, structs: dict[str, Any]) -> Any:
    """Put each struct in the place of the reference to it: drafts before 2019 ignore what stands beside a reference."""
    if isinstance(value, dict):
        if "$ref" in value:
            return _struct(value["$ref"], structs)
        return {key: _written_out(item, structs) for key, item in value.items()}
    return [_written_out(item, structs) for item in value] if isinstance(value, list) else copy.copy(value)

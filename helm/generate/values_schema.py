"""values.schema.json: values.schema.yaml with the pipeline's schema from the models and the comments of values.yaml."""

from __future__ import annotations

import json
from typing import Any

import yaml
from documented import documented_values
from paths import CHART

from blockyard.spec.schema import json_schema


def values_schema() -> str:
    """Give the text of values.schema.json."""
    schema = yaml.safe_load((CHART / "values.schema.yaml").read_text())
    schema["$defs"] |= _pipeline_definitions() | {"alert": {"enum": alerts()}}
    for value in documented_values((CHART / "values.yaml").read_text()):
        if value.comment:
            _describe(schema, value.path, value.comment)
    return json.dumps(schema, indent=1, sort_keys=False, ensure_ascii=False) + "\n"


def alerts() -> list[str]:
    """Give the names of all alerts."""
    groups = yaml.safe_load((CHART / "rules" / "alerts.yaml").read_text())["groups"]
    return [rule["alert"] for group in groups for rule in group["rules"]]


def _pipeline_definitions() -> dict[str, Any]:
    """Give the pipeline's schema as definitions: `PipelineSpec`, and `TaskSpec` for `tasks:` at the top level."""
    pipeline = {key: value for key, value in json_schema().items() if key != "$schema"}
    task = pipeline["properties"]["tasks"]["items"]
    pipeline["properties"]["tasks"]["items"] = {"$ref": "#/$defs/TaskSpec"}
    return {"PipelineSpec": pipeline, "TaskSpec": task}


def _describe(schema: dict[str, Any], path: tuple[str, ...], comment: str) -> None:
    """Put the comment into the schema of the value, in the definition of its section if that is shared."""
    node = schema
    for key in path[:-1]:
        node = _resolve(schema, node["properties"][key])
    target = node["properties"][path[-1]]
    node["properties"][path[-1]] = {"description": comment, **target}


def _resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].removeprefix("#/$defs/")]
    return node

"""The schema of pipeline files takes what the loader takes, and refuses what can be refused by form alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml
from examples import GOOD

from blockyard.spec import model
from blockyard.spec.errors import SpecError
from blockyard.spec.load import load_text, parse_pipeline
from blockyard.spec.schema import field_docs, json_schema

DRAFTS = [jsonschema.Draft7Validator, jsonschema.Draft202012Validator]
EXAMPLE = msgspec.json.decode(msgspec.json.encode(load_text(GOOD)))


def objects(schema: Any) -> list[dict[str, Any]]:
    """Give all parts of a schema that describe an object with known fields."""
    parts = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else []
    inner = [found for part in parts for found in objects(part)]
    return (
        [schema, *inner]
        if isinstance(schema, dict) and schema.get("type") == "object" and "properties" in schema
        else inner
    )


@pytest.mark.parametrize("draft", DRAFTS)
def test_it_is_a_schema_that_takes_a_good_file(draft: Any) -> None:
    """In the draft that charts use and in the newest."""
    draft.check_schema({**json_schema(), "$schema": draft.META_SCHEMA["$id"]})
    draft(json_schema()).validate(EXAMPLE)
    draft(json_schema()).validate(yaml.safe_load(GOOD.replace("1e-3", "0.001")))


def edit(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    changed = copy.deepcopy(EXAMPLE)
    change(changed)
    return changed


BAD = [
    lambda p: p.pop("name"),
    lambda p: p.pop("tasks"),
    lambda p: p.update(more=1),
    lambda p: p.update(name="a b"),
    lambda p: p.update(tasks=[]),
    lambda p: p["tasks"][0].pop("id"),
    lambda p: p["tasks"][0].pop("function"),
    lambda p: p["tasks"][0].update(function=None),
    lambda p: p["tasks"][0].update(worker="m:f"),
    lambda p: p["tasks"][0].update(fti="shrink"),
    lambda p: p["tasks"][0].update(fit="shrnk"),
    lambda p: p["tasks"][0].update(id="a/b"),
    lambda p: p["tasks"][0].update(id=7),
    lambda p: p["tasks"][0].update(function="m.f"),
    lambda p: p["tasks"][0].update(function="pickle:/f"),
    lambda p: p["tasks"][0].update(check="m.f"),
    lambda p: p["tasks"][0].update(check={"befor": "m:f"}),
    lambda p: p["tasks"][0].update(max_retries=-1),
    lambda p: p["tasks"][0].update(timeout_s=0),
    lambda p: p["tasks"][0].update(num_workers=0),
    lambda p: p["tasks"][0].update(pool=""),
    lambda p: p["tasks"][0].update(params=[]),
    lambda p: p["tasks"][1].update(command=[]),
    lambda p: p["tasks"][1].update(requires="smooth"),
    lambda p: p["tasks"][1].update(requires=["smooth", "smooth"]),
    lambda p: p["tasks"][0]["read_roi"].pop("shape"),
    lambda p: p["tasks"][0]["read_roi"].update(end=[1]),
    lambda p: p["tasks"][0]["read_roi"].update(shape=[7, 0, 1]),
    lambda p: p["tasks"][0]["write_roi"].update(shape=[7, 0, 1]),
    lambda p: p["tasks"][0]["total_roi"].update(shape=[-1, 1, 1]),
    lambda p: p["tasks"][0]["total_roi"].update(offset=[], shape=[]),
    lambda p: p["tasks"][0]["total_roi"].update(offset=["0", "0", "0"]),
]


@pytest.mark.parametrize("change", BAD, ids=range(len(BAD)))
@pytest.mark.parametrize("draft", DRAFTS)
def test_what_it_refuses_the_loader_refuses(change: Any, draft: Any) -> None:
    """So that a file that an editor or a chart complains of is bad, and those of form are seen by all."""
    bad = edit(change)
    assert list(draft(json_schema()).iter_errors(bad))
    with pytest.raises(SpecError):
        parse_pipeline(bad)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p["tasks"][0]["total_roi"].update(shape=[0, 1, 1]),
        lambda p: p["tasks"][0].update(check=None, timeout_s=None, num_workers=None, worker=None, command=None),
        lambda p: p["tasks"][0].update(check={}, params={"any": [{"thing": None}]}),
        lambda p: p["tasks"][0].update(function="a.b:C.d"),
        lambda p: p["tasks"][0].update(timeout_s=0.5, fit="overhang"),
    ],
)
@pytest.mark.parametrize("draft", DRAFTS)
def test_what_it_takes_the_loader_takes(change: Any, draft: Any) -> None:
    """Wherever form alone decides."""
    good = edit(change)
    draft(json_schema()).validate(good)
    parse_pipeline(good)


def test_every_object_is_closed_and_every_field_described() -> None:
    """The schema is the reference of the file too; its texts are the docstrings under the fields of the model."""
    found = objects(json_schema())
    assert len(found) == 10  # pipeline, task, three ROIs, check, arrays of reads and writes, each in two places
    for schema in found:
        assert schema["additionalProperties"] is False
        assert schema["description"]
        assert all(field["description"] for field in schema["properties"].values())
    task = json_schema()["properties"]["tasks"]["items"]["properties"]
    assert task["id"]["description"] == "Unique in the pipeline."
    assert task["total_roi"]["description"].startswith("All that is read. ")
    assert "$ref" not in repr(json_schema())


@pytest.mark.parametrize("struct", [model.PipelineSpec, model.TaskSpec, model.RoiSpec, model.CheckSpec])
def test_every_field_of_the_model_has_a_docstring(struct: type[msgspec.Struct]) -> None:
    """A new field cannot be added without saying what it is."""
    assert set(field_docs(struct.__name__)) == set(struct.__struct_fields__)

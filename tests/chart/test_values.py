"""Schema, values, their documentation, the models and the templates say the same, and every one of them is used."""

from __future__ import annotations

import copy
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import pytest
import yaml
from branches import Templates
from chart import CHART, CI_VALUES, TINY, Refused, as_documented, leaves, without
from documented import documented_values

from blockyard.spec.schema import json_schema

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
DOCUMENTED = documented_values((CHART / "values.yaml").read_text())
LEAVES = [value.path for value in DOCUMENTED if value.leaf]


def objects_of(schema, path=()):
    """Give every schema of an object in a schema, with its place."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield path, schema
        for key, value in schema.items():
            yield from objects_of(value, (*path, key))
    elif isinstance(schema, list):
        for number, value in enumerate(schema):
            yield from objects_of(value, (*path, number))


def test_the_schema_is_closed():
    """What has named fields has no others; open are only maps of the user's own keys, and Kubernetes' own objects."""
    for path, schema in objects_of(SCHEMA):
        if "properties" in schema:
            assert schema.get("additionalProperties") is False, path


def test_the_defaults_pass_the_schema():
    """values.yaml itself, with a pipeline in either place."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    validator = jsonschema.Draft202012Validator(SCHEMA)
    pipeline = yaml.safe_load(TINY)
    validator.validate(VALUES | pipeline)
    validator.validate(VALUES | {"pipeline": pipeline})


def test_the_schema_knows_exactly_the_values_there_are():
    """Each value of values.yaml is in the schema, and each of the schema in values.yaml (or is helm's own)."""

    def names(schema, path=()):
        while "$ref" in schema:
            schema = SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")]
        if path in LEAVES or "properties" not in schema:
            return {path}
        return {name for key, value in schema["properties"].items() for name in names(value, (*path, key))}

    assert names(SCHEMA) - {("global",)} == set(LEAVES)


def test_the_pipeline_schema_is_that_of_the_models():
    """Under `pipeline` stands what `blockyard.spec.schema` says, whole."""
    expected = json_schema()
    expected.pop("$schema")
    task = expected["properties"]["tasks"].pop("items")
    found = copy.deepcopy(SCHEMA["$defs"]["PipelineSpec"])
    assert found["properties"]["tasks"].pop("items") == {"$ref": "#/$defs/TaskSpec"}
    assert json.loads(json.dumps(expected)) == found
    assert json.loads(json.dumps(task)) == SCHEMA["$defs"]["TaskSpec"]


def test_values_are_explained_where_they_stand():
    """A value without a comment is one whose name says all: a part of every pod, a switch, a name."""
    plain = {
        *("repository", "enabled", "annotations", "podLabels", "podAnnotations", "nodeSelector", "tolerations"),
        *(
            "affinity",
            "topologySpreadConstraints",
            "priorityClassName",
            "extraEnv",
            "extraVolumes",
            "extraVolumeMounts",
        ),
        *("labels", "interval", "size", "mountPath", "className", "host", "path", "runAsGroup", "resources", "digest"),
    }
    assert [
        value.path for value in DOCUMENTED if value.leaf and not value.comment and value.path[-1] not in plain
    ] == []


def test_the_readme_lists_every_value():
    """Each value has its row, with its default."""
    readme = (CHART / "README.md").read_text()
    for value in DOCUMENTED:
        if value.leaf:
            assert f"| `{'.'.join(value.path)}` | `{json.dumps(value.default)}` |" in readme, value.path


def test_every_value_is_said_in_some_file_of_ci():
    """No value goes untried."""
    said = {as_documented(path) for file in CI_VALUES for path in leaves(yaml.safe_load(file.read_text()), LEAVES)}
    assert [path for path in LEAVES if path not in said] == []


@pytest.mark.parametrize("file", CI_VALUES, ids=lambda path: path.name)
def test_every_value_that_is_said_matters(render, file):
    """Leaving any one value out of the file changes the release, or makes helm refuse it."""
    values = yaml.safe_load(file.read_text())
    whole = render.everything(file)

    def same_without(path):
        try:
            return render.everything(without(values, path)) == whole
        except Refused:
            return False

    paths = leaves(values, LEAVES)
    assert paths
    with ThreadPoolExecutor(2) as threads:
        assert [path for path, same in zip(paths, threads.map(same_without, paths), strict=True) if same] == []


def test_every_branch_of_every_template_is_rendered(render, tmp_path):
    """Each side of each `if` and `with` is taken for some file of ci/; what only refuses has its own tests."""
    chart = tmp_path / "blockyard"
    shutil.copytree(CHART, chart)
    templates = Templates(chart)
    assert len(templates.branches) > 200
    left = {branch for branch in templates.branches if not branch.only_in_a_cluster()}
    for kind, verb, options in (("mark", "template", ("--debug",)), ("note", "install", ("--dry-run=client",))):
        templates.watch(templates.of_kind(kind))
        for file in CI_VALUES:
            left -= templates.seen(render.output(verb, file, options=options, chart=chart))
    traps = templates.of_kind("trap")
    for file in CI_VALUES:
        while True:
            templates.watch(traps)
            sprung = templates.seen(render.output("template", file, chart=chart))
            if not sprung:
                break
            left -= sprung
            traps -= sprung
    assert [str(branch) for branch in templates.branches if branch in left] == []

"""A pipeline file is read whole, or refused in one sentence that names file, line, task and field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml
from examples import GOOD, line_of
from hypothesis import example, given
from hypothesis import strategies as st

from blockyard.spec.errors import SpecError
from blockyard.spec.load import load_pipeline, load_text, parse_pipeline
from blockyard.spec.model import CheckSpec, PipelineSpec, RoiSpec
from blockyard.spec.schema import json_schema
from blockyard.spec.yaml_text import MOST_VALUES, write_yaml
from blockyard.testing.strategies import pipelines

SCHEMA = jsonschema.Draft7Validator(json_schema())


def refusal(text: str | bytes) -> str:
    with pytest.raises(SpecError) as error:
        load_text(text, "file.yaml")
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("file.yaml")
    return message


def assert_loads_or_refuses(load: Callable[[], PipelineSpec]) -> None:
    said = ""
    try:
        load()
    except SpecError as error:
        said = str(error)
    assert "\n" not in said


def test_every_field_of_a_file_arrives_in_the_spec(tmp_path: Any) -> None:
    """What the file says is what the pipeline is; what it leaves out has its default."""
    path = tmp_path / "em.yaml"
    path.write_text(GOOD)
    pipeline = load_pipeline(path)
    smooth, fragments = pipeline.tasks
    assert pipeline.name == "em-cells"
    assert smooth.function == "em_cells:smooth"
    assert smooth.params == {
        "source": "data/raw.zarr",
        "sigma": 1.5,
        "tiny": 0.001,
        "levels": [1, 2],
        "deep": {"ok": True, "none": None},
    }
    assert smooth.read_roi == RoiSpec((-1, -16, -16), (7, 160, 160))
    assert (smooth.fit, smooth.read_write_conflict, smooth.max_retries, smooth.timeout_s) == ("shrink", False, 3, 600)
    assert (smooth.check, smooth.num_workers, smooth.requires) == ("em_cells:smooth_done", None, ())
    assert fragments.command == ("fragments", "--fast")
    assert fragments.check == CheckSpec(before="em_cells:is_done")
    assert (fragments.requires, fragments.num_workers, fragments.pool) == (("smooth",), 4, "default")
    assert (fragments.fit, fragments.read_write_conflict, fragments.max_retries) == ("valid", True, 2)
    assert fragments.total_roi == smooth.total_roi


def test_a_mapping_is_read_like_a_file() -> None:
    """The chart's value and the file are one format, and a spec written out is read back the same."""
    pipeline = load_text(GOOD)
    assert parse_pipeline(yaml.safe_load(GOOD.replace("1e-3", "0.001"))) == pipeline
    assert parse_pipeline(msgspec.to_builtins(pipeline)) == pipeline


FAULTS = [
    # (what stands in the good file, what stands there instead, where the error is, what it says)
    ("fit: shrink", "fti: shrink", "fti", "task 'smooth': unknown field 'fti'; did you mean 'fit'?"),
    ("    total_roi: &all", "    total_rio: &all", "total_rio", "unknown field 'total_rio'; did you mean 'total_roi'?"),
    ("name:", "nmae:", "nmae", "the pipeline: unknown field 'nmae'; did you mean 'name'?"),
    ("fit: shrink", "fit: shrnk", "fit:", "task 'smooth', fit: there is no fit 'shrnk'; did you mean 'shrink'?"),
    (
        "fit: shrink",
        "fit: shrink\n    fit: valid",
        "fit: valid",
        "task 'smooth': 'fit' is given twice, first in line 9",
    ),
    ("sigma: 1.5", "sigma: 1.5, sigma: 2", "params", "task 'smooth', params: 'sigma' is given twice"),
    ("name: em-cells\n", "", "tasks", "the pipeline: the field 'name' is missing"),
    ("    write_roi: {offset", "    # {offset", "id: smooth", "task 'smooth': the field 'write_roi' is missing"),
    ("offset: [-1, -16, -16], ", "", "read_roi", "task 'smooth', read_roi: the field 'offset' is missing"),
    ("offset: [-1, -16, -16]", "offest: [-1, -16, -16]", "read_roi", "unknown field 'offest'; did you mean 'offset'?"),
    ("{before:", "{befor:", "befor", "task 'fragments', check: unknown field 'befor'; did you mean 'before'?"),
    ("[7, 160, 160]", "[7, x, 160]", "read_roi", "read_roi.shape[1]: expected a whole number, got text 'x'"),
    ("[7, 160, 160]", "[7, 1.5, 160]", "read_roi", "read_roi.shape[1]: expected a whole number, got 1.5"),
    ("[7, 160, 160]", "7", "read_roi", "read_roi.shape: expected a list, got 7"),
    ("requires: [smooth]", "requires: smooth", "requires", "expected a list, got text 'smooth'; write [smooth]"),
    (
        "requires: [smooth]",
        "requires: [smoth]",
        "requires",
        "requires 'smoth', which is no task; did you mean 'smooth'?",
    ),
    ("id: smooth", "id: 7", "id: 7", "task number 1, id: expected text, got 7; put it in quotes"),
    ("id: smooth", "id: fragments", "- id: fragments\n    requires", "has the id 'fragments' that task number 1 has"),
    ("max_retries: 3", "max_retries: -1", "max_retries", "max_retries: expected a whole number of at least 0, got -1"),
    ("max_retries: 3", "max_retries: true", "max_retries", "max_retries: expected a whole number, got true"),
    ("max_retries: 3", "max_retries: yes", "max_retries", "'smooth', max_retries: yes is true in YAML 1.1 and to Helm"),
    ("timeout_s: 600", "timeout_s: 10m", "timeout_s", "timeout_s: expected a number or nothing, got text '10m'"),
    ("timeout_s: 600", "timeout_s: 0", "timeout_s", "timeout_s: expected a number of more than 0, got 0"),
    ("timeout_s: 600", "timeout_s: .inf", "timeout_s", "task 'smooth': timeout_s is inf"),
    ("num_workers: 4", "num_workers: 0", "num_workers", "num_workers: expected a whole number of at least 1, got 0"),
    ("conflict: false", "conflict: maybe", "read_write", "expected true or false, got text 'maybe'"),
    (
        "em_cells:smooth\n",
        "em_cells.smooth\n",
        "function",
        "'em_cells.smooth' names no function; write 'em_cells:smooth'",
    ),
    ("em_cells:smooth\n", "pickle:/tmp/f\n", "function", "is a pickle, which only a local run makes for itself"),
    ("    function: em_cells:smooth\n", "", "id: smooth", "task 'smooth' does not say what to run; write exactly one"),
    ("fit: shrink", "worker: m:f", "id: smooth", "task 'smooth' has both function and worker; write exactly one"),
    ("sigma: 1.5", "sigma: !!timestamp 2020-01-01", "params", "the tag !!timestamp"),
    ("sigma: 1.5", "sigma: !!int x", "params", "'x' is not what its tag says"),
    ("sigma: 1.5", "sigma: .nan", "params", "params.sigma is nan, which JSON cannot carry"),
    ("sigma: 1.5", "1: 5", "params", "task 'smooth', params: the key 1 is not text; put it in quotes"),
    ("sigma: 1.5", "sigma: {1: 5}", "params", "params.sigma: the key 1 is not text; put it in quotes"),
    ("sigma: 1.5", "sigma: &me [*me]", "params", "params.sigma[0]: it contains itself by an alias"),
    ("sigma: 1.5", "sigma: *nobody", "params", "not valid YAML: found undefined alias"),
    ("sigma: 1.5", "sigma: !!python/object:os.system x", "params", "the tag !!python/object:os.system"),
    ("sigma: 1.5", "[a, b]: 1", "params", "task 'smooth', params: a key is a list or a mapping"),
    ("fit: shrink", "fit shrink", "read_write", "not valid YAML: while scanning a simple key"),
    ("fit: shrink", "\tfit: shrink", "\tfit", "indent with spaces, not with tabs"),
    ("    fit: shrink", "   fit: shrink", "   fit", "not valid YAML"),
    ("name: em-cells", "name: em cells", "name", "the pipeline's name, 'em cells', cannot be used as a key, label"),
    ("name: em-cells\n", "name: em-cells\n---\n", "---", "expected a single document"),
    ("pool: default", "pool: a/b", "pool", "the pool of task 'smooth', 'a/b', cannot be used as a key"),
    ("[5, 128, 128]}\n    fit", "[5, 128, 190]}\n    fit", "write_roi", "axis 2: it writes 0:190 and reads -16:144"),
]


@pytest.mark.parametrize(
    ("good", "bad", "at", "says"), FAULTS, ids=[f"{n}-{fault[1]!r}" for n, fault in enumerate(FAULTS)]
)
def test_a_fault_is_told_with_its_line_and_what_it_should_be(good: str, bad: str, at: str, says: str) -> None:
    """One fault in a good file gives one sentence with the file, the line, the task or field, and the way out."""
    assert good in GOOD
    text = GOOD.replace(good, bad, 1)
    message = refusal(text)
    assert says in message
    if at:
        assert message.startswith(f"file.yaml:{line_of(text, at)}:")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "file.yaml is empty"),
        ("# nothing\n", "file.yaml is empty"),
        ("smooth", "file.yaml:1: the pipeline: expected a mapping, got text 'smooth'"),
        ("- a", "the pipeline: expected a mapping, got the list ['a']"),
        ("name: a\ntasks:\n", "file.yaml:2: the pipeline, tasks: expected a list, got nothing"),
        ("name: a\ntasks: []\n", "file.yaml:2: pipeline 'a' has no tasks"),
        ("name: a\ntasks: [b]\n", "file.yaml:2: task number 1: expected a mapping, got text 'b'"),
        ("[" * 100_000, "nested more than 100 deep"),
        ("- " * 5_000, "nested more than 100 deep"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (b"name: \xc3\x28", "not valid YAML"),
    ],
)
def test_what_is_no_pipeline_is_said_to_be_none(text: str | bytes, says: str) -> None:
    """Any bytes give a sentence."""
    assert says in refusal(text)


def test_aliases_of_aliases_are_refused_before_they_are_written_out() -> None:
    """A few lines that would be more values than any memory are counted, not built."""
    levels = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    text = GOOD.replace("sigma: 1.5", ", ".join(levels))
    assert f"more than {MOST_VALUES} values" in refusal(text)


def test_merge_keys_may_stand_more_than_once_and_be_overridden() -> None:
    """``<<`` takes fields from elsewhere in the file; a field of one's own beside it is no duplicate."""
    text = GOOD.replace("  - id: smooth", "  - &base\n    id: smooth").replace(
        "    requires: [smooth]\n    command",
        "    function: null\n    requires: [smooth]\n    params: {}\n    command",
    )
    text = text.replace("  - id: fragments", "  - <<: *base\n    id: fragments")
    smooth, fragments = load_text(text).tasks
    assert fragments.max_retries == smooth.max_retries == 3
    assert fragments.command == ("fragments", "--fast")


def test_numbers_mean_what_they_mean_to_helm() -> None:
    """1e3 is a number in the file as in the chart that is given the same file."""
    text = GOOD.replace("timeout_s: 600", "timeout_s: 1e3").replace("sigma: 1.5", "sigma: -2.5E-1")
    task = load_text(text).tasks[0]
    assert task.timeout_s == 1000
    assert task.params["sigma"] == -0.25


def test_a_file_that_is_not_there_is_named(tmp_path: Any) -> None:
    """So is one that is a folder."""
    with pytest.raises(SpecError, match=r"no\.yaml cannot be read: No such file"):
        load_pipeline(tmp_path / "no.yaml")
    with pytest.raises(SpecError, match="is a folder; give the pipeline file"):
        load_pipeline(tmp_path)


PIECES = [
    "name",
    "tasks",
    "id",
    ":",
    "-",
    "[",
    "]",
    "{",
    "}",
    ",",
    "&a",
    "*a",
    "<<",
    "\n",
    "  ",
    "!!int",
    "x",
    "1",
    "'",
    '"',
    "|",
    "#",
    "?",
    "\t",
    "%",
    "é",
]


@example("!!int name \n \n name")
@example('"a \n\n b": 1\n"a \n\n b": 2')
@given(st.lists(st.sampled_from(PIECES), max_size=40).map(" ".join) | st.binary(max_size=60))
def test_no_text_gives_anything_but_a_pipeline_or_a_sentence(text: str | bytes) -> None:
    """Whatever is in the file, the only exception is a SpecError of one line."""
    assert_loads_or_refuses(lambda: load_text(text))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=5,
)
PATHS = [
    ["name"],
    ["tasks"],
    *[["tasks", 0, name] for name in msgspec.to_builtins(load_text(GOOD))["tasks"][0]],
    *[
        ["tasks", 0, name, part]
        for name in ("total_roi", "read_roi", "write_roi")
        for part in ("offset", "shape", "end")
    ],
    ["tasks", 0, "read_roi", "shape", 1],
    ["tasks", 1, "check", "before"],
    ["tasks", 1, "requires", 0],
    ["tasks", 1, "command", 0],
    ["tasks", 0, "params", "sigma"],
    ["tasks", 1],
]


@given(st.sampled_from(PATHS), VALUES)
def test_no_value_in_any_field_gives_anything_but_a_pipeline_or_a_sentence(path: list[Any], value: Any) -> None:
    """A wrong value anywhere is a SpecError of one line, never another exception."""
    mapping = msgspec.json.decode(msgspec.json.encode(load_text(GOOD)))
    place = mapping
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    assert_loads_or_refuses(lambda: parse_pipeline(mapping))


@given(pipelines())
def test_any_pipeline_can_be_written_as_a_file_and_read_back(pipeline: PipelineSpec) -> None:
    """YAML, JSON and the structs say the same, and the schema takes them."""
    mapping = msgspec.json.decode(msgspec.json.encode(pipeline))
    assert load_text(write_yaml(mapping)) == pipeline
    assert parse_pipeline(mapping) == pipeline
    SCHEMA.validate(mapping)

"""YAML has one meaning: the core schema of YAML 1.2, or a refusal with the line where Helm would read another."""

from __future__ import annotations

import json
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from blockyard.spec.errors import SpecError
from blockyard.spec.yaml_text import read_yaml, write_yaml


def read(text: str | bytes) -> object:
    return read_yaml(text, "file.yaml")[0]


def refusal(text: str | bytes) -> str:
    with pytest.raises(SpecError) as error:
        read(text)
    return str(error.value)


TEXT = [
    "10:20",
    "1:2:3",
    "12:30:45",
    "-1:30",
    "2026-11-27",
    "2026-11-27T10:20:30Z",
    "2026-13-01",
    "1.2.3",
    "_1",
    "1_a",
    "a_1",
    "=",
    "nan",
    "inf",
    "Infinity",
    "tRue",
    "yEs",
    "0x",
    "0o8",
    "0b",
    "0b2",
    "1e",
    "e3",
    "+",
    ".",
    "..",
    "1e+",
    "v1",
    "ab12",
    "0x1p4",
]
VALUES = [
    *((text, text) for text in TEXT),
    *((text, None) for text in ("~", "null", "Null", "NULL", "")),
    *((text, True) for text in ("true", "True", "TRUE")),
    *((text, False) for text in ("false", "False", "FALSE")),
    *((str(number), number) for number in (0, 7, -7, 12345678901234567890)),
    ("+7", 7),
    ("0o17", 15),
    ("0x1F", 31),
    ("1e3", 1000.0),
    ("1E-2", 0.01),
    ("-2.5e+1", -25.0),
    (".5", 0.5),
    ("-.5", -0.5),
    ("+.5", 0.5),
    ("5.", 5.0),
    ("09.5", 9.5),
    (".inf", math.inf),
    ("-.Inf", -math.inf),
    ("!!str 5", "5"),
    ("!!str yes", "yes"),
    ("'yes'", "yes"),
    ('"017"', "017"),
    ("!!int '5'", 5),
    ("!!float 3", 3.0),
    ('"\\u00e9\\x41\\U0001F9E0"', "éA🧠"),
]


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_a_plain_value_is_what_the_core_schema_says(text: str, value: object) -> None:
    """Numbers, true, false and null as YAML 1.2 has them; all else is text: times, dates, versions."""
    got = read(f"a:\n- {text}\n")
    assert got == {"a": [value]}
    assert type(got["a"][0]) is type(value)  # type: ignore[index]


DOUBTFUL = [
    "y",
    "Y",
    "yes",
    "Yes",
    "YES",
    "n",
    "N",
    "no",
    "No",
    "NO",
    "on",
    "On",
    "ON",
    "off",
    "Off",
    "OFF",
    "017",
    "08",
    "-017",
    "+08",
    "00",
    "0b101",
    "-0b11",
    "0B1",
    "0O17",
    "0X1F",
    "-0x1F",
    "+0o17",
    "1_000",
    "1_",
    "0.1_5",
    "1_0.5",
    "-_5",
    "2026_01_01",
    "0x1_F",
    "0o1_7",
    "0b1_1",
    "1_000e3",
    "1e5_0",
    ".1_5",
    "1__0",
]


@pytest.mark.parametrize("text", DOUBTFUL)
@pytest.mark.parametrize("form", ["a:\n- {}\n", "a:\n  {}: 1\n", "{{a: 1,\n b: [{}]}}"])
def test_a_value_that_helm_reads_otherwise_is_refused_with_its_line(text: str, form: str) -> None:
    """It names the line and says to put it in quotes; quoted it is text, as a value and as a key."""
    said = refusal(form.format(text))
    assert said.startswith("file.yaml:2: ")
    assert f"'{text}' in quotes" in said
    assert f"'{text}'" in str(read(form.format(f"'{text}'")))


def test_what_to_write_instead_is_said() -> None:
    """As numbers, where it is one."""
    assert "yes is true in YAML 1.1 and to Helm, but text in YAML 1.2; write true, or 'yes'" in refusal("a: yes")
    assert "1_000 is 1000 in YAML 1.1" in refusal("a: 1_000")
    assert "-0b11 is -3 in YAML 1.1" in refusal("a: -0b11")
    assert "write it without the 0, as 0o17, or '017' in quotes" in refusal("a: 017")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: 1\nb: 2\na: 3", 3, "'a' is given twice, first in line 1"),
        ('a: 1\n"a": 2', 2, "'a' is given twice"),
        ('{"a": 1,\n "b": {"c": 1,\n\t"c": 2}}', 3, "b: 'c' is given twice, first in line 2"),
        ("x: &x {a: 1}\ny2: {a: 2, <<: *x}", 1, "'a' stands before the '<<' that has it too"),
        ("x: &x {a: 1}\nz: &z {a: 2}\ny2:\n  <<: *x\n  <<: *z", 2, "'a' stands before the '<<' that has it too"),
        ("x: 1\ny2:\n  <<: 5", 3, "'<<' takes a mapping or a list of mappings"),
        ("a:\n  !!binary aGVsbG8=", 2, "the tag !!binary"),
        ("a:\n  !!set {b, c}", 2, "the tag !!set"),
        ("a:\n  !mine b", 2, "the tag !mine"),
        ("a:\n  ! 5", 2, "the tag !"),
        ("a:\n  !!int 5.5", 2, "'5.5' is not what its tag says"),
        ("a:\n  !!bool yes", 2, "'yes' is not what its tag says"),
        ("a: 1\n" + "b: " + "1" * 5000, 2, "a number of 5000 digits"),
        ("a: 1\n---\nb: 2", 2, "expected a single document"),
        ("a: 1\n\tb: 2", 2, "indent with spaces"),
    ],
)
def test_what_readers_take_differently_or_not_at_all_is_refused_with_its_line(text: str, line: int, says: str) -> None:
    """Keys twice (Helm takes the last), a merge after what it has too, tags, several documents."""
    said = refusal(text)
    assert said.startswith(f"file.yaml:{line}:")
    assert says in said


def test_merges_of_mappings_fill_in_what_is_not_said() -> None:
    """The first of a list counts, and what is said beside it more than both."""
    text = "x: &x {a: 1, b: 1}\nz: &z {b: 2, c: 2}\nm: {<<: [*x, *z], c: 3}"
    assert read(text)["m"] == {"a": 1, "b": 1, "c": 3}  # type: ignore[index]


@pytest.mark.parametrize(
    "encode", [str, lambda text: "\ufeff" + text, str.encode, lambda text: text.encode("utf-8-sig")]
)
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(encode) -> None:  # type: ignore[no-untyped-def]
    assert read(encode("a: 1\r\nb:\r\n- größe\r\n")) == {"a": 1, "b": ["größe"]}


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.sampled_from([*TEXT, *DOUBTFUL, "<<", "*a", "&a", "!x", "- a", "a: b", "#", "%", "1e3", "0o17", "'", '"']),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.sampled_from(DOUBTFUL), inner),
    max_leaves=12,
)


def same(ours: object, theirs: object) -> bool:
    return json.dumps(ours, sort_keys=True) == json.dumps(theirs, sort_keys=True)


@given(PLAIN)
def test_what_is_written_is_read_back_by_every_reader(value: object) -> None:
    """By ours, and by one of YAML 1.1; types too."""
    assert same(read(write_yaml({"a": value})), {"a": value})
    assert same(yaml.safe_load(write_yaml({"a": value})), {"a": value})


@given(PLAIN.filter(lambda value: "Infinity" not in json.dumps(value)), st.sampled_from([None, 1, "\t"]), st.booleans())
def test_json_is_read_as_json(value: object, indent: int | str | None, ascii_only: bool) -> None:
    """With tabs, with characters as pairs of escapes, in one line or many; a whole float is a float."""
    text = json.dumps({"a": value}, indent=indent, ensure_ascii=ascii_only)
    assert same(read(text), {"a": value})

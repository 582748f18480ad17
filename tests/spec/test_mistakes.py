"""A mistake in a pipeline file as people make it: one sentence says where, what is there, and what to write."""

import gzip

import pytest

from blockyard.spec.errors import SpecError
from blockyard.spec.load import load_pipeline, load_text

GOOD = """\
name: p
tasks:
  - id: t
    function: steps:step
    total_roi: {offset: [0], shape: [4]}
    read_roi: {offset: [0], shape: [1]}
    write_roi: {offset: [0], shape: [1]}
"""
FUNCTION = "    function: steps:step\n"
WRITE_A_ROI = "write {offset: [0, 0], shape: [10, 10]}, with a number for each axis"
TOTAL = "total_roi: {offset: [0], shape: [4]}"

CHANGED = {
    # what stands in the file: what in its place, and how the sentence ends
    "worker: true": (FUNCTION, "    worker: true\n", "got true; write 'module:name'"),
    "a pair of checks": (FUNCTION, FUNCTION + "    check: [a:b, c:d]\n", "write {before: 'a:b', after: 'c:d'}"),
    "a command that is a word of YAML": (FUNCTION, '    command: "false"\n', 'got text \'false\'; write ["false"]'),
    "a command line": (FUNCTION, "    command: sh -c 'a b'\n", 'write ["sh", "-c", "a b"]'),
    "a command line with a quote": (FUNCTION, '    command: "its \\"so"\n', 'write ["its", "\\"so"]'),
    "command: false": (FUNCTION, "    command: false\n", "got false; write [program, argument, ...]"),
    "a number in a command": (FUNCTION, "    command: [sleep, 1]\n", "command[1]: expected text, got 1; put it in"),
    "a dot": ("steps:step", "em.steps.step", "names no function; write 'em.steps:step'"),
    "a file": ("steps:step", "steps.py", "names no function; write 'steps:name'"),
    "a call": ("steps:step", "steps:step()", "names no function; write 'steps:step'"),
    "requires: a": (FUNCTION, FUNCTION + "    requires: a\n", "got text 'a'; write [a]"),
    "a number in quotes": (FUNCTION, FUNCTION + '    max_retries: "2"\n', "got text '2'; write 2"),
    "a number with a point": (FUNCTION, FUNCTION + "    max_retries: 2.0\n", "got 2.0; write 2"),
    "half a block": ("shape: [4]", "shape: [4.5]", "shape[0]: expected a whole number, got 4.5"),
    "a truth in quotes": (FUNCTION, FUNCTION + '    read_write_conflict: "False"\n', "got text 'False'; write false"),
    "a time with its unit": (FUNCTION, FUNCTION + "    timeout_s: 10min\n", "'10min'; write seconds, such as 600"),
    "a ROI as a list": (TOTAL, "total_roi: [0, 4]", WRITE_A_ROI),
    "a ROI as a slice": (TOTAL, "total_roi: 0:4", WRITE_A_ROI),
    "a ROI of numbers": (TOTAL, "total_roi: {offset: 0, shape: 4}", "offset: expected a list, got 0; write [0]"),
    "a tab": ("    function", "\tfunction", "indent with spaces, not with tabs"),
    "no colon": ("    function: steps:step", "    function steps:step", "write 'key: value'"),
    "no blank": ("id: t", "id:t", "write 'key: value' on the line before"),
    "too far left": ("    total_roi", "   total_roi", "indent it like the other fields of its task"),
    "too far right": ("    total_roi", "     total_roi", "indent it like the lines around it"),
    "a colon in text": ("name: p", "name: p: q", "put text that holds ': ' in quotes"),
    "a brace": ("shape: [4]}", "shape: [4]", "a bracket is not closed, or a comma is missing"),
    "no blanks in braces": (TOTAL, "total_roi: {offset:[0],shape:[4]}", "write a blank after each ':'"),
    "a quote": ("name: p", 'name: "p', "a quote is opened and not closed"),
    "an at": ("name: p", "name: @p", "in 'name: @p'; put text that begins like this in quotes"),
    "an alias": (TOTAL, "total_roi: *all", "an anchor (&name) comes before its aliases (*name)"),
    "a year": ("name: p", "name: 2026", "got 2026; put it in quotes"),
}  # fmt: skip

WHOLE = {
    "two documents": (GOOD + "---\n" + GOOD, "write one pipeline a file, without a line '---' in it"),
    "tasks by name": ("name: p\ntasks:\n  t: {}\n", "write each task as '- id: NAME'"),
    "no tasks": ("name: p\ntasks:\n", "got nothing; write each task as '- id: NAME'"),
    "a task that is a word": ("name: p\ntasks: [t]\n", "1: expected a mapping, got text 't'; write each task"),
    "a list": ("- id: t\n", "a pipeline file has 'name: NAME' and, below 'tasks:', its tasks"),
    "a page": ("<!doctype html>\n", "a pipeline file has 'name: NAME' and, below 'tasks:', its tasks"),
    "settings": ('[tool]\nname = "p"\n', "is it another kind of file?"),
    "nothing": ("# to do\n", "is empty; a pipeline file has a name and tasks"),
    "another encoding": (f"#\u00e4\n{GOOD}".encode("latin-1"), ":1: not valid YAML: it is no text in UTF-8"),
    "a control character": (GOOD.replace("steps:", "steps\0:").encode(), ":4: not valid YAML: it is no text in UTF-8"),
    "an archive": (gzip.compress(GOOD.encode()), "it is no text in UTF-8, or holds control characters (byte"),
}  # fmt: skip


def refusal(text):
    with pytest.raises(SpecError) as error:
        load_text(text, "p.yaml")
    said = str(error.value)
    assert said.startswith("p.yaml")
    assert said.isprintable()
    return said


@pytest.mark.parametrize("name", CHANGED)
def test_a_slip_is_told_with_its_line_and_what_to_write(name):
    """The line is that of the slip, or where the parser noticed it."""
    old, new, end = CHANGED[name]
    said = refusal(GOOD.replace(old, new, 1))
    assert end in said
    assert said.split(":")[1].isdecimal()


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_no_pipeline_at_all_is_told_as_that(name):
    """Whatever kind of file it is."""
    text, end = WHOLE[name]
    assert end in refusal(text)


@pytest.mark.parametrize(
    ("change", "name"),
    [(str.encode, "plain"), (lambda text: b"\xef\xbb\xbf" + text.encode(), "bom"),
     (lambda text: text.replace("\n", "\r\n").encode(), "crlf"), (lambda text: text.encode("utf-16"), "utf-16"),
     (lambda text: f"---\n{text}...\n".encode(), "markers")],
)  # fmt: skip
def test_what_other_editors_write_is_read(change, name, tmp_path):
    """A mark of the byte order, ends of lines of Windows, its encoding, the marks of a document."""
    (tmp_path / f"{name}.yaml").write_bytes(change(GOOD))
    assert load_pipeline(tmp_path / f"{name}.yaml") == load_text(GOOD)


def test_what_is_no_file_of_yaml_is_told_by_its_name(tmp_path):
    """A folder, a script, and what is not there."""
    for path, says in ((tmp_path, "is a folder; give the pipeline file"), (tmp_path / "a.py", "is Python, and no pip"),
                       (tmp_path / "a.yaml", "cannot be read: No such file")):  # fmt: skip
        with pytest.raises(SpecError, match=says):
            load_pipeline(path)

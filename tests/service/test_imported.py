"""The digest of the code that a process imported: the same for the same source, another for any other."""

import subprocess
import sys

import pytest

FILES = {
    "steps.py": """
from pkg import part
from pkg.constants import SIGMA
import later_used

def smooth(block):
    import lazily
    import pkg2.sub
    return SIGMA, lazily

class Model:
    def __call__(self, block): ...
""",
    "pkg/__init__.py": "",
    "pkg/part.py": "from . import inner\nfrom .deep.deeper import VALUE\n",
    "pkg/inner.py": "A = 1\n",
    "pkg/constants.py": "SIGMA = 1.0\n",
    "pkg/deep/__init__.py": "",
    "pkg/deep/deeper.py": "VALUE = 1\n",
    "later_used.py": "import json\n",
    "lazily.py": "",
    "pkg2/__init__.py": "A = 1\n",
    "pkg2/sub.py": "",
    "other_task.py": "import unrelated, lazily, pkg2.sub\ndef other(block): ...\n",
    "unrelated.py": "",
}
PROGRAM = """
import sys
from blockyard.client.imported import Imported
from blockyard.spec.functions import load_function
imported = Imported()
for reference in sys.argv[1:]:
    function = load_function(reference, pickle_dir=None)
    imported.look()
print(imported.code_of(function))
"""


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def code(folder, *references):
    """The digest of the last function, in a process that has loaded all of them."""
    command = [sys.executable, "-B", "-c", PROGRAM, *references]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_what_a_function_imports_is_its_code_whatever_else_is_loaded(folder):
    """An edit of any of it is another version; one of another task's module is not.

    Nor does it matter whether that has imported before what this one imports when it is called.
    """
    first = code(folder, "steps:smooth")
    assert len(first) == 16
    assert code(folder, "other_task:other", "steps:Model", "steps:smooth") == first
    versions = {first}
    for name in ("steps", "pkg/__init__", "pkg/part", "pkg/inner", "pkg/constants", "pkg/deep/deeper", "later_used",
                 "lazily", "pkg2/__init__", "pkg2/sub"):  # fmt: skip
        with (folder / f"{name}.py").open("a") as file:
            file.write("# edited\n")
        versions.add(code(folder, "steps:smooth"))
    assert len(versions) == 11
    (folder / "unrelated.py").write_text("# edited")
    assert code(folder, "other_task:other", "steps:smooth") in versions


SCRIPT = """
import functools, json, sys
import later_used
from blockyard.client.imported import Imported

FACTOR = {factor}

def helper(block):
    return FACTOR * {inline}

class Model:
    def run(self, block):
        return helper(block)

def process(block, model=None):
    return helper(block), later_used, json

print(Imported().code_of(functools.partial(process, model=1)), Imported().code_of(Model().run))
"""


def test_functions_of_a_script_have_a_version_too(folder):
    """Of what they do and import, wherever in the file they stand."""

    def codes(**values):
        (folder / "script.py").write_text(values.pop("before", "") + SCRIPT.format(factor=1, **{"inline": 1} | values))
        done = subprocess.run(
            [sys.executable, "-B", "script.py"], cwd=folder, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    first = codes()
    assert codes(before="# a comment\n\n") == first
    for edited in (codes(inline=2), codes(inline="len(block)")):
        assert not set(edited) & set(first)
    (folder / "later_used.py").write_text("# edited")
    assert codes()[0] != first[0]


def test_what_is_installed_or_ours_is_no_version_of_the_run(folder):
    """Python's own neither; the module of the function itself counts wherever it is."""
    assert code(folder, "math:floor") == ""
    assert len(code(folder, "yaml:safe_load")) == 16


def test_what_was_imported_counts_not_what_the_file_has_become(folder):
    """A slot that started before an edit runs what it imported."""
    program = PROGRAM.replace("print(", "open('steps.py', 'a').write('# edited')\nprint(")
    command = [sys.executable, "-B", "-c", program, "steps:smooth"]
    first = code(folder, "steps:smooth")
    assert subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip() == first
    assert code(folder, "steps:smooth") != first

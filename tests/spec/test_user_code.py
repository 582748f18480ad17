"""User code that cannot be imported, or not be called as it will be, is found before anything runs."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from examples import pipeline, task

from blockyard.local.preflight import FunctionCheck
from blockyard.spec.errors import SpecError
from blockyard.spec.model import CheckSpec, PipelineSpec
from blockyard.spec.user_code import check_functions

CODE = """
print("user code may print when it is imported")
def smooth(block, source=None, *, sigma=1.0): ...
def anything(block, **params): ...
def done(block): ...
def done_at(block, sigma): ...
def own(): ...
class Model:
    def __init__(self, weights): ...
    def __call__(self, block): ...
class NoCall:
    def __init__(self, block): ...
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with user code; each test has a module of its own, since imported modules stay."""
    (tmp_path / f"cells_{tmp_path.name}.py").write_text(CODE)
    return tmp_path


def module_of(folder: Path) -> str:
    return f"cells_{folder.name}"


def spec(folder: Path, **changes: Any) -> PipelineSpec:
    def named(value: Any) -> Any:
        return f"{module_of(folder)}{value}" if isinstance(value, str) and value.startswith(":") else value

    return pipeline(task("smooth", **{name: named(value) for name, value in changes.items()}))


GOOD: list[dict[str, Any]] = [
    {"function": ":smooth"},
    {"function": ":smooth", "params": {"source": "x", "sigma": 2}, "check": ":done_at"},
    {"function": ":anything", "params": {"whatever": 1}, "check": ":done"},
    {"function": ":Model", "params": {"weights": "w"}},
    {"function": None, "worker": ":own"},
    {"function": None, "command": ("ls",)},
    {"function": "pickle:/of/this/run.pkl"},
    {"function": "math:floor"},
]

BAD: list[tuple[dict[str, Any], str]] = [
    (
        {"function": ":smoth"},
        "task 'smooth', function: '{module}:smoth': module '{module}' has no 'smoth'; did you mean",
    ),
    ({"function": "no_such_module:f"}, "'no_such_module:f': there is no module 'no_such_module' in {folder}"),
    (
        {"function": ":smooth", "params": {"sgima": 1}},
        "smooth' has no parameter 'sgima', which params gives; did you mean",
    ),
    ({"function": ":Model"}, "Model' cannot be called as (): missing a required argument: 'weights'"),
    ({"function": ":Model", "params": {"block": 1}}, "has no parameter 'block', which params gives; known: weights"),
    ({"function": ":NoCall"}, "NoCall' is a class without __call__(self, block): it is built once a slot"),
    ({"function": ":own"}, "own' takes no block, but a function is called with one; use worker if it drives a Client"),
    ({"function": ":done_at"}, "done_at' cannot be called as (block): missing a required argument: 'sigma'"),
    ({"function": None, "worker": ":done"}, "done' takes arguments, but a worker is called without any; use function"),
    ({"check": ":own", "function": ":smooth"}, "task 'smooth', check: '{module}:own' cannot be called as (block)"),
    ({"check": ":done_at", "function": ":smooth"}, "check: '{module}:done_at' cannot be called as (block): missing"),
]


@pytest.mark.parametrize("changes", GOOD)
def test_code_that_can_be_called_passes(folder: Path, changes: dict[str, Any]) -> None:
    """Functions, classes built with the params, checks with and without params, workers, programs."""
    path = list(sys.path)
    check_functions(spec(folder, **changes), [str(folder)])
    assert sys.path == path


@pytest.mark.parametrize(("changes", "says"), BAD)
def test_code_that_cannot_be_called_is_told_with_task_field_and_reason(
    folder: Path, changes: dict[str, Any], says: str
) -> None:
    """And with the nearest name, or the folders that were searched."""
    with pytest.raises(SpecError) as error:
        check_functions(spec(folder, **changes), [str(folder)])
    assert says.format(module=module_of(folder), folder=folder) in str(error.value)
    assert error.value.where[:2] == ("tasks", 0)


def test_a_check_of_a_pair_is_named_by_its_place(folder: Path) -> None:
    """As the pipeline file names it."""
    bad = spec(folder, function=":smooth", check=CheckSpec(before="math:floor", after=f"{module_of(folder)}:dne"))
    with pytest.raises(SpecError, match=r"task 'smooth', check.after: .* has no 'dne'; did you mean 'done'\?"):
        check_functions(bad, [str(folder)])


# ----- in a process of its own ------------------------------------------------------------------------------------


def finish(bad: PipelineSpec, folder: Path) -> str:
    with pytest.raises(SpecError) as error:
        FunctionCheck(bad, [str(folder)]).finish()
    return str(error.value)


def test_the_check_leaves_nothing_of_user_code_in_this_process(folder: Path) -> None:
    """The module has been imported, and is not here; what it prints is not its answer."""
    FunctionCheck(spec(folder, function=":smooth"), [str(folder)]).finish()
    assert module_of(folder) not in sys.modules
    says = finish(spec(folder, function=":smoth"), folder)
    assert says.startswith(f"task 'smooth', function: '{module_of(folder)}:smoth': module")
    assert module_of(folder) not in sys.modules


def test_a_module_that_takes_its_process_along_is_a_sentence_too(folder: Path) -> None:
    """A crash of a native library, or an exit, on import."""
    (folder / "crashes.py").write_text(f"import os\nos.kill(os.getpid(), {int(signal.SIGKILL)})\n")
    (folder / "exits.py").write_text("import os, sys\nprint('no licence', file=sys.stderr, flush=True)\nos._exit(3)\n")
    (folder / "says_no.py").write_text("raise SystemExit('no GPU here')\n")
    assert "of pipeline 'p' ended its process with signal 9" in finish(spec(folder, function="crashes:f"), folder)
    assert "with exit status 3: no licence" in finish(spec(folder, function="exits:f"), folder)
    says = finish(spec(folder, function="says_no:f"), folder)
    assert "importing 'says_no' failed with SystemExit: no GPU here" in says


def test_a_check_that_is_not_waited_for_is_ended(folder: Path) -> None:
    """Whatever the module is doing."""
    (folder / "for_ever.py").write_text("import threading\nthreading.Event().wait()\n")
    with FunctionCheck(spec(folder, function="for_ever:f"), [str(folder)]) as check:
        pid = check._process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_import_that_takes_long_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may end yet, so it is not an error; the module here ends when it has been told."""
    monkeypatch.setattr("blockyard.local.preflight.PATIENCE_S", 0.1)
    gate = folder / "gate"
    waits = f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)\n"
    (folder / "takes_long.py").write_text(waits + "def f(block): pass\n")
    said: list[str] = []
    FunctionCheck(spec(folder, function="takes_long:f"), [str(folder)]).finish(
        lambda text: (said.append(text), gate.touch())
    )
    assert said == ["importing the functions of pipeline 'p' takes long; nothing runs before it has ended"]

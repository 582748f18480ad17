"""What `from blockyard import ...` gives, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import funlib.geometry
import pytest

import blockyard
from blockyard.spec.errors import SpecError

NAMES = [
    "Task",
    "Parameter",
    "Pipeline",
    "Block",
    "Client",
    "Context",
    "Roi",
    "Coordinate",
    "distribute",
    "map_blocks",
    "run_blockwise",
    "__version__",
]


def test_the_public_names_are_these() -> None:
    """No more, no less; they are in dir() before they are used."""
    assert sorted(blockyard.__all__) == sorted(NAMES)
    assert set(NAMES) <= set(dir(blockyard))


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there(name: str) -> None:
    """In a fresh process, where nothing has been imported before."""
    code = f"from blockyard import {name}; assert {name} is not None"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_names_are_what_they_are_elsewhere() -> None:
    """Roi and Coordinate are those the field shares; the version is that of the distribution."""
    assert blockyard.Roi is funlib.geometry.Roi
    assert blockyard.Coordinate is funlib.geometry.Coordinate
    assert blockyard.__version__ == version("blockyard")


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As of any module."""
    with pytest.raises(AttributeError, match="module 'blockyard' has no attribute 'Tsk'"):
        blockyard.Tsk  # noqa: B018


def test_what_scripts_for_daisy_02_reach_for_is_there_or_says_where_it_went() -> None:
    """The modules that they name through the package, `call`, and a sentence for what belongs to other packages."""
    assert blockyard.scheduler.distribute is blockyard.distribute
    assert blockyard.processes.call is blockyard.call
    with pytest.raises(AttributeError, match=r"no 'open_ds' as daisy 0.2 had; use funlib.persistence.open_ds"):
        blockyard.open_ds  # noqa: B018


def test_call_runs_a_program_with_its_output_in_files(tmp_path: Path) -> None:
    """A shell puts the words together; a failure names the file with the errors."""
    out, err = tmp_path / "out", tmp_path / "err"
    blockyard.call(["echo", "said;", "echo", "complained", ">&2"], log_out=out, log_err=err)
    assert (out.read_text(), err.read_text()) == ("said\n", "complained\n")
    with pytest.raises(RuntimeError, match=f"'exit 3' failed with exit status 3; its errors are in {err}"):
        blockyard.call(["exit", "3"], out, err)


def test_importing_blockyard_imports_nothing_dear() -> None:
    """Names are imported when they are first used."""
    dear = "{'numpy', 'tornado', 'redis', 'yaml', 'msgspec', 'funlib.geometry', 'asyncio', 'rich'}"
    code = f"import sys, blockyard; print(sorted(set(sys.modules) & {dear}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


ROI = blockyard.Roi((0,), (10,))


@pytest.mark.parametrize(
    "call",
    [
        lambda: blockyard.Task("predict", ROI, ROI, ROI, print),
        lambda: blockyard.Task("predict", total_roi=ROI, read_roi=ROI, write_roi=ROI, process_function=print),
        lambda: blockyard.Task("predict", process_function=print),
        lambda: blockyard.Task("predict", upstream_tasks=[]),
        lambda: blockyard.run_blockwise([blockyard.Task("predict")]),
    ],
)
def test_a_script_for_daisy_1_is_told_what_to_write(call) -> None:
    """By position and by keyword; the two APIs share names, and a bare TypeError says nothing."""
    with pytest.raises(SpecError, match=r"daisy 1\.x.*docs/from-daisy\.md"):
        call()


@pytest.mark.parametrize("name", ["BlockStatus", "Server", "get_worker_log_basename", "set_log_basedir"])
def test_names_of_daisy_1_say_so(name: str) -> None:
    """And where to read on."""
    with pytest.raises(AttributeError, match=r"daisy 1\.x.*docs/from-daisy\.md"):
        getattr(blockyard, name)

"""What a command advises works when it is typed as it was printed."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

STEPS = """\
import pathlib, time

def step(block, word="first"):
    here = pathlib.Path(__file__).parent
    if (here / "typo").exists():
        block.write_rio
    (here / "began").touch()
    while (here / "gate").exists():
        time.sleep(0.01)
    if (here / "bad").exists() and block.block_id == 2:
        raise ValueError("no luck")
    with (here / f"ran-{block.block_id}").open("a") as file:
        file.write(word)
"""


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "a folder"
    place.mkdir()
    (place / "advised_steps.py").write_text(STEPS)
    write(place)
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / "blockyard"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m blockyard.cli "$@"\n')
    program.chmod(0o755)
    return place


def write(folder, word="first", shape=4, retries=0):
    roi = {"offset": [0], "shape": [shape]}
    one = {"offset": [0], "shape": [1]}
    task = {
        "id": "t", "function": "advised_steps:step", "params": {"word": word}, "max_retries": retries, "total_roi": roi,
        "read_roi": one, "write_roi": one,
    }  # fmt: skip
    (folder / "my pipe.yaml").write_text(json.dumps({"name": "p", "tasks": [task]}))


def typed(folder, line, **options):
    """What a shell makes of a line."""
    programs = next(place / "programs" for place in (folder, folder.parent) if (place / "programs").is_dir())
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        ["bash", "-c", line], cwd=folder, env=os.environ | {"PATH": path}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, **options,
    )  # fmt: skip


def ends(folder, line, status):
    process = typed(folder, line)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == status, said
    return said


def advice(said, words):
    """The command that follows `words`."""
    found = re.search(re.escape(words) + r"((cd|blockyard) .*)", said)
    assert found, said
    return found[1]


def ran(folder):
    return {path.name: path.read_text() for path in Path(folder).glob("ran-*")}


RUN = "blockyard run 'my pipe.yaml' --workers 1"


def test_failed_blocks_are_tried_again_by_what_is_printed(folder):
    """And a finished run is started over by what is printed."""
    (folder / "bad").touch()
    said = ends(folder, RUN, 1)
    assert "1 block failed" in ends(folder, advice(said, "more: ").partition(";")[0], 0)
    (folder / "bad").unlink()
    ends(folder, advice(said, "try them again: "), 0)
    assert ran(folder) == {f"ran-{n}": "first" for n in range(4)}
    said = ends(folder, RUN, 0)
    ends(folder, advice(said, "to start over: "), 0)
    assert ran(folder) == {f"ran-{n}": "firstfirst" for n in range(4)}


def test_a_cancelled_run_goes_on_by_what_is_printed(folder):
    """By itself it does not: it was cancelled. Its end, `run` and `status` say how, and nothing of retries."""
    (folder / "gate").touch()
    process = typed(folder, RUN)
    while not (folder / "began").exists():
        assert process.poll() is None
    ends(folder, "blockyard cancel", 0)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 1
    (folder / "gate").unlink()
    again = ends(folder, RUN, 1)
    status = ends(folder, "blockyard status", 0)
    words = "to go on after all: "
    assert advice(said, words) == advice(again, words)
    assert "retry" not in said + again
    assert "nothing was left" not in again
    ends(folder, advice(status, words), 0)
    assert ran(folder) == {f"ran-{n}": "first" for n in range(4)}


def test_what_changed_is_accepted_or_started_over_as_is_said(folder):
    """Parameters by --accept-changes, blocks by --fresh."""
    ends(folder, RUN, 0)
    write(folder, word="second")
    said = ends(folder, RUN, 2)
    assert "--accept-changes" in said
    ends(folder, f"{RUN} --accept-changes", 0)
    ends(folder, f"{RUN} --fresh", 0)
    ends(folder, f"{RUN} --request 0:2 --fresh", 0)
    assert ran(folder) == {
        "ran-0": "firstsecondsecond", "ran-1": "firstsecondsecond", "ran-2": "firstsecond", "ran-3": "firstsecond"
    }  # fmt: skip


def test_a_stopped_run_goes_on_by_what_is_printed_wherever_that_is(folder):
    """The command that started it has paths that begin where it was typed."""
    (folder / "gate").touch()
    process = typed(folder, RUN)
    while not (folder / "began").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    (folder / "gate").unlink()
    said, _ = process.communicate(timeout=100)
    assert advice(said, "To go on: ") == advice(ends(folder, "blockyard status", 0), "to go on: ") == RUN
    said = ends(folder.parent, "blockyard status 'a folder'", 0)
    ends(folder.parent, advice(said, "to go on: "), 0)
    assert ran(folder) == {f"ran-{n}": "first" for n in range(4)}
    said = ends(folder.parent, "blockyard rerun t 'a folder' --roi 1:2", 0)
    ends(folder.parent, advice(said, "to go on: "), 0)
    assert ran(folder)["ran-1"] == "firstfirst"


def test_a_task_that_fail_fast_stopped_goes_on_by_what_is_printed(folder):
    """Once the typo is mended."""
    write(folder, shape=12, retries=2)
    (folder / "typo").touch()
    said = ends(folder, RUN, 1)
    (folder / "typo").unlink()
    ends(folder, advice(said, "go on with: "), 0)
    assert ran(folder) == {f"ran-{n}": "first" for n in range(12)}

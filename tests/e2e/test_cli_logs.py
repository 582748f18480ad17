"""`blockyard logs`: what one block wrote, although slots run many blocks one after another."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PIPELINE = """
name: p
tasks:
  - id: smooth
    function: work:smooth
    max_retries: 1
    total_roi: {offset: [0, 0], shape: [4, 5]}
    read_roi: {offset: [0, 0], shape: [1, 1]}
    write_roi: {offset: [0, 0], shape: [1, 1]}
    read_write_conflict: false
"""
WORK = """
import logging, os, sys

def smooth(block):
    y, x = block.index
    if (y + x) % 2:
        return
    print(f"block {y},{x} begins")
    os.write(2, f"from a library in C: {y},{x}\\n".encode())
    logging.getLogger("mine").warning("look at %s", x)
    if block.index == (2, 2) and block.attempt == 1:
        raise ValueError("once")
"""


def blockyard(*arguments, cwd, **environment):
    command = [sys.executable, "-m", "blockyard.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=os.environ | environment)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "p.yaml").write_text(PIPELINE)
    (tmp_path / "work.py").write_text(WORK)
    return tmp_path


def test_what_a_block_wrote_is_found(folder):
    """Print, the process' own standard error, logging; of each attempt, and of no other block."""
    assert blockyard("run", "p.yaml", "--workers", "2", cwd=folder).returncode == 0
    told = blockyard("logs", "smooth", "1,3", "p.yaml", cwd=folder)
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[1:] == ["block 1,3 begins", "from a library in C: 1,3", "look at 3"]
    twice = blockyard("logs", "smooth", "2,2", "p.yaml", cwd=folder).stdout
    assert [line.split(",")[0] for line in twice.splitlines() if line.startswith("---")] == [
        "--- attempt 1", "--- attempt 2",
    ]  # fmt: skip
    assert twice.count("block 2,2 begins") == 2


def test_a_block_that_wrote_nothing_says_so(folder):
    """Exit status 1, as for grep; a block or task that there is not is a sentence and 2."""
    assert blockyard("run", "p.yaml", cwd=folder).returncode == 0
    quiet = blockyard("logs", "smooth", "0,1", "p.yaml", cwd=folder)
    assert quiet.returncode == 1
    assert "wrote nothing" in quiet.stdout
    for words, says in ((("smoth", "0,1"), "did you mean 'smooth'"), (("smooth", "9,9"), "has no block (9, 9)")):
        bad = blockyard("logs", *words, "p.yaml", cwd=folder)
        assert bad.returncode == 2
        assert says in bad.stderr


def test_json_lines_say_which_block_they_are_about(folder):
    """What user code logs carries worker, task, block and attempt, by the setting of the services."""
    done = blockyard("run", "p.yaml", "--workers", "1", cwd=folder, BLOCKYARD_LOG_FORMAT="json")
    assert done.returncode == 0, done.stderr
    (log,) = (folder / ".blockyard/p/logs").glob("*.slot-0.log")
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    mine = {(line["block"], line["attempt"]): line for line in lines if line["logger"] == "mine"}
    assert len(mine) == 11
    line = mine[12, 2]
    assert (line["task"], line["message"], line["level"]) == ("smooth", "look at 2", "warning")
    assert log.name.startswith(line["worker"])

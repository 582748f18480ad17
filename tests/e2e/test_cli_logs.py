"""`blockyard logs`: what one block wrote, although slots run many blocks one after another."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

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
import logging, os, signal

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
    heads = [line.partition(":")[0] for line in twice.splitlines() if line.startswith("---")]
    assert heads == ["--- smooth 2,2, attempt 1", "--- smooth 2,2, attempt 2"]
    assert twice.count("block 2,2 begins") == 2


def test_a_block_that_wrote_nothing_says_so(folder):
    """Exit status 1, as for grep; a block or task that there is not is a sentence and 2."""
    assert blockyard("run", "p.yaml", cwd=folder).returncode == 0
    quiet = blockyard("logs", "smooth", "0,1", "p.yaml", cwd=folder)
    assert quiet.returncode == 1
    assert "smooth 0,1 wrote nothing: it is done" in quiet.stderr
    for words, says in ((("smoth", "0,1"), "did you mean 'smooth'"), (("smooth", "9,9"), "has no block 9,9")):
        bad = blockyard("logs", *words, "p.yaml", cwd=folder)
        assert bad.returncode == 2
        assert says in bad.stderr


CRASH = """
import os, signal
from blockyard import Client

def smooth(block):
    if block.index == (2, 2):
        print("last words", block.attempt)
        if block.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    elif block.index == (2, 3):
        os.system("echo only a program speaks")

def own():
    client = Client()
    while (block := client.acquire_block()) is not None:
        print("own block", block.block_id)
        client.release_block(block)
"""


def test_the_last_words_of_a_killed_block_a_program_and_a_worker_of_the_users_own_are_found(folder):
    """A block that kills its slot keeps what it wrote; what only its program wrote is its own; so is a Client's."""
    (folder / "work.py").write_text(CRASH)
    (folder / "p.yaml").write_text(
        PIPELINE + PIPELINE[PIPELINE.index("  - id") :].replace("smooth", "own").replace("function", "worker")
    )
    ran = blockyard("run", "p.yaml", "--workers", "1", cwd=folder)
    assert ran.returncode == 0, ran.stderr
    told = {
        where: blockyard("logs", *where.split(), "p.yaml", cwd=folder).stdout
        for where in ("smooth 2,2", "smooth 2,3", "own 1,3")
    }
    said = {where: [line for line in text.splitlines() if not line.startswith("---")] for where, text in told.items()}
    assert said == {
        "smooth 2,2": ["last words 1", "last words 2"],
        "smooth 2,3": ["only a program speaks"],
        "own 1,3": ["own block 8"],
    }
    heads = {where: [line for line in text.splitlines() if line.startswith("---")] for where, text in told.items()}
    ends = {
        where: [head.partition(", attempt ")[2].partition(": ")[0] for head in found] for where, found in heads.items()
    }
    assert ends["smooth 2,3"] == ends["own 1,3"] == ["1"]
    assert ends["smooth 2,2"][0].startswith("1 (the process of the block was killed by SIGKILL")
    assert ends["smooth 2,2"][1:] == ["2"]


STATES = """
import ctypes, os, pathlib, time
from blockyard import Client

def smooth(block):
    if block.index == (0, 1):
        os._exit(3)
    if block.index == (0, 2):
        ctypes.CDLL(None).write(2, b"abort", 5)
        os._exit(4)
    if block.index == (0, 3):
        raise ValueError("in silence,\\nand in two lines")
    if block.index == (0, 4):
        print("it begins")
        wait()

def wait():
    while not pathlib.Path("go").exists():
        time.sleep(0.01)

def own():
    client = Client()
    while (block := client.acquire_block()) is not None:
        print("own", block.block_id)
        if block.block_id == 1:
            os._exit(5)
        client.release_block(block)
"""
MODULE_THAT_PRINTS = """
from work import wait
print("imported after the last block of smooth")

def late(block):
    wait()
"""
TASKS = """
name: p
tasks:
  - &task
    id: smooth
    function: work:smooth
    total_roi: {offset: [0, 0], shape: [1, 5]}
    read_roi: {offset: [0, 0], shape: [1, 1]}
    write_roi: {offset: [0, 0], shape: [1, 1]}
    read_write_conflict: false
    max_retries: 0
"""
MORE = """  - {<<: *task, id: late, function: "prints:late", total_roi: {offset: [0, 0], shape: [1, 1]}}
  - {<<: *task, id: waits, requires: [late]}
  - {<<: *task, id: own, function: null, worker: "work:own"}
"""


def test_what_there_is_nothing_of_is_said_why(tmp_path):
    """Not run yet, running, done and silent, failed, killed: each in its own words, though others write meanwhile."""
    (tmp_path / "work.py").write_text(STATES)
    (tmp_path / "prints.py").write_text(MODULE_THAT_PRINTS)
    (tmp_path / "p.yaml").write_text(TASKS + MORE)

    def logs(*block):
        told = blockyard("logs", *block, "p.yaml", cwd=tmp_path)
        text = told.stderr or told.stdout
        return told.returncode, re.sub(r": [^ ]*\.log\n", ":\n", text)

    command = [sys.executable, "-m", "blockyard.cli", "run", "p.yaml", "--workers", "2"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        try:
            until(lambda: logs("late", "0,0")[1].startswith("late 0,0 has written nothing so far: it is leased"))
            until(lambda: logs("smooth", "0,4") == (0, "--- smooth 0,4, attempt 1 (it runs):\nit begins\n"))
            assert logs("waits", "0,0")[1].startswith("waits 0,0 has not run yet: it waits for")
        finally:
            (tmp_path / "go").touch()
        assert run.wait(60) == 1
    status, text = logs("smooth", "0,0")
    assert (status, text.startswith("smooth 0,0 wrote nothing: it is done")) == (1, True)
    status, text = logs("smooth", "0,1")
    assert status == 1
    assert text.splitlines() == [
        f"--- smooth 0,1, attempt {n} (the process of the block ended with exit status 3), which wrote nothing:"
        for n in (1, 2, 3)
    ]
    status, text = logs("smooth", "0,2", "--last", "1")
    assert (status, text) == (
        0,
        "--- smooth 0,2, attempt 3 (the process of the block ended with exit status 4):\nabort\n",
    )
    assert logs("smooth", "0,3") == (
        1,
        "smooth 0,3 wrote nothing: it has failed for good: ValueError: in silence, and in two lines\n",
    )
    assert logs("smooth", "0,4") == (0, "--- smooth 0,4, attempt 1:\nit begins\n")
    assert logs("own", "0,1", "--last", "1") == (
        0,
        "--- own 0,1, attempt 3 (the worker of task 'own' ended with exit status 5):\nown 1\n",
    )


def until(condition):
    """Wait for something that no message tells of."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never happened"


def test_json_lines_say_which_block_they_are_about(folder):
    """What user code prints or logs says run, worker, slot, task, block, index, attempt; services' lines the run."""
    done = blockyard("run", "p.yaml", "--workers", "1", cwd=folder, BLOCKYARD_LOG_FORMAT="json")
    assert done.returncode == 0, done.stderr
    logs = folder / ".blockyard/p/logs"
    (log,) = logs.glob("*.slot-0.log")
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    about = {"run": "p", "slot": 0, "task": "smooth", "block": 12, "index": [2, 2], "attempt": 2}
    mine = [line for line in lines if about.items() <= line.items()]
    assert [(line["level"], line["message"]) for line in mine] == [
        ("info", "block 2,2 begins"),
        ("warning", "look at 2"),
    ]
    assert all(log.name == f"{line['worker']}.slot-0.log" for line in lines)
    for service in ("scheduler", "pool-default"):
        last = json.loads((logs / f"{service}.log").read_text().splitlines()[-1])
        assert last["run"] == "p"


HARD = """
import logging

def smooth(block):
    say = logging.getLogger("mine").warning
    match block.index:
        case (0, 0): say("fields of our names", extra={"level": 3, "logger": "x", "run": "y"})
        case (0, 1): say("%d", "not a number")
        case (0, 2): say("no JSON", extra={"map": {(1, 2): 3}})
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_log_record_fails_no_block(folder, form):
    """Fields named as ours, arguments that do not fit, values that JSON can't hold: what can be said is said."""
    (folder / "work.py").write_text(HARD)
    ran = blockyard("run", "p.yaml", "--workers", "1", cwd=folder, BLOCKYARD_LOG_FORMAT=form)
    assert ran.returncode == 0, blockyard("failures", "p.yaml", cwd=folder).stdout

    def words(index):
        lines = blockyard("logs", "smooth", index, "p.yaml", cwd=folder).stdout.splitlines()[1:]
        return [json.loads(line)["message"] if line.startswith("{") else line for line in lines]

    assert words("0,0") == ["fields of our names"]
    assert "TypeError: %d format: a real number is required, not str" in words("0,1")
    assert words("0,2") == ["no JSON"]

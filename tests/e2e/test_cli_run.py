"""`blockyard run`: a whole run on this machine, from the command line, as a user sees it."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blockyard.cli.app import main

WORK = """\
import os, pathlib, time

def mark(block, folder, bad=None, gate=None):
    if gate is not None and block.block_id >= 3:
        while not pathlib.Path(gate).exists():
            time.sleep(0.01)
    if block.block_id == bad:
        raise ValueError("block says no")
    with (pathlib.Path(folder) / f"{block.task_id}-{block.block_id}").open("a") as file:
        file.write(f"{block.attempt} {os.getpid()}\\n")
"""

TASK = """\
  - id: {id}
    function: run_work:mark
    params: {params}
    total_roi: {{offset: [0], shape: [12]}}
    read_roi: {{offset: [0], shape: [3]}}
    write_roi: {{offset: [1], shape: [1]}}
    max_retries: 1
    requires: {requires}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "run_work.py").write_text(WORK)
    return tmp_path


def write(folder, name="p", **params):
    """Write a pipeline of two chained tasks with 10 blocks each."""
    params = {"folder": str(folder / "out"), **params}
    tasks = TASK.format(id="first", params=json.dumps(params), requires="[]")
    params = {"folder": str(folder / "out")}
    tasks += TASK.format(id="second", params=json.dumps(params), requires="[first]")
    (folder / f"{name}.yaml").write_text(f"name: {name}\ntasks:\n{tasks}")
    return str(folder / f"{name}.yaml")


def command(*words, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "blockyard.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_until(condition, limit_s=60.0):
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def marks(folder):
    return sorted(path.name for path in (folder / "out").iterdir())


def times_run(folder, name):
    return len((folder / "out" / name).read_text().splitlines())


def processes_of(folder):
    """Processes that name the folder of the test in their command line, or work in it (Redis, where names are long)."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words, works_in = (path / "cmdline").read_bytes(), str((path / "cwd").readlink())
        except OSError:
            continue
        if str(folder).encode() in words + works_in.encode() and int(path.name) != os.getpid():
            found.append(int(path.name))
    return found


ALL = sorted(f"{task}-{block}" for task in ("first", "second") for block in range(10))


def test_a_pipeline_runs_to_its_end_and_says_so(folder, capfd):
    """Exit status 0, every block once, nothing left running; the folder of the run is beside the file."""
    assert main(["run", write(folder), "--workers", "2"]) == 0
    assert "p: done, 20 of 20 blocks" in capfd.readouterr().out
    assert marks(folder) == ALL
    assert all(times_run(folder, name) == 1 for name in ALL)
    assert (folder / ".blockyard" / "p" / "status.json").exists()
    wait_until(lambda: not processes_of(folder))


def test_failed_blocks_are_named_with_their_error_and_the_exit_status_is_1(folder, capfd):
    """1 failed after its retries, its neighbours in conflict and downstream are orphaned, all the rest runs."""
    assert main(["run", write(folder, bad=4), "--workers", "2", "--json"]) == 1
    result = json.loads(capfd.readouterr().out)
    assert result["state"] == "failed"
    first, second = result["status"]["tasks"]
    assert (first["failed"], first["done"] + first["orphaned"]) == (1, 9)
    assert second["failed"] == 0
    (failure,) = [failure for failure in result["failures"] if failure["final"]]
    assert (failure["index"], failure["attempt"], failure["kind"]) == ([4], 2, "ValueError")
    assert failure["message"] == "block says no"


def test_an_interrupted_run_goes_on_where_it_stopped(folder):
    """Ctrl-C: the blocks that run are finished or handed back, exit status 130, and the same command resumes."""
    pipeline = write(folder, gate=str(folder / "open"))
    run = command("run", pipeline, "--workers", "1")
    wait_until(lambda: len(marks(folder)) >= 1)
    run.send_signal(signal.SIGINT)
    (folder / "open").touch()
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert f"To go on: blockyard run {pipeline} --workers 1" in err
    before = marks(folder)
    wait_until(lambda: not processes_of(folder))
    assert json.loads((folder / ".blockyard" / "p" / "status.json").read_text())["state"] == "stopped"
    run = command("run", pipeline, "--workers", "1")
    out, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    assert "20 of 20" in out
    assert marks(folder) == ALL
    assert before
    assert all(times_run(folder, name) == 1 for name in ALL)


def test_a_second_ctrl_c_ends_at_once(folder):
    """Blocks that would run on for ever are killed, and nothing is left behind."""
    run = command("run", write(folder, gate=str(folder / "never")), "--workers", "2")
    wait_until(lambda: len(marks(folder)) >= 1)
    run.send_signal(signal.SIGINT)
    assert any("Ctrl-C again: at once" in line for line in run.stderr)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=20)
    assert run.returncode == 130
    wait_until(lambda: not processes_of(folder))


def test_nothing_outlives_a_killed_run_and_it_resumes(folder):
    """kill -9 of the command: scheduler, agents, slots and Redis end; finished blocks are kept."""
    gate = folder / "open"
    pipeline = write(folder, gate=str(gate))
    run = command("run", pipeline, "--workers", "2")
    wait_until(lambda: len(marks(folder)) >= 1)
    run.kill()
    run.communicate()
    wait_until(lambda: not processes_of(folder))
    gate.touch()
    run = command("run", pipeline, "--workers", "2")
    _out, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    assert marks(folder) == ALL


@pytest.mark.parametrize("victim", ["blockyard_scheduler", "blockyard_worker", "valkey-server"])
def test_a_process_that_dies_is_replaced_and_the_run_goes_on(folder, victim):
    """Scheduler, agent or Redis killed in the middle: the run ends well, and says what happened."""
    gate = folder / "open"
    environment = os.environ | {"BLOCKYARD_LOCK_S": "1", "BLOCKYARD_LEASE_S": "3", "BLOCKYARD_GRACE_S": "0.5"}
    environment |= {"BLOCKYARD_HEARTBEAT_S": "0.2"}
    run = command("run", write(folder, gate=str(gate)), "--workers", "2", env=environment)
    wait_until(lambda: len(marks(folder)) >= 1)
    victims = [pid for pid in processes_of(folder) if is_program(pid, victim)]
    assert victims
    os.kill(victims[0], signal.SIGKILL)
    gate.touch()
    _out, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    assert "starting it again" in err
    assert marks(folder) == ALL


def is_program(pid, name):
    """Whether a process is the program itself, not the shell that watches it nor what it started."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return name.encode() in words[0] or (not words[0].endswith(b"sh") and name.encode() in words)


def test_a_finished_run_is_started_over_only_when_told(folder, capfd):
    """Without --fresh nothing runs twice."""
    pipeline = write(folder)
    assert main(["run", pipeline]) == 0
    assert main(["run", pipeline]) == 0
    assert "nothing was left to do; to start over: " in capfd.readouterr().out
    assert times_run(folder, "first-0") == 1
    assert main(["run", pipeline, "--fresh"]) == 0
    assert times_run(folder, "first-0") == 2


def test_changed_parameters_need_a_word(folder, capfd):
    """The sentence says what changed and what to do; with --accept-changes the run goes on."""
    assert main(["run", write(folder)]) == 0
    pipeline = write(folder, gate=None)
    assert main(["run", pipeline]) == 2
    assert "params of task 'first'" in capfd.readouterr().err
    assert main(["run", pipeline, "--accept-changes"]) == 0


def test_a_request_runs_what_it_needs_and_no_more(folder):
    """Block 5 of the second task reads what blocks 4, 5 and 6 of the first write."""
    assert main(["run", write(folder), "--only", "second", "--request", "6:7"]) == 0
    assert marks(folder) == ["first-4", "first-5", "first-6", "second-5"]


def test_a_part_first_and_the_whole_later_run_each_block_once(folder):
    """Under the same name and folder, and a part again after that."""
    assert main(["run", write(folder), "--only", "second", "--request", "6:7"]) == 0
    part = marks(folder)
    assert main(["run", write(folder)]) == 0
    assert set(part) < set(marks(folder))
    assert main(["run", write(folder), "--only", "first"]) == 0
    assert {times_run(folder, name) for name in marks(folder)} == {1}


@pytest.mark.parametrize(
    ("change", "words", "sentence"),
    [
        (lambda text: text.replace("run_work:mark", "run_work:make"), [], "has no 'make'; did you mean 'mark'?"),
        (lambda text: text.replace("run_work:mark", "no_work:mark"), [], "no module 'no_work'"),
        (lambda text: text.replace("function:", "funktion:"), [], "did you mean 'function'?"),
        (lambda text: text.replace("shape: [3]", "shape: [0]"), [], "must be at least 1"),
        (lambda text: text.replace("tasks:", "tasks: ["), [], "p.yaml"),
        (lambda text: text, ["--only", "firts"], "did you mean 'first'?"),
        (lambda text: text, ["--request", "1:2,3"], "not of the form"),
        (lambda text: text, ["--request", "5:50"], "reaches outside its total_roi"),
        (lambda text: text, ["--request", "-5:5"], "reaches outside its total_roi"),
        (lambda text: text, ["--workers", "0"], "at least 1"),
        (lambda text: text, ["--run-dir", "/proc/nowhere"], "cannot be written"),
        (lambda text: text, ["--redis-url", "redis://127.0.0.1:1/0"], "127.0.0.1:1"),
    ],
)
def test_bad_input_is_a_sentence_and_leaves_nothing(folder, capfd, change, words, sentence):
    """Exit status 2, one line, no folder, no process."""
    pipeline = write(folder)
    Path(pipeline).write_text(change(Path(pipeline).read_text()))
    assert main(["run", pipeline, *words]) == 2
    err = capfd.readouterr().err
    assert sentence in err
    assert "Traceback" not in err
    assert err.count("\n") == 1
    assert not (folder / ".blockyard").exists()
    assert marks(folder) == []
    wait_until(lambda: not processes_of(folder))


def test_two_runs_in_one_folder_are_refused(folder, capfd):
    """The second is told which folder, and the first goes on."""
    gate = folder / "open"
    pipeline = write(folder, gate=str(gate))
    run = command("run", pipeline, "--workers", "1")
    try:
        wait_until(lambda: len(marks(folder)) >= 1)
        assert main(["run", pipeline]) == 2
        assert "another run uses the folder" in capfd.readouterr().err
    finally:
        gate.touch()
    assert run.communicate(timeout=60)[1] is not None
    assert run.returncode == 0


@pytest.mark.parametrize("size_bytes", [0, 600, 900, 1500])
def test_files_that_cannot_grow_are_a_sentence(folder, size_bytes):
    """As on a full disk: whoever meets the limit first, token, specification, Redis or scheduler, nothing hangs."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))  # noqa: E731
    run = command("run", write(folder), preexec_fn=limit)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 2, err
    assert err.splitlines()[-1].startswith("blockyard: ")
    assert "Traceback" not in err
    if size_bytes < 1500:  # with more, the run may begin, and a run that has begun keeps what it has
        assert not (folder / ".blockyard").exists()
    wait_until(lambda: not processes_of(folder))


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/63", "/proc/self/fd/0", "fifo.yaml"])
def test_a_pipeline_from_a_pipe_is_refused(tmp_path, monkeypatch, capsys, name):
    """There is no folder beside it in which its run could be kept, and nothing to go on with."""
    os.mkfifo(tmp_path / "fifo.yaml")
    monkeypatch.chdir(tmp_path)
    assert main(["run", name]) == 2
    assert f"a pipeline can't be run from '{name}'" in capsys.readouterr().err

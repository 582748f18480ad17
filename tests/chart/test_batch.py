"""The scripts for Slurm and LSF, run as they are by bash, with what these systems would set and send."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chart import ROOT

SCHEDULER = ROOT / "examples" / "slurm" / "scheduler.sh"
WORKERS = {
    "slurm": (ROOT / "examples" / "slurm" / "workers.sbatch", "SLURM_CPUS_PER_TASK"),
    "lsf": (ROOT / "examples" / "lsf" / "workers.lsf", "LSB_DJOB_NUMPROC"),
}
PIPELINE = """
name: batch
tasks:
  - id: note
    function: notes:note
    params: {folder: out}
    total_roi: {offset: [0], shape: [12]}
    read_roi: {offset: [0], shape: [1]}
    write_roi: {offset: [0], shape: [1]}
"""
NOTES = """
import os, pathlib, time

def note(block, folder):
    pathlib.Path(folder, f"begun-{block.block_id}").touch()
    if block.block_id == 7 and pathlib.Path(folder, "bug").exists():
        raise ValueError("a bug")
    while block.block_id == 5 and not pathlib.Path(folder, "go").exists():
        time.sleep(0.02)
    with open(pathlib.Path(folder, f"done-{block.block_id}"), "a") as file:
        file.write("x")
"""


@pytest.fixture
def place(tmp_path):
    """A pipeline of 12 blocks in a folder; block 5 waits for the file out/go."""
    (tmp_path / "out").mkdir()
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    (tmp_path / "notes.py").write_text(NOTES)
    return tmp_path


@pytest.fixture
def start(place):
    """Start a script with its environment; what still runs at the end is ended, group by group."""
    started: list[subprocess.Popen] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "BLOCKYARD_PORT": str(port),
        "BLOCKYARD_HTTP_PORT": "-1",
        "BLOCKYARD_REACHED_AS": "127.0.0.1",
    }

    def run(script: Path, *arguments: object, **variables: str) -> subprocess.Popen:
        command = ["bash", str(script), *map(str, arguments)]
        log = (place / f"log-{len(started)}").open("w")
        process = subprocess.Popen(
            command, env=environment | variables, cwd="/", stdout=log, stderr=log, start_new_session=True
        )
        log.close()
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def wait_for(path: Path) -> None:
    for _ in range(1200):
        if path.exists():
            return
        time.sleep(0.05)
    logs = "\n".join(f"{log.name}:\n{log.read_text()}" for log in path.parents[1].glob("log-*"))
    pytest.fail(f"{path} did not appear\n{logs}")


def start_workers(start, system: str, run: Path) -> subprocess.Popen:
    script, cores = WORKERS[system]
    arguments = (run,) if system == "slurm" else ()
    return start(script, *arguments, RUN=str(run), GIVE_UP="30", **{cores: "2"})


@pytest.mark.parametrize("system", WORKERS)
def test_a_run_ends_with_its_workers(place, start, system):
    """Scheduler and workers find each other by the run's folder, and all end with status 0."""
    (place / "out" / "go").touch()
    scheduler = start(SCHEDULER, place / "pipeline.yaml", place / "run")
    wait_for(place / "run" / "address")
    workers = [start_workers(start, system, place / "run") for _ in range(2)]
    assert scheduler.wait(60) == 0
    assert [worker.wait(60) for worker in workers] == [0, 0]
    assert sorted(len(path.read_text()) for path in (place / "out").glob("done-*")) == [1] * 12
    assert not (place / "run" / "address").exists()
    assert (place / "run" / "token").stat().st_mode & 0o077 == 0


def test_an_array_element_that_comes_late_has_nothing_to_do(place, start):
    """Without a scheduler a worker says so and ends with status 0: its place in the queue was not an error."""
    (place / "run").mkdir()
    assert start_workers(start, "slurm", place / "run").wait(60) == 0
    assert "no scheduler" in (place / "log-0").read_text()


def test_an_interrupted_scheduler_resumes(place, start):
    """The scheduler's job is ended while block 5 runs; submitted again it goes on, and nothing runs twice."""
    first = start(SCHEDULER, place / "pipeline.yaml", place / "run")
    wait_for(place / "run" / "address")
    worker = start_workers(start, "slurm", place / "run")
    wait_for(place / "out" / "begun-5")
    for block in (0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11):
        wait_for(place / "out" / f"done-{block}")
    first.terminate()  # as Slurm does: the batch shell alone gets the signal
    first.wait(60)
    second = start(SCHEDULER, place / "pipeline.yaml", place / "run")
    wait_for(place / "run" / "address")
    (place / "out" / "go").touch()
    assert second.wait(60) == 0
    assert worker.wait(60) == 0
    assert sorted(len(path.read_text()) for path in (place / "out").glob("done-*")) == [1] * 12


def test_a_worker_whose_time_is_up_hands_back(place, start):
    """SIGTERM to a worker that holds block 5 does not lose it: another worker runs it."""
    scheduler = start(SCHEDULER, place / "pipeline.yaml", place / "run")
    wait_for(place / "run" / "address")
    worker = start_workers(start, "slurm", place / "run")
    wait_for(place / "out" / "begun-5")
    worker.terminate()
    (place / "out" / "go").touch()
    assert worker.wait(60) == 0
    other = start_workers(start, "slurm", place / "run")
    assert scheduler.wait(60) == 0
    assert other.wait(60) == 0
    assert len(list((place / "out").glob("done-*"))) == 12


def blockyard(*words: object) -> tuple[int, str]:
    command = [sys.executable, "-m", "blockyard.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_run_with_failures_is_retried(place, start):
    """By the folder, when its scheduler has ended with the run; then the scheduler and workers are started again."""
    (place / "out" / "go").touch()
    (place / "out" / "bug").touch()
    first = start(SCHEDULER, place / "pipeline.yaml", place / "run")
    wait_for(place / "run" / "address")
    worker = start_workers(start, "slurm", place / "run")
    assert (first.wait(60), worker.wait(60)) == (1, 0)
    status, said = blockyard("status", place / "run")
    assert (status, "failed, 91.6 % of 12 blocks" in said or "failed, 91.7 % of 12 blocks" in said) == (0, True), said
    assert "a bug" in blockyard("failures", place / "run")[1]
    (place / "out" / "bug").unlink()
    status, said = blockyard("retry", place / "run")
    assert (status, said.partition(" ")[0]) == (0, "1"), said
    assert f"to go on: {SCHEDULER} {place / 'pipeline.yaml'} {place / 'run'}" in said
    second = start(SCHEDULER, place / "pipeline.yaml", place / "run")
    wait_for(place / "run" / "address")
    worker = start_workers(start, "slurm", place / "run")
    assert (second.wait(60), worker.wait(60)) == (0, 0)
    assert sorted(len(path.read_text()) for path in (place / "out").glob("done-*")) == [1] * 12
    assert "done, 100 % of 12 blocks" in blockyard("status", place / "run")[1]


def test_a_run_that_another_node_works_on_is_not_opened(place, start):
    """Two Redis on one state would spoil it: neither a command nor a second scheduler begins."""
    first = start(SCHEDULER, place / "pipeline.yaml", place / "run")
    wait_for(place / "run" / "scheduler.json")
    status, said = blockyard("retry", place / "run")
    assert (status, "can't be asked from here" in said) == (2, True), said
    second = start(SCHEDULER, place / "pipeline.yaml", place / "run")
    assert second.wait(60) == 2
    assert "another scheduler" in (place / "log-1").read_text()
    assert first.poll() is None


def test_the_state_of_an_earlier_version_is_taken_along(place, start):
    """It lay in the folder itself; who asks before the scheduler was started again is told what to do."""
    (place / "out" / "go").touch()
    first = start(SCHEDULER, place / "pipeline.yaml", place / "run")
    wait_for(place / "run" / "address")
    worker = start_workers(start, "slurm", place / "run")
    assert (first.wait(60), worker.wait(60)) == (0, 0)
    (place / "run" / "redis" / "appendonlydir").rename(place / "run" / "appendonlydir")
    for name in ("run.json", "status.json"):
        (place / "run" / name).unlink()
    assert "older scheduler.sh: start that once more" in blockyard("status", place / "run")[1]
    assert start(SCHEDULER, place / "pipeline.yaml", place / "run").wait(60) == 0
    assert "done, 100 % of 12 blocks" in blockyard("status", place / "run")[1]


TEMPORARY = {"long": "x" * 150, "blanks": "my tmp: 50%", "missing": None}


@pytest.mark.parametrize("name", TEMPORARY.values(), ids=TEMPORARY)
def test_folders_of_any_name_and_length(place, start, name):
    """TMPDIR of a job, where Redis' socket would not fit; blanks, a colon and quotes in the folders of file and run."""
    folder = place / "it's my: project"
    folder.mkdir()
    temporary = place / (name or "nowhere")
    if name:
        temporary.mkdir()
    for entry in ("pipeline.yaml", "notes.py", "out"):
        (place / entry).rename(folder / entry)
    (folder / "out" / "go").touch()
    scheduler = start(SCHEDULER, folder / "pipeline.yaml", folder / "run 1", TMPDIR=str(temporary))
    wait_for(folder / "run 1" / "address")
    worker = start_workers(start, "slurm", folder / "run 1")
    assert (scheduler.wait(60), worker.wait(60)) == (0, 0)
    assert len(list((folder / "out").glob("done-*"))) == 12

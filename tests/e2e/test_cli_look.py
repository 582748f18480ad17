"""`status`, `watch`, `failures`, `explain`, `retry`, `pause`, `resume`, `cancel` on a run of this machine."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blockyard.cli.app import main
from blockyard.local.run import LocalRun
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec

WORK = """\
import pathlib, time

def work(block, gate, bad, heal):
    while not pathlib.Path(gate).exists():
        time.sleep(0.01)
    if block.block_id == bad and not pathlib.Path(heal).exists():
        raise ValueError(f"block {block.block_id} says no")
"""

PIPELINE = """\
name: looked-at
tasks:
  - id: only
    function: look_work:work
    params: {params}
    total_roi: {{offset: [0], shape: [12]}}
    read_roi: {{offset: [0], shape: [3]}}
    write_roi: {{offset: [1], shape: [1]}}
    max_retries: 0
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A pipeline of 10 blocks, of which block 4 fails until the file `heal` is there; none ends before `gate` is."""
    (tmp_path / "look_work.py").write_text(WORK)
    params = {"gate": str(tmp_path / "gate"), "bad": 4, "heal": str(tmp_path / "heal")}
    (tmp_path / "p.yaml").write_text(PIPELINE.format(params=json.dumps(params)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def running(folder):
    """The run, waiting at its gate."""
    run = subprocess.Popen(
        [sys.executable, "-m", "blockyard.cli", "run", "p.yaml", "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while not (folder / ".blockyard" / "looked-at" / "scheduler.json").exists():
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    yield run
    (folder / "gate").touch()
    run.communicate(timeout=60)


def said(capsys, *words, status=0):
    assert main(list(words)) == status
    return capsys.readouterr().out


def test_a_run_that_goes_on_is_found_by_folder_file_and_address(running, folder, capsys, monkeypatch):
    """All three ways give the same run; a run is found without a word where there is only one."""
    monkeypatch.setenv("BLOCKYARD_TOKEN", Path(".blockyard/looked-at/token").read_text())  # an address tells none
    address = json.loads(Path(".blockyard/looked-at/scheduler.json").read_text())
    url = f"http://{address['http_host']}:{address['http_port']}"
    for where in ([], ["."], [".blockyard"], [".blockyard/looked-at"], ["p.yaml"], [url]):
        status = json.loads(said(capsys, "status", *where, "--json"))
        assert (status["run"], status["state"], status["tasks"][0]["total"]) == ("looked-at", "running", 10)
    assert "looked-at: running" in said(capsys, "status")


def test_a_run_is_paused_resumed_and_cancelled(running, folder, capsys):
    """The words do what they say, and the run's own command ends with 1."""
    assert said(capsys, "pause") == "paused\n"
    assert json.loads(said(capsys, "status", "--json"))["state"] == "paused"
    assert said(capsys, "resume") == "resumed\n"
    assert json.loads(said(capsys, "status", "--json"))["state"] == "running"
    assert said(capsys, "cancel") == "cancelled\n"
    assert running.wait(timeout=60) == 1
    assert json.loads(said(capsys, "status", "--json"))["state"] == "cancelled"


def test_watch_follows_a_run_to_its_end(running, folder, capsys):
    """Exit status 1, because a block fails."""
    watching = subprocess.Popen(
        [sys.executable, "-m", "blockyard.cli", "watch"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    (folder / "gate").touch()
    out, err = watching.communicate(timeout=60)
    assert watching.returncode == 1, err
    assert "looked-at: failed" in out


def test_a_run_that_has_ended_can_be_asked_and_healed(folder, capsys):
    """failures and explain say why; retry and the same command again do the rest; the result stays as it was."""
    (folder / "gate").touch()
    assert main(["run", "p.yaml"]) == 1
    capsys.readouterr()
    failures = json.loads(said(capsys, "failures", "--json"))
    assert failures["failed"] == 1
    assert "block 4 says no" in said(capsys, "failures", "p.yaml", "--task", "only", "--traceback")
    assert "attempt 1: ValueError: block 4 says no" in said(capsys, "explain", "only", "4")
    assert json.loads(said(capsys, "explain", "only", "5", "--json"))["state"] == "done"
    status = json.loads(said(capsys, "status", "--json"))
    assert (status["state"], status["leases_granted"] > 0) == ("failed", True)
    (folder / "heal").touch()
    assert "blocks will be tried; the run is not running now, to go on: blockyard" in said(capsys, "retry")
    assert "to go on" in said(capsys, "status")
    assert "10 of 10" in said(capsys, "run", "p.yaml")
    assert json.loads(said(capsys, "status", "--json"))["state"] == "done"
    assert "blocks that were over run again; the run is not running now" in said(
        capsys, "rerun", "only", "--roi", "-3:4"
    )
    assert "10 of 10" in said(capsys, "run", "p.yaml")


def test_of_a_run_that_was_stopped_nobody_works_on_anything(tmp_path, capsys):
    """No workers are online and nothing is expected to end, though they were and it was in its last moment."""
    one = RoiSpec((0,), (1,))
    task = TaskSpec(id="t", command=("sleep", "60"), total_roi=RoiSpec((0,), (4,)), read_roi=one, write_roi=one)
    with LocalRun(RunSpec(PipelineSpec(name="p", tasks=(task,))), tmp_path / "run", workers=1) as run:
        wait_until(lambda: any(worker.busy for worker in run.status().workers))
    now = json.loads(said(capsys, "status", str(tmp_path / "run"), "--json"))
    assert (now["state"], now["workers"], now["eta_s"]) == ("stopped", [], None)
    assert [(task["leased"], task["pending"] + task["ready"]) for task in now["tasks"]] == [(0, 4)]
    assert "stopped, 0 % of 4 blocks, 0 workers online" in said(capsys, "status", str(tmp_path / "run"))


def wait_until(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)

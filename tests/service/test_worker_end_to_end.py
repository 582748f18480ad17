"""Real workers, a real scheduler and a real Redis, each a process of its own."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from worker_peer import LIMIT_S, AgentProcess, block_task, wait_for

from blockyard.client import Control
from blockyard.plan.grid import Grid
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec
from blockyard.wire.api import FailureStatus

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass
class SchedulerProcess:
    """A scheduler on a port of its own, which it keeps when it is started again."""

    folder: Path
    redis_url: str
    name: str
    tasks: tuple
    flags: tuple = ()

    def __post_init__(self):
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
            self.port, self.http_port = (listener.getsockname()[1] for listener in (one, two))
        self.address = f"127.0.0.1:{self.port}"
        self.control = Control(f"http://127.0.0.1:{self.http_port}")
        run = RunSpec(PipelineSpec(name=self.name, tasks=self.tasks))
        (self.folder / "run.json").write_bytes(msgspec.json.encode(run))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.kill()

    def start(self):
        command = [sys.executable, "-m", "blockyard_scheduler", "--run-spec", str(self.folder / "run.json")]
        command += ["--port", str(self.port), "--http-port", str(self.http_port), "--lock-s", "1", *self.flags]
        environ = os.environ | {"BLOCKYARD_REDIS_URL": self.redis_url}
        with (self.folder / "scheduler.log").open("ab") as log:
            self.process = subprocess.Popen([*command, "--exit-when-done"], env=environ, stdout=log, stderr=log)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def exit_status(self):
        return self.process.wait(LIMIT_S)

    def status(self):
        """The status of the run; None while nobody answers."""
        with contextlib.suppress(Exception):
            return self.control.status()
        return None

    def finished(self, n):
        """Wait until so many blocks are done."""
        wait_for(lambda: (status := self.status()) is not None and sum(task.done for task in status.tasks) >= n)


@pytest.fixture
def folder(tmp_path):
    """Of user code. Blocks of `nap` from 100 on wait for a file `go`: no test is late to disturb a run."""
    (tmp_path / "user_code.py").write_text(
        "import os, pathlib, time\n"
        "HERE = pathlib.Path(__file__).parent\n"
        "def count(block):\n"
        "    with (HERE / 'ran').open('a') as file: file.write(f'{block.task_id} {block.block_id}\\n')\n"
        "def nap(block):\n"
        "    while block.block_id >= 100 and not (HERE / 'go').exists(): time.sleep(0.01)\n"
        "    time.sleep(0.02); count(block)\n"
        "def poison(block):\n"
        "    if block.block_id == 5: os.kill(os.getpid(), 9)\n"
        "def own_poison():\n"
        "    from blockyard import Client\n"
        "    with Client() as client:\n"
        "        while True:\n"
        "            with client.acquire_block() as block:\n"
        "                if block is None: break\n"
        "                if block.block_id == 5: os._exit(3)\n"
    )
    return tmp_path


def ran(folder):
    return (folder / "ran").read_text().split("\n")[:-1]


@pytest.fixture
def scheduler_of(folder, redis_url, run_name):
    def make(*tasks, flags=()):
        return SchedulerProcess(folder, redis_url, run_name, tasks, flags)

    return make


def test_a_chain_runs_to_its_end_and_everybody_leaves(folder, scheduler_of):
    """Each block once, the downstream one after its upstream; exit status 0 all around."""
    tasks = (
        block_task("one", 2_000, function="user_code:count"),
        block_task("two", 2_000, function="user_code:count", requires=("one",)),
    )
    with scheduler_of(*tasks) as scheduler, AgentProcess(scheduler, folder, slots=2) as agent:
        assert scheduler.exit_status() == 0
        assert agent.exit_status() == 0
    lines = ran(folder)
    assert len(lines) == len(set(lines)) == 4_000
    place = {line: at for at, line in enumerate(lines)}
    assert all(place[f"one {block}"] < place[f"two {block}"] for block in range(2_000))


def test_a_block_that_kills_its_slot_is_failed_with_the_signal_and_the_rest_runs(folder, scheduler_of):
    """Its kill budget is spent, then it is left alone."""
    task = block_task("work", 100, function="user_code:poison")
    with scheduler_of(task) as scheduler, AgentProcess(scheduler, folder, slots=2) as agent:
        assert agent.exit_status() == 0
        assert scheduler.exit_status() == 1
    assert re.search(r"^[ |]*work +100 .* 99 +1 +0 ", (folder / "scheduler.log").read_text(), re.MULTILINE)


def test_a_block_that_ends_a_users_own_worker_is_found_among_the_others(folder, scheduler_of):
    """Though its process leases in batches: the others are not blamed."""
    task = block_task("work", 100, worker="user_code:own_poison")
    files = ("--run-dir", str(folder))  # nobody is there to be asked when all have left
    with (
        scheduler_of(task, flags=files) as scheduler,
        AgentProcess(scheduler, folder, "--task", "work") as agent,
    ):
        assert agent.exit_status() == 0
        assert scheduler.exit_status() == 1
    found = msgspec.json.decode((folder / "failures.json").read_bytes(), type=list[FailureStatus])
    assert {failure.block_id for failure in found} == {5}


def test_workers_go_on_over_a_restart_of_the_scheduler(folder, scheduler_of):
    """kill -9; the next one finds everything in Redis, and nothing runs twice."""
    task = block_task("work", 300, function="user_code:nap")
    with scheduler_of(task) as scheduler, AgentProcess(scheduler, folder, slots=2) as agent:
        scheduler.finished(20)
        scheduler.kill()
        (folder / "go").touch()
        scheduler.start()
        assert scheduler.exit_status() == 0
        assert agent.exit_status() == 0
    lines = ran(folder)
    assert len(lines) == len(set(lines)) == 300


def test_blocks_of_a_worker_that_is_killed_are_finished_by_another(folder, scheduler_of):
    """After its leases have ended; only what it was running may run again."""
    task = block_task("work", 200, function="user_code:nap")
    flags = ("--lease-s", "2", "--grace-s", "0.5", "--heartbeat-s", "0.2")
    with scheduler_of(task, flags=flags) as scheduler, AgentProcess(scheduler, folder, slots=2) as first:
        scheduler.finished(20)
        first.signal(signal.SIGKILL)
        (folder / "go").touch()
        with AgentProcess(scheduler, folder, slots=2) as second:
            assert scheduler.exit_status() == 0
            assert second.exit_status() == 0
    lines = ran(folder)
    assert len(set(lines)) == 200
    assert len(lines) <= 200 + 60


def test_a_drained_worker_costs_nothing(folder, scheduler_of):
    """SIGTERM in the middle: the other one finishes, and no block runs twice."""
    task = block_task("work", 200, function="user_code:nap")
    with scheduler_of(task) as scheduler, AgentProcess(scheduler, folder, slots=2) as first:
        scheduler.finished(20)
        first.signal(signal.SIGTERM)
        (folder / "go").touch()
        assert first.exit_status() == 0
        with AgentProcess(scheduler, folder, slots=2) as second:
            assert scheduler.exit_status() == 0
            assert second.exit_status() == 0
    lines = ran(folder)
    assert len(lines) == len(set(lines)) == 200


def test_the_worker_without_our_library_runs_a_pipeline(folder, scheduler_of):
    """It finds the same voxels for a block id, in three dimensions, and leaves when the run is over."""
    box = {"read_roi": RoiSpec((0, -1, -2), (4, 7, 9)), "write_roi": RoiSpec((0, 0, 0), (4, 5, 6))}
    total = RoiSpec((-3, 10, 5), (12, 23, 30))
    tasks = tuple(
        msgspec.structs.replace(block_task(fit, 1, function="json:dumps", fit=fit, **box), total_roi=total)
        for fit in ("valid", "overhang", "shrink")
    )
    with scheduler_of(*tasks) as scheduler:
        wait_for(scheduler.status)
        result = subprocess.run(
            [sys.executable, str(EXAMPLES / "raw_worker.py"), scheduler.address],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, "")
        assert scheduler.exit_status() == 0
    expected = set()
    for task in tasks:
        grid = Grid.of(task)
        for block_id in range(grid.size):
            roi = grid.write_roi(grid.index_of(block_id))
            expected.add(f"{task.id} block {block_id} attempt 1 writes {list(zip(roi.begin, roi.end, strict=True))}")
    lines = result.stdout.splitlines()
    assert set(lines[:-1]) == expected
    assert lines[-1] == "the run is over: done"


def test_the_example_of_a_users_own_worker_runs(tmp_path):
    """As a user starts it."""
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / "own_worker.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "the counts are those of the whole volume" in result.stdout


def test_json_of_a_block_is_plain():
    """A program in another language reads it: no type of ours in it."""
    from blockyard.client.calls import block_json
    from blockyard.spec.block import Block

    block = Block(Grid.of(block_task(blocks=4, function="a:b")), "work", 3)
    assert json.loads(json.dumps(block_json(block, {"a": [1, 2]}))) == {
        "task_id": "work",
        "block_id": 3,
        "index": [3],
        "read_roi": {"offset": [3], "shape": [1]},
        "write_roi": {"offset": [3], "shape": [1]},
        "attempt": 1,
        "params": {"a": [1, 2]},
    }

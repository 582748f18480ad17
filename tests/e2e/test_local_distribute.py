"""`distribute` and `run_blockwise` from a script: real processes, closures, hooks, a worker of the user's own."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from blockyard import Client, Parameter, Roi, Task, distribute, run_blockwise
from blockyard.spec.errors import BlockyardError, SpecError

TOTAL, READ, WRITE = Roi((0,), (12,)), Roi((0,), (3,)), Roi((1,), (1,))


class Mark(Task):
    """Writes a file a block."""

    out = Parameter()
    upstream = Parameter(default=None)
    bad = Parameter(default=None)
    events = Parameter(default=None)

    def requires(self):
        return [] if self.upstream is None else [Mark(task_id=self.upstream, out=self.out)]

    def prepare(self):
        self.schedule(TOTAL, READ, WRITE, self.process, num_workers=2, max_retries=0)

    def process(self, block):
        if block.block_id == self.bad:
            raise ValueError("no such luck")
        Path(self.out, f"{self.task_id}-{block.block_id}").write_text(str(os.getpid()))

    def cleanup(self):
        if self.events is not None:
            Path(self.events).write_text("cleaned up")


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where private runs go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def marks(out):
    return sorted(path.name for path in out.iterdir())


def test_a_closure_runs_in_other_processes_and_nothing_is_left(out, temporary):
    """What a script defines needs no module; the private folder is gone at the end."""
    folder = str(out)

    def process(block):
        Path(folder, str(block.block_id)).write_text(str(os.getpid()))

    assert run_blockwise(TOTAL, READ, WRITE, process, num_workers=2) is True
    assert len(marks(out)) == 10
    assert str(os.getpid()) not in {path.read_text() for path in out.iterdir()}
    assert list(temporary.iterdir()) == []


def test_what_workers_print_is_shown_unless_the_task_says_no(out, capsys):
    """log_to_stdout, as in 0.2: each line once; without it the lines are in the log files only."""

    class Prints(Mark):
        def process(self, block):
            print(f"block {block.block_id} speaks")

    assert distribute([Prints(out=str(out))])
    assert sorted(capsys.readouterr().out.splitlines()) == [f"block {number} speaks" for number in range(10)]
    assert distribute([Prints(out=str(out), log_to_stdout=False)])
    assert capsys.readouterr().out == ""


def test_a_chain_runs_what_a_request_needs(out):
    """Block 5 of the last task needs blocks 4, 5 and 6 of the one before."""
    last = Mark(task_id="last", out=str(out), upstream="first")
    assert distribute([{"task": last, "request": [Roi((6,), (1,))]}])
    assert marks(out) == ["first-4", "first-5", "first-6", "last-5"]


def test_a_failure_is_told_with_its_error_and_its_logs_are_kept(out, temporary, caplog):
    """False, the block and its error in the log, and where the workers' logs are; cleanup has its turn."""
    task = Mark(out=str(out), bad=4, events=str(out.parent / "events"))
    assert distribute([task]) is False
    assert (out.parent / "events").read_text() == "cleaned up"
    assert "Mark [4]: ValueError: no such luck" in caplog.text
    (kept,) = temporary.iterdir()
    assert f"logs of the workers: {kept}/logs" in caplog.text
    assert [path.name for path in kept.iterdir()] == ["logs"]


def test_a_run_with_a_folder_resumes(out, tmp_path):
    """What is done stays done; the folder holds state and result."""
    task = Mark(out=str(out))
    assert distribute([task], run_dir=tmp_path / "run")
    first = {path.name: path.read_text() for path in out.iterdir()}
    assert distribute([task], run_dir=tmp_path / "run")
    assert {path.name: path.read_text() for path in out.iterdir()} == first
    assert (tmp_path / "run" / "status.json").exists()


def test_a_worker_of_the_users_own_drives_a_client(out):
    """A function of no argument is started num_workers times; a block it never releases well is failed."""
    folder = str(out)

    def work():
        client = Client()
        while True:
            with client.acquire_block() as block:
                if block is None:
                    return
                Path(folder, str(block.block_id)).write_text(str(os.getpid()))

    assert run_blockwise(TOTAL, READ, WRITE, work, num_workers=2)
    assert len(marks(out)) == 10


def test_a_worker_of_the_users_own_that_raises_costs_its_block_a_retry_and_the_rest_runs(out, caplog):
    """With the exception, at once, and with many processes too: nothing waits for losses without a reason."""

    def worker():
        client = Client()
        while (block := client.acquire_block()) is not None:
            if block.block_id == 4:
                raise ValueError("block 4 says no")
            Path(out, str(block.block_id)).touch()
            client.release_block(block, 0)

    assert not run_blockwise(TOTAL, WRITE, WRITE, worker, num_workers=6, max_retries=1, task_id="own")
    assert sorted(path.name for path in Path(out).iterdir()) == sorted(str(n) for n in range(12) if n != 4)
    assert "own [4]: ValueError: block 4 says no" in caplog.text


def test_blocks_that_kill_a_worker_of_the_users_own_have_failed_after_three_and_the_rest_is_done(out, caplog):
    """Whichever of many processes they meet; each end is charged to the block that ran, with how it was."""

    def worker():
        client = Client()
        while (block := client.acquire_block()) is not None:
            with Path(out, str(block.block_id)).open("a") as file:
                file.write("x")
            if block.block_id == 4:
                os._exit(3)
            if block.block_id == 9:
                os.kill(os.getpid(), signal.SIGKILL)
            client.release_block(block, 0)

    assert not run_blockwise(TOTAL, WRITE, WRITE, worker, num_workers=8, read_write_conflict=False, task_id="own")
    assert "own [4]: exit: the worker of task 'own' ended with exit status 3" in caplog.text
    assert "own [9]: exit: the worker of task 'own' was killed by SIGKILL" in caplog.text
    assert "own: failed, 10 of 12 blocks" in caplog.text
    assert sorted(marks(out)) == sorted(map(str, range(12)))
    assert [Path(out, name).read_text() for name in ("4", "9")] == ["xxx"] * 2


def test_a_worker_of_the_users_own_that_starts_another_process(out, tmp_path):
    """The client finds its scheduler by the environment, also in a program that the worker starts."""
    program = tmp_path / "program.py"
    program.write_text(
        "import pathlib, sys\n"
        "from blockyard import Client\n"
        "client = Client()\n"
        "while (block := client.acquire_block()) is not None:\n"
        "    (pathlib.Path(sys.argv[1]) / str(block.block_id)).touch()\n"
        "    client.release_block(block, 0)\n"
    )
    folder = str(out)

    def work():
        subprocess.run([sys.executable, str(program), folder], check=True)

    assert run_blockwise(TOTAL, READ, WRITE, work, num_workers=1)
    assert len(marks(out)) == 10


def test_finished_blocks_are_skipped_by_their_check(out):
    """check_function before: true means done; after: false would mean failed."""
    folder = str(out)

    def process(block):
        Path(folder, str(block.block_id)).write_text("ran")

    def is_done(block):
        return Path(folder, str(block.block_id)).exists()

    (out / "3").write_text("was there")
    assert run_blockwise(TOTAL, READ, WRITE, process, is_done, num_workers=2)
    assert (out / "3").read_text() == "was there"
    assert len(marks(out)) == 10


def test_a_task_of_no_blocks_succeeds(out):
    """A total ROI no larger than the context: 0 blocks, success."""
    assert run_blockwise(Roi((0,), (2,)), READ, WRITE, lambda block: 1 / 0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"num_workers": 0}, "num_workers is 0; it must be at least 1"),
        ({"fit": "valide"}, "did you mean 'valid'?"),
        ({"read_roi": Roi((2,), (3,))}, "write_roi reaches outside read_roi on axis 0"),
        ({"process_function": None}, "process"),
    ],
)
def test_bad_input_is_told_before_anything_runs(temporary, change, sentence):
    """A SpecError, and no folder is left."""
    given = {"total_roi": TOTAL, "read_roi": READ, "write_roi": WRITE, "process_function": print, **change}
    with pytest.raises(SpecError, match=sentence.replace("?", r"\?")):
        run_blockwise(**given)
    assert list(temporary.iterdir()) == []


def test_a_script_that_is_told_to_end_leaves_nothing(out, tmp_path):
    """SIGTERM: the private folder is removed, and no process stays."""
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib, sys, time\n"
        "from blockyard import Roi, run_blockwise\n"
        "started = sys.argv[1]\n"
        "def work(block):\n"
        "    pathlib.Path(started).touch()\n"
        "    time.sleep(1000)\n"
        "run_blockwise(Roi((0,), (4,)), Roi((0,), (1,)), Roi((0,), (1,)), work, num_workers=2)\n"
    )
    started = out / "started"
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary)}
    run = subprocess.Popen([sys.executable, str(script), str(started)], env=environment)
    until = time.monotonic() + 60
    while not started.exists():
        assert run.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    run.terminate()
    assert run.wait(timeout=60) == 128 + signal.SIGTERM
    assert list(temporary.iterdir()) == []


def test_a_run_that_is_refused_leaves_the_folder_as_it_was(out, tmp_path):
    """A changed grid is told; what the finished run left stays; a folder that was not there is not made."""
    folder = tmp_path / "run"
    assert run_blockwise(TOTAL, READ, WRITE, print, task_id="it", run_dir=folder)
    left = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(BlockyardError, match="'it'"):
        run_blockwise(Roi((0,), (9,)), READ, WRITE, print, task_id="it", run_dir=folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == left
    with pytest.raises(SpecError):
        run_blockwise(TOTAL, READ, WRITE, print, num_workers=0, run_dir=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_progress_is_logged_and_hooks_run(out, caplog, monkeypatch):
    """The report and the periodic hook come every so often, here at once."""
    import blockyard.local.distribute

    monkeypatch.setattr(blockyard.local.distribute, "REPORT_EVERY_S", 0.2)
    caplog.set_level(logging.INFO, logger="blockyard")
    gate = str(out.parent / "gate")

    class Waits(Mark):
        def process(self, block):
            import time

            while not Path(gate).exists():
                time.sleep(0.01)

        def _periodic_callback(self):
            Path(gate).touch()

    assert distribute([Waits(out=str(out))])
    assert "Waits: running" in caplog.text
    assert "Waits: done" in caplog.text


def test_random_numbers_depend_on_no_worker_and_no_attempt(out, caplog):
    """A generator of the script is told of, and draws for each block what it always draws; so does the block's own."""
    rng = np.random.default_rng(7)
    lost = out / "lost"

    def draw(block):
        numbers = [rng.random(), block.rng.random(), rng.random()]
        if block.block_id == 3 and not lost.exists():
            lost.touch()
            raise ValueError("once")
        (out / str(block.block_id)).write_text(repr(numbers))

    drawn = []
    for workers in (1, 3):
        assert run_blockwise(TOTAL, READ, WRITE, draw, read_write_conflict=False, num_workers=workers)
        drawn.append([(out / str(block)).read_text() for block in range(10)])
        lost.unlink()
    lost.touch()
    assert run_blockwise(TOTAL, READ, WRITE, draw, serial=True)
    drawn.append([(out / str(block)).read_text() for block in range(10)])
    assert drawn[0] == drawn[1] == drawn[2]
    assert len(set(drawn[0])) == 10
    assert "task 'draw': random numbers come from 'rng' (Generator of numpy), which each worker has" in caplog.text

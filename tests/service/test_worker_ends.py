"""Blocks that end their process, or the worker's: each way costs attempts and has a reason, and the run ends soon.

What looks like a batch system or a person has the benefit of the doubt once; what happens again is the block's own.
"""

import os
import signal
import sys

import pytest
from worker_peer import AgentProcess, FakeScheduler, block_task, finish_run, unpack, wait_for

from blockyard.cli.app import main
from blockyard.wire.messages import Bye, Gone, Outcome

MODULE = '''
import _thread, os, pathlib, signal, subprocess, sys, time
from blockyard import Client

HERE = pathlib.Path(__file__).parent

def raises(error): raise error

def hidden_interrupt():
    """As a library does that tidies up."""
    try: raise KeyboardInterrupt("by hand")
    except KeyboardInterrupt: raise

def send(pid, number):
    os.kill(pid, number)
    time.sleep(60)

ENDS = {
    "interrupt": lambda: raises(KeyboardInterrupt),
    "interrupt again": hidden_interrupt,
    "exit": lambda: sys.exit(),
    "exit 3": lambda: sys.exit(3),
    "exit text": lambda: sys.exit("giving up"),
    "quit": lambda: os._exit(0),
    "quit 3": lambda: os._exit(3),
    "abort": lambda: os.abort(),
    "kill": lambda: send(os.getpid(), signal.SIGKILL),
    "usr1": lambda: send(os.getpid(), signal.SIGUSR1),
    "term": lambda: send(os.getpid(), signal.SIGTERM),
    "hangup": lambda: send(os.getpid(), signal.SIGHUP),
    "int": lambda: send(os.getpid(), signal.SIGINT),
    "int main": lambda: (_thread.interrupt_main(), time.sleep(60)),
    "term group": lambda: (os.killpg(0, signal.SIGTERM), time.sleep(60)),
    "term by program": lambda: (subprocess.run(["kill", str(os.getpid())]), time.sleep(60)),
    "term exec": lambda: os.execvp("sh", ["sh", "-c", "kill -TERM $$; sleep 60"]),
    "exec": lambda: os.execvp("true", ["true"]),
    "term agent": lambda: send(os.getppid(), signal.SIGTERM),
    "int agent": lambda: send(os.getppid(), signal.SIGINT),
    "term agent group": lambda: (os.killpg(os.getpgid(os.getppid()), signal.SIGTERM), time.sleep(60)),
    "term agent by child": lambda: (
        subprocess.run([sys.executable, "-c", f"import os, time; os.kill({os.getppid()}, 15); time.sleep(60)"])
    ),
}

def function(block, ways):
    if block.block_id < len(ways): ENDS[ways[block.block_id]]()

def own():
    client = Client()
    while (block := client.acquire_block()) is not None:
        ENDS[(HERE / "ways").read_text().split(",")[block.block_id]]()
        client.release_block(block, 0)

def own_with():
    client = Client()
    while True:
        with client.acquire_block() as block:
            if block is None: return
            ENDS[(HERE / "ways").read_text().split(",")[block.block_id]]()

def waits(block):
    (HERE / f"pid-{block.block_id}.{block.attempt}").write_text(str(os.getpid()))
    time.sleep(60)
'''

FAILED = {
    "interrupt": "KeyboardInterrupt: the function raised KeyboardInterrupt itself: no signal came to its process",
    "interrupt again": "KeyboardInterrupt: by hand",
    "exit": "SystemExit: the function ended its program: sys.exit()",
    "exit 3": "SystemExit: the function ended its program: sys.exit(3)",
    "exit text": "SystemExit: the function ended its program: sys.exit(giving up)",
}
KILLED = {
    "quit": "exit status 0",
    "quit 3": "exit status 3",
    "exec": "exit status 0",
    "abort": "SIGABRT",
    "kill": "SIGKILL",
    "usr1": "SIGUSR1",
    "term agent": "user code sent SIGTERM to its worker",
    "int agent": "user code sent SIGINT to its worker",
    "term agent group": "user code sent SIGTERM to its worker",
    "term agent by child": "user code sent SIGTERM to its worker",
}
DOUBTED = {
    "term": "SIGTERM",
    "hangup": "SIGHUP",
    "int": "SIGINT",
    "int main": "SIGINT",
    "term group": "SIGTERM",
    "term by program": "SIGTERM",
    "term exec": "SIGTERM",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "ends.py").write_text(MODULE)
    return tmp_path


def test_whatever_ends_the_process_of_a_block_costs_it_an_attempt_and_is_said(folder):
    """An exception is a failed attempt, an end of the process a kill; neighbours and the worker go on."""
    ways = FAILED | KILLED
    task = block_task(function="ends:function", params={"ways": list(ways)})
    with FakeScheduler((task,)) as scheduler, AgentProcess(scheduler, folder) as agent:
        scheduler.add("work", range(len(ways) + 1))
        outcomes = scheduler.finish(range(len(ways) + 1))
        assert finish_run(scheduler, agent) == 0
    assert outcomes == [Outcome.FAILED] * len(FAILED) + [Outcome.KILLED] * len(KILLED) + [Outcome.SUCCESS]
    errors = [scheduler.results["work", block].error for block in range(len(ways))]
    assert [say for say, error in zip(ways.values(), errors, strict=True) if say not in said(error)] == []


def test_an_end_that_may_come_from_outside_is_a_loss_once_and_a_kill_after_that(folder):
    """A batch system or a person would have told the worker, too; the first time it has the benefit of the doubt."""
    blocks = range(len(DOUBTED))
    task = block_task(function="ends:function", params={"ways": list(DOUBTED)})
    with FakeScheduler((task,)) as scheduler, AgentProcess(scheduler, folder) as agent:
        scheduler.add("work", blocks)
        assert set(scheduler.finish(blocks)) == {Outcome.LOST}
        assert not any(result.error for result in scheduler.results.values())
        scheduler.results.clear()
        scheduler.add("work", blocks)
        assert set(scheduler.finish(blocks)) == {Outcome.KILLED}
        assert finish_run(scheduler, agent) == 0
    errors = [scheduler.results["work", block].error for block in blocks]
    assert [say for say, error in zip(DOUBTED.values(), errors, strict=True) if say not in said(error)] == []
    assert all("not the first time with this block, and nobody told the worker" in error.message for error in errors)


def said(error):
    return f"{error.kind}: {error.message}"


def test_a_slot_that_is_told_to_end_with_its_worker_spends_nothing_however_often(folder):
    """A batch system's signal may reach the slot first, at every one of many evictions."""
    task = block_task(function="ends:waits")
    with FakeScheduler((task,)) as scheduler, AgentProcess(scheduler, folder, "--drain-s", "0.2") as agent:
        for attempt in (1, 2):
            scheduler.results.clear()
            scheduler.add("work", [1], attempt=attempt)
            path = folder / f"pid-1.{attempt}"
            os.kill(int(wait_for(lambda: path.exists() and path.read_text())), signal.SIGTERM)  # noqa: B023
            if attempt == 1:
                assert scheduler.result(1).outcome is Outcome.LOST
        agent.signal(signal.SIGTERM)
        assert scheduler.result(1).outcome is Outcome.RETURNED
        assert agent.exit_status() == 0
        assert len(scheduler.messages(Bye)) == 1


# ----- workers of the user's own ------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["own", "own_with"])
def test_a_loop_of_the_users_own_that_raises_in_a_block_has_failed_it(folder, function):
    """KeyboardInterrupt and SystemExit too, where no signal came."""
    (folder / "ways").write_text(",".join(FAILED))
    blocks = range(len(FAILED))
    with (
        FakeScheduler((block_task(worker=f"ends:{function}"),)) as scheduler,
        AgentProcess(scheduler, folder, "--task", "work") as agent,
    ):
        scheduler.add("work", blocks)
        outcomes = scheduler.finish(blocks)
        assert finish_run(scheduler, agent) == 0
    assert set(outcomes) <= {Outcome.FAILED, Outcome.KILLED}
    assert all(scheduler.results["work", block].error.message for block in blocks)


def test_a_process_of_the_users_own_that_ends_without_a_word_is_evidence(folder):
    """Also where it ends with status 0 in the middle of a block, and where it sends a signal to its agent."""
    ways = ["quit", "exec", "term agent", "int agent"]
    (folder / "ways").write_text(",".join(ways))
    with (
        FakeScheduler((block_task(worker="ends:own"),), batch=1) as scheduler,
        AgentProcess(scheduler, folder, "--task", "work") as agent,
    ):
        scheduler.add("work", range(4))
        gone = scheduler.wait(lambda: len(scheduler.messages(Gone)) == 4 and scheduler.messages(Gone))
        assert finish_run(scheduler, agent) == 0
    for block, (way, message) in enumerate(zip(ways, gone, strict=True)):
        assert message.killed
        assert unpack(message.ran) == [scheduler.lease_of(block)]
        assert KILLED[way] in message.reason


@pytest.mark.parametrize("function", ["own", "own_with"])
def test_an_interrupt_that_comes_again_and_again_to_a_process_of_the_users_own_is_evidence(folder, function):
    """The process says goodbye itself; the second time that costs the block a kill."""
    (folder / "ways").write_text("int,int")
    with (
        FakeScheduler((block_task(worker=f"ends:{function}"),)) as scheduler,
        AgentProcess(scheduler, folder, "--task", "work") as agent,
    ):
        scheduler.add("work", [0])
        assert scheduler.result(0).outcome is Outcome.RETURNED
        scheduler.add("work", [1])
        assert scheduler.result(1).outcome is Outcome.KILLED
        assert finish_run(scheduler, agent) == 0
    assert "SIGINT" in scheduler.results["work", 1].error.message


def test_a_process_of_the_users_own_that_is_told_to_end_again_and_again_is_evidence(folder):
    """Once may be the batch system's; its agent would have been told, too."""
    (folder / "ways").write_text("term exec,hangup")
    with (
        FakeScheduler((block_task(worker="ends:own"),), batch=1) as scheduler,
        AgentProcess(scheduler, folder, "--task", "work") as agent,
    ):
        scheduler.add("work", range(2))
        gone = scheduler.wait(lambda: len(scheduler.messages(Gone)) == 2 and scheduler.messages(Gone))
        assert finish_run(scheduler, agent) == 0
    assert [message.killed for message in gone] == [False, True]
    assert "SIGHUP" in gone[1].reason


# ----- serial runs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", FAILED)
def test_a_block_of_a_serial_run_that_ends_its_program_has_failed(folder, way, capsys, monkeypatch):
    """With sys.exit(0) the command said that all is well, with KeyboardInterrupt that a person stopped it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    old = signal.getsignal(signal.SIGINT)
    (folder / "p.yaml").write_text(PIPELINE.replace("WAY", way))
    try:
        assert main(["run", "--serial", str(folder / "p.yaml")]) == 1
    finally:
        signal.signal(signal.SIGINT, old)
        sys.modules.pop("ends", None)
    told = capsys.readouterr()
    assert FAILED[way].partition(": ")[2] in told.err
    assert "in block [0] of task 'work'" in told.err


PIPELINE = """\
name: small
tasks:
  - id: work
    function: ends:function
    params: {ways: [WAY]}
    total_roi: {offset: [0], shape: [10]}
    read_roi: {offset: [0], shape: [5]}
    write_roi: {offset: [0], shape: [5]}
"""

"""User code that forks: the child ends where it comes back to us, whatever way it leaves, and its block is one process.

Everything that user code may do is a row of a table; each block does one, and waits for its child.
"""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from worker_peer import AgentProcess, FakeScheduler, block_task, finish_run, wait_for

from blockyard.spec.model import CheckSpec
from blockyard.wire.messages import Hello, Outcome

MODULE = '''
import ctypes, os, pathlib, pty, subprocess, sys, threading, time
from blockyard import Client

HERE = pathlib.Path(__file__).parent

def fork_in_thread():
    """The child is a copy of the thread alone."""
    pids = []
    def forks():
        pids.append(os.fork())
        if pids[0] == 0: os._exit(9)
    thread = threading.Thread(target=forks)
    thread.start()
    thread.join()
    return pids[0]

FORKS = {
    "fork": os.fork,
    "pty": lambda: pty.fork()[0],
    "library": lambda: ctypes.PyDLL(None).fork(),
    "thread": fork_in_thread,
}

def writes_later():
    """What it has open is closed, and its threads are waited for, as where a program ends."""
    file = open(HERE / "late", "w")
    file.write("kept")
    threading.Thread(target=lambda: (time.sleep(0.05), (HERE / "thread").write_text("ran"))).start()
    sys.exit(4)

class Odd(BaseException):
    def __str__(self): raise ValueError

def raises(error): raise error

LEAVES = {
    "returns": (0, lambda: None),
    "returns 1": (0, lambda: 1),
    "exit": (0, lambda: sys.exit()),
    "exit 3": (3, lambda: sys.exit(3)),
    "exit text": (1, lambda: sys.exit("the child has ended")),
    "raises": (1, lambda: raises(ValueError("the child has failed"))),
    "interrupt": (130, lambda: raises(KeyboardInterrupt())),
    "odd": (1, lambda: raises(Odd())),
    "open": (4, writes_later),
}

ROWS = [(fork, leave) for fork in FORKS for leave in LEAVES]

def act(fork, leave):
    """In the child, leave; in the parent, wait for it and give its status."""
    pid = FORKS[fork]()
    if pid == 0:
        return LEAVES[leave][1]()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == (9 if fork == "thread" else LEAVES[leave][0]), (fork, leave, status)

def note(block):
    with open(HERE / "begun", "a") as file: file.write(f"{block.block_id} {os.getpid()}\\n")

def function(block):
    note(block)
    return act(*ROWS[block.block_id])

def before(block):
    note(block)
    return act(*ROWS[block.block_id])

def nothing(block): pass

class Built:
    def __init__(self):
        if os.fork() == 0: sys.exit(0)
    def __call__(self, block): note(block)

def orphan(block):
    """A child that nobody waits for ends after its block, and later ones have begun."""
    note(block)
    if os.fork() == 0:
        (HERE / f"child-{block.block_id}.tmp").write_text(str(os.getpid()))
        (HERE / f"child-{block.block_id}.tmp").rename(HERE / f"child-{block.block_id}")
        while not (HERE / "go").exists(): time.sleep(0.01)
        sys.exit(0)

def leaves(block):
    """A program that outlives who started it."""
    subprocess.run("sleep 3600 & echo $! > left.tmp; mv left.tmp left", shell=True, check=True, cwd=HERE)

def hangs(block):
    note(block)
    if block.block_id == 1:
        if os.fork() == 0: return
        time.sleep(3600)

def own():
    client = Client()
    while True:
        with client.acquire_block() as block:
            if block is None: return
            note(block)
            fork, leave = ROWS[block.block_id]
            if leave.startswith("returns"): leave = "exit"
            act(fork, leave)

def own_child_goes_on():
    """A child may not use the Client, even where it has not noticed that it is one."""
    client = Client()
    while (block := client.acquire_block()) is not None:
        note(block)
        pid = os.fork()
        if pid: assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
        client.release_block(block, 0)

def own_child_makes_its_own():
    """A new Client in the child has blocks of its own."""
    pid = os.fork()
    client = Client()
    while (block := client.acquire_block()) is not None:
        note(block)
        client.release_block(block, 0)
        if pid == 0: client.close(); sys.exit(5)
    if pid: assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
'''
ROWS = list(itertools.product(range(4), range(9)))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "forks.py").write_text(MODULE)
    return tmp_path


def begun(folder):
    return [tuple(map(int, line.split())) for line in (folder / "begun").read_text().splitlines()]


def run_blocks(folder, task, blocks, *flags):
    with FakeScheduler((task,)) as scheduler, AgentProcess(scheduler, folder, *flags) as agent:
        scheduler.add("work", blocks)
        outcomes = scheduler.finish(blocks)
        assert finish_run(scheduler, agent) == 0
        errors = [result.error for result in scheduler.results.values() if result.error is not None]
    return outcomes, errors


@pytest.mark.parametrize(("function", "before"), [("forks:function", None), ("forks:nothing", "forks:before")])
def test_a_child_ends_where_it_leaves_user_code_whoever_forks_and_however_it_leaves(folder, function, before):
    """With the status of a program that ends so; every block runs once, all in one process, and has its own outcome."""
    blocks = range(len(ROWS))
    task = block_task(function=function, check=before and CheckSpec(before=before))
    outcomes, errors = run_blocks(folder, task, blocks)
    assert errors == []
    assert set(outcomes) == {Outcome.SUCCESS}
    assert [block for block, _ in begun(folder)] == list(blocks)
    assert len({pid for _, pid in begun(folder)}) == 1
    assert ((folder / "late").read_text(), (folder / "thread").read_text()) == ("kept", "ran")
    (log,) = (folder / "logs").glob("*.slot-0.log")
    said = log.read_text()
    assert "ValueError: the child has failed" in said
    assert "the child has ended" in said


def test_a_class_that_forks_where_it_is_built_is_one_slot(folder):
    """The child of its constructor ends, too."""
    outcomes, errors = run_blocks(folder, block_task(function="forks:Built"), range(5))
    assert (set(outcomes), errors) == ({Outcome.SUCCESS}, [])
    assert len(begun(folder)) == 5


def test_a_child_that_outlives_its_block_says_nothing_of_later_ones(folder):
    """Its end comes while others run."""
    with (
        FakeScheduler((block_task(function="forks:orphan"),)) as scheduler,
        AgentProcess(scheduler, folder) as agent,
    ):
        scheduler.add("work", range(6))
        assert set(scheduler.finish(range(6))) == {Outcome.SUCCESS}
        wait_for(lambda: len(list(folder.glob("child-?"))) == 6)
        (folder / "go").touch()
        scheduler.add("work", range(6, 12))
        assert set(scheduler.finish(range(6, 12))) == {Outcome.SUCCESS}
        assert finish_run(scheduler, agent) == 0
    assert [block for block, _ in begun(folder)] == list(range(12))
    assert len({pid for _, pid in begun(folder)}) == 1


def test_a_time_limit_sees_the_block_and_not_its_child(folder):
    """The child has returned long ago."""
    outcomes, errors = run_blocks(folder, block_task(function="forks:hangs", timeout_s=0.5), range(3))
    assert [outcome.name for outcome in outcomes] == ["SUCCESS", "FAILED", "SUCCESS"]
    assert [error.kind for error in errors] == ["timeout"]


@pytest.mark.parametrize("function", ["own", "own_child_goes_on"])
def test_a_child_in_a_loop_of_the_users_own_never_speaks_for_the_block(folder, function):
    """What it raises goes its way; a child that goes on with the Client of its parent is told that it cannot."""
    blocks = range(len(ROWS)) if function == "own" else range(3)
    outcomes, errors = run_blocks(folder, block_task(worker=f"forks:{function}"), blocks, "--task", "work")
    assert (set(outcomes), errors) == ({Outcome.SUCCESS}, [])
    assert [block for block, _ in begun(folder)] == list(blocks)
    (log,) = (folder / "logs").glob("*.own-0.log")
    if function == "own_child_goes_on":
        assert log.read_text().count("Error: a Client cannot be used in a forked process") == 3


def test_a_client_that_a_child_makes_itself_has_blocks_of_its_own(folder):
    """Another worker, as far as anybody can see."""
    task = block_task(worker="forks:own_child_makes_its_own")
    with FakeScheduler((task,), batch=1) as scheduler, AgentProcess(scheduler, folder, "--task", "work") as agent:
        scheduler.wait(lambda: len([hello for hello in scheduler.messages(Hello) if hello.own]) == 2)
        scheduler.add("work", range(8))
        assert set(scheduler.finish(range(8))) == {Outcome.SUCCESS}
        assert finish_run(scheduler, agent) == 0


SCRIPT = """
import os, sys
import blockyard
from blockyard import Roi

def process(block):
    pid = os.fork()
    if pid == 0:
        LEAVE
    os.waitpid(pid, 0)

if __name__ == "__main__":
    try:
        good = blockyard.run_blockwise(Roi((0,), (30,)), Roi((0,), (10,)), Roi((0,), (10,)), process, OPTIONS)
    except BaseException as error:
        print("caught", type(error).__name__)
    else:
        print("came back", bool(good))
"""


@pytest.mark.parametrize(
    ("options", "leave"),
    [
        ("serial=True", "return"),
        ("serial=True", "sys.exit(0)"),
        ("serial=True", "raise ValueError('in the child')"),
        ("max_retries=0", "sys.exit(0)"),
    ],
)
def test_a_child_of_a_scripts_block_never_goes_on_with_the_script(tmp_path, leave, options):
    """What follows the run in the script is done once."""
    (tmp_path / "script.py").write_text(SCRIPT.replace("LEAVE", leave).replace("OPTIONS", options))
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    said = [line for line in done.stdout.splitlines() if line.startswith(("caught", "came"))]
    assert said == ["came back True"], done.stdout + done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the first process of the system inherits them")
def test_what_a_block_leaves_behind_is_inherited_and_reaped_by_the_agent(folder):
    """In a container without an init nobody else does, and each such block would cost a process number for good."""
    task = block_task(function="forks:leaves")
    with FakeScheduler((task,)) as scheduler, AgentProcess(scheduler, folder) as agent:
        scheduler.add("work", [0])
        assert scheduler.result(0).outcome is Outcome.SUCCESS
        left = int((folder / "left").read_text())
        process = Path(f"/proc/{left}")
        assert int((process / "stat").read_text().rpartition(")")[2].split()[1]) == agent.pid
        os.kill(left, signal.SIGKILL)
        wait_for(lambda: not process.exists())
        assert finish_run(scheduler, agent) == 0

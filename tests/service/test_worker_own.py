"""A user's own worker: the agent keeps its processes running, and says how they end."""

import os
import signal
from pathlib import Path

import pytest
from worker_peer import AgentProcess, FakeScheduler, block_task, finish_run, is_alive, unpack, wait_for

from blockyard.wire.messages import Bye, Gone, Hello, Outcome, RunOver, TaskOver, Want

MODULE = '''
import ctypes, multiprocessing, os, pathlib, signal, subprocess, sys, time
from blockyard import Client, Context

HERE = pathlib.Path(__file__).parent

def loop():
    client = Client()
    (HERE / f"pid-{client.context['worker_id']}").write_text(str(os.getpid()))
    while True:
        with client.acquire_block() as block:
            if block is None: break

def crash():
    """Some blocks end the process, each in a way that Python does not see."""
    client = Client()
    while (block := client.acquire_block()) is not None:
        (HERE / "running").write_text(str(os.getpid()))
        if block.block_id == 1: os._exit(9)
        if block.block_id == 2: ctypes.string_at(0)
        if block.block_id == 3: os.kill(os.getpid(), signal.SIGKILL)
        if block.block_id == 4: time.sleep(60)
        client.release_block(block, 0)

def between():
    """Ends badly while it has no block, though blocks are leased to it."""
    client = Client()
    client.release_block(client.acquire_block(), 0)
    os._exit(9)

def grandchild_crash():
    subprocess.run([sys.executable, "-c", "import own; own.crash()"], check=True, cwd=HERE)

def pool():
    """Forked processes that end by SIGTERM before they have done anything."""
    client = Client()
    while (block := client.acquire_block()) is not None:
        for _ in range(20):
            with multiprocessing.get_context("fork").Pool(1): pass
        client.release_block(block, 0)

def note():
    with open(HERE / "starts", "a") as file: file.write(f"{os.getpid()}\\n")

def notes():
    """Opens its output when it starts, and ends after each block."""
    note()
    client = Client()
    block = client.acquire_block()
    if block is not None: client.release_block(block, 0)

def waits():
    client = Client()
    while (block := client.acquire_block()) is not None:
        (HERE / "running").write_text(str(os.getpid()))
        while not (HERE / "go").exists(): time.sleep(0.01)
        client.release_block(block, 0)
    (HERE / "ended").write_text("by itself")

def grandchild():
    """The process that drives the Client is one that the worker starts."""
    assert os.environ["DAISY_CONTEXT"] == os.environ["BLOCKYARD_CONTEXT"]
    subprocess.run([sys.executable, "-c", "import own; own.loop()"], check=True, cwd=HERE)

def early():
    """Returns after each block."""
    client = Client()
    block = client.acquire_block()
    if block is not None: client.release_block(block, 0)
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own.py").write_text(MODULE)
    return tmp_path


def is_pending(pid, number):
    """Whether a signal has been sent to a process that has not got it yet."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    (pending,) = [line.split()[1] for line in status.splitlines() if line.startswith("ShdPnd")]
    return bool(int(pending, 16) >> number - 1 & 1)


def scheduler_for(function, **fields):
    return FakeScheduler((block_task(worker=f"own:{function}"),), **fields)


def starts(folder):
    return (folder / "starts").read_text().split() if (folder / "starts").exists() else []


def test_processes_of_the_users_own_lease_blocks_until_the_task_is_over(folder):
    """The agent takes none itself; each process has a number, and an id that begins with the agent's."""
    with scheduler_for("loop") as scheduler, AgentProcess(scheduler, folder, "--task", "work", slots=2) as agent:
        scheduler.add("work", range(20))
        assert set(scheduler.finish(range(20))) == {Outcome.SUCCESS}
        scheduler.wait(lambda: len([hello for hello in scheduler.messages(Hello) if hello.own]) == 2)
        scheduler.say(TaskOver("work"))
        scheduler.wait(lambda: len(scheduler.messages(Gone)) == 2)
        assert finish_run(scheduler, agent) == 0
    (listening,) = {hello.worker: hello for hello in scheduler.messages(Hello) if not hello.own}.values()
    assert (listening.slots, listening.task) == (0, "work")
    for hello in scheduler.messages(Hello):
        assert hello.worker.startswith(listening.worker)
    assert not any(gone.killed for gone in scheduler.messages(Gone))
    assert sorted(path.name for path in folder.glob("pid-*")) == ["pid-0", "pid-1"]


def test_a_process_that_the_worker_starts_may_use_the_client_too(folder):
    """The environment tells it all."""
    with scheduler_for("grandchild") as scheduler, AgentProcess(scheduler, folder, "--task", "work") as agent:
        scheduler.add("work", range(5))
        assert set(scheduler.finish(range(5))) == {Outcome.SUCCESS}
        assert finish_run(scheduler, agent) == 0


@pytest.mark.parametrize(("block", "end"), [(1, "exit status 9"), (2, "SIGSEGV"), (3, "SIGKILL")])
def test_a_process_that_dies_without_a_word_is_charged_for_the_block_that_it_ran(folder, block, end):
    """Its agent knows which one of a batch that was, and says how it ended; the others are for somebody else."""
    with scheduler_for("crash") as scheduler, AgentProcess(scheduler, folder, "--task", "work") as agent:
        scheduler.add("work", [0, 0, 0, 0, block, 0, 0])
        (gone,) = scheduler.wait(lambda: scheduler.messages(Gone))
        assert finish_run(scheduler, agent) == 0
    assert gone.killed
    assert end in gone.reason
    assert unpack(gone.ran) == [scheduler.lease_of(block)]


def test_a_process_that_dies_between_blocks_is_evidence_against_none(folder):
    """What it had leased and not begun is returned."""
    with scheduler_for("between") as scheduler, AgentProcess(scheduler, folder, "--task", "work") as agent:
        scheduler.add("work", range(9))
        gone = scheduler.wait(lambda: scheduler.messages(Gone))
        assert finish_run(scheduler, agent) == 0
    assert unpack(gone[0].ran) == []


def test_sigterm_to_a_process_is_no_evidence(folder):
    """A batch system sends it to all processes, in any order; the second one ends the process in its block."""
    with scheduler_for("crash") as scheduler, AgentProcess(scheduler, folder, "--task", "work") as agent:
        scheduler.add("work", [4])
        pid = int(wait_for(lambda: (folder / "running").exists() and (folder / "running").read_text()))
        for _ in range(2):
            os.kill(pid, signal.SIGTERM)
            wait_for(lambda: not is_pending(pid, signal.SIGTERM))
        (gone,) = scheduler.wait(lambda: scheduler.messages(Gone))
        assert finish_run(scheduler, agent) == 0
    assert "SIGTERM" in gone.reason
    assert not gone.killed
    assert unpack(gone.ran) == [scheduler.lease_of(4)]


def test_a_process_that_ends_since_its_leases_are_lost_is_evidence_against_none(folder):
    """It was no fault of the block."""
    with (
        scheduler_for("waits") as scheduler,
        AgentProcess(scheduler, folder, "--task", "work") as agent,
    ):
        scheduler.lease_s = 1.0
        scheduler.add("work", [0])
        wait_for((folder / "running").exists)
        scheduler.answering = False
        gone = scheduler.wait(lambda: scheduler.messages(Gone))
        agent.signal(signal.SIGTERM)
    assert "exit status 70" in gone[0].reason
    assert unpack(gone[0].ran) == []


def test_a_pool_of_forked_processes_ends(folder):
    """It sends them SIGTERM and waits; they must not take that for themselves as the worker does."""
    with scheduler_for("pool") as scheduler, AgentProcess(scheduler, folder, "--task", "work", slots=2) as agent:
        scheduler.add("work", range(4))
        assert set(scheduler.finish(range(4))) == {Outcome.SUCCESS}
        assert finish_run(scheduler, agent) == 0


def test_the_bad_end_of_a_program_that_it_started_is_evidence_once_it_is_certain_which_block_it_was(folder):
    """The first end comes from a program that may have had a batch; the next ones lease block by block."""
    with scheduler_for("grandchild_crash") as scheduler, AgentProcess(scheduler, folder, "--task", "work") as agent:
        scheduler.add("work", [0, 1])
        scheduler.result(0)
        (first,) = scheduler.wait(lambda: scheduler.messages(Gone))
        scheduler.add("work", [1])
        _, second = scheduler.wait(lambda: len(scheduler.messages(Gone)) > 1 and scheduler.messages(Gone)[:2])
        assert finish_run(scheduler, agent) == 0
    assert "exit status 1" in first.reason
    assert first.ran is None
    assert (first.killed, second.killed) == (False, True)
    assert first.worker.endswith("/")
    owners = {hello.worker for hello in scheduler.messages(Hello) if hello.own}
    assert any(owner.startswith(first.worker) for owner in owners)
    assert first.worker != second.worker


def test_a_worker_that_returns_early_is_started_again_while_there_is_work(folder):
    """Some do one block a process."""
    with scheduler_for("early") as scheduler, AgentProcess(scheduler, folder, "--task", "work") as agent:
        scheduler.add("work", range(3))
        assert set(scheduler.finish(range(3))) == {Outcome.SUCCESS}
        assert finish_run(scheduler, agent) == 0


def test_sigterm_lets_the_loop_end_after_its_block(folder):
    """The process ends by itself; its end is no evidence against anything."""
    with (
        scheduler_for("waits") as scheduler,
        AgentProcess(scheduler, folder, "--task", "work", "--drain-s", "60") as agent,
    ):
        scheduler.add("work", range(5))
        wait_for((folder / "running").exists)
        agent.signal(signal.SIGTERM)
        wait_for(lambda: "told to stop" in agent.output())
        (folder / "go").touch()
        assert agent.exit_status() == 0
        scheduler.wait(lambda: len(scheduler.messages(Bye)) == 2)
    assert (folder / "ended").read_text() == "by itself"
    assert len(scheduler.results) == 1
    assert not any(gone.killed for gone in scheduler.messages(Gone))


def test_a_loop_that_does_not_end_in_time_is_killed(folder):
    """And its leases are told free."""
    with (
        scheduler_for("waits") as scheduler,
        AgentProcess(scheduler, folder, "--task", "work", "--drain-s", "0.2") as agent,
    ):
        scheduler.add("work", [0])
        pid = int(wait_for(lambda: (folder / "running").exists() and (folder / "running").read_text()))
        agent.signal(signal.SIGTERM)
        assert agent.exit_status() == 0
        assert not is_alive(pid)
        (gone,) = scheduler.wait(lambda: scheduler.messages(Gone))
        assert not gone.killed
        assert gone.ran == b""  # returned: also no loss without a reason


def test_an_agent_that_is_killed_takes_its_processes_along(folder):
    """Nobody would report their end."""
    with scheduler_for("loop") as scheduler, AgentProcess(scheduler, folder, "--task", "work") as agent:
        pid = int(wait_for(lambda: (folder / "pid-0").exists() and (folder / "pid-0").read_text()))
        agent.signal(signal.SIGKILL)
        wait_for(lambda: not is_alive(pid))


def test_a_task_that_is_not_there_is_a_sentence_and_status_2(folder):
    """With the nearest name."""
    with scheduler_for("loop") as scheduler, AgentProcess(scheduler, folder, "--task", "wrok") as agent:
        assert agent.exit_status() == 2
    assert "no task 'wrok'; did you mean 'work'" in agent.output()


def test_a_task_flag_also_restricts_an_agent_to_a_task_with_a_function(folder):
    """It takes the blocks of that task and no others."""
    (folder / "plain.py").write_text("def f(block):\n    pass\n")
    tasks = (block_task("one", function="plain:f"), block_task("two", function="plain:f"))
    with FakeScheduler(tasks) as scheduler, AgentProcess(scheduler, folder, "--task", "two") as agent:
        scheduler.add("two", [0])
        assert scheduler.result(0, "two").outcome is Outcome.SUCCESS
        scheduler.say(RunOver("done"))
        assert agent.exit_status() == 0
    assert {hello.task for hello in scheduler.messages(Hello)} == {"two"}


def test_a_process_is_started_when_the_scheduler_says_that_there_is_something_to_do(folder):
    """Not when the agent joins; and again after it has ended only when that is said again."""
    with (
        scheduler_for("notes", knows=("task_began",)) as scheduler,
        AgentProcess(scheduler, folder, "--task", "work", slots=2) as agent,
    ):
        scheduler.wait(lambda: Want(2) in scheduler.heard)
        assert starts(folder) == []
        scheduler.begin()
        wait_for(lambda: len(starts(folder)) == 2)
        scheduler.add("work", [0])
        scheduler.result(0)
        scheduler.wait(lambda: len(scheduler.messages(Gone)) == 1)
        assert len(starts(folder)) == 2
        scheduler.begin()
        scheduler.wait(lambda: len({hello.worker for hello in scheduler.messages(Hello) if hello.own}) == 3)
        scheduler.say(TaskOver("work"))
        scheduler.wait(lambda: len(scheduler.messages(Gone)) == 3)
        assert finish_run(scheduler, agent) == 0
    assert len(starts(folder)) == 3


def test_a_scheduler_that_does_not_say_when_has_all_started_at_once(folder):
    """An older one, of which nothing would be heard; then a task that is over starts nothing."""
    with scheduler_for("notes") as scheduler, AgentProcess(scheduler, folder, "--task", "work") as agent:
        scheduler.wait(lambda: any(hello.own for hello in scheduler.messages(Hello)))
        scheduler.say(TaskOver("work"))
        scheduler.wait(lambda: scheduler.messages(Gone))
        assert finish_run(scheduler, agent) == 0
    assert len(starts(folder)) == 1

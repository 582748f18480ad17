"""A user's own worker: the agent keeps its processes running, and says how they end."""

import signal

import pytest
from worker_peer import AgentProcess, FakeScheduler, block_task, finish_run, is_alive, wait_for

from blockyard.wire.messages import Bye, Gone, Hello, Outcome, RunOver, TaskOver

MODULE = '''
import os, pathlib, subprocess, sys, time
from blockyard import Client, Context

HERE = pathlib.Path(__file__).parent

def loop():
    client = Client()
    (HERE / f"pid-{client.context['worker_id']}").write_text(str(os.getpid()))
    while True:
        with client.acquire_block() as block:
            if block is None: break

def crash():
    client = Client()
    while (block := client.acquire_block()) is not None:
        if block.block_id == 1: os._exit(9)
        client.release_block(block, 0)

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


def scheduler_for(function):
    return FakeScheduler((block_task(worker=f"own:{function}"),))


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


def test_a_bad_end_is_told_and_is_evidence_once_it_is_certain_which_block_it_was(folder):
    """The first end comes from a worker that may have had a batch; the next ones lease block by block."""
    with scheduler_for("crash") as scheduler, AgentProcess(scheduler, folder, "--task", "work") as agent:
        scheduler.add("work", [0, 1])
        scheduler.result(0)
        (first,) = scheduler.wait(lambda: scheduler.messages(Gone))
        scheduler.add("work", [1])
        _, second = scheduler.wait(lambda: len(scheduler.messages(Gone)) > 1 and scheduler.messages(Gone)[:2])
        assert finish_run(scheduler, agent) == 0
    assert "exit status 9" in first.reason
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

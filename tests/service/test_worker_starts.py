"""What can't be started: after so many times in a row a worker says why, to scheduler and log, and leaves."""

import asyncio
import signal
from contextlib import ExitStack

import pytest
from worker_peer import AgentProcess, FakeScheduler, block_task, finish_run, wait_for

from blockyard.wire.messages import KNOWN, Bye, CannotStart, Gone, Hello, Outcome, TaskOver
from blockyard_worker import slot_pool as pool_module
from blockyard_worker import starts as starts_module
from blockyard_worker.slot_handle import SlotSettings
from blockyard_worker.slot_pool import SlotPool
from blockyard_worker.starts import EXIT_CANNOT_START, LONGEST_PAUSE_S, MOST_STARTS, Starts, last_words

MODULE = """
import os, pathlib, signal, subprocess, sys
from blockyard import Client

HERE = pathlib.Path(__file__).parent

def note(name):
    with open(HERE / f"starts-{name}", "a") as file: file.write(".")

def raises():
    note("raises")
    import a_module_that_is_not_there

def returns():
    note("returns")

def quits():
    note("quits")
    sys.exit("no table in /data")

def leaves():
    note("leaves")
    os._exit(5)

def is_killed():
    note("is_killed")
    os.kill(os.getpid(), signal.SIGKILL)

def program():
    note("program")
    subprocess.run([sys.executable, "not_there.py"])

def asks_for_nothing():
    note("asks_for_nothing")
    Client().close()

def is_told():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)

def grandchild():
    note("grandchild")

def submits():
    note("submits")
    program = "import own; own.job()"
    subprocess.Popen([sys.executable, "-c", program], cwd=HERE, start_new_session=True)

def job():
    import time
    while not (HERE / "begin").exists(): time.sleep(0.01)
    client = Client()
    while (block := client.acquire_block()) is not None: client.release_block(block)
"""
WAYS = {
    "raises": "No module named 'a_module_that_is_not_there'",
    "returns": "without having made a Client",
    "quits": "no table in /data",
    "leaves": "exit status 5",
    "is_killed": "SIGKILL",
    "program": "can't open file",
    "asks_for_nothing": "exit status 0",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own.py").write_text(MODULE)
    return tmp_path


def own(function, **fields):
    return FakeScheduler((block_task(worker=f"own:{function}"),), knows=KNOWN, begins=True, **fields)


def test_a_worker_that_ends_before_its_first_block_each_time_is_given_up_with_its_reason(folder):
    """However it ends: the scheduler has the reason before the agent leaves, and so has its log; status 3."""
    with ExitStack() as stack:
        agents = {}
        for way in WAYS:
            (folder / way).mkdir()
            (folder / way / "own.py").write_text(MODULE)
            scheduler = stack.enter_context(own(way))
            agent = stack.enter_context(AgentProcess(scheduler, folder / way, "--task", "work"))
            agents[way] = scheduler, agent
        for way, (scheduler, agent) in agents.items():
            assert agent.exit_status() == EXIT_CANNOT_START, way
            assert (folder / way / f"starts-{way}").read_text() == "." * MOST_STARTS
            scheduler.wait(lambda scheduler=scheduler: scheduler.messages(Bye))
            said = scheduler.messages(CannotStart)
            for sentence in (said[0].text, said[-1].text, agent.output().splitlines()[-1]):
                assert WAYS[way] in sentence
                assert "the worker of task 'work'" in sentence
            assert f"{MOST_STARTS} times in a row" in said[-1].text


def test_a_worker_whose_programs_have_blocks_is_not_given_up(folder):
    """The agent sees nothing of them; the scheduler tells how many blocks they were leased."""
    with own("grandchild") as scheduler, AgentProcess(scheduler, folder, "--task", "work") as agent:
        for ended in range(1, MOST_STARTS + 2):
            scheduler.leased_to_own = ended
            scheduler.wait(lambda ended=ended: len(scheduler.messages(Gone)) >= ended)
        assert finish_run(scheduler, agent) == 0
    assert not any(said.text for said in scheduler.messages(CannotStart))


def test_a_worker_that_is_ended_by_sigterm_is_not_given_up(folder):
    """A batch system may end single processes: that is no sign that it can't start."""
    with own("is_told") as scheduler, AgentProcess(scheduler, folder, "--task", "work") as agent:
        scheduler.wait(lambda: len(scheduler.messages(Gone)) > MOST_STARTS)
        assert finish_run(scheduler, agent) == 0
    assert scheduler.messages(CannotStart) == []


def test_slots_that_end_before_they_are_ready_are_given_up_with_their_reason(tmp_path):
    """A Python that lacks a module, say."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(
        "import sys, pathlib\n"
        "if b'blockyard_worker.slot\\0' in pathlib.Path('/proc/self/cmdline').read_bytes():\n"
        "    raise SystemExit('ImportError: libcudart.so.12')\n"
    )
    environ = {"PYTHONPATH": str(tmp_path / "path")}
    with (
        FakeScheduler((block_task(function="json:dumps"),), knows=KNOWN) as scheduler,
        AgentProcess(scheduler, tmp_path, slots=2, environ=environ) as agent,
    ):
        assert agent.exit_status() == EXIT_CANNOT_START
        scheduler.wait(lambda: scheduler.messages(Bye))
        said = scheduler.messages(CannotStart)
    assert "ImportError: libcudart.so.12" in said[-1].text
    assert "ImportError: libcudart.so.12" in agent.output().splitlines()[-1]


@pytest.mark.parametrize("error", [BlockingIOError(11, "no process is left"), OSError(28, "no space left on device")])
def test_a_system_that_has_nothing_left_for_slots_is_a_reason_too(error, monkeypatch):
    """No fork, no memory, no file: it is tried again like a slot that ended, and the agent's turn learns of it."""

    def slot(*_):
        raise error

    monkeypatch.setattr(pool_module, "SlotHandle", slot)
    monkeypatch.setattr(starts_module, "FIRST_PAUSE_S", 0.0)
    turns = []

    async def main():
        given_up = asyncio.Event()

        def news():
            turns.append(slot_pool.trouble)
            if slot_pool.hopeless:
                given_up.set()

        slot_pool = SlotPool(2, SlotSettings("w"), news)
        await given_up.wait()
        return slot_pool

    assert error.strerror in asyncio.run(main()).trouble
    assert error.strerror in turns[-1]


def test_pauses_grow_up_to_a_limit_and_begin_anew_after_a_success():
    """A trouble that passes costs little, one that stays costs the machine little."""
    starts = Starts()
    pauses = [starts.fail("no") for _ in range(10)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_S
    assert starts.hopeless
    starts.worked()
    assert (starts.hopeless, starts.fail("no")) == (False, pauses[0])


def test_last_words_are_those_of_this_start(tmp_path):
    """Whatever bytes they are; none where it said nothing, or where there is no log."""
    log = tmp_path / "log"
    log.write_bytes(b"an older one\n")
    assert last_words(log, log.stat().st_size) == ""
    log.write_bytes(b"an older one\nfirst\n  \xff last \n\n")
    assert last_words(log, 13) == "\ufffd last"
    assert last_words(tmp_path / "none", 0) == last_words(None, 0) == ""


def test_a_job_that_is_submitted_is_no_failed_start(folder):
    """As many as workers are asked for, not one more; neither their submission's end nor the agent's touches them."""
    task = block_task(worker="own:submits", submits=True)
    with (
        FakeScheduler((task,), knows=KNOWN, begins=True) as scheduler,
        AgentProcess(scheduler, folder, "--task", "work", slots=2) as agent,
    ):
        wait_for(lambda: agent.output().count("has submitted a job") == 2)
        (folder / "begin").touch()
        scheduler.wait(lambda: sum(hello.own for hello in scheduler.messages(Hello)) == 2)
        agent.signal(signal.SIGTERM)
        assert agent.exit_status() == 0
        scheduler.add("work", range(4))
        assert set(scheduler.finish(range(4))) == {Outcome.SUCCESS}
        scheduler.say(TaskOver("work"))
        scheduler.wait(lambda: len(scheduler.messages(Bye)) == 3)
    assert (folder / "starts-submits").read_text() == ".."
    assert scheduler.messages(Gone) == scheduler.messages(CannotStart) == []
    assert all(hello.worker.startswith("submitted/") for hello in scheduler.messages(Hello) if hello.own)


@pytest.mark.parametrize("way", ["quits", "leaves"])
def test_a_submission_that_fails_is_a_failed_start(folder, way):
    """A queue that refuses the job, say."""
    task = block_task(worker=f"own:{way}", submits=True)
    with (
        FakeScheduler((task,), knows=KNOWN, begins=True) as scheduler,
        AgentProcess(scheduler, folder, "--task", "work") as agent,
    ):
        assert agent.exit_status() == EXIT_CANNOT_START
    assert WAYS[way] in agent.output().splitlines()[-1]

"""Slots that crash, hang and are replaced; agents that are killed, frozen, cut off or told to stop."""

import contextlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from worker_peer import AgentProcess, FakeScheduler, block_task, finish_run, is_alive, unpack, wait_for

from blockyard.wire.messages import Bye, Heartbeat, Hello, Outcome, Refused, Release, Revoke

LEASE_S = 4.0

MODULE = '''
import os, pathlib, signal, subprocess, sys, time

HERE = pathlib.Path(__file__).parent

def pid(block):
    (HERE / f"pid-{block.block_id}").write_text(str(os.getpid()))

def crash(block):
    pid(block)
    if block.block_id == 3: os.kill(os.getpid(), signal.SIGKILL)
    if block.block_id == 5: os._exit(7)

def hang(block):
    pid(block)
    if block.block_id == 2: time.sleep(3600)

def wait(block):
    """Run until a file says go on."""
    pid(block)
    while block.block_id < 2 and not (HERE / "go").exists(): time.sleep(0.01)

def offspring(block):
    """Start a daemon in a session of its own, and a plain child, and hang."""
    daemon = subprocess.Popen(["sleep", "3600"], start_new_session=True)
    child = subprocess.Popen(["sleep", "3600"])
    (HERE / "offspring.tmp").write_text(f"{os.getpid()} {daemon.pid} {child.pid}")
    (HERE / "offspring.tmp").rename(HERE / "offspring")
    time.sleep(3600)
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "user_code.py").write_text(MODULE)
    return tmp_path


def command_lines():
    """The arguments of all processes (where there is /proc; elsewhere nothing can be said)."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes().decode(errors="replace"))
    return lines


def read_when_there(path):
    return wait_for(lambda: path.exists() and path.read_text())


# ----- slots --------------------------------------------------------------------------------------------------------


def test_a_crash_costs_one_block_and_tells_its_signal(folder):
    """What had finished keeps its outcome, what had not started runs in the slot that replaces it."""
    with (
        FakeScheduler((block_task(function="user_code:crash"),)) as scheduler,
        AgentProcess(scheduler, folder) as agent,
    ):
        scheduler.add("work", range(10))
        outcomes = scheduler.finish(range(10))
        assert finish_run(scheduler, agent) == 0
    expected = [Outcome.KILLED if block in (3, 5) else Outcome.SUCCESS for block in range(10)]
    assert outcomes == expected
    killed, left = scheduler.results["work", 3].error, scheduler.results["work", 5].error
    assert killed.kind == "signal"
    assert "SIGKILL, perhaps out of memory" in killed.message
    assert "MB" in killed.message
    assert (left.kind, "exit status 7" in left.message) == ("exit", True)
    assert (folder / "pid-2").read_text() != (folder / "pid-4").read_text()


def test_no_block_of_a_fast_batch_is_lost_or_run_twice_around_a_crash(folder):
    """The page knows which block ran, also in the middle of thousands that need a microsecond each."""
    (folder / "fast.py").write_text(
        "import os\ndef f(block):\n    if block.block_id == 15_000: os.kill(os.getpid(), 11)\n"
    )
    task = block_task(blocks=20_000, function="fast:f")
    with FakeScheduler((task,), batch=20_000) as scheduler, AgentProcess(scheduler, folder, slots=2) as agent:
        scheduler.add("work", range(20_000))
        scheduler.wait(lambda: len(scheduler.results) == 20_000)
        assert finish_run(scheduler, agent) == 0
        released = [number for message in scheduler.messages(Release) for number in unpack(message.numbers)]
    assert len(released) == len(set(released)) == 20_000
    bad = [block for (_, block), result in scheduler.results.items() if result.outcome is not Outcome.SUCCESS]
    assert bad == [15_000]


def test_a_block_over_its_time_limit_fails_and_its_slot_is_replaced(folder):
    """The sentence says which limit."""
    task = block_task(function="user_code:hang", timeout_s=0.5)
    with FakeScheduler((task,)) as scheduler, AgentProcess(scheduler, folder) as agent:
        scheduler.add("work", range(5))
        outcomes = scheduler.finish(range(5))
        assert finish_run(scheduler, agent) == 0
    assert [outcome.name for outcome in outcomes] == ["SUCCESS", "SUCCESS", "FAILED", "SUCCESS", "SUCCESS"]
    error = scheduler.results["work", 2].error
    assert error.kind == "timeout"
    assert "0.5 s" in error.message
    assert not is_alive(int((folder / "pid-2").read_text()))


def test_a_slot_is_recycled_after_so_many_blocks(folder):
    """A leak is cured; no block is lost."""
    with (
        FakeScheduler((block_task(function="user_code:pid"),)) as scheduler,
        AgentProcess(scheduler, folder, "--recycle-after", "4") as agent,
    ):
        scheduler.add("work", range(12))
        assert set(scheduler.finish(range(12))) == {Outcome.SUCCESS}
        assert finish_run(scheduler, agent) == 0
    pids = [(folder / f"pid-{block}").read_text() for block in range(12)]
    assert len(set(pids)) == 3
    assert max(pids.count(pid) for pid in pids) == 4


def test_fast_blocks_do_not_wait_behind_a_slow_one_while_a_slot_is_idle(folder):
    """What a slot has not started is handed back and runs elsewhere."""
    (folder / "mixed.py").write_text(
        "import pathlib, time\nHERE = pathlib.Path(__file__).parent\n"
        "def f(block):\n"
        "    while block.block_id == 1_000 and not (HERE / 'go').exists(): time.sleep(0.01)\n"
    )
    task = block_task(blocks=4_000, function="mixed:f")
    with FakeScheduler((task,), batch=5_000) as scheduler, AgentProcess(scheduler, folder, slots=2) as agent:
        scheduler.add("work", range(4_000))
        scheduler.wait(lambda: len(scheduler.results) == 3_999)
        (folder / "go").touch()
        assert scheduler.result(1_000).outcome is Outcome.SUCCESS
        assert finish_run(scheduler, agent) == 0


def test_what_waits_behind_slow_blocks_goes_back_to_the_scheduler(folder):
    """Other workers may be idle; the worker asks again when a slot is free."""
    (folder / "mixed.py").write_text(
        "import pathlib, time\nHERE = pathlib.Path(__file__).parent\n"
        "def f(block):\n"
        "    while block.block_id == 1_000 and not (HERE / 'go').exists(): time.sleep(0.01)\n"
    )
    task = block_task(blocks=4_000, function="mixed:f")
    with FakeScheduler((task,), batch=5_000) as scheduler, AgentProcess(scheduler, folder) as agent:
        scheduler.add("work", range(1_000))  # so that it takes many at once
        scheduler.finish(range(1_000))
        scheduler.add("work", range(1_000, 1_500))
        scheduler.wait(lambda: any(result.outcome is Outcome.RETURNED for result in scheduler.results.values()))
        (folder / "go").touch()
        assert scheduler.result(1_000).outcome is Outcome.SUCCESS
        assert finish_run(scheduler, agent) == 0


def test_a_revoked_block_is_stopped_and_nothing_is_said_of_it(folder):
    """Its lease may be another worker's; the others go on."""
    with (
        FakeScheduler((block_task(function="user_code:hang"),), batch=1) as scheduler,
        AgentProcess(scheduler, folder) as agent,
    ):
        scheduler.add("work", [2])
        pid = int(read_when_there(folder / "pid-2"))
        scheduler.say(Revoke(np.array([scheduler.lease_of(2)], "<i8").tobytes()))
        wait_for(lambda: not is_alive(pid))
        scheduler.add("work", [4])
        assert scheduler.result(4).outcome is Outcome.SUCCESS
        assert finish_run(scheduler, agent) == 0
    assert ("work", 2) not in scheduler.results


# ----- the watchdog -----------------------------------------------------------------------------------------------


def offspring_of(scheduler, folder):
    scheduler.add("work", [0])
    return [int(pid) for pid in read_when_there(folder / "offspring").split()]


def test_nothing_that_user_code_started_outlives_an_agent_that_is_killed(folder):
    """Neither the slot, nor its children, nor a daemon in a session of its own."""
    task = block_task(function="user_code:offspring")
    with FakeScheduler((task,)) as scheduler, AgentProcess(scheduler, folder) as agent:
        pids = offspring_of(scheduler, folder)
        agent.signal(signal.SIGKILL)
        wait_for(lambda: not any(map(is_alive, pids)))


def test_the_slots_of_a_frozen_agent_end_at_the_deadline(folder):
    """Another worker may have the blocks then. A thawed agent works on, and reports nothing of the old ones."""
    with (
        FakeScheduler((block_task(function="user_code:hang"),), lease_s=LEASE_S, batch=1) as scheduler,
        AgentProcess(scheduler, folder) as agent,
    ):
        scheduler.add("work", [2])
        pid = int(read_when_there(folder / "pid-2"))
        agent.signal(signal.SIGSTOP)
        wait_for(lambda: not is_alive(pid))
        agent.signal(signal.SIGCONT)
        scheduler.add("work", [4])
        assert scheduler.result(4).outcome is Outcome.SUCCESS
        assert finish_run(scheduler, agent) == 0
    assert ("work", 2) not in scheduler.results


# ----- the connection -----------------------------------------------------------------------------------------------


def test_without_answers_for_the_lease_time_the_worker_stops_itself(folder):
    """It counts from the sending of its last answered heartbeat, and works on when a scheduler answers again."""
    with (
        FakeScheduler((block_task(function="user_code:hang"),), lease_s=LEASE_S, batch=1) as scheduler,
        AgentProcess(scheduler, folder) as agent,
    ):
        scheduler.add("work", [2])
        pid = int(read_when_there(folder / "pid-2"))
        scheduler.answering, scheduler.refusal = False, Refused("loading", "busy", again=True)
        wait_for(lambda: not is_alive(pid))
        scheduler.answering, scheduler.refusal = True, None
        scheduler.add("work", [4])
        assert scheduler.result(4).outcome is Outcome.SUCCESS
        assert finish_run(scheduler, agent) == 0
    assert ("work", 2) not in scheduler.results
    assert "leases are lost" in agent.output()


def test_a_worker_that_reconnects_keeps_its_blocks_and_repeats_what_was_not_acknowledged(folder):
    """It has the same id, says what it holds, and its running block goes on."""
    with (
        FakeScheduler((block_task(function="user_code:wait"),), acking=False, batch=1) as scheduler,
        AgentProcess(scheduler, folder, slots=2) as agent,
    ):
        scheduler.add("work", [7, 0])
        scheduler.result(7)
        pid = read_when_there(folder / "pid-0")
        scheduler.acking = True
        scheduler.disconnect()
        scheduler.wait(lambda: len(scheduler.messages(Hello)) == 2)
        first, second = scheduler.messages(Hello)
        assert first.worker == second.worker
        assert set(unpack(second.holds)) == {scheduler.lease_of(7), scheduler.lease_of(0)}
        scheduler.wait(lambda: [message.seq for message in scheduler.messages(Release)] == [1, 1])
        (folder / "go").touch()
        assert scheduler.result(0).outcome is Outcome.SUCCESS
        assert (folder / "pid-0").read_text() == pid
        assert finish_run(scheduler, agent) == 0


def test_a_standby_sends_the_worker_to_the_leader(folder):
    """The worker works there, though it was given the other address."""
    with FakeScheduler((block_task(function="user_code:pid"),)) as leader, FakeScheduler(()) as standby:
        standby.refusal = Refused("another scheduler leads", "standby", leader=leader.address)
        with AgentProcess(standby, folder) as agent:
            leader.add("work", [0])
            assert leader.result(0).outcome is Outcome.SUCCESS
            assert finish_run(leader, agent) == 0


def test_a_refusal_that_cannot_be_mended_is_a_sentence_and_status_2(folder):
    """Trying a wrong token again would only fill logs."""
    with FakeScheduler(()) as scheduler:
        scheduler.refusal = Refused("the token is not that of this scheduler", "token")
        with AgentProcess(scheduler, folder) as agent:
            assert agent.exit_status() == 2
    assert "the token is not that of this scheduler" in agent.output()
    assert "Traceback" not in agent.output()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--token-file", "/no/such/file"], "token-file /no/such/file cannot be read"),
        (["--scheduler", "nowhere"], "'nowhere', which is not HOST:PORT"),
        (["--log-dir", "/dev/null/logs"], "--log-dir /dev/null/logs cannot be made"),
    ],
)
def test_a_bad_setting_is_a_sentence_and_status_2(folder, flags, sentence):
    """Before anything is connected or started."""
    with FakeScheduler(()) as scheduler, AgentProcess(scheduler, folder, *flags) as agent:
        assert agent.exit_status() == 2
    assert sentence in agent.output()
    assert "Traceback" not in agent.output()


def test_heartbeats_name_the_blocks_that_run(folder):
    """So the scheduler knows what a worker that disappears was doing."""
    with (
        FakeScheduler((block_task(function="user_code:wait"),)) as scheduler,
        AgentProcess(scheduler, folder, slots=2) as agent,
    ):
        scheduler.add("work", [0, 1])
        leases = {scheduler.lease_of(0), scheduler.lease_of(1)}
        scheduler.wait(
            lambda: any({r.number for r in beat.running} == leases for beat in scheduler.messages(Heartbeat))
        )
        (folder / "go").touch()
        scheduler.finish([0, 1])
        assert finish_run(scheduler, agent) == 0


# ----- drain --------------------------------------------------------------------------------------------------------


def test_sigterm_finishes_what_runs_hands_back_the_rest_and_leaves(folder):
    """Nothing is lost, nothing waits for a lease to end, and the exit status is 0."""
    (folder / "warm.py").write_text("def f(block):\n    pass\n")
    tasks = (block_task("warm", 1000, function="warm:f"), block_task(function="user_code:wait"))
    with FakeScheduler(tasks) as scheduler, AgentProcess(scheduler, folder, "--drain-s", "60") as agent:
        scheduler.add("warm", range(1000))  # so that it knows how to take more than it has slots
        scheduler.finish(range(1000), "warm")
        scheduler.add("work", range(50))
        read_when_there(folder / "pid-0")
        held = {block for task, block in scheduler.leases.values() if task == "work"}
        agent.signal(signal.SIGTERM)
        outcomes = {block: scheduler.result(block).outcome for block in held - {0}}
        assert set(outcomes.values()) <= {Outcome.RETURNED}
        (folder / "go").touch()
        assert scheduler.result(0).outcome is Outcome.SUCCESS
        assert agent.exit_status() == 0
        assert len(scheduler.messages(Bye)) == 1


def test_what_does_not_finish_in_time_is_killed_and_handed_back(folder):
    """Preemption costs the block nothing."""
    with (
        FakeScheduler((block_task(function="user_code:hang"),), batch=1) as scheduler,
        AgentProcess(scheduler, folder, "--drain-s", "0.2") as agent,
    ):
        scheduler.add("work", [2])
        pid = int(read_when_there(folder / "pid-2"))
        agent.signal(signal.SIGTERM)
        assert scheduler.result(2).outcome is Outcome.RETURNED
        assert agent.exit_status() == 0
        assert not is_alive(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_slot_that_is_told_to_end_is_no_evidence_against_its_block(folder, number):
    """Batch systems signal all processes of a job, in any order: that is a loss, and spends nothing."""
    with (
        FakeScheduler((block_task(function="user_code:hang"),), batch=1) as scheduler,
        AgentProcess(scheduler, folder, "--drain-s", "0.2") as agent,
    ):
        scheduler.add("work", [2])
        os.kill(int(read_when_there(folder / "pid-2")), number)
        assert scheduler.result(2).outcome is Outcome.LOST
        assert scheduler.result(2).error is None
        assert finish_run(scheduler, agent) == 0


def test_an_idle_worker_leaves_at_once(folder):
    """Nothing is held, so there is nothing to wait for."""
    with FakeScheduler((block_task(function="user_code:pid"),)) as scheduler, AgentProcess(scheduler, folder) as agent:
        scheduler.wait(lambda: scheduler.messages(Hello))
        agent.signal(signal.SIGTERM)
        assert agent.exit_status() == 0
        scheduler.wait(lambda: scheduler.messages(Bye))


def test_no_process_is_left_when_the_run_is_over(folder):
    """Neither slots nor watchdog."""
    with FakeScheduler((block_task(function="user_code:pid"),)) as scheduler, AgentProcess(scheduler, folder) as agent:
        scheduler.add("work", [0])
        scheduler.result(0)
        worker = scheduler.results["work", 0].worker
        assert finish_run(scheduler, agent) == 0
    assert not is_alive(int((folder / "pid-0").read_text()))
    assert not [line for line in command_lines() if worker in line]

"""The blocking Client against a scripted scheduler on a real socket."""

import enum
import os
import subprocess
import sys
import threading

import pytest
from worker_peer import FakeScheduler, block_task, wait_for

from blockyard.client import Client, Context
from blockyard.client.client import EXIT_LEASE_LOST, request_stop
from blockyard.spec.errors import BlockyardError, ConnectError, FatalBlockError, LeaseLostError, SpecError
from blockyard.wire.messages import Bye, Grants, Hello, Outcome, Refused, RunOver, TaskOver, Want


def own_task(**fields):
    return block_task(blocks=10_000, worker="own:loop", **fields)


def context_of(scheduler, **more):
    host, _, port = scheduler.address.partition(":")
    return Context(host, int(port), "work", 0, 1, **more)


@pytest.fixture
def scheduler():
    with FakeScheduler((own_task(),)) as fake:
        yield fake


@pytest.fixture
def client(scheduler):
    with Client(context_of(scheduler)) as connected:
        yield connected


def test_blocks_are_acquired_and_released_one_by_one_until_the_task_is_over(scheduler, client):
    """The loop of daisy 0.2: a block or None, 0 or 1."""
    scheduler.add("work", range(20))
    for block_id in range(20):
        block = client.acquire_block()
        assert (block.task_id, block.block_id, block.index) == ("work", block_id, (block_id,))
        client.release_block(block, int(block_id == 7))
    outcomes = scheduler.finish(range(20))
    assert [block for block, outcome in enumerate(outcomes) if outcome is Outcome.FAILED] == [7]
    assert "status 1" in scheduler.results["work", 7].error.message
    scheduler.say(TaskOver("work"))
    assert client.acquire_block() is None
    assert client.acquire_block() is None


def test_a_with_statement_releases_and_ends_with_none(scheduler, client):
    """Success unless the status says otherwise; at the end the block is None."""
    scheduler.add("work", range(3))
    scheduler.wait(lambda: True)
    seen = []
    while True:
        with client.acquire_block() as block:
            if block is None:
                break
            seen.append(block.block_id)
            if block.block_id == 1:
                block.status = 1
        if len(seen) == 3:
            scheduler.finish(range(3))
            scheduler.say(RunOver("done"))
    assert seen == [0, 1, 2]
    assert [scheduler.results["work", block].outcome.name for block in range(3)] == ["SUCCESS", "FAILED", "SUCCESS"]


def test_an_exception_in_a_with_statement_fails_the_block_and_goes_on_up(scheduler, client):
    """The error has its class and text; FatalBlockError means that a retry cannot help."""
    scheduler.add("work", range(2))
    with pytest.raises(ValueError, match="bad voxel"), client.acquire_block() as block:
        raise ValueError(f"bad voxel in {block.block_id}")
    with pytest.raises(FatalBlockError), client.acquire_block():
        raise FatalBlockError("no such dataset")
    error = scheduler.result(0).error
    assert (error.kind, error.message) == ("ValueError", "bad voxel in 0")
    assert scheduler.result(1).outcome is Outcome.FATAL


def test_a_block_released_by_hand_inside_a_with_statement_is_released_once(scheduler, client):
    """What the user said counts."""
    scheduler.add("work", [0])
    with client.acquire_block() as block:
        client.release_block(block, 1)
    assert scheduler.result(0).outcome is Outcome.FAILED


def test_none_and_true_are_success(scheduler, client):
    """``release_block(block, process(block))`` works for functions that return nothing."""
    scheduler.add("work", range(2))
    client.release_block(client.acquire_block(), None)
    client.release_block(client.acquire_block(), True)
    assert scheduler.finish(range(2)) == [Outcome.SUCCESS] * 2


def test_a_block_that_is_not_held_cannot_be_released(scheduler, client):
    """Twice is once too often."""
    scheduler.add("work", [0])
    block = client.acquire_block()
    client.release_block(block, 0)
    with pytest.raises(BlockyardError, match="not held"):
        client.release_block(block, 0)


def test_fast_blocks_come_in_batches_and_slow_ones_one_by_one(scheduler, client):
    """A fast loop pays no round trip for each block."""
    scheduler.add("work", range(5_000))
    for _ in range(5_000):
        client.release_block(client.acquire_block(), 0)
    scheduler.finish(range(5_000))
    wants = [message.n for message in scheduler.messages(Want)]
    assert wants[0] == 1
    assert max(wants) > 100
    assert len(wants) < 1_000


def test_a_careful_client_leases_one_block_at_a_time(scheduler):
    """After a crash it must be certain which block it was."""
    with Client(context_of(scheduler, careful="1")) as client:
        scheduler.add("work", range(100))
        for _ in range(100):
            client.release_block(client.acquire_block(), 0)
    assert {message.n for message in scheduler.messages(Want)} <= {0, 1}


def test_threads_may_share_a_client(scheduler, client):
    """Each block goes to one of them."""
    scheduler.add("work", range(200))
    seen = []

    def loop():
        while (block := client.acquire_block()) is not None:
            seen.append(block.block_id)
            client.release_block(block, 0)

    threads = [threading.Thread(target=loop) for _ in range(4)]
    for thread in threads:
        thread.start()
    scheduler.finish(range(200))
    scheduler.say(TaskOver("work"))
    for thread in threads:
        thread.join(30)
    assert sorted(seen) == list(range(200))


def test_checks_run_around_acquire_and_release(tmp_path, monkeypatch):
    """A block that is done is skipped unseen, one that is not done after its release has failed."""
    (tmp_path / "own_checks.py").write_text("def done(block):\n    return block.block_id == 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with FakeScheduler((own_task(check="own_checks:done"),)) as scheduler, Client(context_of(scheduler)) as client:
        scheduler.add("work", range(2))
        block = client.acquire_block()
        assert block.block_id == 1
        client.release_block(block, 0)
        assert scheduler.result(0).outcome is Outcome.SKIPPED
        assert (scheduler.result(1).outcome, scheduler.result(1).error.kind) == (Outcome.FAILED, "check")


def test_closing_hands_back_what_nobody_acquired_and_says_goodbye(scheduler):
    """A block that was acquired and never released is lost, not returned: its code may have broken it."""
    with Client(context_of(scheduler)) as client:
        scheduler.add("work", range(1_000))
        for _ in range(500):
            client.release_block(client.acquire_block(), 0)
        kept = client.acquire_block()
    scheduler.wait(lambda: scheduler.messages(Bye))
    assert scheduler.result(kept.block_id).outcome is Outcome.LOST
    leased = {block for _, block in scheduler.leases.values()}
    assert {scheduler.result(block).outcome for block in leased if block > kept.block_id} <= {Outcome.RETURNED}
    assert leased == {block for _, block in scheduler.results}
    assert client.acquire_block() is None


def test_a_stop_ends_the_loop_after_the_block_that_runs(scheduler, client):
    """SIGTERM of a worker: the next block is None, what waits goes back."""
    scheduler.add("work", range(10))
    block = client.acquire_block()
    request_stop()
    client.release_block(block, 0)
    assert client.acquire_block() is None
    assert scheduler.result(0).outcome is Outcome.SUCCESS


def test_a_client_reconnects_and_its_release_is_not_lost(scheduler, client):
    """The block goes on over a broken connection; the worker id stays."""
    scheduler.add("work", [0])
    block = client.acquire_block()
    scheduler.disconnect()
    client.release_block(block, 0)
    assert scheduler.result(0).outcome is Outcome.SUCCESS
    assert len({hello.worker for hello in scheduler.messages(Hello)}) == 1


def test_a_lost_lease_raises_where_that_was_asked_for():
    """Then the caller may go on with fresh leases."""
    with FakeScheduler((own_task(),), lease_s=2.0) as scheduler:
        with Client(context_of(scheduler), on_lost_lease="raise") as client:
            scheduler.add("work", [0])
            block = client.acquire_block()
            scheduler.answering, scheduler.refusal = False, Refused("loading", "busy", again=True)
            wait_for(lambda: not client.holds(block))
            with pytest.raises(LeaseLostError, match="given away"):
                client.release_block(block, 0)
            scheduler.answering, scheduler.refusal = True, None
            scheduler.add("work", [1])
            again = client.acquire_block()
            client.release_block(again, 0)
            assert scheduler.result(1).outcome is Outcome.SUCCESS
        assert ("work", 0) not in scheduler.results


def test_a_lost_lease_ends_the_process_at_the_deadline():
    """Nothing else can stop code that may be writing where another worker writes by now."""
    script = (
        "import time\nfrom blockyard import Client\n"
        "block = Client().acquire_block()\nprint('acquired', flush=True)\ntime.sleep(3600)\n"
    )
    with FakeScheduler((own_task(),), lease_s=2.0) as scheduler:
        environ = os.environ | {Context.ENV_VARIABLE: context_of(scheduler).to_env()}
        with subprocess.Popen(
            [sys.executable, "-c", script], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            scheduler.add("work", [0])
            assert process.stdout.readline() == "acquired\n"
            scheduler.answering, scheduler.refusal = False, Refused("loading", "busy", again=True)
            _, complaint = process.communicate(timeout=60)
        assert process.returncode == EXIT_LEASE_LOST
        assert "so this process ends" in complaint


def test_a_client_that_is_forgotten_says_goodbye_at_exit(scheduler):
    """A script that just ends frees its leases at once."""
    script = "from blockyard import Client\nclient = Client()\nclient.release_block(client.acquire_block(), 0)\n"
    environ = os.environ | {Context.ENV_VARIABLE: context_of(scheduler).to_env()}
    scheduler.add("work", [0])
    subprocess.run([sys.executable, "-c", script], env=environ, timeout=60, check=True)
    scheduler.wait(lambda: scheduler.messages(Bye))
    assert scheduler.result(0).outcome is Outcome.SUCCESS


@pytest.mark.parametrize(
    ("agent", "ending", "outcome", "kind", "message"),
    [
        (False, "raise ValueError('block 0 is odd')", Outcome.FAILED, "ValueError", "block 0 is odd"),
        (True, "sys.exit(3)", Outcome.KILLED, "exit", "the worker's program ended before it released the block"),
        (True, "pass", Outcome.KILLED, "exit", "the worker's program ended before it released the block"),
        (False, "sys.exit(3)", Outcome.LOST, None, None),
        (True, "raise KeyboardInterrupt", Outcome.RETURNED, None, None),
        (True, "client.stop(); raise ValueError('while stopping')", Outcome.LOST, None, None),
        (True, "client.close()", Outcome.LOST, None, None),
        (True, "with client: raise ValueError('inside')", Outcome.FAILED, "ValueError", "inside"),
    ],
)
def test_a_program_that_ends_answers_for_the_block_that_it_has(scheduler, agent, ending, outcome, kind, message):
    """At once and for certain, so that a worker that raises spends retries and not minutes; unless it was told to."""
    script = f"import sys\nfrom blockyard import Client\nclient = Client()\nclient.acquire_block()\n{ending}\n"
    context = context_of(scheduler)
    if agent:
        context["worker"] = "agent/own-0.1"
    environ = os.environ | {Context.ENV_VARIABLE: context.to_env()}
    scheduler.add("work", [0])
    subprocess.run([sys.executable, "-c", script], env=environ, timeout=60, check=False, stderr=subprocess.DEVNULL)
    result = scheduler.result(0)
    error = result.error
    assert (result.outcome, error and error.kind, error and error.message) == (outcome, kind, message)


# ----- refusals -----------------------------------------------------------------------------------------------------


def test_without_a_context_the_sentence_says_where_a_client_belongs(monkeypatch):
    """And what to write elsewhere."""
    for variable in (Context.ENV_VARIABLE, "DAISY_CONTEXT"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConnectError, match="neither BLOCKYARD_CONTEXT nor DAISY_CONTEXT is set"):
        Client()


def test_a_scheduler_that_is_not_there_is_a_sentence_with_the_address(scheduler):
    """After as long as was allowed."""
    context = context_of(scheduler)
    scheduler.stop()
    with pytest.raises(ConnectError, match=f"127.0.0.1:{context.port}"):
        Client(context, connect_s=0.3)


def test_a_refusal_is_raised_with_its_reason(scheduler):
    """The scheduler's own sentence."""
    scheduler.refusal = Refused("the token is not that of this scheduler", "token")
    with pytest.raises(ConnectError, match="the token is not that of this scheduler"):
        Client(context_of(scheduler))


def test_a_task_that_the_run_does_not_have_is_named_with_the_nearest(scheduler):
    """Nothing is leased."""
    context = context_of(scheduler)
    context["task_id"] = "wrok"
    with pytest.raises(SpecError, match="no task 'wrok'; did you mean 'work'"):
        Client(context)
    assert not scheduler.messages(Grants)


def test_the_token_comes_from_a_file_or_the_environment(scheduler, tmp_path, monkeypatch):
    """A file is preferred: it does not show in a list of processes."""
    token = tmp_path / "token"
    token.write_text("from-file\n")
    monkeypatch.setenv("BLOCKYARD_TOKEN", "from-environment")
    Client(context_of(scheduler, token_file=str(token))).close()
    Client(context_of(scheduler)).close()
    assert [hello.token for hello in scheduler.messages(Hello)] == ["from-file", "from-environment"]


# ----- the context --------------------------------------------------------------------------------------------------


def test_a_context_survives_its_environment_variable():
    """Whatever the values contain."""
    context = Context("::1", 8470, "a:b=c%", worker_id=2, num_workers=3, token_file="/tmp/a b:c=d")
    again = Context.from_env({Context.ENV_VARIABLE: context.to_env()})
    assert again == context
    assert (again["port"], again.get("nothing", 5), again.hostname) == (8470, 5, "::1")
    assert again.copy() == again


def test_a_program_that_is_handed_daisy_s_variable_alone_has_the_same_context():
    """Scripts that build a command for a batch system name that one; ours comes first where both are there."""
    handed, ours = Context("one", 1, "a").to_env(), Context("other", 2, "b").to_env()
    assert Context.from_env({"DAISY_CONTEXT": handed}).hostname == "one"
    assert Context.from_env({"DAISY_CONTEXT": handed, Context.ENV_VARIABLE: ""}).hostname == "one"
    assert Context.from_env({"DAISY_CONTEXT": handed, Context.ENV_VARIABLE: ours}).hostname == "other"
    with pytest.raises(ConnectError, match="DAISY_CONTEXT is 'nonsense'"):
        Context.from_env({"DAISY_CONTEXT": "nonsense"})


@pytest.mark.parametrize("text", ["nonsense", "port=abc"])
def test_a_malformed_context_is_a_sentence_with_its_text(text):
    """Not a traceback of the parser."""
    with pytest.raises(ConnectError, match=text.split("=")[0]):
        Context.from_env({Context.ENV_VARIABLE: text})


class Status(enum.Enum):
    """As daisy 1.x has one."""

    CREATED, PROCESSING, SUCCESS, FAILED = range(4)


async def work():
    """Nobody awaits it."""


def test_statuses_of_an_enum_are_what_they_are_called(scheduler, client):
    """Set on the block or given to the release; what has no meaning fails and says so, as does a coroutine."""
    given = [Status.SUCCESS, Status.FAILED, Status.PROCESSING, "success", "no idea", work()]
    scheduler.add("work", range(2 * len(given)))
    for status in given:
        client.release_block(client.acquire_block(), status)
        with client.acquire_block() as block:
            block.status = status
    outcomes = [outcome.name for outcome in scheduler.finish(range(2 * len(given)))]
    assert outcomes == 2 * ["SUCCESS"] + 4 * ["FAILED"] + 2 * ["SUCCESS"] + 4 * ["FAILED"]
    said = [scheduler.results["work", block].error.message for block in (2, 4, 8, 10)]
    assert said[0] == "the block ended with status Status.FAILED, which means failure"
    assert "Status.PROCESSING, which has no meaning here; give 0 or SUCCESS, or 1 or FAILED" in said[1]
    assert "'no idea', which has no meaning here" in said[2]
    assert "the block ended with a coroutine as its status" in said[3]

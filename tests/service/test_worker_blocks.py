"""What a worker makes of one block: functions, classes, programs, checks, errors. Real agents, slots and sockets."""

import json
import sys
import time

import pytest
from worker_peer import AgentProcess, FakeScheduler, block_task, finish_run

from blockyard.spec.model import CheckSpec
from blockyard.wire.messages import Hello, Outcome, Release

MODULE = """
import os, pathlib, sys, time
from blockyard.spec.errors import FatalBlockError

HERE = pathlib.Path(__file__).parent

def note(block, text="x"):
    (HERE / f"{block.task_id}-{block.block_id}").write_text(
        f"{text} {block.index} {block.read_roi} {block.write_roi} {block.attempt}")

def various(block):
    i = block.block_id
    if i == 1: return 1
    if i == 2: return True
    if i == 3: return "done"
    if i == 4: raise ValueError("bad voxel")
    if i == 5: raise FatalBlockError("no such dataset")
    if i == 6: sys.exit("giving up")
    if i == 7: raise RuntimeError("long " * 10_000)

def short(block):
    time.sleep(0.001)

class Model:
    def __init__(self, name):
        with (HERE / "built").open("a") as file:
            file.write(f"{name} {os.getpid()}\\n")
    def __call__(self, block):
        return None

class Broken:
    def __init__(self):
        raise OSError("no GPU")

def done_before(block, name=""):
    if block.block_id == 2: raise KeyError("no output yet")
    return block.block_id == 1

def done_after(block):
    if block.block_id == 4: raise OSError("output is gone")
    return block.block_id != 3
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "user_code.py").write_text(MODULE)
    return tmp_path


def run_blocks(folder, task, blocks, *flags, slots=1, attempt=1):
    with FakeScheduler((task,)) as scheduler, AgentProcess(scheduler, folder, *flags, slots=slots) as agent:
        scheduler.add(task.id, blocks, attempt)
        scheduler.finish(blocks, task.id)
        assert finish_run(scheduler, agent) == 0
        return {block: scheduler.results[task.id, block] for block in blocks}


def test_a_function_gets_the_block_and_the_parameters(folder):
    """Index, ROIs, attempt and keyword arguments are those of the task."""
    run_blocks(folder, block_task(function="user_code:note", params={"text": "hello"}), [3], attempt=2)
    text = (folder / "work-3").read_text()
    assert text.startswith("hello (3,)")
    assert text.endswith(" 2")
    assert "[3:4]" in text


def test_what_a_function_returns_or_raises_decides_the_outcome(folder):
    """1 has failed; None, True and anything else has succeeded; an exception has failed, with its sentence."""
    results = run_blocks(folder, block_task(function="user_code:various"), range(8))
    outcomes = [results[block].outcome.name for block in range(8)]
    assert outcomes == ["SUCCESS", "FAILED", "SUCCESS", "SUCCESS", "FAILED", "FATAL", "FAILED", "FAILED"]
    error = results[4].error
    assert (error.kind, error.message) == ("ValueError", "bad voxel")
    assert "user_code.py" in error.traceback
    assert "blockyard_worker" not in error.traceback
    assert error.log.endswith(".slot-0.log")
    assert "returned 1" in results[1].error.message
    assert results[6].error.kind == "SystemExit"
    assert len(results[7].error.message) < 3_000
    assert len(results[7].error.traceback) < 20_000


def test_fast_blocks_are_reported_together(folder):
    """An acknowledgement is no reason for the next report: blocks of 1 ms do not cost the scheduler a message each."""
    task, blocks = block_task(function="user_code:short", blocks=1000), list(range(1000))
    with FakeScheduler((task,), batch=500) as scheduler, AgentProcess(scheduler, folder) as agent:
        scheduler.add(task.id, blocks)
        scheduler.result(0)
        began_s = time.monotonic()
        assert set(scheduler.finish(blocks)) == {Outcome.SUCCESS}
        assert len(scheduler.messages(Release)) < 15 + 25 * (time.monotonic() - began_s)
        assert finish_run(scheduler, agent) == 0


def test_a_class_is_built_once_a_slot_and_called_for_each_block(folder):
    """Loading a model is dear; a slot does it once."""
    run_blocks(folder, block_task(function="user_code:Model", params={"name": "unet"}), range(50), slots=2)
    built = (folder / "built").read_text().splitlines()
    assert 1 <= len(built) <= 2
    assert len(set(built)) == len(built)
    assert built[0].startswith("unet ")


def test_a_class_that_cannot_be_built_fails_its_blocks_with_the_reason(folder):
    """The slot lives on, and tries again with the next block."""
    results = run_blocks(folder, block_task(function="user_code:Broken"), range(3))
    assert {result.outcome for result in results.values()} == {Outcome.FAILED}
    assert results[0].error.message == "no GPU"


def test_a_function_that_is_not_there_fails_its_blocks_with_a_sentence(folder):
    """It names the module, what is missing and the nearest name."""
    results = run_blocks(folder, block_task(function="user_code:nota"), [0])
    assert "did you mean 'note'" in results[0].error.message


def test_checks_skip_what_is_done_and_fail_what_is_not(folder):
    """An exception before means not done yet, an exception after a failed attempt."""
    task = block_task(
        function="user_code:various",
        params={},
        check=CheckSpec(before="user_code:done_before", after="user_code:done_after"),
    )
    results = run_blocks(folder, task, [0, 1, 2, 3, 4])
    assert results[0].outcome is Outcome.SUCCESS
    assert results[1].outcome is Outcome.SKIPPED
    assert results[2].outcome is Outcome.SUCCESS
    assert (results[3].outcome, results[3].error.kind) == (Outcome.FAILED, "check")
    assert (results[4].outcome, results[4].error.kind) == (Outcome.FAILED, "ValueError")


def test_one_check_is_used_before_and_after(folder):
    """As in daisy: what it says after the block decides too."""
    results = run_blocks(folder, block_task(function="user_code:note", check="user_code:done_before"), [0, 1])
    assert results[1].outcome is Outcome.SKIPPED
    assert results[0].outcome is Outcome.FAILED


def test_a_program_gets_the_block_as_json_and_fails_with_the_end_of_its_stderr(folder):
    """Exit status 0 is success; another one is told with the last line."""
    script = folder / "program.py"
    script.write_text(
        "import json, sys, pathlib\n"
        "block = json.load(sys.stdin)\n"
        f"pathlib.Path({str(folder)!r}, f\"json-{{block['block_id']}}\").write_text(json.dumps(block))\n"
        "if block['block_id'] == 1:\n"
        "    print('no memory for that', file=sys.stderr)\n"
        "    sys.exit(3)\n"
    )
    task = block_task(command=(sys.executable, str(script)), params={"sigma": 2.5})
    results = run_blocks(folder, task, [0, 1])
    assert results[0].outcome is Outcome.SUCCESS
    block = json.loads((folder / "json-0").read_text())
    assert block["params"] == {"sigma": 2.5}
    assert block["write_roi"] == {"offset": [0], "shape": [1]}
    error = results[1].error
    assert (error.kind, results[1].outcome) == ("exit", Outcome.FAILED)
    assert "exit status 3: no memory for that" in error.message


def test_a_program_that_is_not_there_fails_its_block_with_a_sentence(folder):
    """Not with a traceback of ours."""
    results = run_blocks(folder, block_task(command=("no-such-program-anywhere",)), [0])
    assert "'no-such-program-anywhere' cannot be started" in results[0].error.message


def test_a_notebooks_function_runs_from_the_runs_private_folder(folder):
    """Closures travel through a file that only this user can write, never over the network."""
    from blockyard.spec.functions import reference_of

    target = str(folder / "closure-ran")

    def closure(block):
        from pathlib import Path

        Path(target).write_text(str(block.block_id))

    run_dir = folder / "run"
    reference = reference_of(closure, str(run_dir / "functions"))
    run_blocks(folder, block_task(function=reference), [9], "--run-dir", str(run_dir))
    assert (folder / "closure-ran").read_text() == "9"


def test_what_user_code_prints_is_in_the_slots_log(folder):
    """One file a slot."""
    (folder / "prints.py").write_text("def f(block):\n    print('block', block.block_id, flush=True)\n")
    run_blocks(folder, block_task(function="prints:f"), [4])
    (log,) = (folder / "logs").glob("*.slot-0.log")
    assert "block 4" in log.read_text()


STATUSES = """
import asyncio, enum

class BlockStatus(enum.Enum):
    CREATED, PROCESSING, SUCCESS, FAILED = range(4)

async def work(block): raise AssertionError("nobody awaits this")

def late(block):
    i = block.block_id
    if i == 0: return work(block)
    if i == 1: return (x for x in [block])
    if i == 2: return asyncio.run(asyncio.sleep(0))
    if i == 3: block.status = BlockStatus.FAILED
    if i == 4: block.status = BlockStatus.SUCCESS
    if i == 5: block.status = BlockStatus.PROCESSING
    if i == 6: return BlockStatus.FAILED

async def async_check(block): return False

def before(block):
    return async_check(block) if block.block_id == 1 else False

def after(block):
    return async_check(block) if block.block_id == 2 else True

def fine(block): ...
"""


def test_what_was_not_run_and_what_is_called_failed_fails(folder):
    """Coroutines, generators, and the members of an enum by their names; nothing is left that nobody awaits."""
    (folder / "user_code.py").write_text(STATUSES)
    results = run_blocks(folder, block_task(function="user_code:late"), range(8))
    failed = [block for block in range(8) if results[block].outcome is Outcome.FAILED]
    assert failed == [0, 1, 3, 5, 6]
    assert results[0].error.message.startswith("it returned a coroutine, so what it stands for is not done")
    assert results[3].error.message == "the block ended with status BlockStatus.FAILED, which means failure"
    assert "BlockStatus.PROCESSING, which has no meaning here" in results[5].error.message
    written = "".join(log.read_text() for log in folder.rglob("*.log"))
    assert "never awaited" not in written


def test_a_check_that_returns_a_coroutine_skips_and_confirms_nothing(folder):
    """It would be true, whatever it finds."""
    (folder / "user_code.py").write_text(STATUSES)
    task = block_task(function="user_code:fine", check=CheckSpec("user_code:before", "user_code:after"))
    results = run_blocks(folder, task, range(4))
    assert [results[block].outcome.name for block in range(4)] == ["SUCCESS", "FAILED", "FAILED", "SUCCESS"]
    assert results[1].error.message.startswith("the check before the block returned a coroutine")


def test_a_function_that_a_call_does_not_run_is_told_on_a_cluster_too(folder):
    """Nothing is checked there before a run starts."""
    (folder / "user_code.py").write_text(STATUSES)
    error = run_blocks(folder, block_task(function="user_code:work"), [0])[0].error
    assert "'user_code:work' is a coroutine function (async def): a call runs nothing of it" in error.message


CONTEXT = """
import json, pathlib, subprocess, sys, threading
from blockyard import Client, Context
from blockyard.spec.errors import ConnectError

HERE = pathlib.Path(__file__).parent
CHILD = "from blockyard import Context; c = Context.from_env(); print(c.worker_id, c.num_workers, c.task_id)"

class Look:
    def __init__(self):
        self.task = Context.from_env().task_id
    def __call__(self, block):
        found = [Context.from_env() for _ in range(1)]
        thread = threading.Thread(target=lambda: found.append(Context.from_env()))
        thread.start()
        thread.join()
        assert found[0] == found[1] and found[0].task_id == block.task_id == self.task
        child = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
        assert child.stdout.split() == [str(found[0].worker_id), "2", block.task_id]
        (HERE / f"{block.task_id}-{block.block_id}").write_text(json.dumps(dict.fromkeys(found[0])
            | {name: found[0][name] for name in found[0]}))

def asks(block):
    Client()
"""


def test_a_function_of_a_block_finds_the_context_of_its_slot(folder):
    """Number of the slot, address, task: in the constructor, threads and child processes too."""
    (folder / "user_code.py").write_text(CONTEXT)
    tasks = [block_task(name, function="user_code:Look") for name in ("first", "second")]
    with FakeScheduler(tuple(tasks)) as scheduler, AgentProcess(scheduler, folder, slots=2) as agent:
        for task in tasks:
            scheduler.add(task.id, range(4))
            assert {outcome.name for outcome in scheduler.finish(range(4), task.id)} == {"SUCCESS"}
        address, worker = scheduler.address, scheduler.messages(Hello)[0].worker
        assert finish_run(scheduler, agent) == 0
    for name in ("first", "second"):
        seen = [json.loads((folder / f"{name}-{block}").read_text()) for block in range(4)]
        assert {f"{one['hostname']}:{one['port']}" for one in seen} == {address}
        assert {one["worker_id"] for one in seen} <= {0, 1}
        assert {(one["num_workers"], one["worker"], one["task_id"]) for one in seen} == {(2, worker, name)}


def test_a_client_in_a_function_of_a_block_is_a_sentence(folder):
    """It would lease further blocks inside the one that runs."""
    (folder / "user_code.py").write_text(CONTEXT)
    error = run_blocks(folder, block_task(function="user_code:asks"), [0])[0].error
    assert error.message.startswith("Client() in task 'work', whose function is called with a block")

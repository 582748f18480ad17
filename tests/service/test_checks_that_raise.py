"""A `before` check that raises: the block runs, and somebody is told."""

import pytest
from worker_peer import AgentProcess, FakeScheduler, block_task, finish_run

from blockyard.core import events as ev
from blockyard.core.scheduler import Scheduler
from blockyard.spec.model import CheckSpec, PipelineSpec, RunSpec
from blockyard.views.observed import ObservedRun
from blockyard.wire.messages import Outcome, Remark

MODULE = """
import pathlib
from blockyard import Client

HERE = pathlib.Path(__file__).parent

class Odd(TypeError):
    def __str__(self): raise ValueError

def mistake(kind):
    if kind == "name": no_such_name
    if kind == "attribute": pathlib.nothing
    if kind == "import": import nothing_of_this_name
    if kind == "type": return 1 + "1"
    if kind == "odd": raise Odd
    if kind == "file": open(HERE / "nothing")
    if kind == "key": return {}["nothing"]

def before(block, kind): return mistake(kind)

def function(block, kind): pass

def own():
    client = Client()
    while (block := client.acquire_block()) is not None: client.release_block(block, 0)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "checks.py").write_text(MODULE)
    return tmp_path


def test_a_check_that_raises_is_in_the_log_once_and_its_mistakes_are_remarked(folder):
    """What is no mistake may be how a check finds that nothing is there."""
    mistakes = {"name": "NameError", "attribute": "AttributeError", "import": "ModuleNotFoundError", "odd": "Odd"}
    others = {"file": "FileNotFoundError", "key": "KeyError"}
    tasks = tuple(
        block_task(kind, function="checks:function", check=CheckSpec(before="checks:before"), params={"kind": kind})
        for kind in mistakes | others
    )
    with FakeScheduler(tasks, knows=("remark",)) as scheduler, AgentProcess(scheduler, folder) as agent:
        for kind in mistakes | others:
            scheduler.add(kind, range(3))
            assert set(scheduler.finish(range(3), kind)) == {Outcome.SUCCESS}
        scheduler.wait(lambda: len(scheduler.messages(Remark)) == len(mistakes))
        assert finish_run(scheduler, agent) == 0
    remarks = {message.task: message.text for message in scheduler.messages(Remark)}
    assert set(remarks) == set(mistakes)
    assert [text for kind, text in remarks.items() if f"before block [0] raised {mistakes[kind]}" not in text] == []
    (log,) = (folder / "logs").glob("*.slot-0.log")
    said = log.read_text()
    assert [said.count(f"raised {name}") for name in (mistakes | others).values()] == [1] * 6


def test_a_worker_of_the_users_own_remarks_it_too(folder):
    """Its Client runs the checks."""
    check = CheckSpec(before="checks:before")
    task = block_task(worker="checks:own", check=check, params={"kind": "type"})
    with (
        FakeScheduler((task,), knows=("remark",)) as scheduler,
        AgentProcess(scheduler, folder, "--task", "work") as agent,
    ):
        scheduler.add("work", range(3))
        assert set(scheduler.finish(range(3))) == {Outcome.SUCCESS}
        scheduler.wait(lambda: scheduler.messages(Remark))
        assert finish_run(scheduler, agent) == 0
    (remark,) = scheduler.messages(Remark)
    assert (remark.task, remark.kind) == ("work", "check_raises")
    assert "TypeError" in remark.text


def test_a_remark_is_a_notice_of_its_task():
    """One that names no task of the run is nothing."""
    core = Scheduler(RunSpec(PipelineSpec(name="small", tasks=(block_task(function="m:f"),))), now=0.0)
    for task in ("work", "other"):
        core.handle(ev.TaskRemarked(task, "check_raises", "it raised"), 0.0)
    (notice,) = ObservedRun(core).status(0.0).notices
    assert (notice.kind, notice.text, notice.task) == ("check_raises", "it raised", "work")

"""The serial mode: everything in this process, for a debugger."""

import os
import traceback

import pytest

from blockyard import Context, Parameter, Roi, Task, distribute, run_blockwise
from blockyard.cli.app import main
from blockyard.local.serial import run_serially
from blockyard.spec.errors import SpecError
from blockyard.spec.load import parse_pipeline

PIPELINE = """\
name: small
tasks:
  - id: first
    function: serial_work:note
    total_roi: {offset: [0], shape: [12]}
    read_roi: {offset: [0], shape: [5]}
    write_roi: {offset: [1], shape: [3]}
"""


def write_pipeline(folder, text=PIPELINE, code="def note(block):\n    print('ran', block.index[0])\n"):
    (folder / "p.yaml").write_text(text)
    (folder / "serial_work.py").write_text(code)
    return folder / "p.yaml"


@pytest.fixture(autouse=True)
def _forget_modules(monkeypatch):
    """Each test has a `serial_work` of its own."""
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "serial_work", raising=False)


class Halo(Task):
    fail_at = Parameter(default=None)
    answer = Parameter(default=None)

    def prepare(self):
        self.schedule(Roi((0,), (12,)), Roi((0,), (5,)), Roi((1,), (3,)), self.look, max_retries=2)

    def look(self, block):
        LOOKED.append((block.index[0], block.attempt))
        if block.index[0] == self.fail_at:
            if self.answer is not None:
                return self.answer
            raise ZeroDivisionError("as asked")
        return None


LOOKED = []


@pytest.fixture
def looked():
    LOOKED.clear()
    return LOOKED


def test_blocks_run_here_in_the_order_of_their_conflicts(looked):
    """The table of the semantics: block 1 first, 0 and 2 after it."""
    seen = []
    assert run_blockwise(
        Roi((0,), (12,)), Roi((0,), (5,)), Roi((1,), (3,)), lambda block: seen.append(block.index[0]), serial=True
    )
    assert seen == [1, 0, 2]


def test_an_exception_arrives_with_its_traceback_and_its_block(looked):
    """No retry hides it, and the traceback ends in the user's own line."""
    with pytest.raises(ZeroDivisionError, match="as asked") as caught:
        distribute([Halo(fail_at=0)], serial=True)
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "look"
    assert "in block [0] of task 'Halo'" in caught.value.__notes__[0]


def test_a_block_that_returns_1_is_retried_and_then_failed(looked, caplog):
    """max_retries=2 means 3 attempts; the others run; the result names the block."""
    assert distribute([Halo(fail_at=2, answer=1)], serial=True) is False
    assert sorted(looked) == [(0, 1), (1, 1), (2, 1), (2, 2), (2, 3)]
    assert "Halo [2]: returned: it returned 1" in caplog.text


def test_what_waits_for_a_failed_block_is_orphaned(looked, caplog):
    """Blocks 0 and 2 wait for 1."""
    assert distribute([Halo(fail_at=1, answer=1)], serial=True) is False
    assert "1 failed, 2 wait for those and never ran" in caplog.text


def test_a_worker_of_the_users_own_is_refused_with_a_sentence():
    """It needs a scheduler to connect to."""

    def own():
        raise AssertionError("must not run")

    with pytest.raises(SpecError, match=r"'own' has a worker of its own.*a serial run has none"):
        run_blockwise(Roi((0,), (12,)), Roi((0,), (5,)), Roi((1,), (3,)), own, serial=True)


def test_pools_share_a_serial_run():
    """Tasks of different pools run in one process, each block after what it waits for."""
    seen = []
    tasks = [
        {
            "id": name,
            "function": f"{__name__}:remember",
            "pool": name,
            "requires": requires,
            "total_roi": {"offset": [0], "shape": [4]},
            "read_roi": {"offset": [0], "shape": [1]},
            "write_roi": {"offset": [0], "shape": [1]},
        }
        for name, requires in (("gpu", []), ("cpu", ["gpu"]))
    ]
    remember.seen = seen
    from blockyard.spec.model import RunSpec

    result = run_serially(RunSpec(parse_pipeline({"name": "two", "tasks": tasks})))
    assert result.ok
    assert sorted(seen) == [(task, index) for task in ("cpu", "gpu") for index in range(4)]
    assert all(seen.index(("gpu", i)) < seen.index(("cpu", i)) for i in range(4))


def remember(block):
    remember.seen.append((block.task_id, block.index[0]))


def test_the_command_runs_a_file_in_its_own_process(tmp_path, capfd):
    """`blockyard run FILE --serial`; prints go straight to the terminal."""
    assert main(["run", str(write_pipeline(tmp_path)), "--serial"]) == 0
    out = capfd.readouterr().out
    assert out.index("ran 1") < out.index("ran 0")
    assert "small: done, 3 of 3 blocks" in out
    assert not (tmp_path / ".blockyard").exists()


def test_a_context_is_there_in_a_serial_run_and_gone_afterwards(monkeypatch):
    """One worker, no scheduler; what stood in the environment before is there again."""
    monkeypatch.setenv("BLOCKYARD_CONTEXT", "hostname=before:port=1")
    monkeypatch.delenv("DAISY_CONTEXT", raising=False)
    seen = []

    class Look:
        def __init__(self):
            seen.append(Context.from_env().worker_id)

        def __call__(self, block):
            context = Context.from_env({"BLOCKYARD_CONTEXT": os.environ["DAISY_CONTEXT"]})
            seen.append((context.worker_id, context.num_workers, context.task_id, context.port))

    assert run_blockwise(Roi((0,), (1,)), Roi((0,), (1,)), Roi((0,), (1,)), Look, serial=True)
    assert seen == [0, (0, 1, "Look", 0)]
    assert os.environ["BLOCKYARD_CONTEXT"] == "hostname=before:port=1"
    assert "DAISY_CONTEXT" not in os.environ

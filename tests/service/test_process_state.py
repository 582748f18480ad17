"""What a task changes in the process of a slot is its own: others do not see it, and it finds it again."""

from worker_peer import AgentProcess, FakeScheduler, block_task, finish_run

from blockyard.wire.messages import Outcome
from blockyard_worker.process_state import KINDS

CODE = """
import gc, locale, logging, os, random, resource, signal, socket, sys, warnings
import numpy as np
from blockyard_worker.process_state import KINDS

os.environ["SAID_AT_IMPORT"] = "for all tasks"

def limit():
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (333, hard))

CHANGES = {
    "environment variables": lambda: (os.environ.update(NEW="1"), os.environ.pop("HOME", None)),
    "working directory": lambda: os.chdir("/"),
    "module search path": lambda: sys.path.insert(0, "/nowhere"),
    "umask": lambda: os.umask(0o123),
    "resource limits": limit,
    "signal handlers": lambda: (signal.signal(signal.SIGTERM, print), signal.signal(signal.SIGUSR1, signal.SIG_IGN)),
    "signal mask": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]),
    "timers": lambda: signal.setitimer(signal.ITIMER_REAL, 3600.0),
    "random numbers of Python": lambda: random.seed(0),
    "random numbers of numpy": lambda: np.random.seed(0),
    "how numpy treats errors": lambda: np.seterr(all="ignore"),
    "how numpy prints": lambda: np.set_printoptions(precision=2),
    "locale": lambda: locale.setlocale(locale.LC_ALL, "C" if locale.setlocale(locale.LC_ALL) != "C" else "C.UTF-8"),
    "warnings": lambda: warnings.simplefilter("ignore"),
    "root logger": lambda: (logging.root.setLevel(1), logging.root.handlers.clear(), logging.disable(50)),
    "standard streams and hooks": lambda: setattr(sys, "stdout", None),
    "recursion limit": lambda: sys.setrecursionlimit(4321),
    "garbage collection": gc.disable,
    "timeout of new sockets": lambda: socket.setdefaulttimeout(1.5),
}
DRAWN = {"random numbers of Python": random.random, "random numbers of numpy": np.random.random}
ENDED = "timers"  # it would go off in a block of another task
known = {}

def state():
    taken = {name: kind.take() for name, kind in KINDS.items() if name not in DRAWN}
    return {name: str(sorted(value.items()) if isinstance(value, dict) else value) for name, value in taken.items()}

def spoils(block):
    if block.block_id == 0:
        for name in CHANGES:
            before = str(KINDS[name].take())
            CHANGES[name]()
            assert str(KINDS[name].take()) != before, name + " is not changed by this test"
        known["left"] = state()
        known["drawn"] = {name: draw() for name, draw in DRAWN.items()}
    else:
        now = state()
        lost = [name for name in CHANGES if name in now and name != ENDED and now[name] != known["left"][name]]
        assert not lost, lost

def sees(block):
    assert os.environ["SAID_AT_IMPORT"] == "for all tasks"
    now = state()
    seen = [name for name, first in known.setdefault("first", now).items() if now[name] != first]
    assert not seen, seen
    same = [name for name, draw in DRAWN.items() if draw() == known.get("drawn", {}).get(name)]
    assert not same, same
"""


def test_a_task_sees_nothing_of_what_another_has_changed(tmp_path):
    """Before and after it; each kind of KINDS has a change here."""
    (tmp_path / "state.py").write_text(CODE)
    assert all(f'"{name}": ' in CODE for name in KINDS)
    tasks = (block_task("spoils", function="state:spoils"), block_task("sees", function="state:sees"))
    with FakeScheduler(tasks) as scheduler, AgentProcess(scheduler, tmp_path) as agent:
        for task, block in [("sees", 0), ("spoils", 0), ("sees", 1), ("spoils", 1), ("sees", 2), ("spoils", 2)]:
            scheduler.add(task, [block])
            result = scheduler.result(block, task)
            assert result.outcome is Outcome.SUCCESS, result.error
        assert finish_run(scheduler, agent) == 0


def test_a_block_that_stops_its_process_goes_on(tmp_path):
    """SIGSTOP without a time limit would hold its slot for ever."""
    (tmp_path / "stops.py").write_text(
        "import os, signal\ndef stops(block):\n    os.kill(os.getpid(), signal.SIGSTOP)\n"
    )
    with (
        FakeScheduler((block_task("stops", function="stops:stops"),)) as scheduler,
        AgentProcess(scheduler, tmp_path) as agent,
    ):
        scheduler.add("stops", [0])
        assert scheduler.result(0, "stops").outcome is Outcome.SUCCESS
        assert finish_run(scheduler, agent) == 0

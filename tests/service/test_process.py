"""Whether a process is dead: known on one machine, and never guessed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from blockyard_scheduler.process import PROCESSES, is_dead, name_of

pytestmark = pytest.mark.skipif(not (PROCESSES / "self/ns/pid").exists(), reason="the system names no processes")


def test_a_living_process_is_not_dead():
    """Nor is one that answers nothing: only its end counts."""
    assert not is_dead(name_of(os.getpid()))


@pytest.mark.parametrize("reaped", [False, True])
def test_a_killed_process_is_dead(reaped):
    """Whether its parent has taken notice or not."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        name = name_of(process.pid)
        assert not is_dead(name)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | (0 if reaped else os.WNOWAIT))
        assert is_dead(name)


def test_another_process_of_the_same_id_is_not_the_one():
    """Ids are used again: the moment when it began tells them apart."""
    where, _, began = name_of(os.getpid()).rpartition("/")
    assert is_dead(f"{where}/{int(began) - 1}")


@pytest.mark.parametrize(
    "name",
    ["", "nonsense", "other-node/boot/pid:[1]/17/1234", name_of(os.getpid()).replace("pid:[", "pid:[1")],
    ids=["none", "nonsense", "other machine", "other container"],
)
def test_nothing_is_known_of_processes_elsewhere(name):
    """Another machine, another boot, another container: its lock has to run out."""
    assert not is_dead(name)


def test_what_cannot_be_looked_at_is_not_dead(monkeypatch):
    """No file may be opened just now: that proves nothing of a leader."""
    name = name_of(os.getpid())

    def refused(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("blockyard_scheduler.process._name_of", refused)
    assert not is_dead(name)

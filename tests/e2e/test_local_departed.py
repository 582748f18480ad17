"""When is it certain that a worker of this machine is gone?"""

import os
import platform

import pytest

from blockyard.local.departed import is_gone

NODE = platform.node() or "host"
WORKER = f"{NODE}-4711-0a1b2c3d"


@pytest.fixture
def processes(tmp_path):
    """A /proc of two processes that have nothing to do with the worker."""
    for pid in (1, 815):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_bytes(b"sleep\0")
        (tmp_path / str(pid) / "environ").write_bytes(b"HOME=/\0")
    (tmp_path / "self").mkdir()
    return tmp_path


def test_a_worker_of_which_no_process_is_left_is_gone(processes):
    """Also one that a user's own loop gave a longer name."""
    assert is_gone(WORKER, processes)
    assert is_gone(f"{WORKER}/own-0/1", processes)


def test_a_process_with_the_agents_number_keeps_it(processes):
    """It may be the agent itself."""
    (processes / "4711").mkdir()
    assert not is_gone(WORKER, processes)


@pytest.mark.parametrize("where", ["environ", "cmdline"])
def test_a_process_that_the_agent_started_keeps_it(processes, where):
    """A slot has the agent's name in its environment, the guard on its command line; either may still write."""
    (processes / "815" / where).write_bytes(f"X=1\0BLOCKYARD_MARK={WORKER}/slot-0\0".encode())
    assert not is_gone(WORKER, processes)


def test_a_process_that_cannot_be_read_does_not_count(processes):
    """It is another user's, or has just ended."""
    (processes / "900").mkdir()
    assert is_gone(WORKER, processes)


@pytest.mark.parametrize("worker", ["elsewhere-4711-0a1b2c3d", "a name of my own", ""])
def test_a_worker_of_another_machine_is_never_known_to_be_gone(processes, worker):
    """Then the lease time has to do."""
    assert not is_gone(worker, processes)


def test_without_a_proc_nothing_is_known(tmp_path):
    """On systems that have none."""
    assert not is_gone(WORKER, tmp_path)


def test_the_process_that_asks_does_not_count(processes):
    """Its own command line may name the worker."""
    (processes / str(os.getpid())).mkdir()
    (processes / str(os.getpid()) / "cmdline").write_bytes(f"pytest\0{WORKER}/\0".encode())
    assert is_gone(WORKER, processes)

"""The embedded Redis: its state stays, it ends with its run, and nobody else gets at it."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from blockyard.local.redis import EmbeddedRedis, ask
from blockyard.spec.errors import StoreError

KILLED_RUN = """
import os, signal, sys
from blockyard.local.redis import EmbeddedRedis
server = EmbeddedRedis(sys.argv[1])
server.start()
server.wait_ready()
import redis
redis.Redis.from_url(server.url).set("k", "kept")
print(server.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def wait_until(condition, limit_s=20.0):
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


def runs(pid):
    """Whether a process exists and is no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def client_of(server):
    return redis.Redis.from_url(server.url, decode_responses=True)


def test_what_was_written_is_there_in_the_next_run(tmp_path):
    """The append-only file in the folder is the state."""
    with EmbeddedRedis(tmp_path) as server, client_of(server) as client:
        client.set("k", "v")
    with EmbeddedRedis(tmp_path) as server, client_of(server) as client:
        assert client.get("k") == "v"


def test_it_promises_what_a_run_needs(tmp_path):
    """Every write is on disk before its answer, nothing is evicted, and there is no TCP port."""
    with EmbeddedRedis(tmp_path) as server, client_of(server) as client:
        config = client.config_get("*")
    assert config["appendonly"] == "yes"
    assert config["appendfsync"] == "always"
    assert config["maxmemory-policy"] == "noeviction"
    assert config["port"] == "0"


def test_nobody_gets_in_without_the_password(tmp_path):
    """The password is new for each start and stands in a file that only its owner reads."""
    with EmbeddedRedis(tmp_path) as server:
        assert stat.S_IMODE((tmp_path / "redis.conf").stat().st_mode) == 0o600
        assert ask(tmp_path / "redis.sock", "wrong", "PING").startswith("-WRONGPASS")
        first = server.url
    with EmbeddedRedis(tmp_path) as server:
        assert server.url != first


def test_it_leaves_neither_process_nor_socket(tmp_path):
    """`stop` waits for the server's end and frees the folder."""
    server = EmbeddedRedis(tmp_path)
    with server:
        pid = server.pid
    assert not runs(pid)
    assert not (tmp_path / "redis.sock").exists()
    server.stop()


def test_a_second_run_in_the_folder_is_refused(tmp_path):
    """Two servers on one append-only file would destroy it."""
    with EmbeddedRedis(tmp_path), pytest.raises(StoreError, match="another run uses the folder"):
        EmbeddedRedis(tmp_path).start()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    """The sentence says which folder and why."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file/redis cannot be written \(Not a directory\)"):
        EmbeddedRedis(tmp_path / "file" / "redis").start()


def test_a_path_too_long_for_a_socket_works(tmp_path):
    """The kernel's limit of 108 bytes is no limit for folders; odd characters neither."""
    folder = tmp_path / ('long "quoted" #' * 10)
    with EmbeddedRedis(folder) as server, client_of(server) as client:
        assert client.ping()
        socket_folder = server._socket.parent
    assert not socket_folder.exists()


def test_it_ends_when_its_run_is_killed(tmp_path):
    """kill -9 of the run ends the server too, and the state is kept."""
    run = subprocess.run([sys.executable, "-c", KILLED_RUN, str(tmp_path)], capture_output=True, text=True, check=False)
    assert run.returncode == -signal.SIGKILL
    wait_until(lambda: not runs(int(run.stdout)))
    with EmbeddedRedis(tmp_path) as server, client_of(server) as client:
        assert client.get("k") == "kept"


def test_an_orphan_is_ended_before_the_next_start(tmp_path):
    """A server whose run and watcher are both gone still holds the append-only file; the next run ends it first."""
    server = EmbeddedRedis(tmp_path)
    server.start()
    server.wait_ready()
    orphan = server.pid
    server._lock.close()  # as if the run were gone, but not the server
    try:
        with EmbeddedRedis(tmp_path) as following, client_of(following) as client:
            assert client.ping()
            assert following.pid != orphan
            wait_until(lambda: not runs(orphan))
    finally:
        server.stop()


def test_a_server_that_died_is_started_again_with_its_state(tmp_path):
    """Same socket, same password: clients that reconnect need to know nothing."""
    with EmbeddedRedis(tmp_path) as server:
        with client_of(server) as client:
            client.set("k", "v")
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.alive())
        server.restart()
        with client_of(server) as client:
            assert client.get("k") == "v"


def test_a_damaged_file_is_a_sentence(tmp_path):
    """The sentence quotes the server's last word and names its log."""
    with EmbeddedRedis(tmp_path) as server, client_of(server) as client:
        client.set("k", "v" * 1000)
    (incremental,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
    data = bytearray(incremental.read_bytes())
    data[10:30] = b"x" * 20
    incremental.write_bytes(data)
    with pytest.raises(StoreError, match=r"ended at once.*redis.log"):
        EmbeddedRedis(tmp_path).__enter__()

"""Scheduler processes: how they begin, what they leave behind, how they end, and who takes over."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime

import msgspec
import numpy as np
import pytest
import redis
from scheduler_rig import ANSWER_S, pack, run_of, task

from blockyard.wire.api import FailureStatus, RunStatus
from blockyard.wire.frames import Decoder, encode
from blockyard.wire.messages import (
    Ack,
    BlockError,
    Grants,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Outcome,
    Refused,
    Release,
    RunOver,
    ToWorker,
    Want,
    Welcome,
)
from blockyard_scheduler.files import Address
from blockyard_scheduler.store.keys import Keys

LOCK_S = 3.0


class Process:
    """A scheduler process with a folder."""

    def __init__(self, folder, redis_url, run, *flags):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.address_file = folder / "scheduler.json"
        self.address_file.unlink(missing_ok=True)
        (folder / "run.json").write_bytes(msgspec.json.encode(run))
        self.log = (folder / "log").open("w+")
        argv = [sys.executable, "-m", "blockyard_scheduler", "--run-spec", str(folder / "run.json")]
        argv += ["--run-dir", str(folder), "--port", "0", "--http-port", "0", "--lock-s", str(LOCK_S), *flags]
        environment = os.environ | {"BLOCKYARD_REDIS_URL": redis_url}
        self.process = subprocess.Popen(argv, env=environment, stderr=self.log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def text(self):
        self.log.seek(0)
        return self.log.read()

    def listening(self):
        """Where it listens, once it leads."""
        self.wait_for(self.address_file.exists)
        return msgspec.json.decode(self.address_file.read_bytes(), type=Address)

    def wait_for(self, condition):
        until = time.monotonic() + ANSWER_S
        while not condition():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < until, self.text()
            time.sleep(0.005)

    def wait(self):
        """Its exit status."""
        return self.process.wait(ANSWER_S)

    def signal(self, number):
        self.process.send_signal(number)

    def status(self):
        return msgspec.json.decode((self.folder / "status.json").read_bytes(), type=RunStatus)

    def failures(self):
        return msgspec.json.decode((self.folder / "failures.json").read_bytes(), type=list[FailureStatus])


class Peer:
    """A scripted worker on a blocking socket."""

    def __init__(self, port, name="worker", **hello):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S)
        self.hello = Hello(worker=name, **hello)
        self.seq = 0
        self._decoder = Decoder(ToWorker)
        self._heard = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def say(self, *messages):
        self.socket.sendall(b"".join(encode(message) for message in messages))

    def hear(self):
        while not self._heard:
            data = self.socket.recv(2**16)
            if not data:
                return None
            self._heard += self._decoder.feed(data)
        return self._heard.pop(0)

    def hear_a(self, kind):
        while (message := self.hear()) is not None:
            if isinstance(message, kind):
                return message
        raise AssertionError(f"no {kind.__name__} came")

    def join(self):
        self.say(self.hello)
        return self.hear_a(Welcome)

    def take(self, n=1):
        self.say(Want(n))
        grants = self.hear_a(Grants).grants
        numbers = [g.number + j for g in grants for j in range(len(g.blocks) // 8)]
        return numbers, [int(b) for g in grants for b in np.frombuffer(g.blocks, "<i8")]

    def release(self, numbers, outcome=Outcome.SUCCESS):
        self.seq += 1
        errors = () if outcome < Outcome.FAILED else tuple(BlockError(n, "ValueError", "broken") for n in numbers)
        self.say(Release(self.seq, pack(numbers), bytes([outcome] * len(numbers)), b"", errors))
        return self.hear_a(Ack)

    def work_off(self, outcome=Outcome.SUCCESS):
        """Take and release one block at a time to the end; give the ids and the state of the run."""
        ran = []
        self.say(Want(1))
        while (message := self.hear()) is not None:
            if isinstance(message, Grants):
                for grant in message.grants:
                    blocks = np.frombuffer(grant.blocks, "<i8").tolist()
                    ran += blocks
                    self.seq += 1
                    numbers = [grant.number + j for j in range(len(blocks))]
                    errors = tuple(BlockError(n, "ValueError", "broken") for n in numbers if outcome)
                    self.say(Release(self.seq, pack(numbers), bytes([outcome] * len(blocks)), b"", errors), Want(1))
            elif isinstance(message, RunOver):
                return ran, message.state
        raise AssertionError("the connection was closed before the run was over")


# ----- the end of a run ---------------------------------------------------------------------------------------------


def test_a_done_run_ends_its_scheduler_with_0(redis_url, run_name, tmp_path):
    """With --exit-when-done the workers are told first, and status and failures stay behind."""
    with Process(tmp_path / "run", redis_url, run_of(run_name), "--exit-when-done") as scheduler:
        address = scheduler.listening()
        assert (address.run, address.pid, address.epoch) == (run_name, scheduler.process.pid, 1)
        with Peer(address.port) as peer:
            peer.join()
            ran, state = peer.work_off()
        assert (sorted(ran), state) == (list(range(10)), "done")
        assert scheduler.wait() == 0
        assert scheduler.status().state == "done"
        assert scheduler.failures() == []
        assert not scheduler.address_file.exists()
        assert f"{run_name}: done, 100 % of 10 blocks" in scheduler.text()


def test_a_failed_run_ends_its_scheduler_with_1_and_names_the_blocks(redis_url, run_name, tmp_path):
    """The failures file has each block that failed for good, with its error."""
    run = run_of(run_name, task(blocks=2, max_retries=1))
    with Process(tmp_path / "run", redis_url, run, "--exit-when-done") as scheduler:
        with Peer(scheduler.listening().port) as peer:
            peer.join()
            assert peer.work_off(Outcome.FAILED)[1] == "failed"
        assert scheduler.wait() == 1
        found = [(f.task, f.block_id, f.index, f.attempt, f.kind, f.message) for f in scheduler.failures()]
        assert found == [("work", n, (n,), attempt, "ValueError", "broken") for n in (0, 1) for attempt in (1, 2)]
        assert [f.attempt for f in scheduler.failures() if f.final] == [2, 2]
        assert scheduler.status().tasks[0].failed == 2


def test_a_run_of_no_blocks_is_done(redis_url, run_name, tmp_path):
    """Nothing to do is success, without any worker."""
    with Process(tmp_path / "run", redis_url, run_of(run_name, task(blocks=0)), "--exit-when-done") as scheduler:
        assert scheduler.wait() == 0
        assert scheduler.status().state == "done"


def test_a_finished_run_is_finished_until_fresh(redis_url, run_name, tmp_path):
    """Started again, a finished run ends at once; --fresh runs it over, in a new epoch."""
    folder, run = tmp_path / "run", run_of(run_name, task(blocks=2))
    with Process(folder, redis_url, run, "--exit-when-done") as scheduler:
        with Peer(scheduler.listening().port) as peer:
            peer.join()
            peer.work_off()
        assert scheduler.wait() == 0
    with Process(folder, redis_url, run, "--exit-when-done") as scheduler:
        assert scheduler.wait() == 0
        assert scheduler.status().tasks[0].done == 2
    with Process(folder, redis_url, run, "--exit-when-done", "--fresh") as scheduler:
        address = scheduler.listening()
        assert address.epoch == 3
        with Peer(address.port) as peer:
            peer.join()
            assert sorted(peer.work_off()[0]) == [0, 1]
        assert scheduler.wait() == 0


# ----- stopping and going on ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_scheduler_in_order(redis_url, run_name, tmp_path, number):
    """What was acknowledged is kept, the lock is free at once, the status is left behind, the exit status is 0."""
    folder, run = tmp_path / "run", run_of(run_name)
    with Process(folder, redis_url, run) as scheduler, Peer(scheduler.listening().port) as peer:
        peer.join()
        peer.release(peer.take(1)[0])
        scheduler.signal(number)
        assert scheduler.wait() == 0
        assert (scheduler.status().state, scheduler.status().tasks[0].done) == ("stopped", 1)
        assert not scheduler.address_file.exists()
    with redis.Redis.from_url(redis_url) as client:
        assert not client.exists(Keys.of(run_name).lock)


def test_a_killed_scheduler_goes_on_where_it_was(redis_url, run_name, tmp_path):
    """kill -9: nothing acknowledged is lost, nothing runs twice, and a worker keeps what it holds (P1, P2, P6)."""
    folder, run = tmp_path / "run", run_of(run_name, task(blocks=6))
    with Process(folder, redis_url, run) as scheduler, Peer(scheduler.listening().port) as peer:
        peer.join()
        first, done = peer.take(1)
        peer.release(first)
        held, running = peer.take(1)
        scheduler.signal(signal.SIGKILL)
        scheduler.wait()
    with Process(folder, redis_url, run, "--exit-when-done") as scheduler:
        address = scheduler.listening()
        assert address.epoch == 2
        with Peer(address.port, holds=pack(held)) as again, Peer(address.port, "other") as other:
            assert again.join().revoked == b""
            again.seq = 1
            other.join()
            assert again.release(held) == Ack(2)
            ran, state = other.work_off()
        assert state == "done"
        assert sorted(done + running + ran) == list(range(6))
        assert scheduler.wait() == 0


def test_a_killed_scheduler_is_followed_at_once_on_its_machine(redis_url, run_name, tmp_path):
    """Its death can be seen there, so nobody waits until its lock runs out, which here would be for ever."""
    folder, run = tmp_path / "run", run_of(run_name, task(blocks=6))
    with Process(folder, redis_url, run, "--lock-s", "3600") as scheduler:
        scheduler.listening()
        scheduler.signal(signal.SIGKILL)
        scheduler.wait()
    with Process(folder, redis_url, run, "--lock-s", "3600") as scheduler:
        assert scheduler.listening().epoch == 2
        assert "is dead: its lock is freed" in scheduler.text()


def test_a_changed_grid_is_refused_and_leaves_the_run_alone(redis_url, run_name, tmp_path):
    """Exit status 2 and a sentence; the run that Redis holds can still go on."""
    folder, run = tmp_path / "run", run_of(run_name)
    with Process(folder, redis_url, run) as scheduler:
        scheduler.listening()
        scheduler.signal(signal.SIGTERM)
        scheduler.wait()
    with Process(folder, redis_url, run_of(run_name, task(blocks=11))) as scheduler:
        assert scheduler.wait() == 2
        assert "total_roi of task 'work' was [0:10] and is [0:11]" in scheduler.text()
        assert "--fresh" in scheduler.text()
    with Process(folder, redis_url, run) as scheduler:
        assert scheduler.listening().epoch == 2


# ----- several schedulers -------------------------------------------------------------------------------------------


def standby_of(scheduler):
    """Where a process that does not lead listens: it leaves no file, but a line in its log."""
    scheduler.wait_for(lambda: "waiting: the scheduler at" in scheduler.text())
    line = next(line for line in scheduler.text().splitlines() if "listening for workers on" in line)
    return int(line.split("127.0.0.1:")[1].split(",")[0])


def test_a_standby_names_the_leader_and_takes_over(redis_url, run_name, tmp_path):
    """Workers that ask a standby are sent to the leader; when that dies, the standby leads the same run."""
    run = run_of(run_name, task(blocks=3))
    with Process(tmp_path / "one", redis_url, run) as one, Process(tmp_path / "two", redis_url, run) as two:
        leader, standby = (one, two) if _leads_first(one, two) else (two, one)
        address = leader.listening()
        with Peer(standby_of(standby)) as lost:
            lost.say(lost.hello)
            refused = lost.hear_a(Refused)
            assert (refused.code, refused.again, refused.leader) == ("standby", True, f"127.0.0.1:{address.port}")
        with Peer(address.port) as peer:
            peer.join()
            numbers, blocks = peer.take(1)
            peer.release(numbers)
            leader.signal(signal.SIGKILL)
        successor = standby.listening()
        assert successor.epoch == 2
        with Peer(successor.port) as peer:
            peer.join()
            peer.seq = 1
            ran, _ = peer.work_off()
        assert sorted(blocks + ran) == [0, 1, 2]


def _leads_first(one, two):
    one.wait_for(lambda: one.address_file.exists() or two.address_file.exists())
    return one.address_file.exists()


def test_a_frozen_leader_that_wakes_says_nothing_more(redis_url, run_name, tmp_path):
    """SIGSTOP, takeover, SIGCONT: the old leader acknowledges and grants nothing, and says why it ends (P3)."""
    run = run_of(run_name, task(blocks=2))
    with Process(tmp_path / "one", redis_url, run) as old:
        port = old.listening().port
        with Process(tmp_path / "two", redis_url, run) as new, contextlib.ExitStack() as stack:
            standby_of(new)
            peer = stack.enter_context(Peer(port))
            peer.join()
            numbers, blocks = peer.take(1)
            old.signal(signal.SIGSTOP)
            successor = new.listening()
            peer.say(Heartbeat(1.0), Want(1), Release(1, pack(numbers), b"\0"))
            old.signal(signal.SIGCONT)
            with contextlib.suppress(ConnectionError):
                while (message := peer.hear()) is not None:
                    assert not isinstance(message, (Ack, Grants, HeartbeatAck)), message
            assert old.wait() == 3
            assert "another scheduler leads" in old.text()
            with Peer(successor.port, holds=pack(numbers)) as again:
                again.join()
                assert again.release(numbers) == Ack(1)
                assert sorted(blocks + again.work_off()[0]) == [0, 1]


def test_another_leads_when_the_lock_of_a_frozen_leader_has_expired(redis_url, run_name, tmp_path):
    """And not before. How soon after: test_leadership.py, where no load of the machine adds to it."""
    run, keys, left_s = run_of(run_name, task(blocks=2)), Keys.of(run_name), 1.0
    with (
        Process(tmp_path / "one", redis_url, run) as old,
        redis.Redis.from_url(redis_url) as client,
        contextlib.ExitStack() as stack,
    ):
        old.listening()
        new = stack.enter_context(Process(tmp_path / "two", redis_url, run, "--log-format", "json"))
        new.wait_for(lambda: "waiting: the scheduler at" in new.text())
        old.signal(signal.SIGSTOP)
        frozen_s = time.time()
        assert client.pexpire(keys.lock, int(left_s * 1000))
        new.listening()
        (line,) = (line for line in new.text().splitlines() if "leading run" in line)
        led_s = datetime.fromisoformat(msgspec.json.decode(line)["time"]).timestamp()
        assert led_s > frozen_s + left_s - 0.1
        assert "its lock is freed" not in new.text()


def test_another_leads_at_once_where_the_leader_is_seen_to_be_dead(redis_url, run_name, tmp_path):
    """On one machine; its lock would have lasted longer than anybody waits here."""
    run = run_of(run_name, task(blocks=2))
    long_lock = ("--lock-s", str(2 * ANSWER_S))
    with Process(tmp_path / "one", redis_url, run, *long_lock) as old, contextlib.ExitStack() as stack:
        old.listening()
        new = stack.enter_context(Process(tmp_path / "two", redis_url, run))
        new.wait_for(lambda: "waiting: the scheduler at" in new.text())
        old.signal(signal.SIGKILL)
        new.listening()
        assert "is dead: its lock is freed" in new.text()


def test_a_frozen_leader_that_wakes_writes_nothing(redis_url, run_name, tmp_path):
    """Redis is byte by byte as its successor left it, although the old one had work to write down; it says so."""
    run, keys = run_of(run_name, task(blocks=4)), Keys.of(run_name)
    with (
        Process(tmp_path / "one", redis_url, run) as old,
        redis.Redis.from_url(redis_url) as client,
        contextlib.ExitStack() as stack,
    ):
        peer = stack.enter_context(Peer(old.listening().port))
        peer.join()
        numbers, _ = peer.take(2)
        old.signal(signal.SIGSTOP)
        new = stack.enter_context(Process(tmp_path / "two", redis_url, run))
        new.listening()
        peer.say(Want(1), Release(1, pack(numbers), bytes(len(numbers))))
        before = {name: client.dump(name) for name in client.keys(keys.prefix + "*") if name != keys.lock.encode()}
        old.signal(signal.SIGCONT)
        assert old.wait() == 3
        assert {name: client.dump(name) for name in before} == before
        assert client.get(keys.lock) == client.hget(keys.head, "writer")
        assert old.text().count(f"another scheduler leads run '{run_name}' now (epoch 2)") == 1


# ----- bad beginnings -----------------------------------------------------------------------------------------------


def sentence_of(*argv, **environment):
    """What a scheduler that cannot begin writes; it ends with 2."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BLOCKYARD_")}
    found = subprocess.run(
        [sys.executable, "-m", "blockyard_scheduler", *argv],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 2, found.stderr
    assert "Traceback" not in found.stderr
    return found.stderr


@pytest.fixture
def run_file(run_name, tmp_path):
    path = tmp_path / "run.json"
    path.write_bytes(msgspec.json.encode(run_of(run_name)))
    return str(path)


def test_bad_settings_end_with_2_and_one_sentence(run_file):
    """No traceback, no more than a line."""
    sentence = sentence_of("--run-spec", run_file, "--prot", "1")
    assert sentence == "unknown setting '--prot'; did you mean '--port'?\n"


def test_help_names_every_setting():
    """--help is an answer, not an error."""
    found = subprocess.run(
        [sys.executable, "-m", "blockyard_scheduler", "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert found.returncode == 0
    assert "--redis-url" in found.stdout


def test_a_port_in_use_is_a_sentence(redis_url, run_file):
    """The user learns which port, and that 0 takes any."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for flag in ("--port", "--http-port"):
            other = "--http-port" if flag == "--port" else "--port"
            sentence = sentence_of(
                "--run-spec", run_file, "--redis-url", redis_url, flag, port, other, "0", "--log-level", "error"
            )
            assert sentence.startswith(f"{flag}: cannot listen on 127.0.0.1, port {port}")
            assert "0: any free one" in sentence


def test_a_redis_that_is_not_there_is_a_sentence(run_file, tmp_path):
    """Where nobody answers is said, after a short while."""
    sentence = sentence_of("--run-spec", run_file, "--redis-url", f"unix://:geheim@{tmp_path}/none.sock?db=0")
    assert "does not answer" in sentence
    assert "geheim" not in sentence


def test_logs_can_be_json(redis_url, run_file):
    """Each line is an object that a log collector reads."""
    environment = os.environ | {"BLOCKYARD_REDIS_URL": redis_url, "BLOCKYARD_LOG_FORMAT": "json"}
    argv = [sys.executable, "-m", "blockyard_scheduler", "--run-spec", run_file, "--port", "0", "--http-port", "-1"]
    with subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE) as process:
        lines = [msgspec.json.decode(process.stderr.readline())]
        while not lines[-1]["message"].startswith("leading run"):
            lines.append(msgspec.json.decode(process.stderr.readline()))
        process.terminate()
        lines += [msgspec.json.decode(line) for line in process.stderr]
        assert process.wait(ANSWER_S) == 0
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)

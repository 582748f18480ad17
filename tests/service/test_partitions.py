"""Real processes on hosts of their own, and a network that fails between them: the promises hold."""

from __future__ import annotations

import sys
import time

import msgspec
import pytest
from networks import Network, needs_namespaces

from blockyard.core.scheduler import Scheduler
from blockyard.local.child import Child
from blockyard.local.redis import find_server
from blockyard.local.serial import run_serially
from blockyard.local.services import environment_of_services
from blockyard.testing.chaos.aof import records, written
from blockyard.testing.chaos.evidence import Evidence
from blockyard.testing.chaos.pipeline import make_arrays, pipeline
from blockyard.testing.chaos.tally import tally
from blockyard.testing.chaos.verdict import differences
from blockyard.testing.order import beside_which, waits_of

SIDE = 20
BLOCK_S = 0.15
LEASE_S = 2.0
TIMES = ["--lease-s", str(LEASE_S), "--grace-s", "0.3", "--heartbeat-s", "0.2", "--lock-s", "0.8"]
SECRET = "partition"
SHORT_S, LONG_S = 1.0, LEASE_S + 1.5
"""A cut that is healed before leases run out, and one that is not."""
CUTS = (
    (LONG_S, ("one", "leader")),
    (LONG_S, ("leader", "one")),
    (SHORT_S, ("one", "leader"), ("leader", "one")),
    (LONG_S, ("one", "leader"), ("leader", "one"), ("one", "standby"), ("standby", "one")),
    (SHORT_S, ("leader", "store")),
    (LONG_S, ("store", "standby")),
    (LONG_S, ("leader", "store"), ("store", "leader")),
    (LONG_S, ("store", "leader")),
)
"""For how long nothing reaches whom from whom, one after another."""
DEPOSING = CUTS[-2:]
"""Those that outlast the leader's lock: the standby leads then, before they are healed."""
SCHEDULERS = ("first", "second")


class Site:
    """A host each for Redis, two schedulers and two agents; what ends is started again, as a cluster would."""

    def __init__(self, network, folder, run):
        self._network, self._folder = network, folder
        self._commands = {"store": self._redis()}
        self._children = {}
        (folder / "run.json").write_bytes(msgspec.json.encode(run))
        for host in SCHEDULERS:
            argv = [sys.executable, "-m", "blockyard_scheduler", "--run-spec", str(folder / "run.json"), *TIMES]
            self._commands[host] = [*argv, "--host", network.address(host), "--http-port", "-1"]
        for host, scheduler in (("one", "first"), ("other", "second")):
            argv = [sys.executable, "-m", "blockyard_worker", "--slots", "2", "--http-port", "-1"]
            self._commands[host] = [*argv, "--scheduler", f"{network.address(scheduler)}:8470"]

    def _redis(self):
        folder = self._folder / "redis"
        folder.mkdir()
        argv = [str(find_server()), "--bind", "0.0.0.0", "--port", "6379", "--requirepass", SECRET, "--save", ""]
        return [*argv, "--appendonly", "yes", "--appendfsync", "always", "--dir", str(folder)]

    def __enter__(self):
        self.look_after()
        return self

    def __exit__(self, *_):
        for child in self._children.values():
            child.kill()
        for child in self._children.values():
            child.wait()

    def look_after(self):
        """Start what is not there."""
        url = f"redis://:{SECRET}@{self._network.address('store')}:6379/0"
        environment = environment_of_services() | {"BLOCKYARD_REDIS_URL": url, "BLOCKYARD_TOKEN": SECRET}
        for host, argv in self._commands.items():
            if host not in self._children or not self._children[host].alive:
                command, log = self._network.command(host, argv), self._folder / f"{host}.log"
                self._children[host] = Child(host, command, environment=environment, log=log, term_s=0.0)

    def leaders(self):
        """Who led, in order, by what Redis was told: (identity, host)."""
        found = []
        for head in heads(self._folder / "redis"):
            if b"address" in head:
                address = head[b"address"].decode().rpartition(":")[0]
                (host,) = (host for host in SCHEDULERS if self._network.address(host) == address)
                found.append((head[b"writer"], host))
        return found

    def last_words(self):
        """What everybody said last, for the report of a failure."""
        return {host: (self._folder / f"{host}.log").read_text()[-1500:] for host in self._commands}


@needs_namespaces
@pytest.mark.timeout(240)
def test_promises_hold_through_partitions(tmp_path):
    """One way and both, healed before and after the lease, between workers, schedulers and Redis (P1 to P6)."""
    for name in ("alone", "cut"):
        (tmp_path / name).mkdir()
        make_arrays(tmp_path / name, SIDE)
    run_serially(pipeline(tmp_path / "alone", SIDE, 0.0))
    run = pipeline(tmp_path / "cut", SIDE, BLOCK_S)
    core = Scheduler(run)

    def counted():
        return tally(records(tmp_path / "redis"), core)

    with Network("store", "first", "second", "one", "other") as network, Site(network, tmp_path, run) as site:
        _until(lambda: counted().done, site)
        for seconds, *pairs in CUTS:
            before, leader = site.leaders()[-1]
            (standby,) = (host for host in SCHEDULERS if host != leader)
            hosts = {"leader": leader, "standby": standby}
            for pair in pairs:
                network.cut(*(hosts.get(host, host) for host in pair))
            _pass(seconds, site)
            if (seconds, *pairs) in DEPOSING:
                _until(lambda before=before: site.leaders()[-1][0] != before, site)
                assert site.leaders()[-1][1] == standby
            network.heal()
            before = len(counted().done)
            _until(lambda before=before: len(counted().done) > before, site)
        assert len(counted().done) < core.tasks[0].total * 2, "all was done before the last cut"
        _until(lambda: len(counted().done) == 2 * SIDE**2, site)
    assert who_wrote(tmp_path / "redis")
    found, waits = counted(), waits_of(core)
    assert set(found.done) == set(waits)
    assert max(found.done.values()) == 1
    assert (found.failed, found.misplaced) == ({}, 0)
    evidence = Evidence.read(tmp_path / "cut/evidence")
    assert not list(evidence.overlaps(beside_which(waits)))
    assert not list(evidence.too_early(waits))
    for array in ("soft.zarr", "swept.zarr"):
        assert not differences(tmp_path / "alone" / array, tmp_path / "cut" / array)
    said = "".join((tmp_path / f"{host}.log").read_text() for host in SCHEDULERS)
    assert said.count("another scheduler leads run") >= len(DEPOSING)


def heads(folder):
    """What was written to the head of the journal, in order."""
    for words in written(folder):
        if words[0].upper() == b"HSET" and words[1].endswith(b":head"):
            yield dict(zip(words[2::2], words[3::2], strict=True))


def who_wrote(folder):
    """Who wrote records, in order; AssertionError where it was not the leader of that moment (P1, P2)."""
    leader, writers = b"", []
    for head in heads(folder):
        leader = head.get(b"writer", leader)
        if b"by" in head:
            assert head[b"by"] == leader
            writers += [] if writers[-1:] == [leader] else [leader]
    return writers


def _pass(seconds, site):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        site.look_after()
        time.sleep(0.05)


def _until(condition, site):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, site.last_words()
        _pass(0.1, site)

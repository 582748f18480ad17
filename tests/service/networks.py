"""Hosts on this machine: a network namespace each, around a router that can stop forwarding from one to another.

What is cut is dropped in silence, so neither side is told: connections become half-open, as behind a broken switch.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess

import pytest

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None,
    reason="network namespaces need root and the program ip (Debian's package iproute2)",
)


class Network:
    """`with Network("a", "b") as network: network.cut("a", "b")`."""

    def __init__(self, *hosts):
        self._names = {host: f"by{os.getpid()}-{host}" for host in (*hosts, "router")}
        self._addresses = {host: f"10.203.{n}.2" for n, host in enumerate(hosts, start=1)}
        self._cuts = set()

    def __enter__(self):
        try:
            for name in self._names.values():
                _ip("netns", "add", name)
            for host in self._names:
                self._at(host, "link", "set", "lo", "up")
            for n, host in enumerate(self._addresses, start=1):
                self._join(host, n)
            forward = self.command("router", ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
            subprocess.run(forward, check=True)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name in self._names.values():
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", name)

    def _join(self, host, n):
        here, there = f"h{n}", f"r{n}"
        link = ["link", "add", here, "netns", self._names[host], "type", "veth", "peer", "name", there]
        _ip(*link, "netns", self._names["router"])
        for end, device, address in ((host, here, f"10.203.{n}.2/24"), ("router", there, f"10.203.{n}.1/24")):
            self._at(end, "addr", "add", address, "dev", device)
            self._at(end, "link", "set", device, "up")
        self._at(host, "route", "add", "default", "via", f"10.203.{n}.1")

    def _at(self, host, *arguments):
        _ip("-n", self._names[host], *arguments)

    def address(self, host):
        """Where a host is reached."""
        return self._addresses[host]

    def command(self, host, argv):
        """The command line that runs `argv` on a host; its process id is that of the program."""
        return ["ip", "netns", "exec", self._names[host], *argv]

    def cut(self, sender, receiver):
        """Nothing that `sender` sends reaches `receiver` any more."""
        self._rule("add", sender, receiver)
        self._cuts.add((sender, receiver))

    def heal(self):
        """Everything reaches everybody again."""
        for sender, receiver in self._cuts:
            self._rule("del", sender, receiver)
        self._cuts.clear()

    def _rule(self, what, sender, receiver):
        pair = ["from", self._addresses[sender], "to", self._addresses[receiver]]
        self._at("router", "rule", what, *pair, "blackhole")


def _ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)

"""Blocks that take a fixed time, and a worker of its own; run by the slots of a benchmark."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from blockyard.testing.noop import Nothing

NAP_MARGIN_S = 0.0003
"""A sleep ends late by up to this; the rest of a block's time is spent looking at the clock."""


def take(seconds: float) -> float:
    """Take so many seconds, and give how many it were: more where the machine wakes us late."""
    began_s = time.monotonic()
    time.sleep(max(seconds - NAP_MARGIN_S, 0))
    while (now := time.monotonic()) < began_s + seconds:
        pass
    return now - began_s


class Timed(Nothing):
    """Takes `seconds`."""

    def __init__(self, notes: str, seconds: float) -> None:
        super().__init__(notes)
        self.seconds = seconds

    def __call__(self, block) -> None:
        super().__call__(block)
        self.busy_s += take(self.seconds)


def client_loop() -> None:
    """A user's own worker: times each pair of `acquire_block` and `release_block`."""
    from blockyard import Client

    client = Client()
    seconds = []
    clock = time.monotonic
    before = began_s = clock()
    while (block := client.acquire_block()) is not None:
        client.release_block(block, 0)
        seconds.append((after := clock()) - before)
        before = after
    note = Path(os.environ["BENCH_NOTES"], f"{os.getpid()}.json")
    note.write_text(json.dumps({"seconds": seconds, "began_s": began_s, "ended_s": clock()}))

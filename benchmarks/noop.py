"""Blocks that do nothing, or take a fixed time; run by the slots of a benchmark."""

from __future__ import annotations

import atexit
import json
import os
import time
from pathlib import Path

NAP_MARGIN_S = 0.0003
"""A sleep ends late by up to this; the rest of a block's time is spent looking at the clock."""


class Nothing:
    """Does nothing; notes when this slot began its first block, and when it learned that the run is over."""

    def __init__(self, notes: str) -> None:
        self.note = Path(notes, f"{os.getpid()}-{id(self)}.json")
        self.began_s = 0.0
        atexit.register(self.write, ended=True)

    def __call__(self, _block) -> None:
        if not self.began_s:
            self.began_s = time.monotonic()
            self.write(ended=False)

    def write(self, *, ended: bool) -> None:
        """Write the note: after the first block, and when the slot is told to end, after the run's last commit."""
        note = {"began_s": self.began_s or None, "ended_s": time.monotonic() if ended else None}
        partial = self.note.with_suffix(".partial")
        partial.write_text(json.dumps(note))
        partial.replace(self.note)


class Timed(Nothing):
    """Takes `seconds`, exactly."""

    def __init__(self, notes: str, seconds: float) -> None:
        super().__init__(notes)
        self.seconds = seconds

    def __call__(self, block) -> None:
        until = time.monotonic() + self.seconds
        super().__call__(block)
        time.sleep(max(self.seconds - NAP_MARGIN_S, 0))
        while time.monotonic() < until:
            pass


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

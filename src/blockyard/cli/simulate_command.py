"""`blockyard simulate`: faulty histories of a whole cluster in virtual time, held against the promises."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable

from blockyard.cli.app import DONE, FAILED
from blockyard.testing.simulation import BrokenPromiseError, Faults, crash_everywhere, simulate

SHOW_EVERY_S = 5.0


def prepare(_: str, parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Describe the command; give its handler."""
    parser.description = (
        "Runs the real scheduling core and the real worker sessions under a virtual clock, with workers, schedulers, "
        "connections and the store failing at random, and checks the promises of docs/guarantees.md at every step."
    )
    parser.epilog = "examples:\n  blockyard simulate --seeds 1000\n  blockyard simulate --from 4711 --seeds 1"
    parser.add_argument("--seeds", type=int, default=1000, help="histories (default: 1000)")
    parser.add_argument("--from", dest="first", type=int, default=0, help="first seed; a seed repeats its history")
    parser.add_argument("--faults", type=float, default=1.0, help="faults a virtual second (default: 1)")
    parser.add_argument(
        "--everywhere",
        action="store_true",
        help="also kill a process at each point of each history (300 times as long)",
    )
    return _simulate


def _simulate(arguments: argparse.Namespace) -> int:
    tally = Tally()
    began_s = time.monotonic()
    try:
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            tally.add(seed, Faults(per_s=arguments.faults), everywhere=arguments.everywhere)
            tally.show(arguments.seeds)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    seconds = time.monotonic() - began_s
    print(f"{tally.histories:,} histories from seed {arguments.first} in {seconds:.0f} s: {tally.broken} broken")
    print(f"{tally.blocks:,} blocks, each done once; {tally.executions - tally.blocks:,} begun again after a fault")
    if tally.points:
        print(f"killed at each of {tally.points:,} points: before and after each command to the store and each send")
    print("faults: " + ", ".join(f"{n:,} {kind}" for kind, n in sorted(tally.faults.items())))
    return FAILED if tally.broken else DONE


class Tally:
    """What the histories so far came to."""

    def __init__(self) -> None:
        self.histories = self.broken = self.blocks = self.executions = self.points = 0
        self.faults: Counter[str] = Counter()
        self._shown_s = time.monotonic()

    def add(self, seed: int, faults: Faults, *, everywhere: bool) -> None:
        """Run the history of a seed; with `everywhere` also one for each point at which a process can be killed."""
        self.histories += 1
        try:
            cluster = simulate(seed, faults)
            self.points += crash_everywhere(seed) if everywhere else 0
        except BrokenPromiseError as error:
            self.broken += 1
            print(f"broken: {error}", flush=True)
            return
        self.faults.update(cluster.counts)
        self.blocks += cluster.history.total
        self.executions += cluster.history.executions

    def show(self, seeds: int) -> None:
        """Say now and then how far it is."""
        if time.monotonic() - self._shown_s > SHOW_EVERY_S:
            self._shown_s = time.monotonic()
            print(f"{self.histories:,} of {seeds:,} histories, {self.broken} broken", file=sys.stderr, flush=True)

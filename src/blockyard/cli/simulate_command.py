"""`blockyard simulate`: faulty histories of a whole cluster in virtual time, held against the promises."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable

from blockyard.cli.app import DONE, FAILED
from blockyard.testing.simulation import BrokenPromiseError, Faults, simulate

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
    return _simulate


def _simulate(arguments: argparse.Namespace) -> int:
    faults = Faults(per_s=arguments.faults)
    counts: Counter[str] = Counter()
    blocks = executions = broken = 0
    shown_s = began_s = time.monotonic()
    for done, seed in enumerate(range(arguments.first, arguments.first + arguments.seeds), start=1):
        try:
            cluster = simulate(seed, faults)
        except BrokenPromiseError as error:
            broken += 1
            print(f"broken: {error}", flush=True)
            continue
        counts.update(cluster.counts)
        blocks += cluster.history.total
        executions += cluster.history.executions
        if time.monotonic() - shown_s > SHOW_EVERY_S:
            shown_s = time.monotonic()
            print(f"{done:,} of {arguments.seeds:,} histories, {broken} broken", file=sys.stderr, flush=True)
    seconds = time.monotonic() - began_s
    print(f"{arguments.seeds:,} histories from seed {arguments.first} in {seconds:.0f} s: {broken} broken")
    print(f"{blocks:,} blocks, each done once; {executions - blocks:,} begun again after a fault")
    print("faults: " + ", ".join(f"{n:,} {kind}" for kind, n in sorted(counts.items())))
    return FAILED if broken else DONE

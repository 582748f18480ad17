"""The scheduler is killed (kill -9) in the middle of a large run with busy workers; prints one JSON line.

    python restart_run.py SHAPE SIDE WORKERS --done BLOCKS [--kills 5]

Each kill is timed until the scheduler that follows grants its first lease, by asking it for its status.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import time
from pathlib import Path

from command import parser_of_run, print_measured
from resumed import PATIENCE_S, resumed_run
from shapes import blocks_of

from blockyard.local.run import LocalRun

BLOCK_S = 0.01
BETWEEN_S = 1.0
"""From the first lease of one scheduler to its end."""


def main() -> None:
    """Measure what the command line says."""
    parser = parser_of_run()
    parser.add_argument("--done", type=int, required=True)
    parser.add_argument("--kills", type=int, default=5)
    print_measured(parser, measure)


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Kill the scheduler so many times."""
    with resumed_run(arguments, folder, BLOCK_S) as (run, done_before):
        taken = [granting_again_s(run, folder / "run") for _ in range(arguments.kills)]
        status = run.status()
    assert status is not None
    return {
        "blocks": blocks_of(arguments.shape, arguments.side),
        "done_before": done_before,
        "done_after": sum(task.done for task in status.tasks),
        "stale_releases": status.stale_releases,
        "retries": sum(task.retries for task in status.tasks),
        "granting_again_s": statistics.median(taken),
        "granting_again_most_s": max(taken),
    }


def granting_again_s(run: LocalRun, folder: Path) -> float:
    """Kill the scheduler; give the seconds until the next one grants a lease."""
    time.sleep(BETWEEN_S)
    before = run.status()
    assert before is not None
    os.kill(json.loads((folder / "scheduler.json").read_bytes())["pid"], signal.SIGKILL)
    killed = time.monotonic()
    while time.monotonic() < killed + PATIENCE_S:
        run.wait(0.005)
        status = run.status()
        if status is not None and status.epoch > before.epoch and status.leases_granted:
            return time.monotonic() - killed
    raise SystemExit("nothing was granted again")


if __name__ == "__main__":
    main()

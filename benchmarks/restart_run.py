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
import tempfile
import time
from pathlib import Path

from large_run import PATIENCE_S, fill, first_block
from pipelines import local_run, pipeline
from shapes import SHAPES, blocks_of

from blockyard.local import LocalRun

BLOCK_S = 0.01
BETWEEN_S = 1.0
"""From the first lease of one scheduler to its end."""


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("side", type=int)
    parser.add_argument("workers", type=int)
    parser.add_argument("--done", type=int, required=True)
    parser.add_argument("--kills", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(arguments, Path(folder))))


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Kill the scheduler so many times."""
    notes = folder / "notes"
    notes.mkdir()
    spec = pipeline(arguments.shape, arguments.side, notes, BLOCK_S)
    done_before = fill(spec, folder / "run", arguments.done)
    began = time.monotonic()
    with local_run(spec, folder / "run", workers=arguments.workers) as run:
        first_block(notes, began + PATIENCE_S)
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

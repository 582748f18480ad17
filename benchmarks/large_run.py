"""A very large grid through the real service: time to the first block, memory; prints one JSON line.

    python large_run.py SHAPE SIDE WORKERS [--done BLOCKS] [--run-s 5]

With ``--done`` the run is one that is resumed (see `resumed.py`).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from command import parser_of_run, print_measured
from pipelines import local_run, pipeline
from processes import Watch
from resumed import PATIENCE_S, fill, first_block
from shapes import blocks_of


def main() -> None:
    """Measure what the command line says."""
    parser = parser_of_run()
    parser.add_argument("--done", type=int, default=0)
    parser.add_argument("--run-s", type=float, default=5.0)
    print_measured(parser, measure)


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Start the run, let it go on for `run_s` after its first block, and end it."""
    notes = folder / "notes"
    notes.mkdir()
    spec = pipeline(arguments.shape, arguments.side, notes)
    done_before = fill(spec, folder / "run", arguments.done) if arguments.done else 0
    began = time.monotonic()
    with Watch() as watch, local_run(spec, folder / "run", workers=arguments.workers) as run:
        leading_s = time.monotonic() - began
        first_s = first_block(notes, began + PATIENCE_S)
        time.sleep(arguments.run_s)
        watch.look()
        status = run.status()
        used = watch.by_role()["scheduler"]
    assert status is not None
    return {
        "blocks": blocks_of(arguments.shape, arguments.side),
        "done_before": done_before,
        "done_after": sum(task.done for task in status.tasks),
        "leading_s": leading_s,
        "first_block_s": first_s - began,
        "run_s": arguments.run_s,
        "scheduler_mb": used.now_mb,
        "scheduler_peak_mb": used.peak_mb,
        "scheduler_cpu_s": used.cpu_s,
    }


if __name__ == "__main__":
    main()

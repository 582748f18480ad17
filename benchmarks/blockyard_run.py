"""One run of blocks that do nothing with blockyard: Redis, scheduler, an agent with slots; prints one JSON line.

    python blockyard_run.py SHAPE SIDE WORKERS [--fsync always|everysec|no] [--block-s SECONDS]

Timed as in `daisy_run.py`: ``call_s`` from the start of Redis, scheduler and workers until all have ended;
``steady_s`` from the first block in any slot until the last slot learns that the run is over, which is after Redis has
answered the last commit.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from command import parser_of_run, print_measured
from pipelines import local_run, pipeline
from processes import Watch
from shapes import blocks_of


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Run once; give the figures."""
    notes = folder / "notes"
    notes.mkdir()
    spec = pipeline(arguments.shape, arguments.side, notes, arguments.block_s)
    with Watch() as watch:
        began = time.monotonic()
        with local_run(spec, folder / "run", workers=arguments.workers, fsync=arguments.fsync) as run:
            leading_s = time.monotonic() - began
            result = run.wait()
        call_s = time.monotonic() - began
    assert result is not None
    found = [json.loads(path.read_text()) for path in notes.glob("*.json")]
    starts = [note["began_s"] for note in found if note["began_s"]]
    used = watch.by_role()
    blocks = sum(task.done for task in result.status.tasks)
    return {
        "ok": result.ok and blocks == blocks_of(arguments.shape, arguments.side),
        "blocks": blocks,
        "call_s": call_s,
        "leading_s": leading_s,
        "first_block_s": min(starts) - began,
        "steady_s": max(note["ended_s"] for note in found) - min(starts),
        "busy_s": sum(note["busy_s"] for note in found),
        "scheduler_cpu_s": used["scheduler"].cpu_s,
        "scheduler_peak_mb": used["scheduler"].peak_mb,
        "agent_cpu_s": used["agent"].cpu_s,
        "workers_cpu_s": used["slots"].cpu_s,
        "redis_cpu_s": used["redis"].cpu_s,
        "journal_mb": sum(path.stat().st_size for path in (folder / "run/redis").rglob("*.aof")) / 2**20,
    }


def main() -> None:
    """Measure what the command line says."""
    parser = parser_of_run()
    parser.add_argument("--fsync", choices=("always", "everysec", "no"), default="always")
    parser.add_argument("--block-s", type=float, default=0.0)
    print_measured(parser, measure)


if __name__ == "__main__":
    main()

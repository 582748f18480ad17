"""A user's own worker with `blockyard.Client`: how long acquire and release of a block take; prints one JSON line.

python round_trip.py SIDE WORKERS
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from pipelines import local_run, pipeline
from shapes import blocks_of


def main() -> None:
    """Measure what the command line says."""
    side, workers = int(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder, "notes")
        notes.mkdir()
        os.environ["BENCH_NOTES"] = str(notes)
        run = pipeline("independent", side, notes, worker="noop:client_loop")
        began = time.monotonic()
        with local_run(run, Path(folder, "run"), workers=workers) as local:
            result = local.wait()
        call_s = time.monotonic() - began
        found = [json.loads(path.read_text()) for path in notes.glob("*.json")]
    assert result is not None
    trips = sorted(second for note in found for second in note["seconds"])
    print(
        json.dumps(
            {
                "ok": result.ok and len(trips) == blocks_of("independent", side),
                "blocks": len(trips),
                "call_s": call_s,
                "steady_s": max(note["ended_s"] for note in found) - min(note["began_s"] for note in found),
                "trip_p50_us": statistics.median(trips) * 1e6,
                "trip_p99_us": trips[int(0.99 * len(trips))] * 1e6,
                "trip_mean_us": statistics.fmean(trips) * 1e6,
            }
        )
    )


if __name__ == "__main__":
    main()

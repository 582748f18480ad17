"""One run of no-op blocks with daisy, in daisy's own environment; prints one JSON line.

    python daisy_run.py SHAPE SIDE WORKERS [SECONDS A BLOCK]

Runs with daisy 2.0.0 and 1.2.3. Workers are what both start for a block function: processes that loop over
``Client.acquire_block()``. The loop is written out here (a "worker function"), since the first and last block are timed
in it; it is line for line what daisy does for a block function, and no slower.

Timed: ``call_s`` the call of `run_blockwise` alone (no interpreter start, no imports, no summary, no progress bar);
``steady_s`` from the first block in any worker until the last worker learns that nothing is left.
"""

import json
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"  # daisy 1.x has no other way to run without a progress bar

import daisy  # noqa: I001 - the variable comes first
from shapes import SHAPES, boxes


BLOCK_S = float(sys.argv[4]) if len(sys.argv) > 4 else float(os.environ.get("BENCH_BLOCK_S", "0"))
NAP_MARGIN_S = 0.0003


def take(seconds):
    """Take so many seconds, and give how many it were: more where the machine wakes us late."""
    began_s = time.monotonic()
    time.sleep(max(seconds - NAP_MARGIN_S, 0))
    while (now := time.monotonic()) < began_s + seconds:
        pass
    return now - began_s


def worker():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # daisy 1.x ends its workers so
    client = daisy.Client()
    trips = []
    busy_s = 0.0
    began = None
    before = time.monotonic()
    try:
        while True:
            with client.acquire_block() as block:
                if block is None:
                    break
                if began is None:
                    began = time.monotonic()
                if BLOCK_S:
                    busy_s += take(BLOCK_S)
            after = time.monotonic()
            trips.append(after - before)
            before = after
    finally:
        note = Path(os.environ["BENCH_NOTES"]) / f"{os.getpid()}-{client.task_id}.json"
        note.write_text(json.dumps({"began_s": began, "ended_s": time.monotonic(), "busy_s": busy_s, "trips": trips}))


def tasks(shape, side, workers):
    two = hasattr(daisy, "set_tracking_basedir")
    made = []
    for number, (total, read, write, conflict) in enumerate(boxes(shape, side)):
        extra = {"max_workers" if two else "num_workers": workers}
        if made:
            extra["upstream_tasks"] = made[-1:]
        made.append(
            daisy.Task(
                f"task{number}",
                daisy.Roi(*total),
                daisy.Roi(*read),
                daisy.Roi(*write),
                worker,
                read_write_conflict=conflict,
                fit="valid",
                **extra,
            )
        )
    return made


def main():
    shape, side, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    assert shape in SHAPES
    two = hasattr(daisy, "set_tracking_basedir")
    with tempfile.TemporaryDirectory() as notes:
        os.environ["BENCH_NOTES"] = notes
        os.environ["BENCH_BLOCK_S"] = str(BLOCK_S)
        os.chdir(notes)  # daisy 1.x writes its logs where it stands
        quiet = {"progress": False, "summary": False, "host": "127.0.0.1"} if two else {}
        before = resource.getrusage(resource.RUSAGE_SELF)
        began = time.monotonic()
        made = tasks(shape, side, workers)
        ok = daisy.run_blockwise(made, **quiet)
        call_s = time.monotonic() - began
        used = resource.getrusage(resource.RUSAGE_SELF)
        workers_used = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = [json.loads(path.read_text()) for path in Path(notes).glob("*.json")]
    trips = sorted(trip for note in found for trip in note["trips"])
    starts = [note["began_s"] for note in found if note["began_s"] is not None]
    print(
        json.dumps(
            {
                "ok": bool(ok),
                "blocks": len(trips),
                "call_s": call_s,
                "first_block_s": min(starts) - began,
                "steady_s": max(note["ended_s"] for note in found) - min(starts),
                "busy_s": sum(note["busy_s"] for note in found),
                "scheduler_cpu_s": used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime,
                "scheduler_peak_mb": used.ru_maxrss / 1024,
                "workers_cpu_s": workers_used.ru_utime + workers_used.ru_stime,
                "trip_p50_us": trips[len(trips) // 2] * 1e6,
                "trip_p99_us": trips[int(0.99 * len(trips))] * 1e6,
            }
        )
    )


if __name__ == "__main__":
    main()

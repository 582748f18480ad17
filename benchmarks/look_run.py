"""Looking at a very large run while it works: time of a scrape and of the page's maps; prints one JSON line.

    python look_run.py SHAPE SIDE WORKERS --done BLOCKS

The run is one that is resumed with about so many blocks done, scattered at random: the worst that a map can meet.
"""

from __future__ import annotations

import argparse
import statistics
import time
import urllib.request
from pathlib import Path

from command import parser_of_run, print_measured
from resumed import resumed_run
from shapes import blocks_of

from blockyard.client.control import direct_opener

BLOCK_S = 0.01
TIMES = 9
WHAT = {
    "scrape_s": "/metrics",
    "status_s": "/api/v1/status",
    "slice_s": "/api/v1/map?task=task0&axis=0&slice=7",
    "projection_s": "/api/v1/map?task=task0&axis=0&slice=projection",
    "worst_projection_s": "/api/v1/map?task=task0&axis=1&slice=projection",
    "durations_s": "/api/v1/map?task=task0&axis=1&slice=projection&value=duration",
    "window_s": "/api/v1/map?task=task0&axis=0&slice=7&from=0,0&to=64,64",
}
"""What is asked for, by the name of its time in the result."""


def main() -> None:
    """Measure what the command line says."""
    parser = parser_of_run()
    parser.add_argument("--done", type=int, required=True)
    print_measured(parser, measure)


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Ask for everything a few times, each by itself; give the medians."""
    with resumed_run(arguments, folder, BLOCK_S) as (run, done_before):
        token = (run.folder / "token").read_text()
        took = {name: median_s(run.http_url + path, token) for name, path in WHAT.items()}
        metrics = answer(run.http_url + "/metrics", token).decode()
    (lag,) = [line for line in metrics.splitlines() if line.startswith("blockyard_loop_lag_seconds ")]
    blocks = blocks_of(arguments.shape, arguments.side)
    return {"blocks": blocks, "done_before": done_before, **took, "loop_lag_s": float(lag.split()[1])}


def median_s(url: str, token: str) -> float:
    """Return the median of the seconds that an answer takes."""
    return statistics.median(seconds(url, token) for _ in range(TIMES))


def seconds(url: str, token: str) -> float:
    """Return the seconds from asking to the last byte."""
    began = time.monotonic()
    answer(url, token)
    return time.monotonic() - began


def answer(url: str, token: str) -> bytes:
    """Return what is answered."""
    asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with direct_opener().open(asked) as body:
        return body.read()


if __name__ == "__main__":
    main()

"""All measurements, one after another and interleaved, as JSON lines; `make bench` runs this.

    python benchmarks/run.py                     everything (about 20 minutes); then the tables of docs/benchmarks.md
    python benchmarks/run.py --quick             the same with small numbers, to try it (2 minutes)
    python benchmarks/run.py --only throughput   one part: throughput, slow, messages, large, restart, look

Every measurement is a process of its own. Within a part, the systems take turns: one run of each, then the next repeat
of each, so that what else the machine does falls on all of them. daisy is installed from PyPI into `.cache/` on the
first use, each version into an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from render import render
from shapes import SHAPES, side_for

HERE = Path(__file__).parent
CACHE = HERE.parent / ".cache"
RESULTS = HERE / "results"
WORKERS = 2
LIMIT_S = 900
"""A measurement that takes longer is given up, and the others go on."""
DAISY = ("2.0.0", "1.2.3")

Job = tuple[dict[str, object], list[str]]
"""What is measured (goes into the row), and the command."""


def main() -> int:
    """Measure, and render what was measured; give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PLANS, action="append", help="only this part; may be repeated")
    parser.add_argument("--repeats", type=int, default=5, help="how often each run is repeated")
    parser.add_argument("--quick", action="store_true", help="small numbers and one repeat")
    parser.add_argument("--no-daisy", action="store_true", help="without daisy")
    parser.add_argument("--to", type=Path, help="file of results (default: a new one in benchmarks/results)")
    parser.add_argument("--no-render", action="store_true", help="leave docs/benchmarks.md as it is")
    arguments = parser.parse_args()
    to = arguments.to or RESULTS / f"{datetime.now(UTC):%Y-%m-%d-%H%M}.jsonl"
    to.parent.mkdir(exist_ok=True)
    daisies = {} if arguments.no_daisy else {release: daisy_python(release) for release in DAISY}
    repeats = 1 if arguments.quick else arguments.repeats
    failures = 0
    with to.open("a") as file:
        write(file, machine(repeats))
        for part in arguments.only or PLANS:
            for what, command in PLANS[part](daisies, repeats, quick=arguments.quick):
                row = {"part": part, **what, **measured(command)}
                failures += "error" in row
                write(file, row)
                print(short(row), flush=True)
    print(f"results: {to}")
    if not arguments.no_render:
        render([to])
    return 1 if failures else 0


def write(file, row: dict[str, object]) -> None:
    """Add one JSON line."""
    file.write(json.dumps(row) + "\n")
    file.flush()


def measured(command: list[str]) -> dict[str, object]:
    """Run one measurement; give its figures, or what went wrong."""
    load = os.getloadavg()[0]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, cwd=HERE, check=False)
        row = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {LIMIT_S} s"}
    except (IndexError, json.JSONDecodeError):
        return {"error": done.stderr.strip().splitlines()[-1:] or "no output"}
    if not row.get("ok", True):
        return {"error": f"the run was not complete: {row}"}
    return {**row, "load": round(load, 1), "at": datetime.now(UTC).isoformat(timespec="seconds")}


def short(row: dict[str, object]) -> str:
    """Give a row as a line for a person."""
    return "  ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in row.items()
    )


# ----- what is measured -----------------------------------------------------------------------------------------------


def throughput(daisies: dict[str, str], repeats: int, *, quick: bool) -> Iterator[Job]:
    """Blocks that do nothing: the four shapes, several sizes, both ways of writing to disk, daisy between them."""
    sizes = (10_000,) if quick else (10_000, 100_000, 1_000_000)
    for repeat in range(repeats):
        for shape in SHAPES:
            for size in sizes:
                for fsync in ("always", "everysec"):
                    yield ours(shape, size, fsync)
                if size == sizes[0] or (size == 100_000 and shape != "chain-halo" and repeat == 0):
                    yield from theirs(daisies, shape, 10_000 if size < 100_000 else 50_000, quick=quick)
        if repeat == 0:
            for shape in SHAPES:
                yield from theirs(daisies, shape, 200, release="1.2.3", quick=quick)


def slow(daisies: dict[str, str], repeats: int, *, quick: bool) -> Iterator[Job]:
    """Blocks of 1, 10 and 100 ms: how near the workers come to being always at work."""
    for _ in range(min(repeats, 3)):
        for block_s, seconds in ((0.001, 10), (0.01, 10), (0.1, 10)):
            size = int(WORKERS * (1 if quick else seconds) / block_s)
            what, command = ours("independent", size, "always")
            yield {**what, "block_s": block_s}, [*command, "--block-s", str(block_s)]
            command = [sys.executable, "plain_loop.py", str(size), str(WORKERS), str(block_s)]
            yield {"system": "plain loop", "block_s": block_s}, command
            for what, command in theirs(daisies, "independent", size, quick=quick):
                yield {**what, "block_s": block_s}, [*command, str(block_s)]


def messages(daisies: dict[str, str], repeats: int, *, quick: bool) -> Iterator[Job]:
    """One block a message, and the round trip of a user's own worker."""
    seconds = "1" if quick else "5"
    for _ in range(min(repeats, 3)):
        for workers in (1, WORKERS):
            for fsync in ("always", "everysec"):
                command = [sys.executable, "one_a_message.py", str(workers), seconds, "--fsync", fsync]
                yield {"system": "blockyard, 1 a message", "workers": workers, "fsync": fsync}, command
            command = [sys.executable, "round_trip.py", "30" if quick else "60", str(workers)]
            yield {"system": "blockyard.Client", "workers": workers, "fsync": "always"}, command
            if "2.0.0" in daisies:
                command = [daisies["2.0.0"], "daisy_run.py", "independent", "22", str(workers)]
                yield {"system": "daisy", "release": "2.0.0", "workers": workers}, command


def large(_daisies: dict[str, str], repeats: int, *, quick: bool) -> Iterator[Job]:
    """Very large grids: time to the first block, memory; also of a run that is resumed with 10^8 blocks done."""
    for _ in range(min(repeats, 3)):
        for shape in ("independent", "halo", "chain-halo"):
            for size in (10**7,) if quick else (10**7, 10**8, 10**9):
                side = str(side_for(shape, size))
                yield {"shape": shape, "size": size}, [sys.executable, "large_run.py", shape, side, str(WORKERS)]
    for shape in ("independent", "halo"):
        size = 10**7 if quick else 10**9
        command = [sys.executable, "large_run.py", shape, str(side_for(shape, size)), str(WORKERS)]
        yield {"shape": shape, "size": size}, [*command, "--done", str(size // 10), "--run-s", "2" if quick else "20"]


def restart(_daisies: dict[str, str], _repeats: int, *, quick: bool) -> Iterator[Job]:
    """A scheduler that is killed when half of the blocks are done: time until leases are granted again."""
    size = 10**5 if quick else 2 * 10**7
    for shape in ("independent", "halo"):
        command = [sys.executable, "restart_run.py", shape, str(side_for(shape, size)), str(WORKERS)]
        yield {"shape": shape, "size": size}, [*command, "--done", str(size // 2)]


def look(_daisies: dict[str, str], _repeats: int, *, quick: bool) -> Iterator[Job]:
    """Scrapes and maps of a very large run that works."""
    for shape in ("independent", "halo"):
        size = 10**6 if quick else 10**8
        command = [sys.executable, "look_run.py", shape, str(side_for(shape, size)), str(WORKERS)]
        yield {"shape": shape, "size": size}, [*command, "--done", str(size // 2)]


PLANS = {"throughput": throughput, "slow": slow, "messages": messages, "large": large, "restart": restart, "look": look}


def ours(shape: str, size: int, fsync: str) -> Job:
    """Give one run of blockyard."""
    command = [sys.executable, "blockyard_run.py", shape, str(side_for(shape, size)), str(WORKERS), "--fsync", fsync]
    return {"system": "blockyard", "shape": shape, "size": size, "fsync": fsync}, command


def theirs(daisies: dict[str, str], shape: str, size: int, *, release: str = "2.0.0", quick: bool) -> Iterator[Job]:
    """Give one run of daisy, unless it is not wanted."""
    if release in daisies:
        side = side_for(shape, size // 10 if quick and size > 1000 else size)
        command = [daisies[release], "daisy_run.py", shape, str(side), str(WORKERS)]
        yield {"system": "daisy", "release": release, "shape": shape, "size": size}, command


# ----- where ----------------------------------------------------------------------------------------------------------


def daisy_python(release: str) -> str:
    """Give a Python that has this release of daisy; made in `.cache/` where there is none yet."""
    home = CACHE / f"daisy-{release}"
    python = home / "bin/python"
    if not (home / "complete").exists():
        print(f"installing daisy {release} into {home} ...", flush=True)
        CACHE.mkdir(exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", f"daisy=={release}"], check=True)
        (home / "complete").touch()
    return str(python)


def machine(repeats: int) -> dict[str, object]:
    """Say what was measured on what."""
    from blockyard.local.redis import find_server

    server = subprocess.run([find_server(), "--version"], capture_output=True, text=True, check=True).stdout
    cpu = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True, check=False
    )
    return {
        "part": "machine",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu[0] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "tornado": version("tornado"),
        "redis": " ".join(server.split()[:3]),
        "blockyard": version("blockyard"),
        "commit": commit.stdout.strip(),
        "fsync_us": fsync_us(),
        "repeats": repeats,
    }


def fsync_us() -> dict[str, float]:
    """Measure what the disk of the runs' Redis takes for a small write that is safe (p50 and p99)."""
    taken = []
    with tempfile.TemporaryFile(buffering=0) as file:
        for _ in range(300):
            began = time.monotonic()
            file.write(b"x" * 200)
            os.fdatasync(file.fileno())
            taken.append((time.monotonic() - began) * 1e6)
    taken.sort()
    return {"p50": round(taken[150]), "p99": round(taken[297])}


if __name__ == "__main__":
    sys.exit(main())

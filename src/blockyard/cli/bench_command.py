"""`blockyard bench`: how many blocks a second this machine carries, with its disk or with your Redis."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import msgspec
import redis

from blockyard.cli.app import DONE, FAILED
from blockyard.local.redis import Fsync
from blockyard.local.run import LocalRun
from blockyard.local.services import processors
from blockyard.spec.errors import SpecError
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec

SHAPES = {
    "independent": "independent blocks",
    "halo": "halo of one block, with conflict",
    "chain": "chain of two tasks",
    "chain-halo": "chain with halo (27 upstream blocks each)",
}
STRIDE, CONTEXT = 16, 4
"""Voxels on each of three axes."""
SAFE_WRITES = 50


class Measured(msgspec.Struct, frozen=True):
    """One run."""

    shape: str
    blocks: int
    blocks_a_s: float
    """From the first block until the workers were told that the run is over, after its last commit."""
    first_block_s: float
    """From the start of the command's processes until the first block ran."""
    whole_s: float
    """From the start of the processes until all had ended."""


def prepare(_command: str, parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Describe the command; give what runs it."""
    parser.description = (
        "Runs blocks that do nothing, with a scheduler and workers of its own, and says how many a second there are: "
        "what is left of it with blocks of your own is theirs."
    )
    parser.epilog = (
        "examples:\n"
        "  blockyard bench                                   # this machine and the disk under this folder\n"
        "  blockyard bench --dir /mnt/shared                 # another disk\n"
        "  blockyard bench --redis-url redis://db:6379/0     # your Redis, with the fsync it has\n\n"
        "docs/benchmarks.md has figures to compare with."
    )
    parser.add_argument("--blocks", type=int, default=100_000, metavar="N", help="blocks a run (default: 100000)")
    parser.add_argument(
        "--workers", type=int, default=processors(), metavar="N", help="slots (default: one a processor)"
    )
    parser.add_argument("--shape", choices=SHAPES, action="append", help="only this one; may be repeated")
    parser.add_argument("--fsync", choices=get_args(Fsync), default="always", help="of the own Redis (default: always)")
    parser.add_argument("--redis-url", default="", metavar="URL", help="a running Redis instead of an own one")
    parser.add_argument("--dir", type=Path, default=Path(), metavar="DIR", help="where the files of the runs go")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return bench


def bench(arguments: argparse.Namespace) -> int:
    """Measure what was asked for; give the exit status."""
    for name in ("blocks", "workers"):
        if getattr(arguments, name) < 1:
            raise SpecError(f"--{name} is {getattr(arguments, name)}; it must be at least 1")
    try:
        holder = tempfile.TemporaryDirectory(prefix="blockyard-bench-", dir=arguments.dir)
    except OSError as error:
        raise SpecError(f"--dir {arguments.dir} cannot be written ({error.strerror}); choose another one") from error
    with holder as folder:
        safe_write_s = _safe_write_s(Path(folder))
        if not arguments.json:
            print(_heading(arguments, safe_write_s))
        runs = []
        for shape in arguments.shape or SHAPES:
            measured = _measure(shape, arguments, Path(folder))
            if measured is None:
                print(f"blockyard: the run '{shape}' did not do all its blocks", file=sys.stderr)
                return FAILED
            runs.append(measured)
            if not arguments.json:
                print(_line(measured), flush=True)
    if arguments.json:
        found = {"workers": arguments.workers, "safe_write_s": safe_write_s, "runs": msgspec.to_builtins(runs)}
        print(json.dumps(found, indent=2))
    return DONE


def _heading(arguments: argparse.Namespace, safe_write_s: float) -> str:
    if arguments.redis_url:
        store = "the Redis you gave"
    else:
        store = (
            f"a Redis of its own, fsync {arguments.fsync} (a safe write takes this disk {1e6 * safe_write_s:,.0f} us)"
        )
    return (
        f"blocks that do nothing, {arguments.workers} workers, journal in {store}\n"
        f"{'':42}{'blocks':>11}{'blocks/s':>12}{'first block':>14}{'whole run':>12}"
    )


def _line(run: Measured) -> str:
    times = f"{run.first_block_s:>12.2f} s{run.whole_s:>10.2f} s"
    return f"{SHAPES[run.shape]:42}{run.blocks:>11,}{run.blocks_a_s:>12,.0f}{times}"


def _measure(shape: str, arguments: argparse.Namespace, folder: Path) -> Measured | None:
    """Run one shape; None where not every block was done."""
    notes = folder / f"{shape}-notes"
    notes.mkdir()
    name = f"bench-{shape}-{secrets.token_hex(4)}"  # in the user's Redis, it must be nobody's run
    run = _pipeline(shape, name, arguments.blocks, notes)
    began_s = time.monotonic()
    with _guest_in(arguments.redis_url, name), _local_run(run, folder / shape, arguments) as local:
        result = local.wait()
    whole_s = time.monotonic() - began_s
    assert result is not None
    found = [json.loads(path.read_text()) for path in notes.glob("*.json")]
    starts = [note["began_s"] for note in found if note["began_s"] is not None]
    ends = [note["ended_s"] for note in found if note["ended_s"] is not None]
    if not result.ok or not starts or not ends:
        return None
    blocks = sum(task.done for task in result.status.tasks)
    return Measured(shape, blocks, blocks / (max(ends) - min(starts)), min(starts) - began_s, whole_s)


def _local_run(run: RunSpec, folder: Path, arguments: argparse.Namespace) -> LocalRun:
    return LocalRun(run, folder, workers=arguments.workers, redis_url=arguments.redis_url, fsync=arguments.fsync)


def _pipeline(shape: str, name: str, blocks: int, notes: Path) -> RunSpec:
    """Return cubes of blocks of about this number, in one task or in two."""
    tasks = 2 if shape.startswith("chain") else 1
    side = max(round((blocks / tasks) ** (1 / 3)), 1)
    specs = []
    for number in range(tasks):
        context = CONTEXT if shape == "halo" or (shape == "chain-halo" and number) else 0
        specs.append(
            TaskSpec(
                id=f"task{number}",
                function="blockyard.testing.noop:Nothing",
                params={"notes": str(notes.absolute())},
                total_roi=RoiSpec((-context,) * 3, (side * STRIDE + 2 * context,) * 3),
                read_roi=RoiSpec((-context,) * 3, (STRIDE + 2 * context,) * 3),
                write_roi=RoiSpec((0,) * 3, (STRIDE,) * 3),
                read_write_conflict=shape == "halo",
                requires=("task0",) if number else (),
            )
        )
    return RunSpec(PipelineSpec(name=name, tasks=tuple(specs)))


def _safe_write_s(folder: Path) -> float:
    """Return the median time of a small write that is on the disk when it returns."""
    taken = []
    with (folder / "safe-write").open("wb", buffering=0) as file:
        for _ in range(SAFE_WRITES):
            began_s = time.monotonic()
            file.write(b"x" * 200)
            os.fsync(file.fileno())
            taken.append(time.monotonic() - began_s)
    return sorted(taken)[SAFE_WRITES // 2]


@contextlib.contextmanager
def _guest_in(url: str, name: str) -> Iterator[None]:
    """Leave nothing of the run in the user's Redis."""
    try:
        yield
    finally:
        if url:
            with contextlib.suppress(redis.RedisError, ValueError), redis.Redis.from_url(url) as client:
                for key in client.scan_iter(match=f"blockyard:{{{name}}}:*", count=1000):
                    client.unlink(key)

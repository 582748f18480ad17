"""`blockyard chaos`: real processes killed and frozen while a pipeline writes; then its bytes are compared."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import msgspec

from blockyard.cli.app import DONE, FAILED
from blockyard.spec.errors import BlockyardError
from blockyard.testing.chaos import Chaos, Plan, wreak
from blockyard.testing.chaos.verdict import table


def prepare(_: str, parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Describe the command; give its handler."""
    parser.description = (
        "Runs a pipeline of two chained tasks with halos that writes a real zarr, with schedulers, workers and a Redis"
        " of its own on this machine, and kills (-9) and freezes them at random. Then compares the output byte by byte"
        " with an undisturbed run, and what the slots wrote down with the promises of docs/guarantees.md. Exit status 0"
        " only if nothing was lost, doubled, or different. The pipeline is its own and not yours: its blocks write down"
        " when they begin, write and end, which is how their order is checked, and its output can be made afresh."
    )
    parser.epilog = (
        "examples:\n  blockyard chaos\n  blockyard chaos --seconds 300 --seed 7 --json\n"
        "  BLOCKYARD_REDIS_SERVER=/usr/bin/redis-server blockyard chaos"
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="how long things go wrong (default: 30)")
    parser.add_argument("--seed", type=int, default=0, help="of the faults (default: 0)")
    parser.add_argument("--faults", type=float, default=3.0, help="faults a second (default: 3)")
    parser.add_argument("--workers", type=int, default=3, help="agents, of two slots each (default: 3)")
    parser.add_argument("--schedulers", type=int, default=2, help="one leads, the others stand by (default: 2)")
    parser.add_argument("--keep", action="store_true", help="keep the folder with arrays, evidence and logs")
    parser.add_argument("--json", action="store_true", help="the verdict as JSON")
    return _chaos


def _chaos(arguments: argparse.Namespace) -> int:
    for flag in ("seconds", "faults", "workers", "schedulers"):
        if not getattr(arguments, flag) > 0:
            raise BlockyardError(f"--{flag} is {getattr(arguments, flag)}; it must be more than 0")
    if find_spec("zarr") is None:
        raise BlockyardError("chaos writes zarr arrays, and zarr is not installed; pip install zarr")
    if sys.platform != "linux":
        raise BlockyardError("chaos finds the processes to kill in /proc, which only Linux has")
    chaos = Chaos(
        Plan(arguments.seed, arguments.seconds, arguments.faults),
        n_schedulers=arguments.schedulers,
        n_agents=arguments.workers,
    )
    folder = Path(tempfile.mkdtemp(prefix="blockyard-chaos-"))
    keep = arguments.keep
    try:
        verdict = wreak(chaos, folder, lambda text: print(text, file=sys.stderr, flush=True))
        keep = keep or not verdict.ok
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    print(msgspec.json.encode(verdict).decode() if arguments.json else table(verdict))
    if keep:
        print(f"arrays, evidence and logs are in {folder}", file=sys.stderr)
    return DONE if verdict.ok else FAILED

"""`blockyard scale`: how many workers a pool has on Kubernetes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from blockyard.cli.app import DONE, FAILED
from blockyard.cli.find import add_where, living, place_of
from blockyard.spec.errors import BlockyardError


def prepare(_: str, parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Describe the command; give what runs it."""
    parser.description = (
        "Give a pool so many workers (pods) and keep it so, or let the scheduler decide again: as many as could run a"
        " block at this moment. 'kubectl scale' does the same as a number here. Exit status 1 where it is noted, but"
        " Kubernetes does not do it yet."
    )
    parser.epilog = (
        "examples:\n  blockyard scale default 20 localhost:8471\n  blockyard scale default --auto localhost:8471"
    )
    parser.add_argument("pool", metavar="POOL", help="which workers")
    parser.add_argument("workers", metavar="N", nargs="?", help="how many; not with --auto")
    parser.add_argument("--auto", action="store_true", help="the scheduler decides")
    add_where(parser)
    return scale


def scale(arguments: argparse.Namespace) -> int:
    """Scale a pool."""
    if arguments.auto and arguments.workers and not arguments.workers.isdecimal() and not arguments.where:
        arguments.workers, arguments.where = None, arguments.workers  # `scale POOL --auto WHERE`
    workers = _number(arguments)
    place = place_of(arguments.where)
    control = living(place, arguments)
    if control is None or isinstance(place, Path):
        raise BlockyardError(
            "this is a run on this machine, which has the workers that 'blockyard run --workers N' started it with;"
            " stop it with Ctrl-C and run it again with another number"
        )
    answer = control.scale(arguments.pool, workers)
    print(f"pool {arguments.pool}: " + ("the scheduler decides" if workers is None else f"{workers} workers asked for"))
    if answer.error:
        print(f"not done yet, and tried again: {answer.error}", file=sys.stderr)
    return FAILED if answer.error else DONE


def _number(arguments: argparse.Namespace) -> int | None:
    if arguments.auto:
        if arguments.workers is not None:
            raise BlockyardError("scale: give a number of workers or --auto, not both")
        return None
    if arguments.workers is None or not arguments.workers.isdecimal():
        raise BlockyardError(f"scale: '{arguments.workers or ''}' is no number of workers; give one, or --auto")
    return int(arguments.workers)

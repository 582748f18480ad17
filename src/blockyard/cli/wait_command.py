"""`blockyard wait`: return when a run has ended, with an exit status for scripts."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from blockyard.cli.app import DONE, FAILED
from blockyard.cli.find import Place, add_where, ended, living, place_of
from blockyard.core.report import status_report
from blockyard.core.status import RunStatus
from blockyard.spec.errors import BlockyardError, ConnectError

TIMED_OUT = 3
LOOK_EVERY_S = 2.0


def prepare(_: str, parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Describe the command; give what runs it."""
    parser.description = (
        "Return when a run has ended: exit status 0 when every block is done, 1 when blocks have failed or the run was"
        f" cancelled, 2 for bad input, {TIMED_OUT} when it lasts longer than --timeout. A scheduler that is away (it is"
        " being restarted, say) is waited for."
    )
    parser.epilog = "example:\n  blockyard wait localhost:8471 --timeout 3600 && echo done"
    add_where(parser)
    parser.add_argument("--timeout", type=float, default=None, metavar="SECONDS", help="wait no longer than this")
    return wait


def wait(arguments: argparse.Namespace) -> int:
    """Wait for the end."""
    place = place_of(arguments.where)
    until = None if arguments.timeout is None else time.monotonic() + arguments.timeout
    seen = False
    while True:
        status = _status(place, arguments, seen=seen)
        if status is not None and status.is_over:
            print(status_report(status))
            return DONE if status.state == "done" else FAILED
        seen = seen or status is not None
        if until is not None and time.monotonic() >= until:
            print(status_report(status) if status is not None else "no scheduler answers")
            return TIMED_OUT
        left_s = LOOK_EVERY_S if until is None else min(LOOK_EVERY_S, max(until - time.monotonic(), 0.0))
        time.sleep(left_s)


def _status(place: Place, arguments: argparse.Namespace, *, seen: bool) -> RunStatus | None:
    """Give how the run stands; None while nobody answers. The first time somebody has to, or there is no such run."""
    control = living(place, arguments)
    if control is None:
        assert isinstance(place, Path)
        result = ended(place)
        if result is None or not result.status.is_over:
            raise BlockyardError(
                f"the run in {place} is not running and has not ended; 'blockyard run' goes on with it"
            )
        return result.status
    try:
        return control.status()
    except ConnectError:
        if not seen:
            raise
        return None

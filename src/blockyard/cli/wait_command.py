"""`blockyard wait`: return when a run has ended, with an exit status for scripts."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from blockyard.cli.app import DONE, FAILED
from blockyard.cli.find import Place, add_where, ended, how_to_go_on, living, place_of
from blockyard.cli.progress import print_json, print_status
from blockyard.local.redis import in_use
from blockyard.spec.errors import AwayError, ConnectError
from blockyard.wire.api import RunStatus
from blockyard.wire.states import RunPhase

TIMED_OUT = 3
NOBODY = 4
LOOK_EVERY_S = 2.0
LOOK_AT_FOLDER_EVERY_S = 0.5
AWAY_S = 600.0
"""How long a scheduler that has answered may be away: its node may have been lost."""
START_S = 5.0
"""How long somebody may take to begin: `blockyard run FILE & blockyard wait FILE`."""


def prepare(_: str, parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Describe the command; give what runs it."""
    parser.description = (
        "Return when a run has ended. A scheduler that is away (it is being restarted, say) is waited for; so is, for"
        f" {START_S:g} s, a run that nobody works on: it may just be starting. Give a run on this machine by its"
        " folder or pipeline file: its scheduler leaves with it."
    )
    parser.epilog = (
        "exit status:\n"
        "  0  every block is done\n"
        "  1  blocks have failed, the run was cancelled, or is paused because a task failed from its first block on\n"
        f"  2  bad input: no such run, nobody answers at the address for {START_S:g} s, a wrong token\n"
        f"  {TIMED_OUT}  it lasts longer than --timeout\n"
        f"  {NOBODY}  nobody works on it, and it has not ended as far as is known: a run in a folder that was stopped"
        f" or killed, a scheduler elsewhere that has not answered for {AWAY_S / 60:g} minutes\n\n"
        "examples:\n"
        "  blockyard wait localhost:8471 --timeout 3600 && echo done\n"
        "  blockyard run pipeline.yaml & blockyard wait pipeline.yaml"
    )
    add_where(parser)
    parser.add_argument("--timeout", type=_seconds, default=None, metavar="SECONDS", help="wait no longer than this")
    parser.add_argument("--json", action="store_true", help="print the last status as JSON")
    return wait


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"is '{text}'; it must be a number of seconds")
    return seconds


def wait(arguments: argparse.Namespace) -> int:
    """Wait for the end."""
    place = place_of(arguments.where)
    began_s = time.monotonic()
    last: RunStatus | None = None
    away_since_s: float | None = None
    while True:
        found = _look(place, arguments)
        now = time.monotonic()
        if isinstance(found, RunStatus):
            last, away_since_s = found, None
            if found.has_stopped:
                _print(found, arguments)
                return DONE if found.state == RunPhase.DONE else FAILED
        else:
            if away_since_s is None:
                away_since_s = now
                if last is not None and not isinstance(place, Path):
                    print(f"{found}; waiting for it", file=sys.stderr)
            patience_s = START_S if last is None or isinstance(place, Path) else AWAY_S
            if found and now >= away_since_s + patience_s:
                if last is None and not isinstance(place, Path):
                    raise ConnectError(found)
                print(f"blockyard: {found}", file=sys.stderr)
                _print(last or _left_status(place), arguments, found)
                return NOBODY
        if arguments.timeout is not None and now >= began_s + arguments.timeout:
            _print(last, arguments, found if isinstance(found, str) else "")
            return TIMED_OUT
        pause_s = LOOK_AT_FOLDER_EVERY_S if isinstance(place, Path) else LOOK_EVERY_S
        left_s = pause_s if arguments.timeout is None else began_s + arguments.timeout - now
        time.sleep(min(pause_s, left_s))


def _look(place: Place, arguments: argparse.Namespace) -> RunStatus | str:
    """Return how the run stands, or why nobody says so: a sentence, "" where somebody will in a moment."""
    try:
        control = living(place, arguments)
        if control is None:
            assert isinstance(place, Path)
            return _left_behind(place)
        return control.status()
    except AwayError as error:
        return "" if isinstance(place, Path) else str(error)  # of a folder the lock tells whether anybody is there


def _left_behind(folder: Path) -> RunStatus | str:
    """Return the result that is in the folder of a run that nobody works on, or a sentence."""
    if in_use(folder / "redis"):  # it starts, or ends, or its scheduler is being replaced
        return ""
    result = ended(folder)
    if result is not None and result.status.has_stopped:
        return result.status
    if not (folder / "run.json").exists():
        return f"there is no run in {folder}; 'blockyard run' starts one"
    return f"the run in {folder} has not ended, and nobody works on it; to go on: {how_to_go_on(folder)}"


def _left_status(place: Place) -> RunStatus | None:
    """Return how a run stood when it was stopped, as far as its folder says so."""
    result = ended(place) if isinstance(place, Path) else None
    return None if result is None else result.status


def _print(status: RunStatus | None, arguments: argparse.Namespace, why: str = "") -> None:
    """Print a status; where none is known, `why`, which JSON tells as the state ``unknown``."""
    if status is None:
        if arguments.json:
            print_json({"state": "unknown", "error": why or "no scheduler has answered"})
        elif not why:
            print("no scheduler has answered", file=sys.stderr)
    elif arguments.json:
        print_json(status)
    else:
        print_status(status)

"""`blockyard retry`, `rerun`, `pause`, `resume` and `cancel`: control a run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from blockyard.cli.app import DONE
from blockyard.cli.find import Place, add_where, how_to_go_on, living, place_of, reach
from blockyard.spec.targets import parse_request

DESCRIPTIONS = {
    "retry": "Try failed blocks again; what waited for them becomes pending.",
    "rerun": "Run blocks of a task again although they are done, with all that depends on them: what lies downstream,"
    " and conflicting blocks of later levels. Those of them that run now are stopped first.",
    "pause": "Lease no more blocks until resumed; those that run are finished.",
    "resume": "Lease blocks again after a pause.",
    "cancel": "End a run: no block is leased any more, those that run are stopped.",
}
EXAMPLES = {
    "retry": "examples:\n  blockyard retry\n  blockyard retry pipeline.yaml --task smooth --roi 0:20,512:1024,512:1024",
    "rerun": "examples:\n  blockyard rerun smooth --roi 0:20,512:1024,512:1024\n  blockyard rerun smooth pipeline.yaml",
    "pause": "example:\n  blockyard pause scheduler:8471",
    "resume": "example:\n  blockyard resume scheduler:8471",
    "cancel": "example:\n  blockyard cancel pipeline.yaml",
}
DONE_SO = {"pause": "paused", "resume": "resumed", "cancel": "cancelled"}


def prepare(command: str, parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Describe the command; give what runs it."""
    parser.description, parser.epilog = DESCRIPTIONS[command], EXAMPLES[command]
    if command == "rerun":
        parser.add_argument("task", metavar="TASK", help="the task whose blocks run again")
    add_where(parser)
    if command not in ("retry", "rerun"):
        return lambda arguments: control(command, arguments)
    if command == "retry":
        parser.add_argument("--task", default=None, metavar="TASK", help="only blocks of this task")
    parser.add_argument("--roi", default="", metavar="ROI", help="only blocks that write into it, 'begin:end,...'")
    return retry if command == "retry" else rerun


def control(command: str, arguments: argparse.Namespace) -> int:
    """Pause, resume or cancel."""
    place = place_of(arguments.where)
    note = "" if command == "cancel" else _note(place, arguments)
    with reach(place, arguments, look_only=False) as control:
        calls = {"pause": control.pause, "resume": control.resume, "cancel": control.cancel}
        calls[command]()
    print(DONE_SO[command] + note)
    return DONE


def retry(arguments: argparse.Namespace) -> int:
    """Try failed blocks again."""
    roi = parse_request(arguments.roi) if arguments.roi else None
    place = place_of(arguments.where)
    note = _note(place, arguments)
    with reach(place, arguments, look_only=False) as control:
        blocks = control.retry(arguments.task, roi).blocks
    print(f"{blocks:,} blocks will be tried{note if blocks else ''}")
    return DONE


def rerun(arguments: argparse.Namespace) -> int:
    """Run done blocks again."""
    roi = parse_request(arguments.roi) if arguments.roi else None
    place = place_of(arguments.where)
    note = _note(place, arguments)
    with reach(place, arguments, look_only=False) as control:
        blocks = control.rerun(arguments.task, roi).blocks
    print(f"{blocks:,} blocks that were over run again{note if blocks else ''}")
    return DONE


def _note(place: Place, arguments: argparse.Namespace) -> str:
    """Say, before it is controlled, that a run which is not running has to be started for that."""
    if not isinstance(place, Path) or living(place, arguments) is not None:
        return ""
    return f"; the run is not running now, to go on: {how_to_go_on(place)}"

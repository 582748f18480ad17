"""`blockyard status`, `watch`, `failures` and `explain`: look at a run."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from blockyard.cli.app import DONE, FAILED
from blockyard.cli.find import Place, add_where, ended, how_to_go_on, living, place_of, reach
from blockyard.cli.progress import Progress, print_json, print_status, progress_on
from blockyard.client.control import Control, Explained
from blockyard.local.result import what_failed
from blockyard.spec.errors import AwayError, BlockyardError, ConnectError
from blockyard.wire.api import FailureGroup, Failures, RunStatus
from blockyard.wire.failures import group_failures
from blockyard.wire.report import counted
from blockyard.wire.states import RunPhase
from blockyard.wire.text import clean

LOOK_EVERY_S = 1.0
PATIENCE_S = 30.0
"""How long `watch` waits for a scheduler that does not answer: a successor may take over."""

DESCRIPTIONS = {
    "status": "Say how far a run is, or how it ended.",
    "watch": "Show how far a run is until it ends; exit status 0: done, 1: failed, cancelled, or paused because"
    " a task failed from its first block on.",
    "failures": "List failed blocks, grouped by their error.",
    "explain": "Say why a block is in the state it is in, and what it waits for.",
}
EXAMPLES = {
    "status": "examples:\n  blockyard status\n  blockyard status run.yaml\n  blockyard status scheduler:8471 --json",
    "watch": "example:\n  blockyard watch http://scheduler:8471",
    "failures": "examples:\n  blockyard failures\n  blockyard failures pipeline.yaml --task smooth --traceback",
    "explain": "example:\n  blockyard explain smooth 0,3,4\n\nINDEX is the place in the grid, an integer an axis.",
}


def prepare(command: str, parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Describe the command; give what runs it."""
    parser.description, parser.epilog = DESCRIPTIONS[command], EXAMPLES[command]
    if command == "explain":
        parser.add_argument("task", metavar="TASK", help="id of the task")
        parser.add_argument("index", metavar="INDEX", type=index_of, help="such as 0,3,4")
    add_where(parser)
    if command == "failures":
        parser.add_argument("--task", default=None, metavar="TASK", help="only of this task")
        parser.add_argument("--traceback", action="store_true", help="with the traceback of the first of each group")
    text = (
        "print each status as a line of JSON, the last one when the run has ended"
        if command == "watch"
        else "print JSON"
    )
    parser.add_argument("--json", action="store_true", help=text)
    return {"status": status, "watch": watch, "failures": failures, "explain": explain}[command]


def index_of(text: str) -> tuple[int, ...]:
    """Read an index, an integer an axis with commas. Raises ArgumentTypeError."""
    try:
        return tuple(int(number) for number in text.strip("()[] ").split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"is '{text}'; it must be integers with commas, such as 0,3,4") from None


# ----- status ---------------------------------------------------------------------------------------------------------


def status(arguments: argparse.Namespace) -> int:
    """Print the status."""
    place = place_of(arguments.where)
    now, running = _status(place, arguments)
    if arguments.json:
        print_json(now)
        return DONE
    print_status(now)
    if not running and not now.is_over:
        print(f"to go on: {how_to_go_on(place)}")
    elif not running and now.state == RunPhase.CANCELLED:
        resume = shlex.join(["blockyard", "resume", *([arguments.where] if arguments.where else [])])
        print(f"to go on after all: {resume} && {how_to_go_on(place)}")
    return DONE


def _status(place: Place, arguments: argparse.Namespace) -> tuple[RunStatus, bool]:
    """Return the status of a run, and whether it is running."""
    control = living(place, arguments)
    if control is not None:
        return control.status(), True
    assert isinstance(place, Path)
    if (result := ended(place)) is not None:
        found = result.status
    else:
        with reach(place, arguments) as opened:  # it was killed: what it had reached is in its Redis
            found = opened.status()
    return found if found.has_stopped else _stopped(found), False


def _stopped(status: RunStatus) -> RunStatus:
    """Say of a run that nobody works on what is left to say: the file is from a moment when somebody did."""
    nothing = dict.fromkeys(("eta_s", "eta_p10_s", "eta_p90_s"))
    tasks = [
        msgspec.structs.replace(task, leased=0, pending=task.pending + task.leased, rate=None, **nothing)
        for task in status.tasks
    ]
    return msgspec.structs.replace(status, state=RunPhase.STOPPED, tasks=tasks, workers=[], **nothing)


def watch(arguments: argparse.Namespace) -> int:
    """Show the status until the run ends."""
    place = place_of(arguments.where)
    control = living(place, arguments)
    if control is None:
        now, _ = _status(place, arguments)
        if arguments.json:
            print_json(now, indent=0)
        else:
            print_status(now)
        return DONE if now.state == RunPhase.DONE else FAILED
    shown = progress_on(sys.stdout if arguments.json else sys.stderr, as_json=arguments.json)
    now = _watch(place, control, shown, progress_on(sys.stderr, live=False).say if arguments.json else shown.say)
    if not arguments.json:
        print_status(now)
    return DONE if now.state == RunPhase.DONE else FAILED


def _watch(place: Place, control: Control, shown: Progress, say: Callable[[str], None]) -> RunStatus:
    """Show the run until it ends, and `say` what a person should know; give the last status."""
    silent_since_s: float | None = None
    with shown as progress:
        while True:
            try:
                now, silent_since_s = control.status(), None
            except ConnectError as error:
                if isinstance(place, Path) and (result := ended(place)) is not None:
                    progress.show(result.status)
                    return result.status
                if not isinstance(error, AwayError):  # to wait would not help
                    raise
                if silent_since_s is None:
                    silent_since_s = time.monotonic()
                    say(f"{error}; waiting for it")
                if time.monotonic() - silent_since_s > PATIENCE_S:
                    raise
            else:
                progress.show(now, control.failures)
                if now.has_stopped:
                    return now
            time.sleep(LOOK_EVERY_S)


# ----- failures -------------------------------------------------------------------------------------------------------


def failures(arguments: argparse.Namespace) -> int:
    """Print what failed."""
    found = _failures(place_of(arguments.where), arguments)
    if arguments.json:
        print_json(found)
        return DONE
    if not found.attempts:
        print("no block has failed")
        return DONE
    print(f"{counted(found.failed, 'block')} failed for good")
    for group in found.groups:
        print("\n".join(_group_lines(group, traceback=arguments.traceback)))
    return DONE


def _failures(place: Place, arguments: argparse.Namespace) -> Failures:
    control = living(place, arguments)
    if control is not None:
        return control.failures(arguments.task)
    assert isinstance(place, Path)
    result = ended(place)
    if result is None:
        with reach(place, arguments) as opened:
            return opened.failures(arguments.task)
    known = [task.id for task in result.status.tasks]
    if arguments.task is not None and arguments.task not in known:
        raise BlockyardError(f"run '{result.status.run}' has no task '{arguments.task}'; it has {', '.join(known)}")
    return group_failures([one for one in result.failures if arguments.task in (None, one.task)])


def _group_lines(group: FailureGroup, *, traceback: bool) -> list[str]:
    example = group.example
    count = f"{counted(group.failed, 'block')} failed"
    tried = counted(group.attempts, "attempt")
    lines = ["", f"{group.task}: {count if group.failed else tried}: {what_failed(group)}"]
    lines += [f"  first: {list(example.index)} (block {example.block_id}), attempt {example.attempt}"]
    if example.log:
        lines += [f"  log: {example.log}"]
    if traceback and example.traceback:
        lines += ["  " + line for line in clean(example.traceback).rstrip().splitlines()]
    return lines


# ----- explain --------------------------------------------------------------------------------------------------------


def explain(arguments: argparse.Namespace) -> int:
    """Print why a block is in the state it is in."""
    with reach(place_of(arguments.where), arguments) as control:
        found = control.explain(arguments.task, arguments.index)
    if arguments.json:
        print_json(found)
    else:
        print(explanation_text(found))
    return DONE


def explanation_text(found: Explained) -> str:
    """Return an explanation as a few lines."""
    index = ",".join(map(str, found.index))
    lines = [f"{found.task} {index} (block {found.block_id}): {found.state}", found.text]
    lines += [f"reads {found.read_roi}, writes {found.write_roi}"]
    lines += [f"  waits for {what}" for what in found.waits_for]
    lines += [f"  attempt {failed.attempt}: {what_failed(failed)}" for failed in found.failures]
    return "\n".join(lines)

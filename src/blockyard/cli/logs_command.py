"""`blockyard logs`: what a block wrote, in each of its attempts."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from blockyard.cli.app import DONE, FAILED
from blockyard.cli.find import add_where, living, place_of, reach, spec_in
from blockyard.cli.pod_logs import show
from blockyard.cli.watch_commands import index_of
from blockyard.client.output import Section, sections_of
from blockyard.local.result import what_failed
from blockyard.plan.grid import Grid
from blockyard.spec.errors import BlockyardError, SpecError, nearest
from blockyard.spec.model import TaskSpec
from blockyard.wire.states import BlockState
from blockyard.wire.text import clean

LAST_ATTEMPTS = 4
PIECE_BYTES = 2**20
COLOUR = re.compile(r"(\x1b\[[\d;]*m)")


def prepare(_: str, parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Describe the command; give its handler."""
    parser.description = (
        "Prints what a block wrote (print, logging, programs that it started) in its last attempts; exit status 1, and"
        " why, where there is nothing. Of a run on Kubernetes: those lines of JSON from the pods that ran it."
    )
    parser.epilog = "examples:\n  blockyard logs smooth 0,3,4\n  blockyard logs smooth 0,3,4 --last 1"
    parser.add_argument("task", metavar="TASK", help="id of the task")
    parser.add_argument("index", metavar="INDEX", type=index_of, help="such as 0,3,4")
    add_where(parser)
    parser.add_argument("--last", type=int, default=LAST_ATTEMPTS, metavar="N", help="so many attempts (default: 4)")
    return _logs


def _logs(arguments: argparse.Namespace) -> int:
    place = place_of(arguments.where)
    if isinstance(place, str):
        return _elsewhere(place, arguments)
    task = _task(place, arguments.task)
    block = _block(task, arguments.index)
    found = list(sections_of(place / "logs", task.id, block))[-max(arguments.last, 1) :]
    for log, _ in found:
        if not log.exists():
            raise SpecError(f"the log of {task.id} {_text(arguments.index)} is gone: {log} was moved or deleted")
    for log, section in found:
        _show(log, section, arguments.index, _end_of(place, section, arguments))
    if not found:
        print(f"{task.id} {_text(arguments.index)} {_why_nothing(place, arguments)}", file=sys.stderr)
    return DONE if any(_length(log, section) for log, section in found) else FAILED


def _end_of(place: Path, section: Section, arguments: argparse.Namespace) -> str:
    """Say how an attempt ended where its process ended with it, and whether one runs that has no end yet."""
    if section.end >= 0:
        return section.how
    control = living(place, arguments)
    now = None if control is None else control.explain(arguments.task, arguments.index)
    runs = now is not None and (now.state, now.attempt) == (BlockState.LEASED, section.attempt)
    return "it runs" if runs else "cut off: its worker was killed"


SILENT: dict[str, str] = {
    BlockState.PENDING: "has not run yet: it {text}",
    BlockState.READY: "has not run yet: it {text}",
    BlockState.LEASED: "has written nothing so far: it {text}",
    BlockState.DONE: "wrote nothing: it {text}",
    BlockState.SKIPPED: "wrote nothing: it {text}",
    BlockState.FAILED: "wrote nothing: it {text}{why}",
    BlockState.ORPHANED: "never ran: it {text}",
    BlockState.OUTSIDE: "never ran: it {text}",
}


def _why_nothing(place: Path, arguments: argparse.Namespace) -> str:
    """Say why there is nothing to print, as the scheduler knows it (one is started to be asked where none runs)."""
    try:
        with reach(place, arguments) as control:
            now = control.explain(arguments.task, arguments.index)
    except BlockyardError as error:
        return f"wrote nothing into {place / 'logs'}; whether it has run can't be told: {error}"
    why = f": {what_failed(now.failures[-1])}" if now.failures else ""
    return SILENT[now.state].format(text=now.text.partition(f" of {now.task} ")[2], why=why)


def _task(place: Path, name: str) -> TaskSpec:
    tasks = {task.id: task for task in spec_in(place).pipeline.tasks}
    if name not in tasks:
        raise SpecError(f"this run has no task '{name}'{nearest(name, tasks)}")
    return tasks[name]


def _block(task: TaskSpec, index: tuple[int, ...]) -> int:
    grid = Grid.of(task)
    try:
        return grid.id_of(index)
    except (IndexError, ValueError):
        raise SpecError(
            f"task '{task.id}' has no block {_text(index)}: its grid is {_text(grid.shape)}, counted from 0"
        ) from None


def _text(index: tuple[int, ...]) -> str:
    return ",".join(map(str, index))


def _show(log: Path, section: Section, index: tuple[int, ...], end: str) -> None:
    """Print a section as it is, below a line that says what it is."""
    said = f" ({end})" if end else ""
    silent = "" if _length(log, section) else ", which wrote nothing"
    print(f"--- {section.task} {_text(index)}, attempt {section.attempt}{said}{silent}: {log}", flush=True)
    left, piece = _length(log, section), b"\n"
    write = _write_shown if sys.stdout.isatty() else sys.stdout.buffer.write
    with log.open("rb") as file:
        file.seek(section.begin)
        while left > 0 and (piece := file.read(min(left, PIECE_BYTES))):
            write(piece)
            left -= len(piece)
    if not piece.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.flush()


def _write_shown(piece: bytes) -> None:
    """Write a piece for a person: colours are kept, nothing else that a terminal would take for a command."""
    for n, part in enumerate(COLOUR.split(piece.decode("utf-8", "backslashreplace"))):
        sys.stdout.write(part if n % 2 else clean(part))
    sys.stdout.flush()


def _length(log: Path, section: Section) -> int:
    """Count the bytes of a section, so far where it has no end."""
    return (section.end if section.end >= 0 else log.stat().st_size) - section.begin


def _elsewhere(place: str, arguments: argparse.Namespace) -> int:
    with reach(place, arguments) as control:
        return show(control.worker_log(arguments.task, arguments.index))

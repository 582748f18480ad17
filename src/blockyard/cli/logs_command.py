"""`blockyard logs`: what a block wrote, in each of its attempts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from blockyard.cli.app import DONE, FAILED
from blockyard.cli.find import add_where, place_of, reach, spec_in
from blockyard.cli.pod_logs import show
from blockyard.cli.watch_commands import index_of
from blockyard.client.output import Section, sections_of
from blockyard.plan.grid import Grid
from blockyard.spec.errors import SpecError, nearest
from blockyard.spec.model import TaskSpec

LAST_ATTEMPTS = 4
PIECE_BYTES = 2**20


def prepare(_: str, parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Describe the command; give its handler."""
    parser.description = (
        "Prints what a block wrote (print, logging, programs that it started) in its last attempts; exit status 1 where"
        " it wrote nothing. Of a run on Kubernetes: those lines of JSON from the pods that ran it."
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
    for log, section in found:
        _show(log, section, arguments.index)
    if not found:
        print(
            f"{task.id} {_text(arguments.index)} wrote nothing into {place / 'logs'}, or has not run", file=sys.stderr
        )
    return DONE if found else FAILED


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


def _show(log: Path, section: Section, index: tuple[int, ...]) -> None:
    """Print a section as it is, below a line that says what it is."""
    cut = " (it runs, or was killed)" if section.end < 0 else ""
    print(f"--- {section.task} {_text(index)}, attempt {section.attempt}{cut}: {log}", flush=True)
    end = section.end if section.end >= 0 else log.stat().st_size
    with log.open("rb") as file:
        file.seek(section.begin)
        while (left := end - file.tell()) > 0 and (piece := file.read(min(left, PIECE_BYTES))):
            sys.stdout.buffer.write(piece)
    sys.stdout.flush()


def _elsewhere(place: str, arguments: argparse.Namespace) -> int:
    with reach(place, arguments) as control:
        return show(control.worker_log(arguments.task, arguments.index))

"""`blockyard logs`: what one block wrote, found in the log files of the slots that ran it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from blockyard.cli.app import DONE, FAILED
from blockyard.cli.find import add_where, place_of, reach, spec_in
from blockyard.cli.watch_commands import index_of
from blockyard.plan.grid import Grid
from blockyard.spec.errors import BlockyardError, SpecError, nearest
from blockyard.spec.model import RunSpec


@dataclass(frozen=True, slots=True)
class Piece:
    """What a block wrote in one attempt."""

    log: Path
    begin: int
    end: int
    attempt: int


def prepare(_: str, parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Describe the command; give its handler."""
    parser.description = (
        "Print what a block wrote to standard output and standard error, attempt by attempt. Of a run on this machine;"
        " for one on a cluster it says which worker ran the block, and how to ask Kubernetes for its log."
    )
    parser.epilog = "examples:\n  blockyard logs smooth 0,3,4\n  blockyard logs smooth 0,3,4 pipeline.yaml"
    parser.add_argument("task", metavar="TASK", help="id of the task")
    parser.add_argument("index", metavar="INDEX", type=index_of, help="such as 0,3,4")
    add_where(parser)
    return _logs


def _logs(arguments: argparse.Namespace) -> int:
    place = place_of(arguments.where)
    if not isinstance(place, Path):
        return _elsewhere(arguments)
    block = _block_id(spec_in(place), arguments.task, arguments.index)
    found = list(pieces(place / "logs", arguments.task, block))
    for piece in found:
        print(f"--- attempt {piece.attempt}, {piece.log.name} from byte {piece.begin}")
        with piece.log.open("rb") as file:
            file.seek(piece.begin)
            print(file.read(piece.end - piece.begin).decode(errors="replace"), end="")
    if not found:
        print(f"block {arguments.index} of {arguments.task} wrote nothing in {place / 'logs'}, or has not ended")
    return DONE if found else FAILED


def _block_id(run: RunSpec, task_id: str, index: tuple[int, ...]) -> int:
    """Give the id of a block. Raises SpecError for one that the run does not have."""
    tasks = {task.id: task for task in run.pipeline.tasks}
    if task_id not in tasks:
        raise SpecError(f"the run has no task '{task_id}'{nearest(task_id, tasks)}")
    try:
        return Grid.of(tasks[task_id]).id_of(index)
    except (IndexError, ValueError) as error:
        raise SpecError(f"task '{task_id}' has no block {index}: {error}") from None


def pieces(logs: Path, task: str, block: int) -> Iterator[Piece]:
    """Give what a block wrote, by attempt, from the indexes beside the slots' log files."""
    found = []
    for index in sorted(logs.glob("*.log.index")):
        for line in index.read_text(encoding="utf-8").splitlines():
            begin, end, attempt, number, of_task = line.split(" ", 4)
            if of_task == task and int(number) == block:
                found.append(Piece(index.with_suffix(""), int(begin), int(end), int(attempt)))
    yield from sorted(found, key=lambda piece: piece.attempt)


def _elsewhere(arguments: argparse.Namespace) -> int:
    """Say which worker ran the block, and where its log is."""
    with reach(place_of(arguments.where), arguments) as control:
        told = control.explain(arguments.task, arguments.index)
    if not told.worker:
        raise BlockyardError(f"{told.text}; which worker ran it is not known")
    pod = told.worker.split("/")[0].rsplit("-", 2)[0]
    print(
        f"{told.text}\nits worker's log, if that is a pod: kubectl logs {pod} (and with --previous, before a restart)"
    )
    return DONE

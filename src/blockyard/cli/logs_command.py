"""`blockyard logs`: what one block wrote, found in the log files of the slots that ran it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from blockyard.cli.app import DONE, FAILED
from blockyard.cli.find import add_where, place_of, reach, spec_in
from blockyard.cli.watch_commands import index_of
from blockyard.plan.grid import Grid
from blockyard.spec.errors import SpecError, nearest
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
        "Print what a block wrote to standard output and standard error, attempt by attempt. Of a run on Kubernetes:"
        " what its user code logged, as lines of JSON from the pod that ran it."
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
    """Print what the pod that ran the block says about it: lines of JSON that name task and block."""
    with reach(place_of(arguments.where), arguments) as control:
        told = control.worker_log(arguments.task, arguments.index)
    lines = told["text"].splitlines()
    found = [line for line in lines if _is_about(line, arguments.task, told["block_id"])]
    print(f"--- pod {told['pod']}, {len(found):,} of its last {len(lines):,} lines")
    print("".join(f"{line}\n" for line in found), end="")
    if not found:
        print(
            f"none of them says that it is about this block (what is logged does, what is printed does not); all of"
            f" them: kubectl logs {told['pod']}"
        )
    return DONE if found else FAILED


def _is_about(line: str, task: str, block: int) -> bool:
    """Whether a line of a log is JSON that names the block."""
    try:
        said = json.loads(line)
    except ValueError:
        return False
    return isinstance(said, dict) and (said.get("task"), said.get("block")) == (task, block)

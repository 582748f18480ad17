"""What the slots themselves saw: a line when a block begins, just before it writes, and when it has written.

Each process appends to a file of its own, in one write a line. All clocks are the machine's one monotonic clock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from blockyard.spec.block import Block
from blockyard.testing.order import Name


class Witness:
    """Writes down what this process does."""

    def __init__(self, folder: Path) -> None:
        """Write into a new file in `folder`, which is made where it is missing."""
        folder.mkdir(exist_ok=True)
        self._file = os.open(folder / f"{os.getpid()}-{time.monotonic_ns()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def begins(self, block: Block) -> None:
        """A block begins."""
        self._note("begins", block)

    def writes(self, block: Block) -> None:
        """It will write now."""
        self._note("writes", block)

    def ends(self, block: Block) -> None:
        """It has written."""
        self._note("ends", block)

    def _note(self, what: str, block: Block) -> None:
        line = f"{what} {time.monotonic_ns()} {block.task_id} {block.block_id} {block.attempt}\n"
        os.write(self._file, line.encode())


@dataclass(slots=True)
class Execution:
    """One block, run once by one process."""

    name: Name
    attempt: int
    began_s: float
    last_s: float
    """The last sign of it: its end, or where it was killed the last line that it wrote."""
    ended: bool = False


@dataclass(slots=True)
class Overlap:
    """Two executions of which the second began before the first showed its last sign."""

    first: Execution
    second: Execution


@dataclass(slots=True)
class Evidence:
    """All executions of a run."""

    executions: list[Execution] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> Evidence:
        """Read what all processes have written."""
        found = cls()
        for path in sorted(folder.glob("*")):
            found.executions += _executions(path.read_text().splitlines())
        found.executions.sort(key=lambda execution: execution.began_s)
        return found

    def by_name(self) -> dict[Name, list[Execution]]:
        """Return the executions of each block, the earliest first."""
        found: dict[Name, list[Execution]] = {}
        for execution in self.executions:
            found.setdefault(execution.name, []).append(execution)
        return found

    def wasted_s(self) -> float:
        """Return the seconds of executions that were not the last finished one of their block."""
        wasted = 0.0
        for executions in self.by_name().values():
            finished = [execution for execution in executions if execution.ended]
            wasted += sum(e.last_s - e.began_s for e in executions if not finished or e is not finished[-1])
        return wasted

    def overlaps(self, forbidden: Mapping[Name, Iterable[Name]]) -> Iterator[Overlap]:
        """Return what ran at once and must not: a block beside those in `forbidden`, which names itself too (P3)."""
        by_name = self.by_name()
        for second in self.executions:
            for name in forbidden[second.name]:
                for first in by_name.get(name, ()):
                    if first is not second and first.began_s <= second.began_s < first.last_s:
                        yield Overlap(first, second)

    def too_early(self, waits: Mapping[Name, Iterable[Name]]) -> Iterator[tuple[Execution, Name]]:
        """Return what began before a block that it waits for had once ended (P4)."""
        by_name = self.by_name()
        first_end = {
            name: min((e.last_s for e in executions if e.ended), default=float("inf"))
            for name, executions in by_name.items()
        }
        for execution in self.executions:
            for name in waits.get(execution.name, ()):
                if first_end.get(name, float("inf")) > execution.began_s:
                    yield execution, name


def _executions(lines: Iterable[str]) -> Iterator[Execution]:
    """Return the executions of one process; the last one may have been cut off anywhere."""
    current: Execution | None = None
    for line in lines:
        parts = line.split()
        if len(parts) != 5:  # the process was killed while it wrote
            continue
        what, at_ns, task, block_id, attempt = parts
        at_s = int(at_ns) / 1e9
        if what == "begins":
            current = Execution((task, int(block_id)), int(attempt), at_s, at_s)
            yield current
        elif current is not None:
            current.last_s, current.ended = at_s, what == "ends"

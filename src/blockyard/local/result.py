"""How a run ended, and how to say it in a few lines."""

from __future__ import annotations

from pathlib import Path

import msgspec

from blockyard.spec.errors import StoreError
from blockyard.wire.api import FailureGroup, FailureStatus, RunStatus
from blockyard.wire.failures import group_failures
from blockyard.wire.report import counted, duration
from blockyard.wire.states import RunPhase
from blockyard.wire.text import one_line, shorten

MOST_ERRORS = 5
LONGEST_LINE = 400
"""Of an error in the summary; `blockyard failures` has it whole."""


class RunResult(msgspec.Struct, frozen=True):
    """How a run ended."""

    state: str
    """``done``, ``failed`` or ``cancelled``; ``stopped`` where nothing can run what is left, ``paused`` where a task
    failed from its first block on."""
    status: RunStatus
    failures: tuple[FailureStatus, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every block is done or skipped."""
        return self.state == RunPhase.DONE


def read_result(folder: Path) -> RunResult | None:
    """Return how the run in `folder` ended, or None. Raises StoreError for files that can't be read."""
    try:
        status = msgspec.json.decode((folder / "status.json").read_bytes(), type=RunStatus)
        failures = msgspec.json.decode((folder / "failures.json").read_bytes(), type=tuple[FailureStatus, ...])
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise StoreError(f"the result in {folder} cannot be read: {error}") from error
    return RunResult(status.state, status, failures)


CODE_CHANGED = "code_changed"
"""The kind of notice that is about the result, and not only about what goes on."""


def summary(result: RunResult, *, told: bool = False) -> str:
    """Say in a few lines how a run ended, with its errors grouped; who was `told` of its notices needs them no more."""
    tasks = result.status.tasks
    total, done = result.status.total, result.status.finished
    skipped = sum(task.skipped for task in tasks)
    line = f"{result.status.run}: {result.state}, {done:,} of {total:,} blocks"
    line += f" ({skipped:,} were done before)" if skipped else ""
    if result.status.leases_granted:
        line += f" in {duration(result.status.elapsed_s)}"
    elif total and result.state not in {RunPhase.STOPPED, RunPhase.CANCELLED}:
        line += ", all of which ended earlier"
    lines = [line]
    stopped = result.state == RunPhase.STOPPED
    lasting = [notice for notice in result.status.notices if stopped or notice.kind == CODE_CHANGED]
    lines += [f"  {notice.text}" for notice in lasting if not told]
    if not result.ok:
        failed, orphaned = sum(task.failed for task in tasks), sum(task.orphaned for task in tasks)
        if failed or orphaned:
            lines[0] += f"; {failed:,} failed, {orphaned:,} wait for those and never ran"
        lines += failure_lines(result)
        lines += [result.status.reason] if result.status.reason and not told else []
    return "\n".join(lines)


def failure_lines(result: RunResult, most: int = MOST_ERRORS) -> list[str]:
    """Return one line for each kind of error, the most frequent first."""
    groups = group_failures([failure for failure in result.failures if failure.final]).groups
    lines = []
    for group in groups[:most]:
        others = f" and {group.failed - 1:,} more" if group.failed > 1 else ""
        log = f" (log: {group.example.log})" if group.example.log else ""
        lines.append(
            f"  {group.task} {list(group.example.index)}{others}: {shorten(what_failed(group), LONGEST_LINE)}{log}"
        )
    if len(groups) > most:
        lines.append(f"  ... and {counted(len(groups) - most, 'more kind')} of error")
    return lines


def what_failed(failure: FailureStatus | FailureGroup) -> str:
    """Return kind and message of an error on one line."""
    return one_line(f"{failure.kind}: {failure.message}")

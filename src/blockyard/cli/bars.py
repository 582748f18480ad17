"""A run drawn for a terminal: a bar a task, the workers, and what went wrong last, as wide as there is room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.local.result import what_failed
from blockyard.wire.api import FailureGroup, RunStatus, TaskStatus
from blockyard.wire.report import counted, duration, share, span
from blockyard.wire.states import RunPhase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.text import Text

WIDE = 110
"""Columns from which on there is room for all."""
MOST_NOTICES = 5
"""Below the bars; `blockyard status` lists all."""


def drawing(status: RunStatus, errors: Sequence[FailureGroup], width: int) -> Group:
    """Draw the run in so many columns; `errors` in the order in which they are shown. Notices are shown whole."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    wide = width >= WIDE
    rows = [(task, _cells(task, wide=wide)) for task in status.tasks]
    widths = [max(map(len, column)) for column in zip(*(cells for _, cells in rows), strict=True)]
    if wide and widths:  # where the notes stand in the last column
        widths[-1] = max(widths[-1], *(len(_notes(task).plain) for task in status.tasks))
    bar = 24 if wide else 8
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(8, width - bar - sum(widths) - 2 * 6))
    table.add_column(width=bar)
    for at, size in enumerate(widths):
        table.add_column(no_wrap=True, justify="left" if at == len(widths) - 1 else "right", min_width=size)
    for task, cells in rows:
        table.add_row(Text(task.id, style="bold"), _bar(task), *map(Text, cells))
        if wide and (notes := _notes(task)).plain:
            table.add_row("", "", "", "", "", notes)
    narrow = [_line(task, _notes(task)) for task in status.tasks if _notes(task).plain] if not wide else []
    lines = [*narrow, Text(_summary(status), style="dim"), *(_error(group) for group in errors)]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    notices = [Text(notice.text, style="yellow") for notice in status.notices[:MOST_NOTICES]]
    return Group(table, *lines, *notices)


def _cells(task: TaskStatus, *, wide: bool) -> tuple[str, ...]:
    """Return counts, share, rate and end."""
    if not task.total:
        return "no blocks", "", "", "done"
    rate = f"{task.rate:,.1f}/s" if task.rate and not task.over else ""
    return f"{task.finished:,}/{task.total:,}", share(task.finished, task.total), rate, _end(task, wide=wide)


def _bar(task: TaskStatus) -> ProgressBar:
    from rich.progress_bar import ProgressBar

    style = "red" if task.failed or task.orphaned else "green"
    return ProgressBar(
        total=max(task.total, 1),
        completed=task.finished if task.total else 1,
        complete_style=style,
        finished_style=style,
    )


def _end(task: TaskStatus, *, wide: bool) -> str:
    if task.over:
        return "over" if task.failed or task.orphaned else "done"
    if task.eta_s is None:
        return "ETA unknown"
    rough = span(task.eta_p10_s, task.eta_p90_s)
    return f"ETA {duration(task.eta_s)} ({rough})" if wide and rough else f"ETA {rough or duration(task.eta_s)}"


def _notes(task: TaskStatus) -> Text:
    """Return what is out of the ordinary."""
    from rich.text import Text

    notes = [(f"{task.skipped:,} skipped", "")] if task.skipped else []
    notes += [(f"{task.retries:,} tried again", "yellow")] if task.retries else []
    notes += [(f"{task.failed:,} failed", "red")] if task.failed else []
    notes += [(f"{task.orphaned:,} never ran", "red")] if task.orphaned else []
    return Text(", ").join(Text(text, style=style) for text, style in notes)


def _line(task: TaskStatus, notes: Text) -> Text:
    from rich.text import Text

    return Text.assemble(f"{task.id}: ", notes)


def _summary(status: RunStatus) -> str:
    online = [worker for worker in status.workers if worker.connected and worker.slots]
    busy, slots = sum(worker.busy for worker in online), sum(worker.slots for worker in online)
    line = f"{status.run}: {status.state}, {duration(status.elapsed_s)} elapsed"
    if status.is_over:
        return line
    line += f", {counted(len(online), 'worker')}, {busy} of {slots} slots busy"
    if status.quiet_s > 0:
        line += f", nothing is leased for {duration(status.quiet_s)}: Redis may have forgotten what runs"
    return f"{line}, ETA {duration(status.eta_s)}" if status.state == RunPhase.RUNNING else line


def _error(group: FailureGroup) -> Text:
    from rich.text import Text

    times = f" ({group.attempts:,} times)" if group.attempts > 1 else ""
    return Text.assemble((f"{group.task}{times}: ", "red"), what_failed(group))

"""A run while it runs: live bars on a terminal, the plain status report elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from blockyard.core.report import duration, status_report
from blockyard.core.status import RunStatus, TaskStatus

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live
    from rich.progress_bar import ProgressBar

REPORT_EVERY_S = 10.0


class Progress(Protocol):
    """Takes a status from time to time, and lines that a person should see."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def show(self, status: RunStatus) -> None:
        """Show how far the run is."""

    def say(self, line: str) -> None:
        """Print a line."""


def progress_on(stream: TextIO, *, live: bool | None = None) -> Progress:
    """Give live bars where `stream` is a terminal (or `live` says so), else plain lines."""
    return LiveProgress(stream) if (stream.isatty() if live is None else live) else PlainProgress(stream)


class PlainProgress:
    """The status report every 10 s, for logs and pipes."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._next_s = time.monotonic() + REPORT_EVERY_S

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.flush()

    def show(self, status: RunStatus) -> None:
        """Print the report when it is due."""
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + REPORT_EVERY_S
            self.say(status_report(status))

    def say(self, line: str) -> None:
        """Print a line."""
        print(line, file=self._stream, flush=True)


class LiveProgress:
    """A bar for each task, drawn anew at each status."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        from rich.console import Console  # 60 ms that a plain run does not need
        from rich.live import Live

        self._live: Live = Live(console=Console(file=stream), auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, status: RunStatus) -> None:
        """Draw the bars."""
        self._live.update(_drawing(status), refresh=True)

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self._live.console.print(line, markup=False, highlight=False)


def _drawing(status: RunStatus) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for task in status.tasks:
        table.add_row(Text(task.id, style="bold"), _bar(task), *_counts(task))
    slots = sum(worker.slots for worker in status.workers if worker.connected)
    busy = sum(worker.busy for worker in status.workers if worker.connected)
    line = f"{status.run}: {status.state}, {busy} of {slots} slots busy, {duration(status.elapsed_s)} elapsed"
    if status.state == "running":
        line += f", ETA {duration(status.eta_s)}"
    return Group(table, Text(line, style="dim"))


def _bar(task: TaskStatus) -> ProgressBar:
    from rich.progress_bar import ProgressBar

    ended = task.done + task.skipped + task.failed + task.orphaned
    style = "red" if task.failed or task.orphaned else "green"
    return ProgressBar(total=max(task.total, 1), completed=ended if task.total else 1, width=30, complete_style=style)


def _counts(task: TaskStatus) -> tuple[str, ...]:
    ended = task.done + task.skipped
    share = f"{100 * ended / task.total:.1f} %" if task.total else "100.0 %"
    notes = [f"{task.leased:,} running"] if task.leased else []
    notes += [f"{task.skipped:,} skipped"] if task.skipped else []
    notes += [f"[red]{task.failed:,} failed[/red]"] if task.failed else []
    notes += [f"[red]{task.orphaned:,} orphaned[/red]"] if task.orphaned else []
    rate = f"{task.rate:,.1f}/s" if task.rate and not task.over else ""
    eta = "" if task.over else f"ETA {duration(task.eta_s)}"
    return f"{ended:,}/{task.total:,}", share, rate, eta, ", ".join(notes)

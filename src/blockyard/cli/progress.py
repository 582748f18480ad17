"""A run while it runs: live bars on a terminal, the plain status report elsewhere, JSON lines for a script."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO, cast

import msgspec

from blockyard.cli.bars import drawing
from blockyard.local.echo import SteadyStream
from blockyard.spec.errors import BlockyardError
from blockyard.wire.api import FailureGroup, Failures, RunStatus
from blockyard.wire.report import status_report
from blockyard.wire.text import clean

if TYPE_CHECKING:
    from rich.live import Live

REPORT_EVERY_S = 10.0
MOST_ERRORS = 3


class Progress(Protocol):
    """Takes a status from time to time, and lines that a person should see."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def show(self, status: RunStatus, failures: Callable[[], Failures] | None = None) -> None:
        """Show how far the run is; `failures` is asked when more attempts have failed than before."""

    def say(self, line: str) -> None:
        """Print a line."""


def progress_on(stream: TextIO, *, live: bool | None = None, as_json: bool = False) -> Progress:
    """Return JSON lines if asked for; live bars where `stream` is a terminal (or `live` says so); else plain lines."""
    if as_json:
        return JsonProgress(stream)
    return LiveProgress(stream) if (SteadyStream(stream).isatty() if live is None else live) else PlainProgress(stream)


class PlainProgress:
    """The status report every 10 s, for logs and pipes; what a person should know at once."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = cast("TextIO", SteadyStream(stream))
        self._next_s = time.monotonic() + REPORT_EVERY_S
        self._told: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.flush()

    def show(self, status: RunStatus, failures: Callable[[], Failures] | None = None) -> None:  # noqa: ARG002
        """Print notices that are new, and the report when it is due."""
        for notice in status.notices:
            if notice.text not in self._told:
                self._told.add(notice.text)
                self.say(f"note: {notice.text}")
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + REPORT_EVERY_S
            self.say(status_report(msgspec.structs.replace(status, notices=[])))  # they have been said

    def say(self, line: str) -> None:
        """Print a line."""
        self._told.add(line.removeprefix("warning: "))
        print(clean(line), file=self._stream, flush=True)


class JsonProgress(PlainProgress):
    """Each status as one line of JSON; what a person should see as ``{"message": ...}``."""

    def show(self, status: RunStatus, failures: Callable[[], Failures] | None = None) -> None:  # noqa: ARG002
        """Print the status."""
        self._print(status)

    def say(self, line: str) -> None:
        """Print a line."""
        self._print({"message": line})

    def _print(self, value: object) -> None:
        print_json(value, self._stream, indent=0)
        self._stream.flush()


class LiveProgress:
    """A bar for each task, drawn anew at each status."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        from rich.console import Console  # 60 ms that a plain run does not need
        from rich.live import Live

        console = Console(file=cast("TextIO", SteadyStream(stream)))
        self._live: Live = Live(console=console, auto_refresh=False, transient=False)
        self._errors = LastErrors()
        self._told: set[str] = set()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, status: RunStatus, failures: Callable[[], Failures] | None = None) -> None:
        """Draw the bars."""
        errors = self._errors.of(status, failures)
        status = msgspec.structs.replace(status, notices=[one for one in status.notices if one.text not in self._told])
        self._live.update(drawing(status, errors, self._live.console.width), refresh=True)

    def say(self, line: str) -> None:
        """Print a line above the bars; a warning is not repeated among them."""
        self._told.add(line.removeprefix("warning: "))
        self._live.console.print(clean(line), markup=False, highlight=False, emoji=False)


class LastErrors:
    """Errors of a run, those that came last first; asks for them only when there are more."""

    def __init__(self) -> None:
        self._seen = 0
        self._groups: list[FailureGroup] = []

    def of(self, status: RunStatus, failures: Callable[[], Failures] | None) -> Sequence[FailureGroup]:
        """Return the first few."""
        count = sum(task.failed + task.retries for task in status.tasks)
        if count > self._seen and failures is not None:
            try:
                self._take(failures().groups)
            except BlockyardError:  # the scheduler is busy or being started again: with the next status
                return self._groups[:MOST_ERRORS]
            self._seen = count
        return self._groups[:MOST_ERRORS]

    def _take(self, groups: Sequence[FailureGroup]) -> None:
        """Put those that have grown first, and leave the others in their order."""
        before = {_name(group): (place, group.attempts) for place, group in enumerate(self._groups)}

        def rank(group: FailureGroup) -> int:
            place, attempts = before.get(_name(group), (0, 0))
            return -1 if group.attempts > attempts else place

        self._groups = sorted(groups, key=rank)


def _name(group: FailureGroup) -> tuple[str, str, str]:
    return group.task, group.kind, group.message


def print_json(value: object, stream: TextIO | None = None, indent: int = 2) -> None:
    """Print a struct as JSON (0: on one line), which stays JSON also where the stream's encoding is not UTF-8."""
    stream = stream or sys.stdout
    text = msgspec.json.format(msgspec.json.encode(value), indent=indent).decode()
    if not text.isascii() and (getattr(stream, "encoding", "") or "").lower().replace("-", "") != "utf8":
        text = json.dumps(json.loads(text), indent=indent or None)
    print(text, file=stream)


def print_status(status: RunStatus) -> None:
    """Print the status report on standard output; bars in its place on a terminal that is too narrow for it."""
    report = status_report(status).splitlines()
    width = shutil.get_terminal_size().columns
    if not sys.stdout.isatty() or max(map(len, report)) <= width:
        print("\n".join(report))
        return
    from rich.console import Console

    bars = drawing(msgspec.structs.replace(status, notices=[]), (), width)
    Console(file=sys.stdout, width=width, highlight=False).print(bars)
    for line in report[2 + len(status.tasks) :]:  # pools and notices, all of them
        print(line)

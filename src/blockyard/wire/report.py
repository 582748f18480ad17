"""The status report: a run in a few lines of text, for a log and for a terminal without colours."""

from __future__ import annotations

import math

from blockyard.wire.api import PoolStatus, RunStatus, TaskStatus
from blockyard.wire.states import RunPhase

UNITS = ((1, "s", 100), (60, "min", 100), (3600, "h", 72), (86400, "d", math.inf))
"""Seconds, name, and up to how many of it are given in it."""


def duration(seconds: float | None) -> str:
    """Return a time for a person, in its two largest units; None is "unknown".

    >>> duration(4000), duration(200), duration(59.6), duration(0.2), duration(None)
    ('1 h 7 min', '3 min 20 s', '1 min', '0 s', 'unknown')
    """
    if seconds is None or not math.isfinite(seconds):
        return "unknown"
    whole = round(seconds)
    for limit, (size, name), (smaller, its_name) in (
        (3600, (60, "min"), (1, "s")),
        (86400, (3600, "h"), (60, "min")),
        (math.inf, (86400, "d"), (3600, "h")),
    ):
        rounded = round(whole / smaller) * smaller
        if rounded < size:
            return f"{rounded} {its_name}"
        if rounded < limit:
            first, second = divmod(rounded, size)
            return f"{first} {name} {second // smaller} {its_name}" if second else f"{first} {name}"
    raise AssertionError("the last unit has no limit")


def span(low_s: float | None, high_s: float | None) -> str:
    """Return a range of time for a person, in one unit and with two digits; "" where it is unknown.

    >>> span(228, 300), span(40, 61), span(4000, 9000), span(6e5, 1e6), span(None, None)
    ('3.8 to 5 min', '40 to 61 s', '1.1 to 2.5 h', '6.9 to 12 d', '')
    """
    if low_s is None or high_s is None:
        return ""
    size, unit = next((size, unit) for size, unit, most in UNITS if high_s < most * size)
    low, high = (
        f"{seconds / size:.1f}".removesuffix(".0") if seconds / size < 9.95 else f"{seconds / size:.0f}"
        for seconds in (low_s, high_s)
    )
    return f"{low} to {high} {unit}" if low != high else f"{high} {unit}"


def counted(n: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "worker"), counted(1200, "worker")
    ('1 worker', '1,200 workers')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def share(part: int, whole: int) -> str:
    """Return a part of a whole in percent; 100 % is said of all of it only, 0 % of none only.

    >>> share(0, 7), share(1, 3), share(9996, 10000), share(1, 10**7), share(7, 7), share(0, 0)
    ('0 %', '33.3 %', '99.9 %', '< 0.1 %', '100 %', '100 %')
    """
    if part >= whole:
        return "100 %"
    tenths = min((2000 * part + whole) // (2 * whole), 999)
    return f"{tenths // 10}.{tenths % 10} %" if tenths else "< 0.1 %" if part else "0 %"


def unfinished(status: RunStatus) -> str:
    """Return what of a run's blocks is over without being finished, as ``7 failed, 10 never run``; "" for none."""
    failed, orphaned = (sum(getattr(task, name) for task in status.tasks) for name in ("failed", "orphaned"))
    parts = [f"{failed:,} failed"] if failed else []
    return ", ".join([*parts, f"{orphaned:,} never {'ran' if status.is_over else 'run'}"] if orphaned else parts)


def status_report(status: RunStatus) -> str:
    """Return one line of the run and a table with a line for each task.

    The columns: blocks in all; workers asked for and online; finished (skipped or succeeded); failed; processing;
    pending, which are all that still wait; orphaned, which never run; the time to the end by the plain rule, blocks
    left over blocks a second of the last 2 minutes; and the time to the end as we think, with its range (p10 to p90).
    Below it stand the pools on Kubernetes, and what a person should know.
    """
    lines = [_headline(status)]
    header = ("task", "blocks", "workers", "finished", "skipped", "succeeded", "failed", "processing", "pending")
    rows: list[tuple[str, ...]] = [(*header, "orphaned", "at this rate", "ETA", "range")]
    rows += [_row(task, status) for task in status.tasks]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        first, *rest = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  " + "  ".join([first, *rest]).rstrip())
    return "\n".join([*lines, *map(_pool_line, status.pools), *(f"  note: {notice.text}" for notice in status.notices)])


def _pool_line(pool: PoolStatus) -> str:
    """Say how a pool stands on Kubernetes, and why it is not as it should be."""
    who = {"auto": "", "person": ", set by a person", "nobody": ", not scaled here"}[pool.decides]
    line = f"  pool {pool.pool}: {pool.ready:,} of {pool.replicas:,} workers ready{who}; {pool.desired:,} of use"
    if pool.pending:
        line += f"; {pool.pending:,} pending"
    return "; ".join([line, *pool.reasons, *([pool.error] if pool.error else [])])


def _headline(status: RunStatus) -> str:
    done = (
        f"{share(status.finished, status.total)} of {counted(status.total, 'block')}" if status.total else "no blocks"
    )
    if rest := unfinished(status):
        done += f" ({rest})"
    online = sum(worker.slots for worker in status.workers if worker.connected)  # as many blocks can run at once
    line = f"{status.run}: {status.state}, {done}, {counted(online, 'worker')} online"
    line += f", {duration(status.elapsed_s)} elapsed"
    if status.quiet_s > 0:
        line += f", nothing is leased for {duration(status.quiet_s)} (Redis may have forgotten what runs)"
    if status.state not in {RunPhase.RUNNING, RunPhase.PAUSED} or status.reason:
        return line
    likely = span(status.eta_p10_s, status.eta_p90_s)
    return f"{line}, ETA {duration(status.eta_s)}" + (f" ({likely})" if likely else "")


def _row(task: TaskStatus, status: RunStatus) -> tuple[str, ...]:
    online = sum(
        worker.slots
        for worker in status.workers
        if worker.connected and worker.pool == task.pool and worker.task in (None, task.id)
    )
    asked = "any" if task.num_workers is None else f"{task.num_workers:,}"
    counts = (task.finished, task.skipped, task.done, task.failed)
    waiting = (task.leased, task.pending + task.ready, task.orphaned)
    left = task.pending + task.ready + task.leased
    ends = [duration(left / task.rate if task.rate else None), duration(task.eta_s)]
    ends += [span(task.eta_p10_s, task.eta_p90_s)]
    ends = ["over", "over", ""] if task.over or status.is_over else ends
    return (task.id, f"{task.total:,}", f"{online:,} of {asked}", *(f"{n:,}" for n in (*counts, *waiting)), *ends)

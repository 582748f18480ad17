"""The report as one HTML file: no script, nothing to load, light and dark, and it prints."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

import numpy as np

from blockyard.cli.report import svg
from blockyard.cli.report.figures import (
    MOST_WORKERS,
    SLOWEST,
    RegionFigures,
    TaskFigures,
    busy,
    figures,
    region_figures,
)
from blockyard.wire.api import Failures, Record, RunStatus
from blockyard.wire.report import counted, duration, share, unfinished

MARK = '<meta name="generator" content="blockyard report">'
"""By which a report is known as one, and may be written again."""

STYLE = """
:root{--ink:#1b1f24;--soft:#667;--line:#d8dde3;--paper:#fff;--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#cc79a7;
--c4:#56b4e9;--c5:#e69f00;--c6:#8c6bb1;--c7:#777;--heat:#0072b2}
@media (prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#9aa4b2;--line:#333a44;--paper:#14171b;--c0:#56b4e9;
--c1:#f0894a;--c2:#3cc7a0;--c3:#e2a3c7;--heat:#56b4e9}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:60rem;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .5rem;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin:1.2rem 0 .2rem}.soft{color:var(--soft)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
td,th{padding:.2rem .6rem;text-align:right;border-bottom:1px solid var(--line)}
td:first-child,th:first-child{text-align:left}
th{font-weight:600;color:var(--soft)}svg{width:100%;height:auto;overflow:visible}svg.heat{max-width:26rem}
pre{overflow-x:auto;background:color-mix(in srgb,var(--ink) 6%,var(--paper));padding:.6rem;font-size:.8rem}
.line{fill:none;stroke-width:1.6}.grid{stroke:var(--line)}.tick,.label,.name{font-size:11px;fill:var(--soft)}
.middle{text-anchor:middle}.end,.name{text-anchor:end}.cell{fill:var(--heat)}
.c0{stroke:var(--c0)}.c1{stroke:var(--c1)}.c2{stroke:var(--c2)}.c3{stroke:var(--c3)}.c4{stroke:var(--c4)}
.c5{stroke:var(--c5)}.c6{stroke:var(--c6)}.c7{stroke:var(--c7)}
rect.c0{fill:var(--c0)}rect.c1{fill:var(--c1)}rect.c2{fill:var(--c2)}rect.c3{fill:var(--c3)}rect.c4{fill:var(--c4)}
rect.c5{fill:var(--c5)}rect.c6{fill:var(--c6)}rect.c7{fill:var(--c7)}.bar{stroke:none}
.key{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin:0 .35em 0 1em}
@media print{body{margin:0;max-width:none}h2{break-after:avoid}svg,table{break-inside:avoid}}
"""


def report(status: RunStatus, record: Record, failures: Failures, made_s: float) -> str:
    """Return the file; `made_s` is the time it is made, in Unix seconds."""
    tasks, regions = figures(record), region_figures(record)
    end_s = max((float(task.ended_s.max()) for task in tasks), default=0.0) or 1.0
    parts = [_head(status, record, made_s), _overview(status)]
    if tasks:
        parts += [_throughput(tasks, end_s), _workers(tasks, record, end_s), _durations(tasks)]
        parts += [_where(tasks), _slowest(tasks, record)]
    if regions:
        parts.append(_regions(regions))
    if not tasks and not regions:
        parts.append("<p>No block is recorded: none has been done yet, or nothing was to be recorded.</p>")
    parts += [_waste(record, tasks, regions), _failures(failures)]
    title = escape(f"{status.run}: {status.state}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{MARK}<title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _head(status: RunStatus, record: Record, made_s: float) -> str:
    finished = f"{status.finished:,} of {status.total:,} blocks done ({share(status.finished, status.total)})"
    facts = [
        finished,
        *([rest] if (rest := unfinished(status)) else []),
        f"{counted(len(record.workers), 'worker')} in all",
    ]
    if record.began_s:
        facts.append(f"first block ended {_time(record.began_s)}")
    if status.state in ("running", "paused"):
        facts.append(f"time left: {duration(status.eta_s)}")
    made = f"made {_time(made_s)} by blockyard {escape(record.software)}"
    said = escape("; ".join(facts))
    return f'<h1>{escape(status.run)}: {status.state}</h1><p>{said}.<br><span class="soft">{made}</span></p>'


def _overview(status: RunStatus) -> str:
    heads = ("task", "blocks", "finished", "done", "skipped", "failed", "orphaned", "retries")
    rows = [
        (
            task.id,
            task.total,
            share(task.finished, task.total),
            task.done,
            task.skipped,
            task.failed,
            task.orphaned,
            task.retries,
        )
        for task in status.tasks
    ]
    return "<h2>Tasks</h2>" + _table(
        heads, [(name, f"{total:,}", finished, *(f"{n:,}" for n in counts)) for name, total, finished, *counts in rows]
    )


def _throughput(tasks: list[TaskFigures], end_s: float) -> str:
    keys = "".join(_key(n, task.id) for n, task in enumerate(tasks))
    unit, name = (3600.0, "hours") if end_s > 7200 else (60.0, "minutes") if end_s > 300 else (1.0, "seconds")
    axis = svg.Axis(0.0, end_s / unit, f"{name} since the first block ended")
    drawn = svg.lines([(task.id, task.throughput(end_s)) for task in tasks], axis, "blocks/s")
    return f"<h2>Throughput</h2><p>{keys}</p>{drawn}"


def _workers(tasks: list[TaskFigures], record: Record, end_s: float) -> str:
    worked = busy(tasks, len(record.workers), end_s)
    whole = worked.sum(axis=1)
    order = np.argsort(whole)[::-1][:MOST_WORKERS]
    most = max(float(worked.max()), 1e-9)
    rows = [(record.workers[n], worked[n] / most) for n in sorted(order.tolist())]
    note = f"The strongest cell is {svg.number(most)} blocks at once."
    if len(record.workers) > len(rows):
        note += f" The {len(rows)} of {len(record.workers):,} workers that did most."
    axis = svg.Axis(0.0, end_s, "seconds")
    return f'<h2>Workers</h2><p class="soft">How busy each was over time. {note}</p>{svg.strips(rows, axis)}'


def _durations(tasks: list[TaskFigures]) -> str:
    parts = ["<h2>How long blocks took</h2>"]
    for n, task in enumerate(tasks):
        p50, p95, p100 = (svg.number(seconds) for seconds in task.quantiles())
        spread = f"median {p50} s, 95 % within {p95} s, longest {p100} s"
        parts.append(f'<h3>{escape(task.id)}</h3><p class="soft">{spread}</p>')
        parts.append(svg.bars(*task.durations(), "seconds", n, log=True))
    return "".join(parts)


def _where(tasks: list[TaskFigures]) -> str:
    parts = ['<h2>Where it was slow</h2><p class="soft">Mean time of blocks, seen along all axes but the last two.</p>']
    maps = [f"<h3>{escape(task.id)}</h3>" + svg.heat(task.map(), "mean of a cell") for task in tasks]
    return "".join(parts + maps)


def _slowest(tasks: list[TaskFigures], record: Record) -> str:
    rows = [
        (seconds, (task.id, str(index), f"{svg.number(seconds)} s", str(attempt), record.workers[worker]))
        for task in tasks
        for index, seconds, attempt, worker in task.slowest()
    ]
    rows.sort(key=lambda row: -row[0])
    heads = ("task", "block", "took", "attempt", "worker")
    return "<h2>Slowest blocks</h2>" + _table(heads, [row for _, row in rows[:SLOWEST]])


def _regions(tasks: list[RegionFigures]) -> str:
    names = ", ".join(escape(task.id) for task in tasks)
    note = (
        f"Of {names} only sums by region of the grid are recorded: --history-blocks is how many blocks are, one by one."
    )
    parts = [f'<h2>Large tasks, by region</h2><p class="soft">{note}</p>']
    rows = []
    for task in tasks:
        side = " x ".join(map(str, task.side))
        spread = (
            f"{int(task.blocks.sum()):,} blocks of {svg.number(task.mean_s)} s on average, in regions of {side} blocks"
        )
        parts.append(f'<h3>{escape(task.id)}</h3><p class="soft">{spread}</p>' + svg.heat(task.map(), "mean of a cell"))
        rows += [(mean, (task.id, str(begin), f"{svg.number(mean)} s", f"{n:,}")) for begin, mean, n in task.slowest()]
    rows.sort(key=lambda row: -row[0])
    heads = ("task", "region from block", "mean of a block", "blocks")
    return "".join(parts) + "<h3>Slowest regions</h3>" + _table(heads, [row for _, row in rows[:SLOWEST]])


def _waste(record: Record, tasks: list[TaskFigures], regions: list[RegionFigures]) -> str:
    useful = sum(float(task.seconds.sum(dtype=np.float64)) for task in tasks)
    useful += sum(float(task.seconds.sum()) for task in regions)
    again = sum(int((task.attempts > 1).sum()) for task in tasks)
    rows = [("blocks that were done", duration(useful))]
    rows += [(f"attempts that were in vain: {reason}", duration(s)) for reason, s in record.wasted_s.items() if s]
    note = f"{again:,} blocks needed more than one attempt. Vain attempts count since the scheduler leads."
    if regions:
        retries = sum(int(task.retries.sum()) for task in regions)
        note += f" Blocks that are recorded by region needed {counted(retries, 'attempt')} beyond their first."
    return "<h2>Useful and wasted time</h2>" + _table(("", "time in slots"), rows) + f'<p class="soft">{note}</p>'


def _failures(failures: Failures) -> str:
    if not failures.groups:
        return "<h2>Failures</h2><p>None.</p>"
    parts = [f"<h2>Failures</h2><p>{failures.attempts:,} attempts failed, {failures.failed:,} blocks for good.</p>"]
    for group in failures.groups[:20]:
        parts.append(
            f"<h3>{escape(group.task)}: {escape(group.kind)}: {escape(group.message)}</h3>"
            f'<p class="soft">{group.attempts:,} attempts, {group.failed:,} blocks failed for good</p>'
        )
        if group.example.traceback:
            parts.append(f"<pre>{escape(group.example.traceback[-4000:])}</pre>")
    return "".join(parts)


def _key(n: int, name: str) -> str:
    return f'<span class="key" style="background:var(--c{n % 8})"></span>{escape(name)}'


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

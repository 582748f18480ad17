"""Tables of `docs/benchmarks.md` from files of results: `python benchmarks/render.py results/....jsonl ...`.

Each table stands between two markers, ``<!-- table: NAME -->`` and ``<!-- end -->``; the text around them is written by
hand. Figures are medians over the repeats, with the lowest and highest beside them where it matters.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shapes import SHAPES

DOCUMENT = Path(__file__).parent.parent / "docs/benchmarks.md"
NAMES = {
    "independent": "independent blocks",
    "halo": "halo of one block, with conflict (8 levels)",
    "chain": "chain of two tasks",
    "chain-halo": "chain with halo (27 upstream blocks each)",
}
WORKERS = 2

Row = dict[str, Any]


def render(files: Sequence[Path]) -> None:
    """Write the tables that the results have figures for into the document."""
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    fit = [row for row in rows if "error" not in row]
    put_tables({name: table(fit) for name, table in TABLES.items()})


def put_tables(tables: Mapping[str, Sequence[str]]) -> None:
    """Put the lines of each table that has any between its markers in the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, lines in tables.items():
        if lines:
            before, after = re.split(rf"<!-- table: {name} -->.*?<!-- end -->", text, maxsplit=1, flags=re.DOTALL)
            text = f"{before}<!-- table: {name} -->\n" + "\n".join(lines) + f"\n<!-- end -->{after}"
    DOCUMENT.write_text(text, encoding="utf-8")
    print(f"tables: {DOCUMENT}")


# ----- figures --------------------------------------------------------------------------------------------------------


def where(rows: Iterable[Row], **fields: object) -> list[Row]:
    """Give the rows that have these fields."""
    return [row for row in rows if all(row.get(key) == value for key, value in fields.items())]


def median(rows: Sequence[Row], figure: Callable[[Row], float]) -> float | None:
    """Give the median of a figure, or None where there is no row."""
    return statistics.median(map(figure, rows)) if rows else None


def rate(row: Row) -> float:
    """Blocks a second, from the first block to the last worker's end."""
    return row["blocks"] / row["steady_s"]


def number(value: float | None, unit: str = "") -> str:
    """Give a figure with as many digits as it is worth."""
    if value is None:
        return ""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    rounded = round(value, -3 if value >= 100_000 else -2 if value >= 10_000 else -1 if value >= 1000 else digits)
    return f"{rounded:,.{digits}f}{unit}"


def spread(rows: Sequence[Row], figure: Callable[[Row], float]) -> str:
    """Give median and range."""
    if not rows:
        return ""
    values = [figure(row) for row in rows]
    middle = number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({number(min(values))} to {number(max(values))})"


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """Give a table of Markdown."""
    lines = [list(row) for row in body]
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(row) + " |" for row in lines),
    ]


# ----- tables ---------------------------------------------------------------------------------------------------------


def throughput(rows: Sequence[Row]) -> list[str]:
    """Compare blocks a second with daisy's, at the largest number of blocks that was run."""
    rows = where(rows, part="throughput")
    ours = where(rows, system="blockyard")
    if not ours:
        return []
    sizes = sorted({row["size"] for row in ours})
    body = []
    for shape in SHAPES:
        new, old = (where(rows, system="daisy", release=release, shape=shape) for release in ("2.0.0", "1.2.3"))
        here = where(ours, shape=shape)
        daisy, largest = median(new, rate), median(where(here, size=sizes[-1], fsync="always"), rate)
        body.append(
            [
                NAMES[shape],
                *(spread(where(here, size=size, fsync="always"), rate) for size in sizes),
                spread(where(here, size=sizes[-1], fsync="everysec"), rate),
                spread(new, rate),
                number(largest / daisy, " x") if daisy and largest else "",
                number(median(old, rate)),
            ]
        )
    head = ["blocks/s", *(f"{size:,} blocks, `always`" for size in sizes), f"{sizes[-1]:,} blocks, `everysec`"]
    return table([*head, "daisy 2.0.0", "ratio", "daisy 1.2.3"], body)


def cost(rows: Sequence[Row]) -> list[str]:
    """Say what a block costs each process, beyond what starting costs."""
    rows = where(rows, part="throughput", fsync="always")
    if not rows:
        return []
    sizes = sorted({row["size"] for row in rows})
    body = []
    for shape in SHAPES:
        least, most = (where(rows, shape=shape, size=size) for size in (sizes[0], sizes[-1]))

        def each(key: str, least: list[Row] = least, most: list[Row] = most) -> str:
            blocks = median(most, lambda row: row["blocks"]) - median(least, lambda row: row["blocks"])
            if not blocks:
                return ""
            more = median(most, lambda row: row[key]) - median(least, lambda row: row[key])
            return number(more / blocks * 1e6)

        body.append(
            [
                NAMES[shape],
                *(each(key) for key in ("scheduler_cpu_s", "redis_cpu_s", "agent_cpu_s", "workers_cpu_s")),
                number(median(most, lambda row: row["journal_mb"] * 2**20 / row["blocks"])),
                number(median(most, lambda row: row["scheduler_peak_mb"])),
                number(median(least, lambda row: row["first_block_s"])),
                number(median(least, lambda row: row["call_s"])),
                number(median(most, lambda row: row["call_s"])),
            ]
        )
    head = ["", *(f"{name}, us/block" for name in ("scheduler", "Redis", "agent", "slots")), "journal, bytes/block"]
    tail = ["scheduler's peak, MB", "first block, s", *(f"whole run of {size:,}, s" for size in (sizes[0], sizes[-1]))]
    return table([*head, *tail], body)


def slow(rows: Sequence[Row]) -> list[str]:
    """Say how near to always at work the workers come with blocks that take time."""
    rows = where(rows, part="slow")

    def share(row: Row) -> float:
        return 100 * rate(row) * row["block_s"] / WORKERS

    def busy(row: Row) -> float:
        return 100 * row["busy_s"] / row["steady_s"] / WORKERS

    body = []
    for block_s in sorted({row["block_s"] for row in rows}):
        ours, theirs, plain = (
            where(rows, system=name, block_s=block_s) for name in ("blockyard", "daisy", "plain loop")
        )
        shares = [spread(found, share) for found in (ours, plain, theirs)]
        body.append([f"{1000 * block_s:g} ms", *shares, *(spread(found, busy) for found in (ours, theirs))])
    head = ["a block takes", "blockyard", "a loop without any scheduler", "daisy 2.0.0"]
    head += ["blockyard: workers' time in blocks", "daisy 2.0.0: the same"]
    return table(head, body) if body else []


def messages(rows: Sequence[Row]) -> list[str]:
    """Compare what a block costs that goes alone."""
    rows = where(rows, part="messages")
    body = []
    for workers in sorted({row["workers"] for row in rows}):
        for system, fsync in (
            ("blockyard, 1 a message", "always"),
            ("blockyard, 1 a message", "everysec"),
            ("blockyard.Client", "always"),
            ("daisy", None),
        ):
            found = where(rows, workers=workers, system=system, fsync=fsync)
            if found:
                body.append(
                    [
                        str(workers),
                        ("daisy 2.0.0" if system == "daisy" else system) + (f", `{fsync}`" if fsync else ""),
                        spread(found, lambda row: row.get("blocks_a_s") or rate(row)),
                        number(median(found, lambda row: row["trip_p50_us"])),
                        number(median(found, lambda row: row["trip_p99_us"])),
                    ]
                )
    return table(["workers", "", "blocks/s", "round trip p50, us", "p99, us"], body) if body else []


def large(rows: Sequence[Row]) -> list[str]:
    """Say how long very large grids take to begin, and the scheduler's memory."""
    rows = where(rows, part="large")
    body = []
    for shape in SHAPES:
        for size in sorted({row["size"] for row in rows}):
            for resumed in (False, True):
                found = [row for row in where(rows, shape=shape, size=size) if bool(row["done_before"]) is resumed]
                if found:
                    body.append(
                        [
                            NAMES[shape],
                            f"{size:,}",
                            number(median(found, lambda row: row["done_before"])) if resumed else "",
                            spread(found, lambda row: row["leading_s"]),
                            spread(found, lambda row: row["first_block_s"]),
                            number(median(found, lambda row: row["scheduler_mb"])),
                            number(median(found, lambda row: row["scheduler_peak_mb"])),
                        ]
                    )
    head = ["", "blocks", "done before", "scheduler ready, s", "first block, s", "scheduler, MB", "its peak, MB"]
    return table(head, body) if body else []


def restart(rows: Sequence[Row]) -> list[str]:
    """Say how long nothing is granted when the scheduler is killed."""
    body = [
        [
            NAMES[row["shape"]],
            f"{row['blocks']:,}",
            number(row["done_before"]),
            number(row["granting_again_s"]),
            number(row["granting_again_most_s"]),
        ]
        for row in where(rows, part="restart")
    ]
    return table(["", "blocks", "done before", "leases again after, s (median)", "at most, s"], body) if body else []


def look(rows: Sequence[Row]) -> list[str]:
    """Say what looking at a very large run takes."""
    names = (
        "scrape_s",
        "status_s",
        "slice_s",
        "window_s",
        "projection_s",
        "worst_projection_s",
        "durations_s",
        "loop_lag_s",
    )
    body = [
        [NAMES[row["shape"]], f"{row['blocks']:,}", number(row["done_before"]), *(number(1000 * row[n]) for n in names)]
        for row in where(rows, part="look")
    ]
    head = ["ms", "blocks", "done before", "scrape of /metrics", "status", "map: slice", "map: window of 64 x 64"]
    head += ["map: projection along z", "along y (the worst)", "along y, durations", "the loop's worst delay meanwhile"]
    return table(head, body) if body else []


def machine(rows: Sequence[Row]) -> list[str]:
    """Say where this was measured."""
    found = where(rows, part="machine")
    if not found:
        return []
    last = found[-1]
    loads = [row["load"] for row in rows if "load" in row]
    where_ = f"{last['cores']} cores ({last['cpu']}), {last['memory_gb']} GB, {last['system']}"
    versions = f"Python {last['python']}, numpy {last['numpy']}, tornado {last['tornado']}, {last['redis']}"
    disk = last["fsync_us"]
    return [
        f"Measured on {last['at'][:10]} on {where_}; {versions}, blockyard {last['blockyard']} at {last['commit']}.",
        f"A safe write of 200 bytes takes this disk {disk['p50']} us (p50), {disk['p99']} us (p99).",
        f"Load of the machine before each run: {statistics.median(loads):.1f} (median), {max(loads):.1f} (most).",
    ]


TABLES: dict[str, Callable[[Sequence[Row]], list[str]]] = {
    "machine": machine,
    "throughput": throughput,
    "cost": cost,
    "slow": slow,
    "messages": messages,
    "large": large,
    "restart": restart,
    "look": look,
}

if __name__ == "__main__":
    render([Path(name) for name in sys.argv[1:]])

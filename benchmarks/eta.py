"""How wrong the time left is that a run shows, beside two simple rules, on simulated runs of which the end is known.

    python benchmarks/eta.py             test seeds; prints the tables and writes them to docs/benchmarks.md (2 minutes)
    python benchmarks/eta.py --tuning    the seeds on which the constants of views/eta.py were chosen; writes nothing

The error of a moment is the distance between the end it says and the true one, in % of the length of the run; only
moments at which all three rules say something are compared.
"""

from __future__ import annotations

import argparse
import statistics
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from eta_runs import SCENARIOS, Look, replay
from render import put_tables, table

TUNING_SEEDS = range(8)
TEST_SEEDS = range(2000, 2016)
QUARTERS = ("first quarter", "second", "third", "last quarter")


# ----- the rules ------------------------------------------------------------------------------------------------------


def ours(look: Look) -> float | None:
    return look.status.eta_s


def simple(look: Look) -> float | None:
    """Pending / rate of the last 120 s, for the task that takes longest."""
    return latest(
        (task.total - task.done) / task.rate if task.rate else 0.0 if task.over else None for task in look.status.tasks
    )


def tqdm(look: Look) -> float | None:
    """Pending / smoothed rate, as a progress bar with its defaults has it: EMA of 0.3, updates 0.1 s apart at least."""
    etas = []
    for task in look.status.tasks:
        pace = smoothed(look.finished[task.id])
        etas.append(0.0 if task.over else pace and (task.total - task.done) * pace)
    return latest(etas)


def smoothed(times: Sequence[float], smoothing: float = 0.3, apart_s: float = 0.1) -> float | None:
    """Give seconds a block: the ratio of the moving averages of time and of blocks between updates."""
    blocks = seconds = 0.0
    last, waiting = 0.0, 0
    for now in times:
        waiting += 1
        if now - last >= apart_s:
            blocks = smoothing * waiting + (1 - smoothing) * blocks
            seconds = smoothing * (now - last) + (1 - smoothing) * seconds
            last, waiting = now, 0
    return seconds / blocks if blocks else None


def latest(etas: Iterator[float | None] | Sequence[float | None]) -> float | None:
    known = list(etas)
    return None if None in known else max(eta for eta in known if eta is not None)


RULES: dict[str, Callable[[Look], float | None]] = {"blockyard": ours, "pending / rate of 120 s": simple, "tqdm": tqdm}


# ----- the errors -----------------------------------------------------------------------------------------------------


@dataclass
class Moment:
    """One look at one run."""

    scenario: str
    share: float
    """Of the run's length that has passed."""
    errors: list[float | None]
    """By rule, in % of the run's length."""
    inside: bool | None
    """Whether the end lies between p10 and p90."""


def moments_of(job: tuple[str, int]) -> list[Moment]:
    """Replay a scenario; give all its moments from the first finished block on."""
    scenario, seed = job
    looks, end_s = replay(scenario, seed)
    found = []
    for look in looks:
        left_s = end_s - look.now_s
        if left_s <= 0 or not any(look.finished.values()):
            continue
        etas = [rule(look) for rule in RULES.values()]
        errors = [None if eta is None else 100 * abs(eta - left_s) / end_s for eta in etas]
        low_s, high_s = look.status.eta_p10_s, look.status.eta_p90_s
        inside = None if low_s is None or high_s is None else low_s <= left_s <= high_s
        found.append(Moment(scenario, look.now_s / end_s, errors, inside))
    return found


def errors_of(moments: Sequence[Moment], rule: int) -> list[float]:
    """Give the errors of a rule in the moments at which all rules say something."""
    return [moment.errors[rule] for moment in moments if None not in moment.errors]  # type: ignore[misc]


def middle(moments: Sequence[Moment], rule: int) -> float:
    return statistics.median(errors_of(moments, rule))


def percent(values: Sequence[bool]) -> float:
    return 100 * sum(values) / len(values)


def row(name: str, moments: Sequence[Moment]) -> list[str]:
    known = percent([moment.errors[0] is not None for moment in moments])
    inside = percent([moment.inside for moment in moments if moment.inside is not None])
    best = min(range(len(RULES)), key=lambda rule: middle(moments, rule))
    cells = [f"{middle(moments, rule):.1f}" for rule in range(len(RULES))]
    cells[best] = f"**{cells[best]}**"
    worst = [statistics.quantiles(errors_of(moments, rule), n=10)[8] for rule in range(len(RULES))]
    return [name, *cells, *(f"{one:.0f}" for one in worst), f"{inside:.0f}", f"{known:.0f}"]


def tables(moments: Sequence[Moment]) -> list[str]:
    """Give the tables by scenario and by time."""
    head = [*(f"{rule}, %" for rule in RULES), *(f"p90: {rule}, %" for rule in RULES)]
    head += ["end within p10 to p90, % of moments", "time left known, %"]
    by_scenario = [[m for m in moments if m.scenario == name] for name in SCENARIOS]
    body = [row(name, ours_) for name, ours_ in zip(SCENARIOS, by_scenario, strict=True)]
    body.append(row("**all moments**", moments))
    medians = [statistics.median(middle(part, rule) for part in by_scenario) for rule in range(len(RULES))]
    body.append(["**median of the scenarios**", *(f"{one:.1f}" for one in medians), *[""] * 5])
    quarters = [
        row(name, [m for m in moments if bisect_right((0.25, 0.5, 0.75), m.share) == n])
        for n, name in enumerate(QUARTERS)
    ]
    return [*table(["error (median)", *head], body), "", *table(["error (median)", *head], quarters)]


def main() -> None:
    """Replay all, print, and write the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tuning", action="store_true", help="use the seeds of tuning, and write nothing")
    parser.add_argument("--processes", type=int, default=1, help="how many runs to replay at once")
    arguments = parser.parse_args()
    jobs = [(name, seed) for name in SCENARIOS for seed in (TUNING_SEEDS if arguments.tuning else TEST_SEEDS)]
    with ProcessPoolExecutor(arguments.processes) as pool:
        lines = tables([moment for found in pool.map(moments_of, jobs) for moment in found])
    print("\n".join(lines))
    if not arguments.tuning:
        put_tables({"eta": lines})


if __name__ == "__main__":
    main()

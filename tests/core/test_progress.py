"""How much of a run is finished: one definition, whoever shows it."""

import io
import re

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from blockyard.cli.bars import drawing
from blockyard.cli.report.page import report
from blockyard.local.result import RunResult, summary
from blockyard.wire.api import Failures, Record, RunStatus, TaskStatus
from blockyard.wire.report import share, status_report
from blockyard_scheduler.metrics import RunCollector

STATES = ("pending", "ready", "leased", "done", "skipped", "failed", "orphaned")
N = st.one_of(st.integers(0, 3), st.integers(0, 10**10))


def task_of(name, counts):
    return TaskStatus(id=name, pool="default", total=sum(counts), **dict(zip(STATES, counts, strict=True)))


def run_of(tasks, state="running"):
    return RunStatus(
        run="em", state=state, epoch=1, elapsed_s=1.0, eta_s=None, tasks=tasks, workers=[],
        stale_releases=0, leases_expired=0, leases_granted=1,
    )  # fmt: skip


@given(st.integers(1, 10**12), st.data())
def test_percent_are_never_rounded_to_all_or_none(whole, data):
    """100 % is said of all only and 0 % of none only; else what is said is the nearest tenth."""
    part = data.draw(st.one_of(st.integers(0, whole), st.just(whole - 1), st.just(min(1, whole))))
    said = share(part, whole)
    assert (said == "100 %") == (part == whole)
    assert (said == "0 %") == (part == 0)
    if re.fullmatch(r"[\d.]+ %", said):
        off = abs(100 * part / whole - float(said.removesuffix(" %")))
        assert off <= 0.05 + 1e-9 or (said == "99.9 %" and part / whole > 0.9995)
    else:
        assert said == "< 0.1 %"
        assert 0 < part / whole < 0.0005


@given(st.lists(st.tuples(*[N] * len(STATES)), min_size=1, max_size=3))
def test_every_view_says_the_same(counts):
    """Done and skipped of total, in the report, the bars, the table, the summary, the metrics and JSON alike."""
    tasks = [task_of(f"t{n}", each) for n, each in enumerate(counts)]
    status = run_of(tasks)
    finished = sum(task.done + task.skipped for task in tasks)
    total = sum(map(sum, counts))
    said = share(finished, total)
    assert (status.finished, status.total) == (finished, total)
    assert (status.progress == 1.0) == (finished == total)
    head = status_report(status).splitlines()[0]
    assert f"running, {said} of {total:,} block" in head or (not total and "no blocks" in head)
    assert f"{finished:,} of {total:,} blocks" in summary(RunResult("failed", status))
    record = Record(run="em", software="1", began_s=0.0, workers=[], tasks=[], wasted_s={})
    page = report(status, record, Failures(attempts=0, failed=0, groups=[], failures=[]), 0.0)
    assert f"{finished:,} of {total:,} blocks done ({said.replace('<', '&lt;')})" in page
    console = Console(file=io.StringIO(), width=200)
    console.print(drawing(status, (), 200))
    progress = next(family for family in RunCollector(None)._blocks(tasks) if family.name == "blockyard_progress_ratio")
    rows = status_report(status).splitlines()[2:]
    for task, row, sample in zip(tasks, rows, progress.samples, strict=True):
        share_of_task = share(task.done + task.skipped, task.total)
        assert re.split("  +", row.strip())[3] == f"{task.done + task.skipped:,}"
        assert sample.value == task.progress
        assert not task.total or share_of_task in console.file.getvalue()
    told = msgspec.json.decode(msgspec.json.encode(status))
    assert (told["finished"], told["total"], told["progress"]) == (finished, total, status.progress)
    assert [each["finished"] for each in told["tasks"]] == [task.done + task.skipped for task in tasks]


def test_what_never_ran_is_no_progress_and_is_named():
    """A run without one success stands at 0 %, and says what became of its blocks."""
    status = run_of([task_of("a", (0, 0, 0, 0, 0, 100, 0)), task_of("b", (0, 0, 0, 0, 0, 0, 100))], "failed")
    assert status_report(status).startswith("em: failed, 0 % of 200 blocks (100 failed, 100 never ran)")
    assert status.progress == 0.0


def test_a_status_of_an_older_scheduler_has_it_too():
    """What an older scheduler wrote has no such fields: they follow from its counts."""
    old = msgspec.json.decode(msgspec.json.encode(run_of([task_of("a", (1, 0, 0, 2, 1, 0, 0))])))
    for each in (old, *old["tasks"]):
        del each["finished"], each["progress"]
    del old["total"]
    read = msgspec.convert(old, RunStatus)
    assert (read.finished, read.total, read.progress, read.tasks[0].finished) == (3, 4, 0.75, 3)

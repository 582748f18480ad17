"""What a run looks like on terminals of several widths."""

import io
import os

import msgspec
import pytest
from rich.console import Console

from blockyard.cli.bars import drawing
from blockyard.cli.progress import PlainProgress, print_status
from blockyard.wire.api import FailureGroup, FailureStatus, Notice, RunStatus, TaskStatus, WorkerStatus


def fill(kind, /, **known):
    """A struct of which only some fields matter: the others are 0, None or empty."""
    plain = {"int": 0, "float": 0.0, "str": "", "bool": False}
    wanted = {field.name: field for field in msgspec.structs.fields(kind) if field.required}
    values = {name: plain.get(getattr(field.type, "__name__", "")) for name, field in wanted.items()}
    return kind(**(values | known))


TASKS = [
    fill(TaskStatus, id="smooth", total=30, done=20, failed=7, retries=9, pending=3, pool="default"),
    fill(TaskStatus, id="a-task-with-quite-a-long-name", total=30, done=20, orphaned=10, skipped=4, pool="default"),
]
FAILED = fill(FailureStatus, task="smooth", index=(3,), kind="ValueError", message="no\nsuch luck")
GROUP = FailureGroup(
    task="smooth", kind="ValueError", message="no\nsuch luck", attempts=16, failed=7, blocks=[3], example=FAILED
)


def run(**known):
    workers = [fill(WorkerStatus, id="w", connected=True, slots=2, busy=1)]
    return fill(RunStatus, run="em", elapsed_s=61.0, tasks=TASKS, workers=workers, **known)


def drawn(status, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(drawing(status, [GROUP], width))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [80, 110, 120, 200])
def test_nothing_is_cut_but_names_and_messages(width):
    """Counts, ends and notes are whole, and no line is longer than the terminal."""
    lines = drawn(run(state="running"), width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for whole in (
        "20/30",
        "66.7 %",
        "24/30",
        "80.0 %",
        "ETA unknown",
        "9 tried again, 7 failed",
        "4 skipped",
        "10 never ran",
    ):
        assert whole in text, text
    assert "ValueError: no such luck" in text


def test_the_summary_says_what_matters_now():
    """Slots while there are any, why nothing is leased, and of a run that is over how long it took."""
    assert "em: running, 1 min 1 s elapsed, 1 worker, 1 of 2 slots busy, ETA unknown" in drawn(
        run(state="running"), 120
    )
    assert "nothing is leased for 9 s: Redis may have" in "\n".join(drawn(run(state="running", quiet_s=9.0), 120))
    assert "em: failed, 1 min 1 s elapsed" in drawn(run(state="failed"), 120)


@pytest.mark.parametrize(("width", "first"), [(80, "smooth "), (200, "em: failed")])
def test_a_status_fits_the_terminal(monkeypatch, capsys, width, first):
    """The table where there is room for it, bars where there is not."""
    monkeypatch.setenv("TERM", "dumb")  # no colours
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((width, 24)))
    print_status(run(state="failed"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(first)
    assert max(map(len, lines)) <= width


def test_a_notice_is_shown_whole_and_on_a_pipe_at_once():
    """A sentence says what to do at its end: it is not cut. A pipe need not wait for the next report."""
    sentence = "task 'smooth' fails at its first line; mend it, then type: blockyard resume " + "long/" * 20 + "p.yaml"
    status = run(state="running", notices=[Notice("failing_fast", sentence, task="smooth")])
    assert "".join(sentence.split()) in "".join("".join(drawn(status, 80)).split())
    stream = io.StringIO()
    with PlainProgress(stream) as progress:
        progress.show(status)
        progress.show(status)
    assert stream.getvalue() == f"note: {sentence}\n"


def test_a_status_lists_notices_below_the_tasks(capsys):
    """Once each, also where the table does not fit."""
    print_status(run(state="running", notices=[Notice("cannot_start", "no worker can start")]))
    assert capsys.readouterr().out.count("no worker can start") == 1

"""Whatever user code says can be encoded, stored and shown by every door that it goes out through."""

from __future__ import annotations

import errno
import io
import json
import logging
import unicodedata

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from blockyard.cli.bars import drawing
from blockyard.cli.progress import LiveProgress, PlainProgress
from blockyard.cli.report.page import report
from blockyard.client.calls import describe_exception
from blockyard.local.echo import SteadyStream
from blockyard.local.result import RunResult, summary
from blockyard.logs import CONTINUED, JsonFormatter, TextFormatter, json_line
from blockyard.wire.api import FailureStatus, Notice, PoolStatus, Record, RunStatus
from blockyard.wire.failures import group_failures
from blockyard.wire.frames import Decoder, encode
from blockyard.wire.messages import BlockError, Bye, Gone, Release, ToScheduler
from blockyard.wire.report import status_report
from blockyard.wire.text import bounded, clean, indented, one_line, shorten

NASTY = (
    "\udcf6 is no UTF-8", "\x1b[2J\x1b]0;title\x07", "one\r\x1b[1A12:00:00 INFO all is well", "a\x00b", "\x9b31m",
    "abc\u202egpj.exe", "[red]not markup[/red] :warning: {0} %s %(x)d {name!r}", "<script>alert(1)</script>&amp;\"'",
    "x" * 3_000_000, "\u2028lines\u2029", "", " \n\n ", "\u00e9\u2713\U0001f600", "\ud83d\ude00 as two halves",
)  # fmt: skip
ANY = st.one_of(st.text(st.characters()), st.sampled_from([text for text in NASTY if len(text) < 1000]))
TURNING = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def is_safe(text, allowed="\n\t"):
    text.encode("utf-8")
    return not any(
        (unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in TURNING) and c not in allowed for c in text
    )


@given(ANY)
def test_a_text_is_made_safe_once_and_for_all(text):
    """It does no more than be seen, and what is safe already stays as it is."""
    safe = clean(text)
    assert is_safe(safe)
    assert clean(safe) == safe
    assert is_safe(one_line(text), "")
    assert all(unicodedata.category(c) in ("Cc", "Cs", "Cf", "Zl", "Zp", "Cn") for c in set(text) - set(safe))


@given(ANY, st.integers(0, 200))
def test_a_text_is_never_longer_than_asked(text, longest):
    """Both ends are kept, and a long text says how much is left out."""
    short = shorten(text, max(longest, 5))
    assert len(short) <= max(len(" ... "), longest)
    assert short == text or " ... " in short
    assert bounded(bounded(text, 100), 100) == bounded(text, 100)


def test_how_much_is_left_out_is_said():
    """Megabytes become a few lines with a word about the rest, which is exact."""
    short = shorten("x" * 3_000_000, 2000)
    left = int(short.split("(")[1].split(" characters")[0].replace(",", ""))
    assert left + short.count("x") == 3_000_000


@pytest.mark.parametrize("text", NASTY)
def test_errors_arrive_whatever_they_say(text):
    """The text of an exception, or of a worker in another language, crosses the wire and is safe behind it."""
    error = BlockError(1, text, text, text, text, text)
    messages = (Release(1, b"", b"", errors=(error,)), Gone("w", True, text), Bye(text))
    release, gone, bye = Decoder(ToScheduler).feed(b"".join(map(encode, messages)))
    assert release.errors == (error,)
    for said in (error.kind, error.worker, error.log, gone.reason, bye.reason):
        assert is_safe(said, "")
    assert is_safe(error.message)
    assert is_safe(error.traceback)
    assert len(msgspec.msgpack.encode(error)) < 60_000
    raw = msgspec.json.encode({"number": 1, "kind": clean(text), "message": "\x1b[31m", "traceback": "\u202e"})
    assert msgspec.json.decode(raw, type=BlockError).message == r"\x1b[31m"


@given(ANY)
def test_an_exception_is_described_whatever_it_says(text):
    """Kind, message and traceback can be sent from a slot to its agent."""
    name = "".join(c for c in text if unicodedata.category(c) != "Cs" and c != "\0") or "E"
    try:
        raise type(name, (ValueError,), {})(text)
    except ValueError as error:
        told = describe_exception(error)
    msgspec.msgpack.encode(told)
    assert all(map(is_safe, told))


@given(ANY, st.dictionaries(ANY, st.one_of(ANY, st.floats(), st.lists(ANY))))
def test_log_lines_are_one_line_each(text, fields):
    """No message begins a line of its own; JSON is JSON for strict readers too, surrogates and NaN included."""
    record = logging.makeLogRecord({"msg": "%s", "args": (text,), "levelname": "INFO", "created": 1.0})
    first, *rest = TextFormatter().format(record).split("\n")
    assert is_safe(first, "\t")
    assert all(line.startswith(CONTINUED) and is_safe(line, "\t") for line in rest)
    for line in (JsonFormatter().format(record), json_line("info", text, 1.0, fields)):
        assert "\n" not in line
        assert msgspec.json.decode(line)["level"] == "info"
        assert is_safe(
            json.loads(line)["message"].translate(dict.fromkeys(range(32), " ")),
            "\x7f" + "".join(map(chr, range(128, 160))) + "".join(TURNING) + "\u2028\u2029",
        )
    assert indented(text).count("\n") == len(rest) or not text.strip("\n")


@given(ANY, st.sampled_from(["ascii", "latin-1", "cp1252", "utf-8", "utf-16", "koi8-r"]))
def test_a_stream_takes_any_text(text, encoding):
    """What an encoding does not have is written as Python writes it."""
    raw = io.BytesIO()
    stream = SteadyStream(io.TextIOWrapper(raw, encoding=encoding, newline=""))
    stream.write(text)
    stream.flush()
    shown = raw.getvalue().decode(encoding)
    assert shown == text or "\\" in shown


class Failing(io.StringIO):
    """A stream that is full, or whose terminal is gone."""

    def __init__(self, number):
        super().__init__()
        self.number, self.asked = number, 0

    def write(self, text):
        self.asked += 1
        raise OSError(self.number, "no")


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize(
    "make", [lambda: None, closed, *(lambda n=n: Failing(n) for n in (errno.ENOSPC, errno.EPIPE, errno.EIO))]
)
def test_a_stream_that_is_gone_is_given_up(make, caplog):
    """A run goes on although nobody can see it: said once."""
    stream = make()
    for progress in (PlainProgress(stream), LiveProgress(stream)):
        with progress:
            progress.say("one")
            progress.say("two")
            progress.show(status_with("three"))
    assert len(caplog.records) == (0 if stream is None else 2)


def status_with(text):
    pool = PoolStatus(pool="p", desired=1, reasons=[text], error=text)
    return RunStatus(
        run="em", state="running", epoch=1, elapsed_s=1.0, eta_s=None, tasks=[], workers=[], stale_releases=0,
        leases_expired=0, leases_granted=0, notices=[Notice("bad_worker", text)], pools=[pool],
    )  # fmt: skip


@given(ANY)
def test_every_view_of_a_run_is_safe(text):
    """Notices, reasons of Kubernetes and errors: in the report, the bars, the summary, the HTML file and JSON."""
    status = status_with(text)
    error = BlockError(0, text, text, text, text, text)
    failure = FailureStatus(
        task="t", block_id=1, index=(1,), attempt=1, final=True, kind=error.kind, message=error.message,
        traceback=error.traceback, worker=error.worker, log=error.log,
    )  # fmt: skip
    failures = group_failures([failure])
    said = status_report(status)
    assert said.count("\n") == 3  # head, columns, pool, notice
    assert is_safe(said)
    told = summary(RunResult("failed", status, (failure,)))
    assert told.count("\n") == 1
    assert is_safe(told)
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(drawing(status, failures.groups, 100))
    assert is_safe(console.file.getvalue())
    if "[red]" in text:
        assert "[red]" in console.file.getvalue()
    record = Record(run="em", software="1", began_s=0.0, workers=[], tasks=[], wasted_s={})
    page = report(status, record, failures, 0.0)
    page.encode("utf-8")
    assert "<script" not in page
    for value in (status, failures):
        assert msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value

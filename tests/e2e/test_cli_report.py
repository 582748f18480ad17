"""`blockyard report`: one file with all that a run did, that needs nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from blockyard.cli.report.figures import RegionFigures, TaskFigures, busy, intervals
from blockyard.cli.report.page import report
from blockyard.wire.api import Failures, Record, RegionsRecord, RunStatus

PIPELINE = """
name: p
tasks:
  - id: smooth
    function: work:smooth
    total_roi: {offset: [0, 0], shape: [6, 8]}
    read_roi: {offset: [0, 0], shape: [1, 1]}
    write_roi: {offset: [0, 0], shape: [1, 1]}
    read_write_conflict: false
"""
WORK = """
import time

def smooth(block):
    time.sleep(1.0 if block.index == (5, 7) else 0.002)
    if block.index == (2, 3) and block.attempt == 1:
        raise ValueError("no <section> 3")
    if block.index == (4, 4):
        raise RuntimeError("bad & broken")
"""


class Reader(HTMLParser):
    """What a browser would load, and the text."""

    def __init__(self):
        super().__init__()
        self.loads, self.text, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_data(self, data):
        self.text.append(data)


def blockyard(*arguments, cwd):
    command = [sys.executable, "-m", "blockyard.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def ended(tmp_path):
    """A run that has ended, with a retry and a failed block."""
    (tmp_path / "p.yaml").write_text(PIPELINE)
    (tmp_path / "work.py").write_text(WORK)
    assert blockyard("run", "p.yaml", "--workers", "2", cwd=tmp_path).returncode == 1
    return tmp_path


def test_a_run_that_has_ended_is_one_file(ended):
    """Tasks, times, the slowest block, the retry, and errors as text; no script, and nothing to load."""
    done = blockyard("report", "p.yaml", "-o", "r.html", cwd=ended)
    assert done.returncode == 0, done.stderr
    reader = Reader()
    reader.feed((ended / "r.html").read_text())
    text = " ".join(reader.text)
    assert reader.loads == []
    assert "script" not in reader.tags
    assert "47 of 48 blocks done" in text
    assert "1 blocks needed more than one attempt" in text
    assert "bad & broken" in text
    slowest = text[text.index("Slowest blocks") :]
    assert slowest.index("(5, 7)") < 120


def test_explain_tells_what_a_block_took(ended):
    """How long, where and at which attempt, also after the run."""
    told = blockyard("explain", "smooth", "2,3", "p.yaml", cwd=ended).stdout
    assert re.search(r"is done: [\d.]+ s on worker \S+, attempt 2", told)


def test_a_file_that_cannot_be_written_is_a_sentence(ended):
    """Exit status 2, and no traceback."""
    done = blockyard("report", "p.yaml", "-o", "nowhere/r.html", cwd=ended)
    assert done.returncode == 2
    assert "nowhere/r.html (No such file or directory)" in done.stderr


def figures(seconds, ended_s, workers):
    n = len(seconds)
    arrays = (np.arange(n), np.array(seconds, np.float32), np.ones(n, np.uint8))
    return TaskFigures("t", (n,), *arrays, np.array(workers, np.uint16), np.array(ended_s, np.float32))


def test_workers_are_busy_where_their_blocks_ran():
    """A block of two seconds that ends at 3 s fills the intervals from 1 s on, not the one in which it ended."""
    n = intervals(4.0)
    worked = busy([figures([2.0, 0.5], [3.0, 4.0], [0, 1])], 2, 4.0)
    assert worked.shape == (2, n)
    assert worked[0] == pytest.approx([0, 0, 1, 1, 1, 1, 0, 0])
    assert worked[1] == pytest.approx([0, 0, 0, 0, 0, 0, 0, 1])


def test_all_time_in_blocks_is_somewhere():
    """Whatever the lengths: the sum over intervals is the time in blocks."""
    rng = np.random.default_rng(1)
    ended_s = rng.uniform(5.0, 60.0, 500)
    seconds = rng.uniform(0.0, 5.0, 500)
    worked = busy([figures(seconds, ended_s, rng.integers(0, 3, 500))], 3, float(np.float32(ended_s).max()))
    assert worked.sum() * (np.float32(ended_s).max() / worked.shape[1]) == pytest.approx(seconds.sum(), rel=1e-3)


def test_a_task_recorded_by_region_is_in_the_report():
    """Its mean, where it was slow, and that no more is known; nothing pretends to know its blocks."""
    regions = RegionsRecord(
        id="smooth",
        side=(16, 16),
        regions=(2, 3),
        blocks=np.array([256, 256, 128, 0, 10, 0], "<i4").tobytes(),
        seconds=np.array([25.6, 25.6, 128.0, 0.0, 0.5, 0.0], "<f8").tobytes(),
        retries=np.array([0, 3, 0, 0, 1, 0], "<i4").tobytes(),
    )
    record = Record(run="r", software="1", began_s=0.0, workers=[], tasks=[], regions=[regions], wasted_s={})
    status = RunStatus(
        run="r",
        state="running",
        epoch=1,
        elapsed_s=1.0,
        eta_s=None,
        tasks=[],
        workers=[],
        stale_releases=0,
        leases_expired=0,
        leases_granted=0,
    )
    reader = Reader()
    reader.feed(report(status, record, Failures(attempts=0, failed=0, groups=[], failures=[]), 0.0))
    text = " ".join(reader.text)
    assert "Of smooth only sums by region of the grid are recorded" in text
    assert "650 blocks of 0.276 s on average, in regions of 16 x 16 blocks" in text
    assert "Slowest blocks" not in text
    assert "needed 4 attempts beyond their first" in text
    assert re.search(r"Slowest regions.*smooth \(0, 32\) 1 s 128 smooth \(0, 16\) 0.1 s 256", text)
    assert RegionFigures.of(regions).map() == pytest.approx(
        np.array([[0.1, 0.1, 1.0], [np.nan, 0.05, np.nan]]), nan_ok=True
    )

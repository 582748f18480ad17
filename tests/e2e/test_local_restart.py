"""A scheduler that dies in a local run: another goes on in its place."""

from __future__ import annotations

import json
import os
import signal
import time

from blockyard.local.run import LocalRun
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec


def test_page_and_workers_find_the_scheduler_that_follows(tmp_path):
    """Both ports stay what they were, so an open page, a progress bar and the workers go on; no retry is spent."""
    total, block = RoiSpec((0,), (200,)), RoiSpec((0,), (1,))
    task = TaskSpec(id="wait", command=("sleep", "0.02"), total_roi=total, read_roi=block, write_roi=block)
    spec = RunSpec(PipelineSpec(name="restart", tasks=(task,)))
    with LocalRun(spec, tmp_path / "run", workers=2) as run:
        before = run.status()
        os.kill(json.loads((tmp_path / "run/scheduler.json").read_bytes())["pid"], signal.SIGKILL)
        until = time.monotonic() + 60
        while (after := run.status()) is None or after.epoch == before.epoch:
            assert time.monotonic() < until
            assert run.wait(0.01) is None
        assert after.state == "running"
        result = run.wait(60)
    assert result.ok
    assert [(t.done, t.retries) for t in result.status.tasks] == [(200, 0)]

"""One bad machine among good ones, as real processes: it fails nothing for good, and is named."""

import os
import subprocess
import sys

import pytest

from blockyard.local.run import LocalRun
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec

STEPS = """\
import os, pathlib, time

def step(block, folder):
    failed = pathlib.Path(folder) / "failed"
    if os.environ.get("BROKEN"):
        with failed.open("a") as file:
            file.write(f"{block.block_id}\\n")
        raise RuntimeError("no device")
    while len(failed.read_text().split()) < 3:  # the bad one has its share first
        time.sleep(0.01)
"""


@pytest.mark.parametrize("slots", [1, 3])
def test_a_broken_machine_fails_no_block_for_good(tmp_path, slots):
    """Each block has two attempts; the bad worker comes first at each moment, and the good one does all."""
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "failed").touch()
    one, whole = RoiSpec((0,), (1,)), RoiSpec((0,), (300,))
    work = TaskSpec(
        id="work",
        function="steps:step",
        params={"folder": str(tmp_path)},
        total_roi=whole,
        read_roi=one,
        write_roi=one,
        read_write_conflict=False,
        max_retries=1,
    )
    run = RunSpec(PipelineSpec(name="broken", tasks=(work,)))
    with LocalRun(run, tmp_path / "run", workers=1, module_path=[str(tmp_path)]) as local:
        argv = [sys.executable, "-m", "blockyard_worker", "--scheduler", local.address, "--slots", str(slots)]
        argv += ["--token-file", str(tmp_path / "run" / "token"), "--module-path", str(tmp_path), "--http-port", "-1"]
        bad = subprocess.Popen(argv, env=os.environ | {"BROKEN": "1"})
        try:
            result = local.wait()
        finally:
            bad.terminate()
            bad.wait()
    assert (result.state, result.status.tasks[0].failed) == ("done", 0)
    tried = (tmp_path / "failed").read_text().split()
    assert len(tried) == len(set(tried)) < 50, "no block twice, and few of them"
    named = [notice for notice in result.status.notices if notice.kind == "bad_worker"]
    assert [notice.task for notice in named] == ["work"]
    assert "RuntimeError: no device" in named[0].text

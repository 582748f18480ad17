"""A typo in a block function: what it costs, what a person is told, and how the run goes on."""

import json
import os
import subprocess
import sys

import pytest

from blockyard.cli.run_command import _one_place
from blockyard.local.result import RunResult, summary
from blockyard.wire.api import Notice, RunStatus

STEPS = "def step(block):\n    return block.write_rio\n"
MENDED = "def step(block):\n    return None\n"
PIPELINE = """\
name: typo
tasks:
  - id: a
    function: steps:step
    total_roi: {offset: [0], shape: [200]}
    read_roi: {offset: [0], shape: [1]}
    write_roi: {offset: [0], shape: [1]}
    read_write_conflict: false
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "p.yaml").write_text(PIPELINE)
    return tmp_path


def blockyard(folder, *words, **environment):
    """Run a command in the folder; give its exit status, output and errors."""
    ran = subprocess.run(
        [sys.executable, "-m", "blockyard.cli", *words],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr


def test_a_typo_pauses_the_run_and_the_mended_code_goes_on(folder):
    """Few attempts, status 1, one sentence that says all; then the same command, which does all blocks."""
    status, out, told = blockyard(folder, "run", "p.yaml", "--workers", "2")
    assert status == 1
    for part in ("typo: paused, 0 of 200 blocks", "AttributeError", "steps.py, line 2", "with: blockyard run p.yaml"):
        assert part in out
    assert "note: task 'a' is leased no more" in told, "whoever follows is told at once"
    assert (out.count("leased no more"), told.count("leased no more")) == (1, 1)
    assert "go on with the same 'blockyard run' again" in told
    status, out, _ = blockyard(folder, "status", "p.yaml", "--json")
    found = json.loads(out)
    assert (found["state"], "AttributeError" in found["reason"]) == ("paused", True)
    assert found["tasks"][0]["retries"] + found["tasks"][0]["failed"] < 30, "not 600"
    assert blockyard(folder, "wait", "p.yaml")[0] == blockyard(folder, "watch", "p.yaml")[0] == 1
    (folder / "steps.py").write_text(MENDED)
    status, out, _ = blockyard(folder, "run", "p.yaml", "--workers", "2")
    assert (status, "typo: done, 200 of 200 blocks" in out) == (0, True)


@pytest.mark.parametrize("how", ["flag", "variable", "task"])
def test_who_keeps_going_is_told_of_all_blocks(folder, how):
    """All blocks fail, each as often as it may."""
    (folder / "p.yaml").write_text(PIPELINE.replace("200", "12") + "    keep_going: true\n" * (how == "task"))
    words = ["--keep-going"] if how == "flag" else []
    environment = {"BLOCKYARD_KEEP_GOING": "1"} if how == "variable" else {}
    status, out, _ = blockyard(folder, "run", "p.yaml", "--workers", "2", *words, **environment)
    assert (status, "typo: failed, 0 of 12 blocks" in out, "12 failed" in out) == (1, True, True)


def test_a_variable_that_is_neither_yes_nor_no_is_refused(folder):
    """As any setting is."""
    status, _, told = blockyard(folder, "run", "p.yaml", BLOCKYARD_KEEP_GOING="perhaps")
    assert (status, "BLOCKYARD_KEEP_GOING is 'perhaps'" in told) == (2, True)


def test_a_script_is_told_of_all_blocks(folder):
    """`distribute` and `run_blockwise` keep going, as in daisy."""
    (folder / "script.py").write_text(
        "from blockyard import run_blockwise, Roi\nimport steps\n"
        "one = Roi((0,), (1,))\n"
        "if __name__ == '__main__':\n"
        "    print(run_blockwise(Roi((0,), (15,)), one, one, steps.step, max_retries=0, num_workers=2))\n"
    )
    ran = subprocess.run([sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "False"
    assert "15 failed" in ran.stderr


def test_who_reads_both_outputs_in_one_place_is_told_once(tmp_path):
    """On a terminal, or in one file of a batch job: the note came while it ran, the summary leaves it out."""
    notice = Notice("code_changed", "another version")
    status = RunStatus(
        run="p", state="paused", epoch=1, elapsed_s=1.0, eta_s=None, tasks=[], workers=[], stale_releases=0,
        leases_expired=0, leases_granted=0, reason="a typo", notices=[notice],
    )  # fmt: skip
    result = RunResult("paused", status)
    assert summary(result).splitlines()[1:] == ["  another version", "a typo"]
    assert summary(result, told=True).splitlines()[1:] == []
    with (tmp_path / "a").open("w") as one, (tmp_path / "a").open("a") as same, (tmp_path / "b").open("w") as other:
        assert (_one_place(one, same), _one_place(one, other)) == (True, False)
    assert not _one_place(one, one), "closed"

"""`blockyard wait`: an exit status for scripts, when a run has ended."""

from __future__ import annotations

import pytest

from blockyard.cli import main
from blockyard.local import LocalRun
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec


def run_of(command, blocks=4):
    total, block = RoiSpec((0,), (blocks,)), RoiSpec((0,), (1,))
    task = TaskSpec(id="t", command=command, total_roi=total, read_roi=block, write_roi=block, max_retries=0)
    return RunSpec(PipelineSpec(name="p", tasks=(task,)))


@pytest.mark.parametrize(("command", "status"), [(("true",), 0), (("false",), 1)])
def test_a_run_that_ends_gives_its_status(tmp_path, capfd, command, status):
    """0 when every block is done, 1 when some have failed; while it runs and afterwards."""
    folder = tmp_path / "run"
    with LocalRun(run_of(command), folder, workers=1) as run:
        assert run.wait(60) is not None
    assert main(["wait", str(folder)]) == status
    assert "4 blocks" in capfd.readouterr().out


def test_a_run_that_lasts_longer_than_the_time_is_3(tmp_path, capfd):
    """And says how far it is."""
    folder = tmp_path / "run"
    with LocalRun(run_of(("sleep", "60")), folder, workers=1):
        assert main(["wait", str(folder), "--timeout", "0.2"]) == 3
    assert "running" in capfd.readouterr().out


def test_a_run_that_was_stopped_is_a_sentence(tmp_path, capfd):
    """Nobody works on it: waiting would last for ever."""
    folder = tmp_path / "run"
    with LocalRun(run_of(("sleep", "60")), folder, workers=1):
        pass
    assert main(["wait", str(folder)]) == 2
    assert "is not running and has not ended" in capfd.readouterr().err

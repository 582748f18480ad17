"""A module that is edited while its run goes on, or between two of its starts: what ran is known, and said."""

import pytest

from blockyard.cli.app import main

PIPELINE = """\
name: edited
tasks:
  - id: a
    function: edited_steps:work
    max_retries: 0
    total_roi: {offset: [0], shape: [6]}
    read_roi: {offset: [0], shape: [1]}
    write_roi: {offset: [0], shape: [1]}
"""
STEPS = """
import os, pathlib
from edited_constants import VERSION

HERE = pathlib.Path(__file__).parent

def work(block):
    if block.block_id == 3 and VERSION == 1:
        (HERE / "edited_constants.py").write_text("VERSION = 2\\n")
        os._exit(3)
    if block.block_id == 5 and VERSION == 2:
        raise ValueError("two is not good enough")
"""
SAID = "note: the code of task 'a' was changed since its first blocks ran"


@pytest.fixture
def pipeline(tmp_path):
    (tmp_path / "p.yaml").write_text(PIPELINE)
    (tmp_path / "edited_steps.py").write_text(STEPS)
    (tmp_path / "edited_constants.py").write_text("VERSION = 1\n")
    return tmp_path / "p.yaml"


def test_two_versions_in_one_result_are_told(pipeline, tmp_path, capfd):
    """By the run in which a slot imports another one, and by a resume; not by one that runs all with one version."""
    assert main(["run", str(pipeline), "--workers", "1"]) == 1
    out, err = capfd.readouterr()
    assert SAID in err
    assert "the code of task 'a' was changed" in out
    (tmp_path / "edited_constants.py").write_text("VERSION = 3\n")
    run_dir = tmp_path / ".blockyard" / "edited"
    assert main(["retry", str(run_dir)]) == 0
    assert main(["run", str(pipeline), "--workers", "1"]) == 0
    assert SAID in capfd.readouterr().err
    assert main(["run", str(pipeline), "--workers", "1", "--fresh"]) == 0
    assert "was changed" not in "".join(capfd.readouterr())

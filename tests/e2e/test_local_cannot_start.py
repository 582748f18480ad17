"""A local run in which something can't be started: it ends with the reason, and with all that could be done."""

import json
import os
import subprocess
import sys

STEPS = """
import pathlib
from blockyard import Client

HERE = pathlib.Path(__file__).parent

def dead():
    with open(HERE / "starts", "a") as file: file.write(".")
    if not (HERE / "mended").exists(): raise ValueError("no weights in model.pt")
    client = Client()
    while (block := client.acquire_block()) is not None: client.release_block(block)

def mark(block):
    (HERE / f"{block.task_id}-{block.block_id}").touch()
"""
BLOCK = "read_roi: {offset: [0], shape: [10]}\n    write_roi: {offset: [0], shape: [10]}"
PIPELINE = f"""
name: partly
tasks:
  - id: apart
    function: steps:mark
    total_roi: {{offset: [0], shape: [30]}}
    {BLOCK}
  - id: dead
    worker: steps:dead
    total_roi: {{offset: [0], shape: [20]}}
    {BLOCK}
  - id: after
    function: steps:mark
    requires: [dead]
    total_roi: {{offset: [0], shape: [20]}}
    {BLOCK}
"""


def run(folder, *words):
    command = [sys.executable, "-m", "blockyard.cli", "run", str(folder / "pipeline.yaml"), "--workers", "1", *words]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BLOCKYARD_")}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200, check=False)


def test_a_worker_of_the_users_own_that_can_not_start_ends_the_run_when_nothing_else_is_left(tmp_path):
    """With its reason, status 1, and the other task done; once it is mended, the same command goes on."""
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    first = run(tmp_path)
    assert first.returncode == 1
    assert "ValueError: no weights in model.pt" in first.stderr
    assert "ValueError: no weights in model.pt" in first.stdout
    assert "go on with: blockyard run" in first.stdout
    assert sorted(path.name for path in tmp_path.glob("apart-*")) == ["apart-0", "apart-1", "apart-2"]
    kept = json.loads((tmp_path / ".blockyard/partly/status.json").read_text())
    assert kept["state"] == "stopped"
    assert [notice["kind"] for notice in kept["notices"]] == ["cannot_start"]
    assert not list(tmp_path.glob("after-*"))

    (tmp_path / "mended").touch()
    assert run(tmp_path).returncode == 0
    assert sorted(path.name for path in tmp_path.glob("after-*")) == ["after-0", "after-1"]

"""Folders of any name, and what relative paths mean, whatever folder a person stands in."""

import os
import subprocess
import sys

import pytest

STEPS = """\
import beside

def note(block, out):
    with open(out, "a") as file:
        file.write(f"{block.block_id} {beside.HERE}\\n")
    print("noted")
"""

PIPELINE = """\
name: paths
tasks:
  - id: first
    function: paths_steps:note
    params: {out: out.txt}
    total_roi: {offset: [0], shape: [4]}
    read_roi: {offset: [0], shape: [1]}
    write_roi: {offset: [0], shape: [1]}
  - id: second
    command: [sh, -c, "cat >> commands.txt"]
    requires: [first]
    total_roi: {offset: [0], shape: [4]}
    read_roi: {offset: [0], shape: [1]}
    write_roi: {offset: [0], shape: [1]}
"""

NAMES = {
    "separators": b"2026-11-27T10:30;50%23 #?*[a]!{x}",
    "quotes": b'it\'s "quoted" $HOME `id` \\b',
    "line end": b"new\nline \x1b[31m",
    "no text": b"\xff\xfe\x80",
    "like a flag": b"-dash --workers=0.",
    "decomposed": "e\u0301 日本\U0001f600".encode(),
    "long": b"x" * 200,
}
"""What is in the name of a folder."""


def blockyard(*words, cwd):
    """Run a command line; give its exit status and what it printed."""
    command = [sys.executable, "-m", "blockyard.cli", *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, check=False)
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


def written(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "paths_steps.py").write_text(STEPS)
    (folder / "beside.py").write_text("HERE = 'beside'\n")
    (folder / "pipe.yaml").write_text(PIPELINE)
    return folder


@pytest.fixture
def elsewhere(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


def assert_ran(folder):
    """Module, data, programs and state were those of the pipeline file's folder."""
    assert sorted((folder / "out.txt").read_text().split("\n")) == ["", *(f"{n} beside" for n in range(4))]
    assert (folder / "commands.txt").read_text().count("write_roi") == 4
    assert (folder / ".blockyard" / "paths" / "status.json").exists()


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_folder_may_have_any_name(tmp_path, elsewhere, name):
    """A run, a look at it and at what a block wrote, and a serial run."""
    folder = written(tmp_path / os.fsdecode(name))
    status, said = blockyard("run", folder / "pipe.yaml", "--workers", "1", cwd=elsewhere)
    assert status == 0, said
    assert_ran(folder)
    assert list(elsewhere.iterdir()) == []
    for words in (("status",), ("logs", "first", "0")):
        status, said = blockyard(*words, folder / "pipe.yaml", cwd=elsewhere)
        assert (status, "Traceback" in said) == (0, False), said
    (folder / "out.txt").unlink()
    (folder / "commands.txt").unlink()
    status, said = blockyard("run", "pipe.yaml", "--serial", cwd=folder)
    assert status == 0, said
    assert_ran(folder)


SCRIPT = """\
import blockyard, paths_steps
from blockyard import Roi

def look(block):
    paths_steps.note(block, "out.txt")

if __name__ == "__main__":
    ok = blockyard.run_blockwise(Roi((0,), (4,)), Roi((0,), (1,)), Roi((0,), (1,)), look, num_workers=1, run_dir="run")
    print("ended", ok)
"""


@pytest.mark.parametrize("name", [NAMES["separators"], NAMES["no text"]], ids=["separators", "no text"])
def test_a_script_may_keep_its_run_in_a_folder_of_any_name(tmp_path, name):
    """Closures travel in files there; relative paths are those of the folder where it was started."""
    code = written(tmp_path / "code")
    (code / "script.py").write_text(SCRIPT)
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    done = subprocess.run([sys.executable, code / "script.py"], cwd=folder, capture_output=True, check=False)
    assert b"ended True" in done.stdout, done.stderr
    assert sorted((folder / "out.txt").read_text().split("\n")) == ["", *(f"{n} beside" for n in range(4))]
    assert (folder / "run" / "status.json").exists()

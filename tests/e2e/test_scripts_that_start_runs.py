"""Scripts that start runs in places of their own: while they are imported, and in processes of multiprocessing."""

import subprocess
import sys
from pathlib import Path

import pytest

PIPELINE = """\
name: imported
tasks:
  - id: work
    function: script:f
    total_roi: {offset: [0], shape: [4]}
    read_roi: {offset: [0], shape: [1]}
    write_roi: {offset: [0], shape: [1]}
"""

SCRIPT = """\
import multiprocessing, os, sys
import blockyard
from blockyard import Roi

class Mark:
    name = "done"

def f(block):
    assert isinstance(MARK, Mark)
    open(f"{MARK.name}-{block.block_id}", "w").close()

MARK = Mark()
ROIS = {"total_roi": Roi((0,), (4,)), "read_roi": Roi((0,), (1,)), "write_roi": Roi((0,), (1,))}

def go():
    return blockyard.run_blockwise(process_function=f, num_workers=2, **ROIS)
"""

AT_THE_TOP = {
    "run_blockwise": SCRIPT + "\nprint(go())\n",
    "distribute": SCRIPT + "\nprint(blockyard.distribute([]))\n",
    "in_a_module_of_it": "from helper import f\n",
    "as_a_main_of_its_own": SCRIPT + "\ndef main(): print(go())\nmain()\n",
}


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "p.yaml").write_text(PIPELINE)
    return tmp_path


RUN, IMPORT = ("-m", "blockyard.cli", "run", "p.yaml"), ("-c", "import script")


@pytest.mark.parametrize(
    ("kind", "how"),
    [*((kind, RUN) for kind in AT_THE_TOP), ("run_blockwise", IMPORT), ("as_a_main_of_its_own", IMPORT)],
)
def test_a_module_that_starts_a_run_when_it_is_imported_is_told_where_that_belongs(here, kind, how):
    """It would start one in each process that imports its functions, and those again."""
    (here / "script.py").write_text(AT_THE_TOP[kind])
    (here / "helper.py").write_text(AT_THE_TOP["run_blockwise"])
    result = python(*how)
    last = result.stderr.splitlines()[-1]
    assert "starts a run while it is imported" in last
    assert 'under `if __name__ == "__main__":`' in last
    assert result.returncode == (2 if how is RUN else 1)
    assert list(here.glob("done-*")) == []


def test_the_same_module_runs_as_a_script(here):
    """There its top is the program."""
    (here / "script.py").write_text(AT_THE_TOP["run_blockwise"])
    result = python("script.py")
    assert (result.returncode, result.stdout) == (0, "True\n")
    assert len(list(here.glob("done-*"))) == 4


@pytest.mark.parametrize("top", ["argparse.ArgumentParser().parse_args(['--sigma'])", "sys.exit(0)", "exit('usage')"])
def test_a_module_that_ends_the_program_when_it_is_imported_is_told_the_same(here, top):
    """Arguments are parsed at the top of many a script."""
    (here / "script.py").write_text(f"import argparse, sys\n{top}\ndef f(block): pass\n")
    result = python(*RUN)
    assert result.returncode == 2
    assert "importing 'script' failed with SystemExit" in result.stderr
    assert 'under `if __name__ == "__main__":`' in result.stderr


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_run_is_started_in_a_process_of_multiprocessing(here, method):
    """Its functions are those of a script with another name there; a process of a pool is a daemon."""
    call = f"multiprocessing.get_context({method!r}).Pool(1).apply(go)"
    Path("script.py").write_text(SCRIPT + f"\nif __name__ == '__main__':\n    print({call})\n")
    result = python("-W", "ignore", "script.py")
    assert result.stdout == "True\n", result.stderr
    assert len(list(here.glob("done-*"))) == 4

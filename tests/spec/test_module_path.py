"""Where user code is found: folders of any name, and modules that are named like Python's own."""

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.spec.module_path import (
    OTHERS_NEED,
    VARIABLE,
    absolute_python_path,
    join_folders,
    python_of,
    split_folders,
)

NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: not {b"\0", b"/"} & {bytes([byte]) for byte in name})


@given(st.lists(NAMES.map(lambda name: os.fsdecode(b"/" + name)), max_size=4))
def test_folders_of_any_name_arrive_as_they_are(folders):
    """Separators, quotes, line ends, bytes that are no text: in ASCII, so that any variable takes them."""
    text = join_folders(folders)
    assert text.isascii()
    assert split_folders(text) == [str(Path(folder)) for folder in folders]


def test_what_a_person_writes_is_read_as_it_is_meant(tmp_path, monkeypatch):
    """Folders with ':' between; one that has it in its name, where that is there; relative ones from here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "10:30").mkdir()
    (tmp_path / "[1]").mkdir()
    assert split_folders("/a:/b::/c") == ["/a", "/b", "/c"]
    assert split_folders(f"{tmp_path}/10:30") == [f"{tmp_path}/10:30"]
    assert split_folders("10:30") == [f"{tmp_path}/10:30"]
    assert split_folders("[1]") == [f"{tmp_path}/[1]"]
    assert split_folders("lib") == [f"{tmp_path}/lib"]


@pytest.mark.parametrize(
    ("given", "told"), [(":/lib", "{here}:/lib"), (".:lib", "{here}:{here}/lib"), ("/a", "/a"), ("", "")]
)
def test_python_path_means_the_same_in_another_folder(tmp_path, monkeypatch, given, told):
    """An empty folder in it is the one where the user stands."""
    monkeypatch.chdir(tmp_path)
    environment = {"PYTHONPATH": given}
    absolute_python_path(environment)
    assert environment["PYTHONPATH"] == told.format(here=tmp_path)


def run_in(folder, code, **variables):
    """Run code as a slot runs that of its user, in `folder`."""
    (folder / "probe_main.py").write_text("")
    start = "import os, runpy, sys; from blockyard.spec.module_path import find_user_code; find_user_code(os.environ)\n"
    command = [sys.executable, "-P", "-c", start + textwrap.dedent(code)]
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_users_module_is_in_nobodys_way_whatever_its_name(tmp_path):
    """One for each module of this Python: what it and libraries import later is Python's own, in children too."""
    for name in filter(importlib.util.find_spec, sorted(OTHERS_NEED - {"__main__"})):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the one of the user')\n")
    (tmp_path / "steps.py").write_text("def f(x):\n    return x + 1\n")
    done = run_in(
        tmp_path,
        """
        import concurrent.futures, email.message, http.client, multiprocessing, statistics, tempfile, xml.dom.minidom
        import steps
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(pool.map(steps.f, [1]), steps.__file__)
        """,
    )
    assert (done.returncode, done.stdout) == (0, f"[2] {tmp_path}/steps.py\n"), done.stderr


@pytest.mark.parametrize("name", ["queue", "test", "statistics", "types", "token"])
def test_a_function_of_a_module_named_like_pythons_is_found(tmp_path, name):
    """Named as 'module:name', and where Python's own one is in use."""
    (tmp_path / f"{name}.py").write_text("def mine():\n    return 'mine'\n")
    done = run_in(
        tmp_path,
        f"""
        import queue, types, token
        from blockyard.spec.functions import load_function
        found = load_function("{name}:mine", pickle_dir=None)
        print(found(), found is load_function("{name}:mine", pickle_dir=None))
        """,
    )
    assert (done.returncode, done.stdout) == (0, "mine True\n"), done.stderr


def test_an_import_that_meets_pythons_own_module_says_so(tmp_path):
    """The user's file is named."""
    (tmp_path / "queue.py").write_text("def mine():\n    pass\n")
    (tmp_path / "steps.py").write_text("from queue import mine\n")
    done = run_in(
        tmp_path,
        """
        from blockyard.spec.functions import load_function
        load_function("steps:mine", pickle_dir=None)
        """,
    )
    assert f"{tmp_path}/queue.py is not found: rename it" in done.stderr


def test_programs_of_user_code_find_it_too(tmp_path):
    """By PYTHONPATH, before what the user has there."""
    folder, more = tmp_path / "code", tmp_path / "more"
    folder.mkdir()
    more.mkdir()
    (folder / "tool.py").write_text("print('tool')\n")
    done = run_in(
        more,
        """
        import subprocess
        print(os.environ["PYTHONPATH"], flush=True)
        subprocess.run([sys.executable, "-m", "tool"], check=True)
        """,
        **{VARIABLE: join_folders([str(folder)]), "PYTHONPATH": "/theirs"},
    )
    assert done.stdout == f"{folder}:{more}:/theirs\ntool\n", done.stderr


@pytest.mark.parametrize("name", ["queue", "random", "types", "json", "secrets", "platform"])
def test_our_own_processes_start_beside_a_module_named_like_pythons(tmp_path, name):
    """Scheduler, agent and the check of functions, in a folder with such a file."""
    (tmp_path / f"{name}.py").write_text("raise RuntimeError('the one of the user')\n")
    for module in ("blockyard_scheduler", "blockyard_worker"):
        done = subprocess.run(python_of(module, "--help"), cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

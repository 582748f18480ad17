"""A reference leads back to its function: by name where a worker can import it, by a private pickle where not."""

from __future__ import annotations

import functools
import os
import stat
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path
from typing import Any

import pytest

from blockyard import Parameter, Task
from blockyard.spec.errors import SpecError
from blockyard.spec.functions import PICKLE, is_own_worker, is_reference, load_function, reference_of


def block_function(block: Any) -> Any:
    return ("done", block)


class Model:
    """What a class of a block may look like."""

    def __init__(self, scale: int = 1) -> None:
        self.scale = scale

    def __call__(self, block: Any) -> Any:
        return self.scale * block

    def method(self, block: Any) -> Any:
        return self.scale + block

    @staticmethod
    def static(block: Any) -> Any:
        return -block


class OwnWorker:
    def __call__(self) -> None: ...


class PerBlock:
    def __init__(self, block: Any) -> None: ...


def test_what_a_worker_can_import_is_named(tmp_path: Path) -> None:
    """Functions, classes and static methods of modules; nothing is written for them."""
    here = __name__
    for function, name in [
        (block_function, f"{here}:block_function"),
        (Model, f"{here}:Model"),
        (Model.static, f"{here}:Model.static"),
        (os.path.join, "posixpath:join"),
    ]:
        assert reference_of(function, str(tmp_path / "functions")) == name
        assert reference_of(function, None) == name
        assert load_function(name, pickle_dir=None) is function
    assert not (tmp_path / "functions").exists()


def test_a_name_is_its_own_reference() -> None:
    """And one that is none is refused, as is somebody else's pickle."""
    assert reference_of("em.cells:smooth", None) == "em.cells:smooth"
    for text in ("em.cells.smooth", "em:", ":smooth", "em:smooth()", "pickle:/tmp/f.pkl", "pickle:loads", ""):
        with pytest.raises(SpecError, match="names no function; write 'module:name'"):
            reference_of(text, "/tmp")


def test_what_cannot_be_imported_is_pickled_privately(tmp_path: Path) -> None:
    """Closures, lambdas, bound methods, partials and callable objects; only the owner can read the files."""
    folder = tmp_path / "run" / "functions"
    scale = 3
    cases: list[tuple[Any, int, int]] = [
        (lambda block: scale * block, 2, 6),
        (functools.partial(max, 10), 2, 10),
        (Model(5), 2, 10),
        (Model(5).method, 2, 7),
    ]
    for function, argument, result in cases:
        reference = reference_of(function, str(folder))
        assert is_reference(reference)
        path = Path(reference.removeprefix(PICKLE))
        assert path.parent == folder
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert load_function(reference, pickle_dir=str(folder))(argument) == result
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_same_closure_is_written_once(tmp_path: Path) -> None:
    """Files are named after their content."""
    scale = 3

    def closure(block: Any) -> Any:
        return scale * block

    assert reference_of(closure, str(tmp_path)) == reference_of(closure, str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_shadowed_function_is_not_taken_for_its_namesake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is only used where importing it gives this very object."""
    original = block_function
    monkeypatch.setattr(sys.modules[__name__], "block_function", lambda block: "another")
    reference = reference_of(original, str(tmp_path))
    assert reference.startswith(PICKLE)
    assert load_function(reference, pickle_dir=str(tmp_path))(1) == ("done", 1)


def test_a_method_of_a_task_brings_its_parameters_along(tmp_path: Path) -> None:
    """But not what the task has scheduled, which may hold what cannot be pickled."""

    class Smooth(Task):
        sigma = Parameter()
        radius = Parameter(default=4)

        def prepare(self) -> None:
            lock = threading.Lock()
            self.schedule(None or roi, roi, roi, process_function=self.process, check_function=lambda block: lock)

        def process(self, block: Any) -> Any:
            return (self.sigma, self.radius, self.task_id, block)

    from funlib.geometry import Roi

    roi = Roi((0,), (4,))
    task = Smooth(sigma=2)
    task.prepare()
    reference = reference_of(task.scheduled.process_function, str(tmp_path))
    assert load_function(reference, pickle_dir=str(tmp_path))(7) == (2, 4, "Smooth", 7)


def test_a_module_that_exists_in_this_process_only_is_pickled_with_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process could not import it by name."""
    module = types.ModuleType("made_by_hand")
    exec("def twice(block):\n    return factor * block\nfactor = 2", module.__dict__)
    monkeypatch.setitem(sys.modules, "made_by_hand", module)
    reference = reference_of(module.twice, str(tmp_path))
    assert reference.startswith(PICKLE)
    monkeypatch.delitem(sys.modules, "made_by_hand")
    assert load_function(reference, pickle_dir=str(tmp_path))(4) == 8


def test_functions_of_a_script_reach_another_process(tmp_path: Path) -> None:
    """The functions of ``__main__`` are pickled with the code and the globals they use."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import math, sys
            from blockyard.spec.functions import reference_of
            factor = 3
            def process(block):
                return factor * math.floor(block)
            print(reference_of(process, sys.argv[1]))
            """
        )
    )
    folder = str(tmp_path / "functions")
    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True, check=True)
    assert load_function(done.stdout.strip(), pickle_dir=folder)(2.5) == 6


def test_a_cluster_takes_no_code_over_the_network(tmp_path: Path) -> None:
    """The sentence says why, and what to do instead."""
    with pytest.raises(SpecError, match=r"only work in local runs.*put the function into a module"):
        reference_of(lambda block: None, None)
    reference = reference_of(lambda block: None, str(tmp_path))
    with pytest.raises(SpecError, match=r"is refused: closures.*only work in local runs.*'module:name'"):
        load_function(reference, pickle_dir=None)


def test_only_pickles_of_the_run_itself_are_loaded(tmp_path: Path) -> None:
    """Loading a pickle runs code, so a file elsewhere, a link out of the folder and a file others write are refused."""
    run, other = tmp_path / "run", tmp_path / "other"
    reference = reference_of(lambda block: None, str(other))
    outside = Path(reference.removeprefix(PICKLE))
    run.mkdir()
    (run / "link.pkl").symlink_to(outside)
    for path in (outside, run / ".." / "other" / outside.name, run / "link.pkl"):
        with pytest.raises(SpecError, match="is refused: it is not in"):
            load_function(f"{PICKLE}{path}", pickle_dir=str(run))
    outside.chmod(0o620)
    with pytest.raises(SpecError, match="is refused: other users can write it"):
        load_function(reference, pickle_dir=str(other))
    with pytest.raises(SpecError, match="cannot be read: No such file"):
        load_function(f"{PICKLE}{run}/none.pkl", pickle_dir=str(run))


def test_what_cannot_be_pickled_is_said_to_be_so(tmp_path: Path) -> None:
    """With what to do about it; and nothing is left in the folder."""
    lock = threading.Lock()
    with pytest.raises(SpecError, match=r"<lambda>' cannot be sent to a worker process .*inside the function"):
        reference_of(lambda block: lock, str(tmp_path / "functions"))
    assert not (tmp_path / "functions").exists()
    with pytest.raises(SpecError, match="3 is an int, not a function"):
        reference_of(3, str(tmp_path))


def test_an_object_leaves_behind_what_cannot_come_along_and_is_not_needed(tmp_path: Path) -> None:
    """A closure over ``self``, a method, a partial; what is used all the same says so in the worker."""

    class Owner:
        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.itself = self
            self.scale = 3

        def method(self, block: Any) -> Any:
            return self.scale * block

        def locked(self, block: Any) -> Any:
            with self.lock:
                return block

        def asks(self, block: Any) -> Any:
            return self.lock.locked()

    owner, folder = Owner(), str(tmp_path)
    for function in (
        owner.method,
        lambda block: owner.method(block) * 1,
        functools.partial(lambda owned, block: owned.scale * block, owner),
    ):
        assert load_function(reference_of(function, folder), pickle_dir=folder)(2) == 6
    for function in (owner.locked, owner.asks):
        with pytest.raises(RuntimeError, match=r"Owner\.lock could not come along to the worker process \(TypeError"):
            load_function(reference_of(function, folder), pickle_dir=folder)(2)
    assert owner.lock.acquire(blocking=False)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """For instance one that is a file."""
    (tmp_path / "file").touch()
    with pytest.raises(SpecError, match="file cannot be written: File exists"):
        reference_of(lambda block: None, str(tmp_path / "file"))


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "good_cells.py").write_text("def smooth(block): ...\ndef segment(block): ...\nNUMBER = 3\n")
    (tmp_path / "needs_more.py").write_text("import surely_not_installed_anywhere\n")
    (tmp_path / "fails.py").write_text("1 / 0\n")
    (tmp_path / "broken.py").write_text("def smooth(block:\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("good_cells:smoth", "'good_cells:smoth': module 'good_cells' has no 'smoth'; did you mean 'smooth'?"),
        ("good_cells:smooth.more", "function 'smooth' of module 'good_cells' has no 'more'"),
        ("good_cells:NUMBER", "'good_cells:NUMBER' is an int, not a function or a class"),
        ("good_cell:smooth", "'good_cell:smooth': there is no module 'good_cell' in {folder}"),
        ("good_cells.sub:smooth", "there is no module 'good_cells.sub' in {folder}"),
        ("needs_more:f", "importing 'needs_more' failed with ModuleNotFoundError: No module named 'surely_not"),
        ("fails:f", "importing 'fails' failed with ZeroDivisionError: division by zero"),
        ("broken:f", "importing 'broken' failed with SyntaxError"),
        ("good_cells.smooth", "names no function; write 'module:name'"),
    ],
)
def test_a_function_that_is_not_there_is_told_with_where_it_was_looked_for(
    modules: Path, reference: str, says: str
) -> None:
    """The sentence names module, folders and the nearest name; the cause stays attached for who debugs."""
    with pytest.raises(SpecError) as error:
        load_function(reference, pickle_dir=None)
    assert says.format(folder=modules) in str(error.value)


@pytest.mark.parametrize(
    ("function", "own"),
    [
        (lambda: None, True),
        (lambda block: None, False),
        (lambda block=None: None, False),
        (lambda *blocks: None, False),
        (lambda **named: None, True),
        (lambda *, outdir: None, False),
        (lambda *, outdir="x": None, True),
        (functools.partial(lambda outdir: None, "x"), True),
        (functools.partial(lambda outdir: None, outdir="x"), True),
        (functools.partial(lambda outdir, block: None, "x"), False),
        (functools.partial(lambda block, outdir: None, outdir="x"), False),
        (Model, False),
        (Model(), False),
        (Model().method, False),
        (OwnWorker, True),
        (OwnWorker(), True),
        (OwnWorker().__call__, True),
        (PerBlock, False),
        (print, False),
        (dict, False),
    ],
)
def test_a_worker_of_ones_own_is_what_takes_no_argument(function: Any, own: bool) -> None:
    """What could take a block takes one; a class is judged by its instances."""
    assert is_own_worker(function) is own

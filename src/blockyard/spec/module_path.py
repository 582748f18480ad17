"""Where user code is found: from the folders that somebody names to `sys.path` of the processes that run it.

Our own processes start without the current folder on their path (`python_of`), and user code is looked for behind
Python's own modules and before what is installed. So a user's ``random.py`` or ``queue.py`` is in nobody's way, neither
when we start nor when a library imports Python's own one later. The folders travel in a variable of ours and not in
PYTHONPATH, which comes before all else and has no way to say a folder with ':' in its name.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterable, MutableMapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

VARIABLE = "BLOCKYARD_MODULE_PATH"
PYTHONS = {
    Path(os.__file__).parent,
    Path(os.__file__).parent / "lib-dynload",
    Path(os.__file__).parents[1] / f"python{sys.version_info[0]}{sys.version_info[1]}.zip",
}
"""Where Python has its own modules."""
NOBODY_NEEDS = frozenset(
    {"antigravity", "ensurepip", "idlelib", "lib2to3", "test", "this", "turtle", "turtledemo", "venv"}
)
"""Modules of Python that no library imports: a user's own one of that name wins (``test.py``, most often)."""
OTHERS_NEED = sys.stdlib_module_names - NOBODY_NEEDS


def python_of(module: str, *arguments: str) -> list[str]:
    """Return the command line of one of our own modules, which does not see what lies in the current folder."""
    return [sys.executable, "-P", "-m", module, *arguments]


# ----- on the way -------------------------------------------------------------------------------------------------


def join_folders(folders: Iterable[str]) -> str:
    r"""Return folders as the value of ``--module-path``: whatever is in their names, also bytes that are no text.

    >>> join_folders(["/data/10:30", "/b\udcff"])
    '["/data/10:30", "/b\\udcff"]'
    """
    listed = list(folders)
    return json.dumps(listed) if listed else ""


def split_folders(text: str) -> list[str]:
    """Return the folders of a ``--module-path``, absolute: a JSON list, one folder, or several with ':' between.

    >>> split_folders('["/data/10:30", "/lib"]'), split_folders("/code:/lib"), split_folders("")
    (['/data/10:30', '/lib'], ['/code', '/lib'], [])
    """
    folders = text.split(os.pathsep)
    with contextlib.suppress(OSError):  # too long for the name of one
        folders = [text] if Path(text).is_dir() else folders
    if text.startswith('["'):
        with contextlib.suppress(ValueError):  # a folder with such a name
            folders = [str(folder) for folder in json.loads(text)]
    return [str(Path(folder).absolute()) for folder in folders if folder]


def absolute_python_path(environ: MutableMapping[str, str]) -> None:
    """Make the folders of PYTHONPATH mean the same in whatever folder a process starts; an empty one is the current."""
    if environ.get("PYTHONPATH"):
        folders = environ["PYTHONPATH"].split(os.pathsep)
        environ["PYTHONPATH"] = os.pathsep.join(str(Path(folder).absolute()) for folder in folders)


# ----- in the process that runs user code -------------------------------------------------------------------------


def find_user_code(environ: MutableMapping[str, str]) -> None:
    """Let this process import user code: from the folders that its agent names, then from where it runs.

    Programs that user code starts find it too, by PYTHONPATH: as far as that can say the folders, and those with
    nothing in the way of Python's own modules.
    """
    folders = split_folders(environ.get(VARIABLE, ""))
    with contextlib.suppress(FileNotFoundError):  # it has been removed
        folders.append(str(Path.cwd()))
    search_in(folders)
    told = [
        folder for folder in dict.fromkeys(folders) if os.pathsep not in folder and not named_like_pythons([folder])
    ]
    if told:
        before = environ.get("PYTHONPATH", "")
        environ["PYTHONPATH"] = os.pathsep.join([*told, *([before] if before else [])])


def search_in(folders: Sequence[str]) -> None:
    """Let this process import from `folders`: behind Python's own modules, before all else, PYTHONPATH too."""
    ours = [folder for folder in dict.fromkeys(folders) if folder]
    pythons = [entry for entry in sys.path if _is_pythons(entry)]
    sys.path[:] = [*pythons, *ours, *(entry for entry in sys.path if entry not in pythons and entry not in ours)]
    sys.meta_path.insert(0, _UsersOwn(folders))
    importlib.invalidate_caches()


class _UsersOwn(MetaPathFinder):
    """Finds a user's module that is named like one of Python which nobody needs."""

    def __init__(self, folders: Sequence[str]) -> None:
        self.folders = list(folders)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where it is (called by Python)."""
        del target
        return PathFinder.find_spec(name, self.folders) if path is None and name in NOBODY_NEEDS else None


def import_users_own(name: str) -> ModuleType | None:
    """Import a user's module that is named like one of Python's own; None where there is no such thing.

    It stays out of the way of who imports Python's own one, which may be in use.
    """
    if name not in OTHERS_NEED:
        return None
    found = PathFinder.find_spec(name, [entry for entry in sys.path if not _is_pythons(entry)])
    if found is None or found.loader is None:
        return None
    kept_as = f"{name} in {found.origin}"
    if kept_as not in sys.modules:
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        sys.modules[kept_as] = module
    return sys.modules[kept_as]


def named_like_pythons(folders: Iterable[str]) -> list[str]:
    """Return the modules in `folders` that have the name of one of Python which others may need."""
    found = []
    for folder in folders:
        try:
            entries = sorted(Path(folder).iterdir())
        except OSError:  # no folder
            continue
        for entry in entries:
            file = entry if entry.suffix == ".py" else entry / "__init__.py"
            if entry.name.removesuffix(".py") in OTHERS_NEED and file.is_file():
                found.append(str(file))
    return found


def rename_hint() -> str:
    """Return what to say where an import failed and a module of the user's may have been meant; "" where none was."""
    files = named_like_pythons(
        entry for entry in sys.path if entry and not _is_pythons(entry) and not _installed(entry)
    )
    if not files:
        return ""
    names = ", ".join(files[:3])
    return f"; beside Python's own module of that name, {names} is not found: rename it, if that is what was meant"


def _is_pythons(entry: str) -> bool:
    return Path(entry) in PYTHONS


def _installed(entry: str) -> bool:
    return Path(entry).name in ("site-packages", "dist-packages") or entry.endswith(".zip")

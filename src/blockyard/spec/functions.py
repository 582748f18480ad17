"""References to user code: what a specification carries in the place of a function.

``"module:name"`` names what any worker can import. ``"pickle:/absolute/file"`` names a private file of a local run, in
which cloudpickle keeps what cannot be imported: closures, lambdas, bound methods, functions of a script or notebook.
Pickles stay on the machine: a cluster refuses them, and so does a worker for any file outside its run's own folder.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import types
from pathlib import Path
from typing import Any

from blockyard.spec.errors import NotImportableError, SpecError, article, nearest
from blockyard.spec.importing import UNDER_MAIN, importing
from blockyard.spec.module_path import import_users_own, rename_hint
from blockyard.spec.pickles import (
    MAIN,
    ONLY_LOCAL,
    PICKLE,
    is_importable,
    load_pickle,
    pickle_function,
    reference_to,
    write_pickle,
)

__all__ = ["PICKLE", "REFERENCE_PATTERN", "has_call", "is_own_worker", "is_reference", "load_function", "reference_of"]

_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
REFERENCE_PATTERN = rf"{_IDENTIFIER}(\.{_IDENTIFIER})*:{_IDENTIFIER}(\.{_IDENTIFIER})*"
"""A regular expression in words that Python, JSON schema and Go read alike."""
_REFERENCE = re.compile(REFERENCE_PATTERN)


def is_reference(text: str) -> bool:
    """Tell whether `text` has the form of a reference: ``module:name``, dots allowed in both, or ``pickle:/file``."""
    if text.startswith(PICKLE):  # never the module of that name
        return text.startswith(PICKLE + "/")
    return _REFERENCE.fullmatch(text) is not None


def load_function(reference: str, *, pickle_dir: str | None) -> Any:
    """Return the object that a reference names.

    Imports the module, so user code runs. `pickle_dir` is the private folder of a local run, the only place pickles are
    read from; None refuses them all. Raises SpecError, naming what was looked for and where.
    """
    if reference.startswith(PICKLE):
        return load_pickle(reference, pickle_dir)
    if not is_reference(reference):
        raise SpecError(f"'{reference}' names no function; write 'module:name'")
    module_name, _, path = reference.partition(":")
    found: Any = _import(module_name, reference)
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise SpecError(
                f"'{reference}': {_describe(found)} has no '{name}'{_nearest_public(name, found)}"
            ) from None
    if not callable(found):
        raise SpecError(f"'{reference}' is {article(type(found).__name__)}, not a function or a class")
    return found


def reference_of(function: Any, pickle_dir: str | None) -> str:
    """Return a reference to `function`: ``"module:name"`` where a worker can import it, else a pickle in `pickle_dir`.

    The file is named after its content and only its owner may read it (mode 0600). Raises SpecError for what is not
    callable or cannot be pickled, and, where `pickle_dir` is None (a cluster), for all that cannot be imported.
    """
    if isinstance(function, str):
        if not is_reference(function) or function.startswith(PICKLE):
            raise SpecError(f"'{function}' names no function; write 'module:name'")
        return function
    if not callable(function):
        raise SpecError(f"{function!r} is {article(type(function).__name__)}, not a function or a class")
    name = _importable_name(function)
    if name is not None:
        return name
    if pickle_dir is None:
        raise SpecError(f"{_describe(function)} cannot be imported by a worker: {ONLY_LOCAL}")
    return reference_to(write_pickle(pickle_function(function), Path(pickle_dir).absolute()))


def is_own_worker(function: Any) -> bool:
    """Tell whether `function` is a worker of the user's own, which takes no argument, and not a function of a block.

    What could take a block takes one: ``def f(x=1)`` is a block function. A class is judged by its ``__call__``, since
    its instances are what gets called; a class without one by its constructor. What cannot be inspected takes a block.
    """
    called = types.MethodType(function.__call__, object()) if has_call(function) else function
    try:
        signature = inspect.signature(called)
    except (TypeError, ValueError):
        return False
    return _accepts(signature) and not _accepts(signature, None)


def has_call(function: Any) -> bool:
    """Tell whether `function` is a class whose instances can be called."""
    return isinstance(function, type) and any("__call__" in vars(base) for base in function.__mro__)


def _accepts(signature: inspect.Signature, *args: Any) -> bool:
    try:
        signature.bind(*args)
    except TypeError:
        return False
    return True


# ----- importable code --------------------------------------------------------------------------------------------


def _import(module_name: str, reference: str) -> types.ModuleType:
    try:
        with importing(f"module '{module_name}'"):
            return import_users_own(module_name) or importlib.import_module(module_name)
    except (
        Exception,
        SystemExit,
    ) as error:  # user code runs here: what it raises is told in a sentence, the cause kept
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module_name}.".startswith(f"{missing}."):
            raise NotImportableError(f"'{reference}': there is no module '{missing}' in {_folders()}") from error
        what = f"importing '{module_name}' failed with {type(error).__name__}: {error}{rename_hint()}"
        if isinstance(error, SystemExit):  # arguments are parsed at the module's top, most often
            what += f"; {UNDER_MAIN}"
        raise NotImportableError(f"'{reference}': {what}") from error


def _folders() -> str:
    """Name the first folders of the module path, where user code would be."""
    installed = ("site-packages", "dist-packages", "lib-dynload", f"python{sys.version_info[0]}", ".zip")
    folders = dict.fromkeys(folder or "." for folder in sys.path if not any(part in folder for part in installed))
    return f"{', '.join(folders)} or the installed packages" if folders else "the installed packages"


def _importable_name(function: Any) -> str | None:
    """Return ``"module:name"`` if a fresh process that imports it finds this very object, else None."""
    module_name, path = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module_name, str) or not isinstance(path, str) or isinstance(function, types.MethodType):
        return None
    if module_name in MAIN or not is_reference(f"{module_name}:{path}") or not is_importable(module_name):
        return None
    found: Any = sys.modules.get(module_name)
    for name in path.split("."):
        found = getattr(found, name, None)
    return f"{module_name}:{path}" if found is function else None


def _describe(thing: Any) -> str:
    if isinstance(thing, types.ModuleType):
        return f"module '{thing.__name__}'"
    name = getattr(thing, "__qualname__", None) or repr(thing)
    return f"{'class' if isinstance(thing, type) else 'function'} '{name}' of module '{thing.__module__}'"


def _nearest_public(name: str, thing: Any) -> str:
    return nearest(
        name, [known for known in dir(thing) if not known.startswith("_") and callable(getattr(thing, known, None))]
    )

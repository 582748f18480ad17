"""Functions that no other process can import, kept in private files of a local run.

Loading a pickle runs code. So these files are written and read by one user on one machine only, in the folder of one
run, and nothing of them ever crosses a network.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import io
import os
import stat
import sys
import tempfile
import types
import weakref
from _thread import _local as threading_local
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from blockyard.spec.errors import BlockyardError, SpecError, article
from blockyard.spec.importing import importing

PICKLE = "pickle:"
"""What a reference to such a file begins with; its absolute path follows."""
MAIN = frozenset({"__main__", "__mp_main__"})
ONLY_LOCAL = (
    "closures, lambdas and functions of a script or notebook only work in local runs, because code never travels over"
    " the network; put the function into a module that the workers can import and name it 'module:name'"
)


def reference_to(path: Path) -> str:
    """Return the reference to a pickle: text, whatever bytes are in its path."""
    return PICKLE + quote(os.fsencode(path), safe="/ :,+=@~")


def _path_in(reference: str) -> Path:
    return Path(os.fsdecode(unquote_to_bytes(reference.removeprefix(PICKLE))))


def is_importable(module_name: str) -> bool:
    """Tell whether another process can find the module (one made by hand has no spec)."""
    with suppress(ImportError, ValueError):
        return importlib.util.find_spec(module_name) is not None
    return False


def pickle_function(function: Any) -> bytes:
    """Pickle a function whole; where that fails, without those attributes of the objects it holds that are the reason.

    A method of a task, or a closure over ``self``, drags all of that object along, though it needs little of it.
    """
    pickler = _rebuilding()
    try:
        return _dump(pickler, function)
    except Exception as error:  # any object of the user's may refuse, in its own words
        left = _left_behind(pickler, function)
        with suppress(Exception):
            if left:
                return _dump(_without(pickler, left), function)
        raise SpecError(
            f"{name_of(function)} cannot be sent to a worker process ({_reason(pickler, function)}"
            f"{type(error).__name__}: {error}); open files, locks and connections inside the function instead of"
            " capturing them"
        ) from error


def _rebuilding() -> type[Any]:
    """Return a pickler that makes anew, in the worker, what holds nothing that is worth to travel.

    Caches of functions of a script, which pickle by a name that no worker can import; the lock of a cached property;
    what belongs to one thread; and weak containers: nothing in the worker would hold what is in them.
    """
    from cloudpickle import Pickler

    class Rebuilding(Pickler):  # type: ignore[misc]  # it has no types
        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, _CACHED) and (value.__module__ in MAIN or not is_importable(value.__module__)):
                return _cached, (value.__wrapped__, value.cache_parameters())
            if type(value) is functools.cached_property:
                return _cached_property, (value.func, value.attrname)
            if type(value) in (threading_local, *_WEAK):
                return type(value), ()
            return super().reducer_override(value)

    return Rebuilding


_CACHED = type(functools.lru_cache(len))
_WEAK = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary, weakref.WeakSet)


def _cached(function: Any, parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


def _cached_property(function: Any, name: str | None) -> Any:
    made = functools.cached_property(function)
    made.attrname = name
    return made


def _reason(pickler: type[Any], function: Any) -> str:
    """Name the variable that cannot be sent, if it is one that the function uses itself."""
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    used = {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}
    cells = zip(code.co_freevars, function.__closure__ or (), strict=False)
    with suppress(ValueError):  # an empty cell
        used |= {name: cell.cell_contents for name, cell in cells}
    for name, value in used.items():
        try:
            _dump(pickler, value)
        except Exception:  # noqa: BLE001 - as above
            return f"its variable '{name}' is {article(type(value).__name__)}; "
    return ""


def _dump(pickler: type[Any], value: Any) -> bytes:
    buffer = io.BytesIO()
    with _by_value(getattr(value, "__module__", None)):
        pickler(buffer).dump(value)
    return buffer.getvalue()


def _held(function: Any) -> Iterator[Any]:
    """Return the objects that a function holds: its own (of a bound method), those it closes over, bound arguments."""
    if isinstance(function, functools.partial):
        yield from _held(function.func)
        yield from (*function.args, *function.keywords.values())
    yield getattr(function, "__self__", None)
    for cell in getattr(function, "__closure__", None) or ():
        with suppress(ValueError):  # an empty cell
            yield cell.cell_contents
            yield from _held(cell.cell_contents) if inspect.isroutine(cell.cell_contents) else ()


def _left_behind(pickler: type[Any], function: Any) -> dict[int, dict[str, LeftBehind]]:
    """Give, by the id of a held object, its attributes that cannot be pickled."""
    left: dict[int, dict[str, LeftBehind]] = {}
    for holder in (function, *_held(function)):
        if not hasattr(holder, "__dict__") or isinstance(holder, type | types.ModuleType) or inspect.isroutine(holder):
            continue
        for name, value in vars(holder).items():
            try:
                _dump(pickler, value)
            except Exception as error:  # noqa: BLE001 - as above; the reason is kept for who uses the attribute
                reason = f"{type(error).__name__}: {error}"
                left.setdefault(id(holder), {})[name] = LeftBehind(f"{type(holder).__qualname__}.{name}", reason)
    return left


class LeftBehind:
    """What stands in a worker process for an attribute that could not come along; raises BlockyardError when used."""

    def __init__(self, name: str, reason: str) -> None:
        self.__dict__.update(name=name, reason=reason)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copying and pickling ask for these, and take no for an answer
            raise AttributeError(name)
        raise self._error()

    def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        """Raise: it cannot be called here."""
        raise self._error()

    def __enter__(self) -> Any:
        raise self._error()

    def __exit__(self, *_: object) -> None: ...

    def _error(self) -> BlockyardError:
        return BlockyardError(
            f"{self.__dict__['name']} could not come along to the worker process ({self.__dict__['reason']}); make it"
            " inside the function"
        )


def _without(pickler: type[Any], left: dict[int, dict[str, LeftBehind]]) -> type[Any]:
    """Return a pickler that replaces the attributes `left`, by the id of their object."""

    class Without(pickler):  # type: ignore[misc]  # cloudpickle's, which has no types
        def reducer_override(self, value: Any) -> Any:
            replaced = left.get(id(value))
            if replaced is None:
                return super().reducer_override(value)
            build, args, state, *rest = value.__reduce_ex__(4)
            attributes = state[0] if isinstance(state, tuple) else state
            attributes = {**attributes, **{name: stand for name, stand in replaced.items() if name in attributes}}
            return (build, args, (attributes, state[1]) if isinstance(state, tuple) else attributes, *rest)

    return Without


@contextmanager
def _by_value(module_name: object) -> Iterator[None]:
    """Pickle the code of a module that exists in this process only, instead of a name no worker could import."""
    import cloudpickle

    module = sys.modules.get(module_name) if isinstance(module_name, str) else None
    # cloudpickle takes the code of "__main__" along by itself, and of no other name of a script (multiprocessing's).
    if module is None or module.__name__ == "__main__" or is_importable(module.__name__):
        yield
        return
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def name_of(function: Any) -> str:
    """Name a function, class or callable object in a sentence."""
    if isinstance(function, str):
        return f"'{function}'"
    return f"'{getattr(function, '__qualname__', None) or type(function).__name__}'"


def write_pickle(data: bytes, folder: Path) -> Path:
    """Write a file of mode 0600, named after its content, into `folder` (made, mode 0700); give its path."""
    path = folder / f"{hashlib.sha256(data).hexdigest()[:32]}.pkl"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            handle, temporary = tempfile.mkstemp(dir=folder)  # mode 0600, and never half written under its name
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(temporary).replace(path)
    except OSError as error:
        raise SpecError(f"the run's folder {folder} cannot be written: {error.strerror}") from error
    return path


def load_pickle(reference: str, pickle_dir: str | None) -> Any:
    """Return the function in the file that a reference names. Raises SpecError for a file outside `pickle_dir`."""
    if pickle_dir is None:
        raise SpecError(f"'{reference}' is refused: {ONLY_LOCAL}")
    path = _path_in(reference)
    folder = Path(pickle_dir).resolve()
    if not path.is_absolute() or path.resolve().parent != folder:
        raise SpecError(f"'{reference}' is refused: it is not in {folder}, the folder of this run's functions")
    import cloudpickle

    data = _read_private(path, reference)
    try:
        with importing("a module that the function needs"):
            return cloudpickle.loads(data)
    except Exception as error:  # unpickling imports and runs user code
        raise SpecError(
            f"'{reference}' cannot be loaded ({type(error).__name__}: {error}); a module that the function uses may be"
            " missing in the worker"
        ) from error


def _read_private(path: Path, reference: str) -> bytes:
    """Read a file that nobody but this user can have written: loading a pickle runs code."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o022:
                raise SpecError(f"'{reference}' is refused: other users can write it")
            return file.read()
    except OSError as error:
        raise SpecError(f"'{reference}' cannot be read: {error.strerror}") from error

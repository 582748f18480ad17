"""What code a process has imported for a task: one digest, so that two versions in one run do not pass for one.

It covers the modules of the task's functions and those of the user's modules that their source names in an import, and
so on; not what is installed. A source is read when its module is first seen, right after the import, and not again:
what counts is what runs, not what an editor has made of the file since.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

_INSTALLED = tuple(sysconfig.get_paths()[key] for key in ("purelib", "platlib"))
_NOBODYS = {"blockyard", "blockyard_worker", "__main__", *sys.stdlib_module_names}
DIGEST_SIZE = 8
"""Bytes: enough to tell versions of one module apart."""


class Imported:
    """The sources of the user's modules, as this process imported them."""

    def __init__(self) -> None:
        self._digests: dict[str, bytes] = {}
        self._imports: dict[str, tuple[str, ...]] = {}

    def look(self) -> None:
        """Take note of what has been imported; call it as soon as it has."""
        for name, module in list(sys.modules.items()):
            if name not in self._digests and _is_users(name, module):
                self._note(name, module)

    def code_of(self, *functions: Any) -> str:
        """Return the digest of what functions run; "" where none of it has a source."""
        self.look()
        for function in functions:  # the user's too, where it is installed
            name = str(getattr(function, "__module__", ""))
            if name in sys.modules and name not in self._digests and name.partition(".")[0] not in _NOBODYS:
                self._note(name, sys.modules[name])
        found: set[bytes] = set()
        for part in _parts(functions):
            if isinstance(part, types.CodeType):
                found.add(_digest_of_code(part))
            else:
                found |= {name.encode() + b"\0" + self._digests[name] for name in self._reached(part)}
        return hashlib.blake2b(b"".join(sorted(found)), digest_size=DIGEST_SIZE).hexdigest() if found else ""

    def _note(self, name: str, module: types.ModuleType) -> None:
        source = _source(module)
        self._digests[name] = hashlib.blake2b(source or b"", digest_size=DIGEST_SIZE).digest()
        self._imports[name] = ()
        with suppress(SyntaxError, ValueError, RecursionError):
            package = name if hasattr(module, "__path__") else name.rpartition(".")[0]
            self._imports[name] = tuple(_imports(ast.parse(source or b""), package))

    def _reached(self, name: str) -> set[str]:
        """Return the names of the modules that a module depends on, its own and its packages' too."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            here = waiting.pop()
            if here in found or here not in self._digests:
                continue
            found.add(here)
            waiting += [here.rpartition(".")[0], *self._imports[here]]
        return found


def _is_users(name: str, module: Any) -> bool:
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or name.partition(".")[0] in _NOBODYS:
        return False
    return not file.startswith(_INSTALLED)


def _source(module: types.ModuleType) -> bytes | None:
    """Read the source of a module; of one in C its library, of one in an archive what its loader gives."""
    with suppress(OSError):
        return Path(str(module.__file__)).read_bytes()
    with suppress(Exception):  # loaders of others may do anything
        loader: Any = module.__loader__
        return str(loader.get_source(module.__name__)).encode()
    return None


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Give the full names of all that a module's source imports, also in its functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


# ----- from a function to modules and code --------------------------------------------------------------------------


def _parts(functions: tuple[Any, ...]) -> Iterator[str | types.CodeType]:
    """Give the names of the modules of functions, and the code of those that are in none."""
    waiting, seen = list(functions), set[int]()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, functools.partial):
            waiting += [value.func, *value.args, *value.keywords.values()]
        elif isinstance(value, types.MethodType):
            waiting += [value.__func__, type(value.__self__)]
        elif isinstance(value, types.ModuleType):
            yield value.__name__
        elif not isinstance(value, types.FunctionType | type):
            waiting += [type(value)] if _lives_here(type(value)) or callable(value) else []
        elif not _lives_here(value):
            yield value.__module__
        elif isinstance(value, type):
            waiting += [*value.__bases__, *(getattr(item, "__func__", item) for item in vars(value).values())]
        else:
            yield value.__code__
            waiting += [*value.__globals__.values(), *_closed_over(value)]


def _lives_here(value: Callable[..., Any]) -> bool:
    """Whether code came with a pickle: a script's or a notebook's, or of a module made by hand."""
    return value.__module__ in ("__main__", "__mp_main__") or value.__module__ not in sys.modules


def _closed_over(function: types.FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # an empty cell
            yield cell.cell_contents


def _digest_of_code(code: types.CodeType) -> bytes:
    """Return a digest of what code does, whatever file and line it stands in."""
    plain = [constant for constant in code.co_consts if isinstance(constant, str | bytes | int | float | type(None))]
    digest = hashlib.blake2b(code.co_code + repr((code.co_names, plain)).encode(), digest_size=DIGEST_SIZE)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            digest.update(_digest_of_code(constant))
    return digest.digest()

"""What code a process has imported for a task: one digest, so that two versions in one run do not pass for one.

It covers the modules of the task's functions and those of the user's modules that their source names in an import, and
so on; not what is installed. A source is read when its module is first seen, right after the import, and not again:
what counts is what runs, not what an editor has made of the file since. A module that is named and not imported yet (in
a function, say) counts as it is on disk: else the digest would tell which other tasks the process has worked for.
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
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

_INSTALLED = tuple(sysconfig.get_paths()[key] for key in ("purelib", "platlib"))
_NOBODYS = {"blockyard", "blockyard_worker", "__main__", *sys.stdlib_module_names}
DIGEST_SIZE = 8
"""Bytes: enough to tell versions of one module apart."""


class Imported:
    """The sources of the user's modules, as this process imported them."""

    def __init__(self) -> None:
        self._known: dict[str, _Source] = {}

    def look(self) -> None:
        """Take note of what has been imported; call it as soon as it has."""
        for name, module in list(sys.modules.items()):
            if name not in self._known and _is_users(name, getattr(module, "__file__", None)):
                self._known[name] = _source_of(name, module)

    def code_of(self, *functions: Any) -> str:
        """Return the digest of what functions run; "" where none of it has a source."""
        self.look()
        for function in functions:  # the user's too, where it is installed
            name = str(getattr(function, "__module__", ""))
            if name in sys.modules and name not in self._known and name.partition(".")[0] not in _NOBODYS:
                self._known[name] = _source_of(name, sys.modules[name])
        found: set[bytes] = set()
        for part in _parts(functions):
            if isinstance(part, types.CodeType):
                found.add(_digest_of_code(part))
            else:
                found |= self._reached(part)
        return hashlib.blake2b(b"".join(sorted(found)), digest_size=DIGEST_SIZE).hexdigest() if found else ""

    def _reached(self, name: str) -> set[bytes]:
        """Return names and digests of the modules that a module depends on, its own and its packages' too."""
        seen, found = set[str](), set[bytes]()
        waiting = [name]
        while waiting:
            here = waiting.pop()
            if here in seen:
                continue
            seen.add(here)
            source = self._known.get(here) or _on_disk(here)
            if source is not None:
                found.add(here.encode() + b"\0" + source.digest)
                waiting += [here.rpartition(".")[0], *source.imports]
        return found


@dataclass(frozen=True, slots=True)
class _Source:
    """The source of a module, as far as it matters here."""

    digest: bytes
    imports: tuple[str, ...]
    """Full names of what it names in imports; some are of functions and the like."""

    @classmethod
    def of(cls, text: bytes, package: str) -> _Source:
        """Take it apart; what can't be is told by who imports it."""
        imports: tuple[str, ...] = ()
        with suppress(SyntaxError, ValueError, RecursionError):
            imports = tuple(_imports(ast.parse(text), package))
        return cls(hashlib.blake2b(text, digest_size=DIGEST_SIZE).digest(), imports)


def _source_of(name: str, module: types.ModuleType) -> _Source:
    package = name if hasattr(module, "__path__") else name.rpartition(".")[0]
    return _Source.of(_text(name, module.__file__, getattr(module, "__loader__", None)), package)


def _on_disk(name: str) -> _Source | None:
    """Return the source of a user's module that is not imported, without importing it or its packages."""
    if not name or name in sys.modules or name.partition(".")[0] in _NOBODYS:
        return None
    spec, path = None, None
    parts = name.split(".")
    for n in range(1, len(parts) + 1):
        with suppress(Exception):  # finders of others may do anything
            spec = PathFinder.find_spec(".".join(parts[:n]), path)
        path = None if spec is None else spec.submodule_search_locations
        if spec is None or (n < len(parts) and path is None):
            return None
    if spec is None or not _is_users(name, spec.origin):
        return None
    package = name if path is not None else name.rpartition(".")[0]
    return _Source.of(_text(name, spec.origin, spec.loader), package)


def _is_users(name: str, file: object) -> bool:
    if not isinstance(file, str) or name.partition(".")[0] in _NOBODYS:
        return False
    return not (file.startswith(_INSTALLED) or {"site-packages", "dist-packages"} & set(Path(file).parts))


def _text(name: str, file: object, loader: Any) -> bytes:
    """Read the source of a module; of one in C its library, of one in an archive what its loader gives."""
    with suppress(OSError):
        return Path(str(file)).read_bytes()
    with suppress(Exception):  # loaders of others may do anything
        return str(loader.get_source(name)).encode()
    return b""


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

"""What a script calls a function reaches a worker process, or is refused in a sentence that says why."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SCRIPT = """
import abc, contextlib, dataclasses, enum, functools, logging, sys, threading, typing, weakref
from blockyard.spec.errors import SpecError
from blockyard.spec.functions import reference_of
from blockyard.spec.user_code import call_fault

@functools.lru_cache(maxsize=3)
def cached(block): return block

@functools.singledispatch
def single(block): return block

@single.register
def _(block: str): return block

class Slotted:
    __slots__ = ("n",)
    def __init__(self): self.n = 4
    def __call__(self, block): return (self.n, block)[1]

@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    n: int = 2
    def __call__(self, block): return block

class Lazy:
    @functools.cached_property
    def large(self): return 5
    def run(self, block): return (self.large, block)[1]

class Pair(typing.NamedTuple):
    n: int = 1
    def __call__(self, block): return block

class Kind(enum.Enum):
    A = 1
    def work(self, block): return block

class Outer:
    class Inner:
        def method(self, block): return block

class Base(abc.ABC):
    @abc.abstractmethod
    def __call__(self, block): ...

class Derived(Base):
    def __call__(self, block): return super().__call__(block) or block

class Partly:
    def run(self, block, n): return block
    bound = functools.partialmethod(run, n=2)

class Locked:
    def __init__(self): self.lock, self.n = threading.Lock(), 1
    def run(self, block): return block

@contextlib.contextmanager
def managed(): yield

def uses_managed(block):
    with managed(): return block

local, seen, log = threading.local(), weakref.WeakValueDictionary(), logging.getLogger("x")
lock, numbers = threading.Lock(), (n for n in range(9))

def uses_local(block):
    local.block = block
    return local.block

def uses_others(block):
    log.debug("%s", seen.get(block))
    cached(1), single(2)
    return block

def recursive(block, n=3): return recursive(block, n - 1) if n else block

def uses_lock(block):
    with lock: return block

def uses_numbers(block): return next(numbers)

def mutual():
    def a(block): return b(block)
    def b(block): return block
    return a

GOOD = dict(
    cached=cached, single=single, slotted=Slotted(), frozen=Frozen(), lazy=Lazy().run, pair=Pair(), enum=Kind.A.work,
    inner=Outer.Inner().method, derived=Derived(), partly=Partly().bound, locked=Locked().run, managed=uses_managed,
    local=uses_local, others=uses_others, recursive=recursive, mutual=mutual(), static=staticmethod(lambda b: b),
    cached_lambda=functools.cache(lambda b: b), partial=functools.partial(functools.partial(recursive), n=1),
)
BAD = dict(
    uses_lock=uses_lock, uses_numbers=uses_numbers, abstract=Base,
    builds=functools.partial(Slotted), loose=classmethod(len),
)

def refer(function):
    for name in ("function", "worker"):
        fault = call_fault(function, name, {}) if callable(function) else None
        if name == "function" and fault is None or fault and "takes" not in fault:
            break
    if fault:
        return f"fault {fault}"
    try:
        return reference_of(function, sys.argv[1])
    except SpecError as error:
        return f"fault {error}"

for name, function in (GOOD | BAD).items():
    print(name, refer(function))
"""
LOAD = """
import sys
from blockyard.spec.functions import load_function
for line in sys.stdin:
    name, reference = line.split()
    print(name, load_function(reference, pickle_dir=sys.argv[1])("a block"))
"""
REASONS = {
    "uses_lock": "cannot be sent to a worker process (its variable 'lock' is a lock; ",
    "uses_numbers": "cannot be sent to a worker process (its variable 'numbers' is a generator; ",
    "abstract": "is an abstract class, of which no instance can be built",
    "builds": "is a partial of a class: it builds 'Slotted', and nothing calls that; give an instance",
    "loose": "not a function or a class",
}


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """The folder of the pickles, and what the script says of each of its functions."""
    folder = tmp_path_factory.mktemp("script")
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py", str(folder / "functions")]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    return str(folder / "functions"), dict(line.split(maxsplit=1) for line in said.splitlines())


def test_functions_of_a_script_run_in_another_process(references: tuple[str, dict[str, str]]) -> None:
    """Cached, dispatched, slotted, frozen, nested, recursive, with what they use of the script."""
    folder, said = references
    good = {name: reference for name, reference in said.items() if name not in REASONS}
    assert {name: text for name, text in good.items() if text.startswith("fault")} == {}
    lines = "".join(f"{name} {reference}\n" for name, reference in good.items())
    command = [sys.executable, "-c", LOAD, folder]
    ran = subprocess.run(command, input=lines, capture_output=True, text=True, check=True).stdout
    assert ran.splitlines() == [f"{name} a block" for name in good]
    assert len(good) == 19


@pytest.mark.parametrize("name", REASONS)
def test_what_cannot_reach_a_worker_is_told_with_its_reason(references: tuple[str, dict[str, str]], name: str) -> None:
    """Before anything runs."""
    assert REASONS[name] in references[1][name]


PROGRAM = """
import os, sys
from blockyard.local.distribute import module_path
import travelling
os.chdir("/")
print(*module_path(), sep=os.linesep)
"""


@pytest.mark.parametrize("entry", ["lib", "./lib", "{folder}/lib", "{folder}/archive.zip"])
def test_workers_find_modules_where_this_process_found_them(tmp_path: Path, entry: str) -> None:
    """In folders, named relative to one that is no longer the current one, and in archives."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "travelling.py").touch()
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.write(tmp_path / "lib" / "travelling.py", "travelling.py")
    entry = entry.format(folder=tmp_path)
    program = f"import sys\nsys.path.insert(0, {entry!r})\n{PROGRAM}"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str((tmp_path / entry).resolve()) in done.stdout.splitlines()

"""Which process this is, and whether another one is dead: known on one machine, and nowhere else.

A scheduler that is started again where its predecessor was killed need not wait until the dead one's lock runs out. A
process is named by the boot of its kernel, its namespace of process ids, its id there and the moment it began; so a
name never means two processes, and a successor in another container or on another machine learns nothing from it.
"""

from __future__ import annotations

import platform
from pathlib import Path

PROCESSES = Path("/proc")


def name_of(pid: int, processes: Path = PROCESSES) -> str:
    """Return the name of a process, or "" where it has none (it is gone, or the system does not tell)."""
    try:
        return _name_of(pid, processes)
    except (OSError, ValueError, IndexError):
        return ""


def is_dead(name: str, processes: Path = PROCESSES) -> bool:
    """Whether the process of this name has surely ended; False where that can't be known from here."""
    where, _, rest = name.rpartition("/")[0].rpartition("/")
    if not where or where != _where(processes) or not rest.isdecimal():
        return False
    try:
        return _name_of(int(rest), processes) != name
    except (FileNotFoundError, ProcessLookupError):
        return True
    except (OSError, ValueError, IndexError):  # no file may be opened just now, say: that is no proof
        return False


def _name_of(pid: int, processes: Path) -> str:
    """Return the name of a process, "" for one that has ended. Raises OSError where it can't be looked at."""
    # Behind the program's name, which stands in parentheses and may contain anything, there are only fields.
    fields = (processes / str(pid) / "stat").read_text().rpartition(")")[2].split()
    state, threads, began = fields[0], int(fields[17]), fields[19]
    where = _where(processes)
    dead = state in "ZX" and threads <= 1  # not yet waited for by its parent
    return f"{where}/{pid}/{began}" if where and not dead else ""


def _where(processes: Path) -> str:
    """Name the kernel and the namespace in which a process id means something; "" where there is no such thing."""
    try:
        boot = (processes / "sys/kernel/random/boot_id").read_text().strip()
        namespace = (processes / "self/ns/pid").readlink()
    except OSError:
        return ""
    return f"{platform.node()}/{boot}/{namespace}"

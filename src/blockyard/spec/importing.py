"""Which user code is being imported: what a program does at the top of its module happens in every worker as well.

A script without ``if __name__ == "__main__"`` that starts a run would start another one in each process that imports
its functions, and those again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from blockyard.spec.errors import SpecError

UNDER_MAIN = 'what a program does belongs under `if __name__ == "__main__":`, since every worker imports its functions'

_importing: list[str] = []


@contextmanager
def importing(what: str) -> Iterator[None]:
    """Note that `what` (in words) is imported for its functions, and not to be run as a program."""
    _importing.append(what)
    try:
        yield
    finally:
        _importing.pop()


def refuse_while_importing() -> None:
    """Raise SpecError where somebody starts a run while functions are being imported."""
    if _importing:
        raise SpecError(f"{_importing[-1]} starts a run while it is imported; {UNDER_MAIN}")

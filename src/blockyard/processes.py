"""`call`, with which scripts for daisy 0.2 start programs from their workers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable

from blockyard.spec.errors import BlockyardError


def call(command: Iterable[str], log_out: str | os.PathLike[str], log_err: str | os.PathLike[str]) -> None:
    """Run a program to its end, its output in one file and its errors in another.

    The words of `command` are put together and given to a shell, as in 0.2: where nothing needs a shell,
    ``subprocess.run(command, check=True)`` is safer. The program finds its `Client` as we would. Raises BlockyardError
    where it fails.
    """
    line = " ".join(command)
    with open(log_out, "w", encoding="utf-8") as out, open(log_err, "w", encoding="utf-8") as err:  # noqa: PTH123 - any path
        done = subprocess.run(line, shell=True, stdout=out, stderr=err, check=False)  # noqa: S602 - what it promises
    if done.returncode:
        raise BlockyardError(f"'{line}' failed with exit status {done.returncode}; its errors are in {log_err}")


__all__ = ["call"]

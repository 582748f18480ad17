"""A process that does not outlive this one, however this one ends.

A shell of one line goes before the program and leaves a watcher behind::

    sh:  watcher  &  exec program
         |
         reads a pipe that only we hold. A line: "it has ended, go". The end of the pipe: we are gone, so SIGTERM,
         and SIGKILL where that does not help in time.

A shell and not Linux' `PR_SET_PDEATHSIG`, because that one fires when the *thread* that started the process ends (a
notebook, a thread pool), and because macOS has none.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

_IDENTIFIER = re.compile("[A-Za-z_][A-Za-z0-9_]*")

# $1: tenths of a second from SIGTERM to SIGKILL; $2: its standard input; the rest is the program.
_LAUNCH = """
exec 3<&0
(
  read -r _ <&3 && exit
  kill -TERM $$ || exit
  n=$1
  while kill -0 $$ && [ "$n" -gt 0 ]; do sleep 0.1; n=$((n - 1)); done
  kill -KILL $$
) >/dev/null 2>&1 &
input=$2
shift 2
exec "$@" <"$input" 3<&-
"""


def _kept_from_the_shell(environment: Mapping[str, str] | None) -> list[str]:
    """Return what stands before a program so that it gets the variables that a shell drops.

    A shell may pass on only names that are identifiers, and dash does so. Functions that bash exports are none:
    ``BASH_FUNC_module%%`` is `module load` on most clusters.

    >>> _kept_from_the_shell({"PATH": "/bin", "BASH_FUNC_module%%": "() { :; }"})
    ['/usr/bin/env', 'BASH_FUNC_module%%=() { :; }']
    """
    variables = os.environ if environment is None else environment
    odd = [f"{name}={value}" for name, value in variables.items() if not _IDENTIFIER.fullmatch(name)]
    return ["/usr/bin/env", *odd] if odd else []


class Child:
    """A running program in a session of its own, so that Ctrl-C in the terminal is ours to handle."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str | os.PathLike[str]],
        *,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        stdin: Path | None = None,
        term_s: float = 10.0,
        ended: Callable[[Child], None] | None = None,
    ) -> None:
        """Start `argv`, with its output added to `log` (else to nothing), and `stdin` to read (else nothing).

        `ended` is called from a thread of ours once it has ended; `term_s` is what it gets between SIGTERM and SIGKILL
        when this process is gone.
        """
        self.name = name
        output: IO[bytes] | int = log.open("ab") if log is not None else subprocess.DEVNULL
        read_fd, self._watcher_fd = os.pipe()
        try:
            self._process = subprocess.Popen(
                [
                    *("/bin/sh", "-c", _LAUNCH, "sh", str(int(term_s * 10)), stdin or os.devnull),
                    *_kept_from_the_shell(environment),
                    *argv,
                ],
                stdin=read_fd,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._watcher_fd)
            raise
        finally:
            os.close(read_fd)
            if not isinstance(output, int):
                output.close()
        self._ended = ended
        self._reaper = threading.Thread(target=self._reap, name=f"reaper of {name}", daemon=True)
        self._reaper.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status (negative: the signal that ended it), or None while it runs."""
        return self._process.returncode

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.returncode is None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for its end; give whether it has ended."""
        self._reaper.join(timeout_s)
        return not self.alive

    def terminate(self) -> None:
        """Send SIGTERM (nothing where it has ended)."""
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL (nothing where it has ended)."""
        self._process.kill()

    def stop(self, timeout_s: float) -> None:
        """Send SIGTERM, and SIGKILL where it has not ended in time; return when it has."""
        self.terminate()
        if not self.wait(timeout_s):
            self.kill()
            self.wait()

    def _reap(self) -> None:
        self._process.wait()
        self._dismiss_watcher()
        if self._ended is not None:
            self._ended(self)

    def _dismiss_watcher(self) -> None:
        """Let the watcher go before the process id can be another's."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._watcher_fd, b"\n")
        os.close(self._watcher_fd)

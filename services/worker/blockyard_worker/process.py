"""Child processes of the agent: started in a session of their own, watched without polling, reaped with their usage."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from blockyard.client.calls import signal_name
from blockyard.client.output import Output
from blockyard.logs import say_always
from blockyard.spec.module_path import VARIABLE, absolute_python_path, join_folders
from blockyard_worker.watchdog import MARK_VARIABLE, kill_all

POLL_S = 0.05
"""How often a child is asked for where the system has no process file descriptors (macOS)."""
STDERR_FD = 2
PR_SET_CHILD_SUBREAPER = 36
"""Of Linux' prctl.h."""
TOLD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that tell a process to end."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a child ended."""

    status: int
    """Exit status, or minus the signal."""
    peak_mb: float
    """The most memory it had at once, in units of 10^6 bytes."""

    @property
    def bad(self) -> bool:
        """Whether it ended by a signal or with a status that is not 0."""
        return self.status != 0

    @property
    def asked(self) -> bool:
        """Whether it ended by a signal with which batch systems and people tell a process to end."""
        return -self.status in TOLD

    def sentence(self, who: str) -> str:
        """Say how it ended."""
        if self.status >= 0:
            return f"{who} ended with exit status {self.status}"
        memory = ", perhaps out of memory" if -self.status == signal.SIGKILL else ""
        return f"{who} was killed by {signal_name(-self.status)}{memory}; its peak memory was {self.peak_mb:.0f} MB"


class ChildProcess:
    """One child, leader of its own session and process group; `ended` is called once, on the loop."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        mark: str,
        environment: Mapping[str, str],
        work_dir: Path | None = None,
        fds: Sequence[int] = (),
        log: Path | None,
        ended: Callable[[Exit], None],
    ) -> None:
        """Start `argv`; what it prints is added to `log`, else goes to our standard error."""
        self.mark = mark
        self.started_s = time.monotonic()
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        output: IO[bytes] | int = log.open("ab") if log is not None else STDERR_FD
        try:
            self._process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(environment),
                cwd=work_dir,
                pass_fds=tuple(fds),
                start_new_session=True,
            )
        finally:
            if not isinstance(output, int):
                output.close()
        self.pid = self._process.pid
        self.alive = True
        self._pid_fd = -1
        self._watch()

    def go_on(self) -> bool:
        """Let it go on if a signal has stopped it (SIGSTOP); give whether one had."""
        try:
            stopped = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG)
        except ChildProcessError:  # it has ended
            return False
        if stopped is not None:
            os.killpg(self.pid, signal.SIGCONT)
        return stopped is not None

    def kill(self) -> None:
        """Kill it and all that it started; `ended` follows."""
        if self.alive:
            kill_all(self.mark, [self.pid])

    def terminate(self) -> None:
        """Send it SIGTERM."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    # ----- watching ---------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        if hasattr(os, "pidfd_open"):
            self._pid_fd = os.pidfd_open(self.pid)
            self._loop.add_reader(self._pid_fd, self._reap)
        else:
            self._loop.call_later(POLL_S, self._poll)

    def _poll(self) -> None:
        pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        if pid:
            self._finish(status, usage)
        else:
            self._loop.call_later(POLL_S, self._poll)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pid_fd)
        os.close(self._pid_fd)
        # What it started dies with it; before it is reaped, because until then nobody else can get its number.
        kill_all(self.mark, [self.pid])
        _, status, usage = os.wait4(self.pid, 0)
        self._finish(status, usage)

    def _finish(self, status: int, usage: resource.struct_rusage) -> None:
        self.alive = False
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._ended(Exit(self._process.returncode, peak_mb(usage)))


def adopt_orphans() -> None:
    """Have this process inherit what its descendants leave behind (Linux; elsewhere the first process does).

    In a container without an init nobody else would reap that: each block that leaves a child costs a process number.
    """
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(ours: Collection[int]) -> None:
    """Reap ended processes that were left to us (`adopt_orphans`); `ours` are reaped where their end is awaited."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in ours:
            return
        os.waitpid(ended.si_pid, 0)


def peak_mb(usage: resource.struct_rusage) -> float:
    """Return the peak memory of a child in units of 10^6 bytes (Linux counts in KiB, macOS in bytes)."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def child_environment(mark: str, module_path: Sequence[str], environ: Mapping[str, str], **more: str) -> dict[str, str]:
    """Return the environment of a child: ours, the mark that finds it, and the folders of user code."""
    environment = dict(environ)
    environment[MARK_VARIABLE] = mark
    environment[VARIABLE] = join_folders(module_path)
    absolute_python_path(environment)
    # Last, where `command: [python, ...]` finds the programs beside our own Python though nobody has activated it.
    programs = [environ.get("PATH", os.defpath), str(Path(sys.executable).parent)]
    environment["PATH"] = os.pathsep.join(programs)
    environment.update(more)
    return environment


def output_variables(slot: int, log: Path | None) -> dict[str, str]:
    """Return what tells a child its number and its log file; `process_output` reads it."""
    return {"BLOCKYARD_SLOT": str(slot), "BLOCKYARD_SLOT_LOG": str(log or "")}


def process_output(environ: Mapping[str, str]) -> Output:
    """Give, in a child, its output as it was told; every JSON line says which worker and slot it is."""
    say_always(worker=environ.get(MARK_VARIABLE, "").partition("/")[0], slot=int(environ.get("BLOCKYARD_SLOT", "0")))
    log = environ.get("BLOCKYARD_SLOT_LOG", "")
    form, level = environ.get("BLOCKYARD_LOG_FORMAT", "text"), environ.get("BLOCKYARD_LOG_LEVEL", "info")
    return Output(form, Path(log) if log else None, level)

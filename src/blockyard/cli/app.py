"""The command line: one parser, one place where errors become a sentence and an exit status.

Exit status: 0 done, 1 blocks failed (or a state that a script asks about), 2 bad input, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from blockyard.spec.errors import BlockyardError, nearest
from blockyard.wire.text import clean

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
UNWRITABLE = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""What a write to standard output may end with."""

COMMANDS = {
    "run": "run_command",
    "plan": "plan_command",
    "status": "watch_commands",
    "watch": "watch_commands",
    "failures": "watch_commands",
    "explain": "watch_commands",
    "logs": "logs_command",
    "retry": "control_commands",
    "rerun": "control_commands",
    "pause": "control_commands",
    "resume": "control_commands",
    "cancel": "control_commands",
    "report": "report_command",
    "scale": "scale_command",
    "wait": "wait_command",
    "values": "values_command",
    "simulate": "simulate_command",
    "chaos": "chaos_command",
    "bench": "bench_command",
}
"""Each command's module, imported when it is asked for: `blockyard --version` must not wait for numpy."""
SERVICES = {"scheduler": "blockyard_scheduler", "worker": "blockyard_worker"}

OVERVIEW = """\
run a pipeline on this machine:
  run FILE          all of it, with a scheduler and workers of its own; Ctrl-C and run again resumes
  plan FILE         what would run: blocks, levels, the most at once, warnings; runs nothing

look at a run, here or on a cluster (WHERE: its folder, HOST:PORT or URL):
  status [WHERE]    how far it is
  watch [WHERE]     the same, until it ends
  wait [WHERE]      say nothing until it ends; for scripts
  failures [WHERE]  failed blocks, grouped by their error
  explain TASK INDEX [WHERE]
                    why a block is in the state it is in
  logs TASK INDEX [WHERE]
                    what a block wrote
  report [WHERE]    what it did, as one HTML file

control a run:
  retry [WHERE]     try failed blocks again
  rerun TASK [WHERE]
                    run done blocks again, with all that depends on them
  pause, resume, cancel [WHERE]

on a cluster:
  scale POOL N [WHERE]
                    give a pool so many workers; --auto: as many as are of use
  scheduler, worker the services; every setting is a flag and a variable
  values FILE       values of the Helm chart for a pipeline file

how fast it is here:
  bench             blocks a second on this machine, with its disk or with your Redis

how blockyard itself is checked:
  simulate          faulty histories of a whole cluster in virtual time, held against its promises
  chaos             real processes killed and frozen while they write; then every byte is compared

examples:
  blockyard plan pipeline.yaml
  blockyard run pipeline.yaml --workers 8
  blockyard run pipeline.yaml --request 0:20,512:1024,512:1024
  blockyard status
  blockyard explain smooth 0,3,4

'blockyard COMMAND --help' says more about each.
"""


class Help(argparse.HelpFormatter):
    """Help in which descriptions and examples keep their lines, except those that are too long."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(_fill(indent + line, width) for line in text.splitlines())


def _fill(line: str, width: int) -> str:
    """Break a line, keeping its indent.

    >>> print(_fill("  3  it lasts longer", 16))
      3  it lasts
         longer
    """
    if len(line) <= width:
        return line
    indent = re.match(r" *(\d+  )?", line)
    return textwrap.fill(line, width, subsequent_indent=" " * (indent.end() if indent else 0))


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaints are one sentence."""

    def error(self, message: str) -> NoReturn:
        """Raise the complaint; `main` prints it."""
        raise BlockyardError(f"{self.prog.removeprefix('blockyard ')}: {message}; see '{self.prog} --help'")

    def parse_all(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse, and name the nearest known flag for one that is not."""
        namespace, unknown = self.parse_known_intermixed_args(_with_negative_values(arguments))
        if unknown:
            flag = unknown[0].split("=")[0]
            hint = nearest(flag, self._option_string_actions) if flag.startswith("-") else ""
            self.error(f"unknown argument '{unknown[0]}'{hint}")
        return namespace


def _with_negative_values(arguments: Sequence[str]) -> list[str]:
    """Bind values that begin with a minus and a digit to the flag before them: argparse takes them for flags.

    >>> _with_negative_values(["rerun", "smooth", "--roi", "-4:10,0:8"])
    ['rerun', 'smooth', '--roi=-4:10,0:8']
    """
    joined: list[str] = []
    for argument in arguments:
        if re.match(r"-\d", argument) and joined and re.fullmatch(r"--[a-z-]+", joined[-1]):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; give its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _take_any_text()
    status = FAILED
    try:
        status = _dispatch(arguments)
        sys.stdout.flush()
    except BlockyardError as error:
        print(f"blockyard: {clean(str(error))}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        if error.filename is not None or error.errno not in UNWRITABLE:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter complains when it flushes at exit
        if not isinstance(error, BrokenPipeError):  # `blockyard failures | head` is no reason to complain
            print(f"blockyard: standard output can't be written to ({error.strerror})", file=sys.stderr)
        return status if arguments[0] == "run" else FAILED  # what became of a run is not what became of its words
    return status


def _take_any_text() -> None:
    """Let standard output take what its encoding does not have, as standard error does; and be there at all."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # `blockyard status >&-`
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - for as long as we live
        elif isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(io.UnsupportedOperation):  # no file is behind it: a test's, or a notebook's
                if stream.fileno() == number:
                    stream.reconfigure(errors="backslashreplace")


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print("usage: blockyard COMMAND ...\n\nBlock-wise pipelines over volumes too large for one machine.\n")
        print(OVERVIEW, end="")
        return DONE if arguments else BAD_INPUT
    command, rest = arguments[0], arguments[1:]
    if command == "--version":
        from blockyard import __version__

        print(f"blockyard {__version__}")
        return DONE
    if command in SERVICES:
        return _run_service(command, rest)
    if command not in COMMANDS:
        raise BlockyardError(f"there is no command '{command}'{nearest(command, [*COMMANDS, *SERVICES])}")
    module = import_module(f"blockyard.cli.{COMMANDS[command]}")
    parser = Parser(prog=f"blockyard {command}", formatter_class=Help, allow_abbrev=False)
    handler = module.prepare(command, parser)
    status: int = handler(parser.parse_all(rest))
    return status


def _run_service(service: str, arguments: list[str]) -> int:
    """Become the service: `blockyard worker ...` is `python -m blockyard_worker ...`.

    By name and not by import: the library works without the services, and never depends on them.
    """
    from importlib.util import find_spec
    from runpy import run_module

    package = SERVICES[service]
    if find_spec(package) is None:
        raise BlockyardError(f"the {service} is not installed here: there is no package '{package}'")
    sys.argv = [f"blockyard {service}", *arguments]
    run_module(package, run_name="__main__", alter_sys=False)
    return DONE

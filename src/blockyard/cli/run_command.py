"""`blockyard run FILE`: a whole run on this machine."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import TextIO, cast

from blockyard.cli.app import DONE, FAILED, INTERRUPTED
from blockyard.cli.find import HOME, RUNS
from blockyard.cli.plan_command import add_choice, pipeline_of
from blockyard.cli.progress import print_json, progress_on
from blockyard.client.calls import BlockFailedError
from blockyard.local.echo import SteadyStream
from blockyard.local.result import RunResult, summary
from blockyard.local.run import LocalRun
from blockyard.spec.errors import FatalBlockError, SpecError
from blockyard.spec.model import RunSpec
from blockyard.spec.module_path import search_in
from blockyard.spec.settings import parse_settings
from blockyard.spec.targets import choose
from blockyard.wire.report import status_report
from blockyard.wire.states import RunPhase

LOOK_EVERY_S = 0.5


def prepare(_command: str, parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    """Describe the command; give what runs it."""
    parser.description = "Run a pipeline on this machine, with a scheduler, workers and a Redis of its own."
    parser.epilog = (
        "examples:\n"
        "  blockyard run pipeline.yaml --workers 8\n"
        "  blockyard run pipeline.yaml --only smooth --request 0:20,512:1024,512:1024\n"
        "  blockyard run pipeline.yaml --serial      # one process, for a debugger\n\n"
        "The state is kept in .blockyard/NAME beside the file: Ctrl-C stops after the blocks that are running (twice:\n"
        "at once), and the same command goes on from there. 'blockyard status' looks at it from another terminal.\n"
        "A task whose first 10 attempts all fail with the same error is stopped, and the run is paused when nothing\n"
        "else can run: mend it, and the same command goes on.\n"
        "Exit status: 0 all blocks are done, 1 some failed or a task was stopped, 2 bad input, 130 interrupted."
    )
    add_choice(parser)
    parser.add_argument("--workers", type=_at_least_one, metavar="N", help="blocks at once in each pool of workers")
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="folder of the run (default: .blockyard/NAME)")
    parser.add_argument("--fresh", action="store_true", help="start over, also when it has finished")
    parser.add_argument(
        "--accept-changes", action="store_true", help="go on although parameters or requirements of tasks changed"
    )
    parser.add_argument(
        "--keep-going",
        action="store_true",
        help="try all blocks also of a task whose first 10 attempts all failed with the same error (or"
        " BLOCKYARD_KEEP_GOING=1; without it such a run is paused)",
    )
    parser.add_argument("--serial", action="store_true", help="run in this process, block by block; nothing is kept")
    parser.add_argument("--redis-url", default="", metavar="URL", help="use a running Redis instead of an own one")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the result as JSON; to standard error a line of JSON a status",
    )
    return run


def _at_least_one(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"is '{text}'; it must be a whole number of at least 1")
    return number


def run(arguments: argparse.Namespace) -> int:
    """Run the pipeline; give the exit status."""
    _refuse_a_pipe(Path(arguments.file))
    home = Path(arguments.file).absolute().parent
    chosen = choose(pipeline_of(arguments, home), arguments.only, arguments.request)
    if arguments.serial:
        return _run_serially(chosen, home, as_json=arguments.json)
    folder = arguments.run_dir or home / RUNS / chosen.pipeline.name
    local = LocalRun(
        chosen,
        folder.absolute(),
        workers=arguments.workers,
        fresh=arguments.fresh,
        accept_changes=arguments.accept_changes,
        keep_going=arguments.keep_going or _keeps_going(os.environ),
        module_path=[str(home)],
        work_dir=home,
        redis_url=arguments.redis_url,
        command=f"{_command_line()}{HOME}{Path.cwd()}",
    )
    try:
        with _interrupts(local):
            result = _follow(local, as_json=arguments.json)
    except KeyboardInterrupt:
        print(f"stopped; finished blocks are kept. To go on: {_command_line()}", file=sys.stderr)
        return INTERRUPTED
    with redirect_stdout(cast("TextIO", SteadyStream(sys.stdout))):  # also where nobody can read it, the status tells
        _print_result(result, arguments.run_dir or arguments.file, as_json=arguments.json)
    return DONE if result.ok else FAILED


def _refuse_a_pipe(file: Path) -> None:
    """Raise SpecError for `-`, `/dev/stdin` or `<(...)`, which have no folder where a run could be kept."""
    passing = file.exists() and not (file.is_file() or file.is_dir())
    if str(file) == "-" or passing or file.absolute().parts[1:2] in (("dev",), ("proc",)):
        raise SpecError(
            f"a pipeline can't be run from '{file}': its run is kept beside its file, and goes on by the same command;"
            " write it into a file"
        )


def _keeps_going(environ: Mapping[str, str]) -> bool:
    """Read the variable of `--keep-going`, as the scheduler would. Raises SpecError for what is neither yes nor no."""
    ours = {name: value for name, value in environ.items() if name == "BLOCKYARD_KEEP_GOING"}
    keep_going: bool = parse_settings("scheduler", [], ours).keep_going
    return keep_going


@contextmanager
def _interrupts(local: LocalRun) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the run in order, and a second one at once."""
    asked = 0

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        local.hurried = asked > 1
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


def _follow(local: LocalRun, *, as_json: bool) -> RunResult:
    """Run to the end, showing how far it is."""
    with progress_on(sys.stderr, as_json=as_json) as progress:
        local.say = progress.say
        with local:
            if local.http_url:
                progress.say(f"its page: {local.page_url}")
            try:
                while (result := local.wait(LOOK_EVERY_S)) is None:
                    if (status := local.status()) is not None:
                        control = local.control()
                        progress.show(status, control.failures if control else None)
            except KeyboardInterrupt:
                progress.say("stopping after the blocks that are running (Ctrl-C again: at once) ...")
                raise
            progress.show(result.status)
            return result


def _run_serially(chosen: RunSpec, home: Path, *, as_json: bool) -> int:
    """Run in this process. What user code raises passes through, traceback and all: that is what it is for."""
    from blockyard.client import interrupts
    from blockyard.local.serial import run_serially

    interrupts.watch()
    os.chdir(home)
    search_in([str(home)])
    try:
        result = run_serially(
            chosen,
            report=lambda status: print(status_report(status), file=sys.stderr),
            say=lambda text: print(text, file=sys.stderr),
        )
    except (BlockFailedError, FatalBlockError):  # not bad input, though of our own classes
        traceback.print_exc()
        return FAILED
    if as_json:
        print_json(result)
    else:
        print(summary(result))
    return DONE if result.ok else FAILED


def _command_line() -> str:
    """The command as it was typed, without what must not be repeated."""
    words = [word for word in sys.argv[1:] if word not in ("--fresh", "--accept-changes")]
    return shlex.join(["blockyard", *words])


def _one_place(*streams: TextIO) -> bool:
    """Whether what goes to these streams is read together: on one terminal, or in one file."""
    try:
        return len({os.fstat(stream.fileno())[:3] for stream in streams}) == 1
    except (OSError, ValueError):  # closed, or no file is behind it
        return False


def _print_result(result: RunResult, where: Path | str, *, as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    print(summary(result, told=_one_place(sys.stdout, sys.stderr)))
    if result.ok and not result.status.leases_granted and result.status.total:
        print(f"nothing was left to do; to start over: {_command_line()} --fresh")
    if result.state == RunPhase.STOPPED or result.status.reason:
        print(f"finished blocks are kept; once that is mended, go on with: {_command_line()}")
    elif result.state == RunPhase.CANCELLED:
        print(f"to go on after all: blockyard resume {shlex.quote(str(where))} && {_command_line()}")
        print(f"to start over: {_command_line()} --fresh")
    elif not result.ok:
        where = shlex.quote(str(where))
        print(f"more: blockyard failures {where}; what a block wrote: blockyard logs TASK INDEX {where}")
        print(f"try them again: blockyard retry {where} && {_command_line()}")

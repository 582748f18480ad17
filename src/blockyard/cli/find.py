"""Find a run: by its folder, its pipeline file, or the address of its scheduler."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import msgspec

from blockyard.client.control import Control, UnsureError
from blockyard.local.redis import in_use
from blockyard.local.result import RunResult, read_result
from blockyard.local.run import LocalRun
from blockyard.spec.errors import BlockyardError, ConnectError, SpecError
from blockyard.spec.load import load_pipeline
from blockyard.spec.model import RunSpec

RUNS = ".blockyard"
"""Folder, beside a pipeline file, of the runs of its pipelines."""

HOME = "\0"
"""Between the command that started a run and the folder where it was typed."""

Place: TypeAlias = Path | str
"""The folder of a local run, or the address of a scheduler."""


class _Listening(msgspec.Struct):
    """What of scheduler.json is needed here."""

    http_host: str
    http_port: int


def add_where(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which run is meant."""
    parser.add_argument(
        "where",
        metavar="WHERE",
        nargs="?",
        default="",
        help="folder of the run, its pipeline file, or HOST:PORT or URL of its scheduler's HTTP side"
        " (default: the run in .blockyard here)",
    )
    parser.add_argument("--token", default="", help="token of a scheduler elsewhere (or BLOCKYARD_TOKEN)")
    parser.add_argument(
        "--token-file", default="", metavar="FILE", help="file with the token (or BLOCKYARD_TOKEN_FILE)"
    )
    parser.add_argument(
        "--tls-ca",
        default="",
        metavar="FILE",
        help="authorities (PEM) to trust for an https:// address, instead of the system's (or BLOCKYARD_TLS_CA)",
    )


def place_of(where: str) -> Place:
    """Return the folder of a run, or an address. Raises BlockyardError, with the choice, where it is not clear."""
    if not where:
        return _only_run(Path(RUNS), "here")
    try:
        found = _found_at(Path(where))
    except PermissionError as error:
        raise BlockyardError(f"{error.filename} cannot be read ({error.strerror}): it is another user's") from None
    except OSError as error:  # a name that is too long for one
        raise BlockyardError(f"'{where[:100]}' cannot be looked for: {error.strerror}") from None
    if found is not None:
        return found
    if "://" in where or (":" in where and "/" not in where):
        return where
    raise BlockyardError(f"'{where}' is no folder of a run, no pipeline file, and no address (HOST:PORT or URL)")


def _found_at(path: Path) -> Path | None:
    """Return the folder of the run that a file or folder stands for; None where there is no such thing."""
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return run_folder(path)
    if not path.is_dir():
        return None
    if (path / "run.json").exists():
        return path
    return _only_run(path / RUNS if path.name != RUNS else path, f"in {path}")


def run_folder(pipeline_file: Path) -> Path:
    """Return the folder in which `blockyard run FILE` keeps its run. Raises SpecError for a bad file."""
    return pipeline_file.absolute().parent / RUNS / load_pipeline(pipeline_file).name


def _only_run(runs: Path, where: str) -> Path:
    found = sorted(path for path in runs.glob("*") if (path / "run.json").exists())
    if not found:
        older = (runs.parent / "appendonlydir").is_dir() and (runs.parent / "folder").is_file()
        start = "; it is of an older scheduler.sh: start that once more, then it is found" if older else ""
        raise BlockyardError(f"there is no run {where}{start or '; give its folder or address'}")
    if len(found) == 1:
        return found[0]
    live = [path for path in found if in_use(path / "redis") or _living(path) is not None]
    if len(live) == 1:
        return live[0]
    raise BlockyardError(f"there are {len(found)} runs: give one of {', '.join(map(str, found))}")


def living(place: Place, arguments: argparse.Namespace) -> Control | None:
    """Return the control calls of a run whose scheduler lives; None for the folder of one that does not.

    Raises ConnectError where the scheduler of a folder is there and does not answer.
    """
    if isinstance(place, Path):
        return _living(place)
    tls_ca = arguments.tls_ca or os.environ.get("BLOCKYARD_TLS_CA", "")
    return Control(place, _token(arguments), tls_ca=tls_ca if place.startswith("https://") else "")


def _living(folder: Path) -> Control | None:
    try:
        at = msgspec.json.decode((folder / "scheduler.json").read_bytes(), type=_Listening)
        token = (folder / "token").read_text()
    except (OSError, msgspec.DecodeError, ValueError):
        return None
    if at.http_port < 0:  # it was told to serve no HTTP
        return None
    control = Control(f"http://{at.http_host}:{at.http_port}", token)
    try:
        control.status()
    except ConnectError as error:
        if isinstance(error, UnsureError) and in_use(folder / "redis"):  # it is there, and is stopped or hangs
            raise
        return None  # its process was killed before it could remove the file
    return control


def ended(folder: Path) -> RunResult | None:
    """Return how a run that is not running stood when it stopped; None where nothing was left behind."""
    return read_result(folder)


@contextmanager
def reach(place: Place, arguments: argparse.Namespace, *, look_only: bool = True) -> Iterator[Control]:
    """Return the control calls of a run; one that is not running is opened for that long, without workers."""
    control = living(place, arguments)
    if control is not None:
        yield control
        return
    assert isinstance(place, Path)
    _refuse_elsewhere(place)
    if in_use(place / "redis"):
        raise ConnectError(
            f"the run in {place} is starting, ending, or being looked at by another command, and nobody answers for it;"
            " try again in a moment"
        )
    opening = LocalRun(
        spec_in(place),
        place.absolute(),
        accept_changes=True,
        keep_serving=True,
        keep_result=look_only,
        command=_command_of(place),
    )
    with opening as opened:
        opened_control = opened.control()
        assert opened_control is not None
        yield opened_control


def _refuse_elsewhere(folder: Path) -> None:
    """Raise BlockyardError where the script of a batch system says that a scheduler has the run."""
    try:
        address = (folder / "address").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return
    raise BlockyardError(
        f"the scheduler of {folder} works at {address} and can't be asked from here: give the address of its HTTP side"
        f" instead of the folder, or, if its job is gone, remove {folder}/address"
    )


def spec_in(folder: Path) -> RunSpec:
    """Return what runs in the folder of a run. Raises SpecError where it can't be read."""
    try:
        return msgspec.json.decode((folder / "run.json").read_bytes(), type=RunSpec)
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise SpecError(f"{folder} holds no run that can be read: {error}") from error


def how_to_go_on(place: Place) -> str:
    """Say what starts a run again that is not running, to be typed where we are."""
    command, _, home = (_command_of(place) if isinstance(place, Path) else "").partition(HOME)
    if not command:
        return "start it again as it was started"
    with contextlib.suppress(OSError):  # this folder is gone
        if not home or Path(home) == Path.cwd():
            return command
    return f"cd {shlex.quote(home)} && {command}"


def _command_of(folder: Path) -> str:
    """Return what a person typed to start the run in a folder, and where; "" where a script started it."""
    try:
        return os.fsdecode((folder / "command").read_bytes())
    except OSError:
        return ""


def _token(arguments: argparse.Namespace) -> str:
    path = arguments.token_file or os.environ.get("BLOCKYARD_TOKEN_FILE", "")
    if arguments.token or not path:
        return arguments.token or os.environ.get("BLOCKYARD_TOKEN", "")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BlockyardError(f"the token file {path} cannot be read ({error})") from error

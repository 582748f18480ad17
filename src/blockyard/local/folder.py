"""The folder of a local run: who may write what, and what is left when the run has ended."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from blockyard.local.result import RunResult, read_result
from blockyard.spec.errors import StoreError
from blockyard.spec.model import RunSpec
from blockyard.spec.pickles import reference_to
from blockyard.spec.validate import code_references

KEPT_FILES = ("run.json", "command", "status.json", "failures.json")
"""What an earlier run left, and a start that is refused must leave as it was."""


PRIVATE = 0o700
"""Mode of what we make: logs, errors and state are nobody else's business on a machine with other users."""


MARK = ".blockyard-run"
"""A file that says whose folder it is; runs of before it have the lock of their Redis instead."""
OURS = (*KEPT_FILES, "token", "scheduler.json", "redis")
"""What we write and remove in the folder of a run; to `logs` and `functions` we only add files of our own names."""
OUR_PICKLE = "[0-9a-f]" * 32 + ".pkl"


def claim_folder(folder: Path) -> None:
    """Make the folder of a run, for its owner alone, and mark it as one; one that is there keeps its mode.

    Raises StoreError where it can't be written, or where a name that we need is somebody else's file.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=PRIVATE, exist_ok=True)
        if (folder / MARK).exists():
            return
        if not any((folder / "redis" / name).exists() for name in ("lock", "redis.conf")):
            for name in OURS:
                if (folder / name).exists():
                    raise StoreError(
                        f"the folder {folder} is no run's, and holds '{name}', which a run would overwrite; choose"
                        " another one with --run-dir (in Python: run_dir=)"
                    )
        (folder / MARK).write_text("A run of blockyard keeps its state here; 'blockyard status' reads it.\n")
    except OSError as error:
        raise StoreError(
            f"the run's folder {folder} cannot be written ({error.strerror or error}); choose another one with"
            " --run-dir (in Python: run_dir=)"
        ) from error


def remove_what_is_ours(folder: Path, topmost: Path) -> None:
    """Remove the folder of a run that did not begin, and those above it up to `topmost`, but no file of anybody else.

    A task's `prepare` may have made its arrays in there.
    """
    with contextlib.suppress(OSError):
        shutil.rmtree(folder / "redis", ignore_errors=True)
        for name in (*OURS, MARK):
            if name != "redis":
                (folder / name).unlink(missing_ok=True)
        for name, pattern in (("logs", "*.log"), ("functions", OUR_PICKLE)):
            for path in (folder / name).glob(pattern):
                path.unlink()
            if (folder / name).is_dir() and not any((folder / name).iterdir()):
                (folder / name).rmdir()
        for empty in (folder, *folder.parents):
            empty.rmdir()  # ends here where something is in it
            if empty == topmost:
                break


@dataclass(slots=True)
class RunFolder:
    """The files of one run, for the process that holds the folder's lock."""

    path: Path
    token: str = ""
    """Shared by scheduler and workers, new for each start; "" until `open`."""
    _made: Path | None = field(default=None, init=False)
    """The topmost folder that was made for this run."""

    def __post_init__(self) -> None:
        missing = [path for path in (self.path, *self.path.parents) if not path.exists()]
        self._made = missing[-1] if missing else None

    def open(self, run: RunSpec, command: str = "") -> None:
        """Write what the services read, once the folder is ours; set what an earlier run left aside."""
        self.token = secrets.token_hex(24)
        (self.path / "logs").mkdir(mode=PRIVATE, exist_ok=True)
        for name in KEPT_FILES:
            with contextlib.suppress(FileNotFoundError):
                (self.path / name).replace(self._aside(name))
        (self.path / "scheduler.json").unlink(missing_ok=True)
        self._write("token", self.token.encode())
        self._write("run.json", msgspec.json.format(msgspec.json.encode(run)))
        if command:
            self._write("command", os.fsencode(command))
        needed = {reference for task in run.pipeline.tasks for _, reference in code_references(task)}
        for path in (self.path / "functions").glob(OUR_PICKLE):
            if reference_to(path) not in needed:  # of an earlier call from a script that has changed
                path.unlink()

    def begin(self) -> None:
        """Forget what the earlier run left: this one has begun."""
        for name in KEPT_FILES:
            self._aside(name).unlink(missing_ok=True)

    def result(self) -> RunResult | None:
        """Return the result that the scheduler wrote, if the run has ended (a stopped one leaves a status too)."""
        found = read_result(self.path)
        return found if found is not None and found.status.has_stopped else None

    def close(self, *, put_back: bool) -> None:
        """Remove what is of use only while a run lives; with `put_back`, leave what the earlier run had left."""
        if not self.token:  # the folder was never ours
            return
        for name in ("token", "scheduler.json"):
            with contextlib.suppress(OSError):
                (self.path / name).unlink()
        for name in KEPT_FILES if put_back else ():
            (self.path / name).unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                self._aside(name).replace(self.path / name)

    def remove_if_made(self) -> None:
        """Remove the folder, and those above it that were made with it, where this run is the one that made it."""
        if self._made is not None:
            remove_what_is_ours(self.path, self._made)

    def _aside(self, name: str) -> Path:
        return self.path / f"{name}.before"

    def _write(self, name: str, data: bytes) -> None:
        """Write a file of mode 0600 in one step."""
        part = self.path / f"{name}.part"
        part.unlink(missing_ok=True)
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
            part.replace(self.path / name)
        except OSError as error:
            part.unlink(missing_ok=True)
            error.filename = str(self.path / name)  # a write does not say of which file
            raise

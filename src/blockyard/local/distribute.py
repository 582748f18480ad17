"""`distribute` and `run_blockwise`: the calls of a script or notebook that run tasks on this machine."""

from __future__ import annotations

import functools
import logging
import math
import multiprocessing
import os
import re
import shutil
import signal
import sys
import sysconfig
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from funlib.geometry import Roi

from blockyard.arrays.mapped import run_mapped
from blockyard.arrays.opened import TaskArrays
from blockyard.arrays.padding import Pad, check_pad
from blockyard.client.binding import bind
from blockyard.client.calls import Call, Checks
from blockyard.client.context import serial_context
from blockyard.local.echo import Echo
from blockyard.local.folder import claim_folder, remove_what_is_ours
from blockyard.local.result import RunResult, summary
from blockyard.local.run import LocalRun
from blockyard.plan.plan_warnings import PLAN_WARNING
from blockyard.spec.errors import BlockyardError, SpecError, StoreError, brief
from blockyard.spec.functions import PICKLE, is_own_worker, load_function
from blockyard.spec.given import plain, whole
from blockyard.spec.importing import UNDER_MAIN, refuse_while_importing
from blockyard.spec.maps import SOURCE, TARGET, halo_of, rois_of_no_block, voxels
from blockyard.spec.model import TaskSpec
from blockyard.spec.pipeline import Pipeline
from blockyard.spec.randomness import random_sources, said_of, seeding
from blockyard.spec.resolve import ResolvedRun, resolve
from blockyard.spec.task import DAISY_1, ArrayPath, Arrays, Task
from blockyard.spec.validate import code_references
from blockyard.wire.report import status_report

log = logging.getLogger("blockyard")

REPORT_EVERY_S = 10.0
ECHO_EVERY_S = 0.2


def distribute(
    tasks: Pipeline | Task | Iterable[Any],
    global_config: Any = None,  # noqa: ARG001 - 0.2 took it here and used it nowhere; tasks are given theirs
    *,
    num_workers: int | None = None,
    workers: int | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    accept_changes: bool = False,
    serial: bool = False,
) -> bool:
    """Run tasks and all they require on this machine; True only if every block is done or skipped.

    `tasks` is a Pipeline, a task, or a list of tasks and of ``{"task": task, "request": [Roi, ...]}``. `num_workers`
    (or `workers`) is how many blocks run at once in each pool; without it the tasks' own `num_workers` say. With
    `run_dir` the run is kept there, and the same call resumes it; without, it is a fresh one that leaves nothing but
    the logs of a failure. `serial` runs everything in this process: a debugger works and an exception arrives here.

    Every 10 s the logger ``blockyard`` tells how far it is (level INFO), and in the end which blocks failed and why.
    Raises SpecError for tasks that cannot be run as they are, before anything runs.
    """
    refuse_while_importing()
    _refuse_a_starting_process()
    workers = _at_least_one("workers", workers) or _at_least_one("num_workers", num_workers)
    if serial:
        return _run_serially(tasks)
    with _ended_in_order(), _folder_of(run_dir) as folder:
        resolved = resolve(tasks, str(folder / "functions"))
        _say_what_is_random(resolved)
        with _hooks(resolved.tasks.values()):
            local = LocalRun(
                resolved.run,
                folder,
                workers=workers,
                fresh=fresh or run_dir is None,
                accept_changes=accept_changes,
                keep_going=True,  # a script says itself what it does about failures
                module_path=module_path(tasks.folder if isinstance(tasks, Pipeline) else None),
                say=log.warning,
            )
            shown = not resolved.tasks or any(task.log_to_stdout for task in resolved.tasks.values())
            echo = Echo(folder / "logs", sys.stdout) if shown else None
            with local:
                result = _follow(local, resolved, echo)
        _tell(result, folder, private=run_dir is None, resolved=resolved)
    return result.ok


def run_blockwise(
    total_roi: Roi,
    read_roi: Roi | None = None,
    write_roi: Roi | None = None,
    process_function: Callable[..., Any] | None = None,
    check_function: Any = None,
    read_write_conflict: bool = True,
    fit: str = "valid",
    num_workers: int | None = 1,
    max_retries: int = 2,
    *,
    processes: bool | None = None,  # noqa: ARG001 - deprecated in 0.2 already: workers are processes
    timeout_s: float | None = None,
    reads: Arrays | None = None,
    writes: Arrays | None = None,
    task_id: str | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    serial: bool = False,
) -> bool:
    """Run one function over all blocks of `total_roi`; True only if every block is done or skipped.

    `process_function` takes a block, or nothing: then it is a worker of your own that drives `blockyard.Client`, and
    `num_workers` of them are started. `read_roi` and `write_roi` say what one block reads and writes; only where they
    lie relative to each other matters. `reads` and `writes` are arrays by name. See
    `distribute` for the rest. Raises SpecError for what is none of this; so is
    a list of tasks, as daisy 1.x and 2.0 have it.
    """
    if isinstance(total_roi, (list, tuple, Task)):
        raise SpecError(f"run_blockwise takes ROIs and a function, not {brief(total_roi)}: {DAISY_1}")
    if read_roi is None or write_roi is None or process_function is None:
        raise SpecError("run_blockwise needs total_roi, read_roi, write_roi and process_function")

    class Blockwise(Task):
        def prepare(self) -> None:
            self.schedule(
                total_roi,
                read_roi,
                write_roi,
                process_function,
                check_function,
                read_write_conflict,
                num_workers,
                max_retries,
                fit,
                timeout_s=timeout_s,
                reads=reads,
                writes=writes,
            )

    task = Blockwise(task_id=task_id or _id_from(process_function))
    return distribute([{"task": task}], run_dir=run_dir, serial=serial)


def map_blocks(
    function: Callable[..., Any],
    source: ArrayPath | Mapping[str, ArrayPath],
    target: ArrayPath,
    *,
    block: Sequence[int],
    halo: int | Sequence[int] = 0,
    workers: int | None = None,
    pad: Pad = "reflect",
    run_dir: str | os.PathLike[str] | None = None,
    serial: bool = False,
    **params: Any,
) -> bool:
    """Map a function of an array over a volume, block by block; True only if every block is done.

    ``function(source, **params)`` gets `block` voxels of the source and `halo` around them, with `pad` outside the
    volume; of what it returns the block's part is written. `source` is a path or URL, or a dict of several, which are
    keyword arguments; `target` is a path or URL, or a mapping (path, dtype, chunks, ...), and made where there is none,
    of the source's dtype. See `distribute` for the rest. Raises SpecError for what does not fit.
    """
    shape = voxels(block, "block", 1)
    around = halo_of(halo, len(shape), "halo")
    check_pad(pad)
    named: Any = source if isinstance(source, Mapping) and "path" not in source else {SOURCE: source}
    given = plain(params, "the parameters")

    class Mapped(Task):
        def prepare(self) -> None:
            self.schedule(
                *rois_of_no_block(shape, around),
                functools.partial(run_mapped, function, given, pad),
                read_write_conflict=False,
                num_workers=workers,
                fit="shrink",
                reads=named,
                writes={TARGET: target},
                block=shape,
                halo=around,
            )

    return distribute([{"task": Mapped(task_id=_id_from(function))}], run_dir=run_dir, serial=serial)


def module_path(folder: Path | None = None) -> list[str]:
    """Return the folders and archives where worker processes find what this process can import, `folder` first.

    Those of this process's own module path, without the ones that every Python has.
    """
    installed = {Path(path).resolve() for path in sysconfig.get_paths().values()}
    ours = [path for path in map(_place_of, sys.path) if path.is_dir() or zipfile.is_zipfile(path)]
    found = [str(path) for path in ours if not any(path.is_relative_to(at) for at in installed)]
    return list(dict.fromkeys([*([str(folder)] if folder else []), *found]))


def _place_of(entry: str) -> Path:
    """Return where an entry of the module path led when it was first used: the current folder may be another now."""
    finder = sys.path_importer_cache.get(entry)
    return Path(str(getattr(finder, "path", entry)) or ".").resolve()


# ----- one run --------------------------------------------------------------------------------------------------------


def _follow(local: LocalRun, resolved: ResolvedRun, echo: Echo | None) -> RunResult:
    """Run to the end, with a report and the tasks' periodic hook every 10 s, and what workers print as it comes."""
    due_s = time.monotonic() + REPORT_EVERY_S
    while (result := local.wait(max(min(due_s - time.monotonic(), ECHO_EVERY_S if echo else math.inf), 0))) is None:
        if echo is not None:
            echo.copy()
        if time.monotonic() >= due_s:
            due_s += REPORT_EVERY_S
            _report(local, resolved.tasks.values())
    if echo is not None:
        echo.copy(last=True)
    log.info("%s", status_report(result.status))
    if result.ok:  # otherwise they are in its summary
        for notice in result.status.notices:
            if notice.kind != PLAN_WARNING:  # said before it began
                log.warning("note: %s", notice.text)
    return result


def _report(local: LocalRun, tasks: Iterable[Task]) -> None:
    if (status := local.status()) is not None:
        log.info("%s", status_report(status))
    for task in tasks:
        try:
            task._periodic_callback()  # noqa: SLF001 - its name in 0.2
        except Exception:
            # A hook that fails is no reason to lose a run of days.
            log.exception("the periodic callback of task '%s' failed", task.task_id)


@contextmanager
def _hooks(tasks: Iterable[Task]) -> Iterator[None]:
    """Call `cleanup` of each task at the end, whatever the end is; raise what the first of them raised."""
    try:
        yield
    finally:
        first: Exception | None = None
        for task in tasks:
            try:
                task.cleanup()
            except Exception as error:  # the others must have their turn
                log.exception("cleanup of task '%s' failed", task.task_id)
                first = first or error
        if first is not None and sys.exception() is None:
            raise first


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does, where the script has no handler of its own: nothing is left behind."""
    default = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if not default:
        yield
        return

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _refuse_a_starting_process() -> None:
    """Raise SpecError in a process that multiprocessing starts in a block, which reads the script for its functions."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # as multiprocessing itself asks
        raise SpecError(f"a process that multiprocessing starts in a block would start a run; {UNDER_MAIN}")


def _run_serially(targets: Pipeline | Task | Iterable[Any]) -> bool:
    """Run in this process, with the functions themselves: a closure may fill a list of the caller's."""
    from blockyard.local.serial import run_serially

    pipeline = targets if isinstance(targets, Pipeline) else Pipeline.from_tasks(targets)
    resolved = pipeline.resolve_here()
    with _hooks(resolved.tasks.values()), serial_context():
        result = run_serially(
            resolved.run,
            calls={
                task_id: functools.partial(_call_of, task)
                for task_id, task in resolved.tasks.items()
                if task.scheduled.process_function is not None and not is_own_worker(task.scheduled.process_function)
            },
            report=lambda status: log.info("%s", status_report(status)),
        )
    log.log(logging.INFO if result.ok else logging.ERROR, "%s", summary(result))
    return result.ok


def _call_of(task: Task, spec: TaskSpec) -> Call:
    """Return what runs a block of a task, made of its functions as they are."""
    plan, arrays = task.scheduled, TaskArrays(spec)
    process, before, after = (
        None if function is None else bind(_loaded(function), plan.params, arrays, by_name=function is not process)
        for process in [plan.process_function]
        for function in (process, plan.before, plan.after)
    )
    assert process is not None
    checks = Checks(before and before.call, after and after.call)
    drawn = random_sources(*(None if bound is None else bound.function for bound in (process, before, after)))
    return seeding(checks.around(process.call) if before or after else process.call, drawn)


def _loaded(function: Any) -> Any:
    return load_function(function, pickle_dir=None) if isinstance(function, str) else function


def _say_what_is_random(resolved: ResolvedRun) -> None:
    """Warn of random generators that travel with functions of this process; the preflight finds the others."""
    for spec in resolved.run.pipeline.tasks:
        task = resolved.tasks.get(spec.id)
        if task is not None and any(reference.startswith(PICKLE) for _, reference in code_references(spec)):
            plan = task.scheduled
            if found := random_sources(plan.process_function, plan.before, plan.after):
                log.warning("warning: task '%s': %s", spec.id, said_of(found))


@contextmanager
def _folder_of(run_dir: str | os.PathLike[str] | None) -> Iterator[Path]:
    """Return the folder of a run: `run_dir`, or a private one that is removed; after bad input the former too."""
    if run_dir is not None:
        folder = Path(run_dir).absolute()
        existed = folder.exists()
        try:
            claim_folder(folder)
            yield folder
        except BlockyardError:
            if not existed and not (folder / "run.json").exists():
                remove_what_is_ours(folder, folder)
            raise
        return
    try:
        folder = Path(tempfile.mkdtemp(prefix="blockyard-"))
    except OSError as error:
        raise StoreError(
            f"no folder for what the run needs on disk: {error.strerror or error}; give it a run_dir"
        ) from None
    try:
        yield folder
    finally:
        if not (folder / KEEP).exists():
            shutil.rmtree(folder, ignore_errors=True)


KEEP = "logs/KEPT"
"""A file that keeps a private run's logs from being removed."""


def _tell(result: RunResult, folder: Path, *, private: bool, resolved: ResolvedRun) -> None:
    """Log how it ended; keep the logs of a private run that failed, or whose tasks want files."""
    logs = folder / "logs"
    wanted = any(task.log_to_files for task in resolved.tasks.values())
    if private and (wanted or not result.ok):
        for entry in folder.iterdir():
            if entry != logs:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        (folder / KEEP).touch()
    if not result.ok:
        log.error("%s\nlogs of the workers: %s", summary(result), logs)
    elif wanted:
        log.info("logs of the workers: %s", logs)


def _at_least_one(name: str, value: int | None) -> int | None:
    number = None if value is None else whole(value, name)
    if number is not None and number < 1:
        raise SpecError(f"{name} is {number}; it must be at least 1")
    return number


def _id_from(function: Any) -> str:
    """Return a task id from a function's name."""
    name = getattr(function, "__name__", None) or type(function).__name__
    return re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_") or "blocks"


__all__ = ["distribute", "map_blocks", "run_blockwise"]

"""Fail-fast: a task whose first attempts all ended with one error is leased no more, for it would cost every block.

A typo fails all blocks, each as often as it may be tried. So the attempts of a task are watched until one ends in
another way::

    FAILED, same type and line   counted; from the 10th on, at 3 blocks or more, the task stops
    anything else that was run   the watch ends: some of the blocks fail, and the others are worth running
    returned, lost               says nothing about the code

One bad machine fails all that it gets, too. So where two workers are connected that may run the task, both must have
failed; on two machines, where there are two. A stop is a guess, and it is taken back when a block that was in flight is
done after all, or when a second worker comes and only one had failed.

Which tasks are stopped is durable; the watches are not, and begin anew after a restart and after a resume.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blockyard.core.state.journal import Stop
from blockyard.core.state.task import Kind
from blockyard.core.state.workers import host_of
from blockyard.wire.api import Notice
from blockyard.wire.messages import BlockError, Outcome

if TYPE_CHECKING:
    from blockyard.core.runstate import RunState
    from blockyard.core.settings import CoreSettings
    from blockyard.core.state.task import Task
    from blockyard.core.state.workers import Worker
    from blockyard.plan.requests import Box

NOTICE = "failing_fast"
ADVICE = (
    "Mend it and go on with the same 'blockyard run' again, or, where its scheduler goes on, with 'blockyard resume';"
    " with keep_going (--keep-going) all blocks are tried whatever fails"
)
ATTEMPTS = 10
BLOCKS = 3
LONGEST_MESSAGE = 300
FRAME = re.compile(r'^[ |+]*File "([^"\n]+)", line (\d+)', re.MULTILINE)
LIBRARY = re.compile(r"[/\\](site-packages|dist-packages|lib(64)?[/\\]python\d[\d.]*|Lib)[/\\]|^<frozen ")
"""Files of Python and of what is installed: the line that matters is the user's that called them."""
NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+")


def line_of(error: BlockError) -> str:
    """Return where an error comes from: file and line of the innermost frame of the user's code.

    Without frames (an exit status, a check, a time limit) it is the message, whatever its numbers are.
    """
    frames = FRAME.findall(error.traceback)
    for file, line in [*reversed([frame for frame in frames if not LIBRARY.search(frame[0])]), *reversed(frames)]:
        return f"{file}, line {line}"
    return NUMBER.sub("#", error.message)


def several(seen: Iterable[str], connected: Collection[str]) -> bool:
    """Whether those who have failed are more than one machine, or as many as there are.

    `connected` are the workers that may run the task; the name of a worker begins with its host.
    """
    hosts = {host_of(worker) for worker in connected}
    if len(hosts) > 1:
        return len({host_of(worker) for worker in seen}) > 1
    return len(set(seen)) >= min(2, len(connected))


@dataclass(slots=True)
class _Watch:
    """The attempts of one task so far, all of which ended alike."""

    kind: str
    line: str
    error: BlockError
    attempts: int = 0
    blocks: set[int] = field(default_factory=set)
    workers: set[str] = field(default_factory=set)

    def count(self, block: int, worker: str) -> None:
        self.attempts += 1
        self.workers.add(worker)
        if len(self.blocks) < BLOCKS:
            self.blocks.add(block)


class FailFast:
    """The watches and stops of a run, by number of the task."""

    def __init__(self) -> None:
        self.stops: dict[int, Stop] = {}
        """Tasks that are leased no more."""
        self.since_s = 0.0
        """When the last of them was stopped."""
        self._watches: dict[int, _Watch | None] = {}
        """None: an attempt ended in another way."""
        self.ripe: set[int] = set()
        """Tasks with attempts enough, of which only the workers may be too few."""

    @property
    def watching(self) -> bool:
        """Whether anything is known that a finished block would end."""
        return bool(self._watches or self.stops)

    def ended(self, task: int, block: int, outcome: Outcome, worker: str, error: BlockError | None) -> None:
        """An attempt of a task of which no block is done was not done."""
        if outcome == Outcome.LOST or task in self.stops:
            return
        error = error or BlockError(-1, "failed", "no reason was given")
        line = line_of(error)
        watch = self._watches.setdefault(task, _Watch(error.kind, line, error))
        if watch is None:
            return
        if outcome != Outcome.FAILED or (watch.kind, watch.line) != (error.kind, line):
            self._watches[task] = None
            self.ripe.discard(task)
            return
        watch.count(block, worker)
        if watch.attempts >= ATTEMPTS and len(watch.blocks) >= BLOCKS:
            self.ripe.add(task)

    def judge(self, task: int, name: str, connected: Collection[str], now: float) -> Stop | None:
        """Return why a task stops that has attempts enough, if those who failed are; it is stopped then."""
        watch = self._watches.get(task)
        if watch is None or not several(watch.workers, connected):
            return None
        hosts = set(map(host_of, watch.workers))
        lone = "" if len(hosts) > 1 else next(iter(watch.workers if len(watch.workers) == 1 else hosts))
        self.stops[task] = stop = Stop(_sentence(name, watch), lone)
        self.since_s = now
        self.ripe.discard(task)
        return stop

    def settled_s(self, settings: CoreSettings) -> float:
        """Return from when on the stops are the end of a run."""
        lone = any(stop.worker for stop in self.stops.values())
        return self.since_s + settings.fail_fast_settle_s if lone else self.since_s

    def lift(self, tasks: Iterable[int]) -> list[int]:
        """Forget what is known of these tasks; return those of them that were stopped."""
        lifted = []
        for task in tasks:
            self._watches.pop(task, None)
            self.ripe.discard(task)
            if self.stops.pop(task, None) is not None:
                lifted.append(task)
        return lifted

    def reopen(self, task: int) -> None:
        """A worker has come that has not failed yet: the task is leased again, and its next failure may stop it."""
        del self.stops[task]
        self.ripe.add(task)


def _sentence(name: str, watch: _Watch) -> str:
    error = watch.error
    message = " ".join(error.message.split())
    if len(message) > LONGEST_MESSAGE:
        message = f"{message[:LONGEST_MESSAGE]} ..."
    where = f" (in {watch.line})" if FRAME.search(error.traceback) else ""
    return (
        f"task '{name}' is leased no more: its first {watch.attempts} attempts all failed alike, with"
        f" {error.kind}: {message}{where}"
    )


def is_watched(core: RunState, task: Task) -> bool:
    """Whether a task can stop: none of its blocks is done, and nobody said that it is to keep going."""
    return core.settings.fail_fast and not task.spec.keep_going and not task.counts[Kind.DONE]


def look(core: RunState, now: float) -> None:
    """Stop the tasks whose first attempts all failed alike, at the end of a turn."""
    for number in list(core.fail_fast.ripe):
        task = core.tasks[number]
        workers = [worker for worker in core.workers.values() if worker.connected and worker.slots]
        connected = [worker.id for worker in workers if worker.may_run(task.spec)]
        stop = core.fail_fast.judge(number, task.spec.id, connected, now)
        if stop is not None:
            core.turn.record.stops[number] = stop
            _say(core, number, stop)


def restored(core: RunState, now: float) -> None:
    """Say again what was said before a restart; tasks that are to keep going now are leased again."""
    core.fail_fast.since_s = now
    lift(core, [core.tasks[number] for number in core.fail_fast.stops if not is_watched(core, core.tasks[number])])
    for number, stop in core.fail_fast.stops.items():
        _say(core, number, stop)


def _say(core: RunState, number: int, stop: Stop) -> None:
    settle_s = core.settings.fail_fast_settle_s if stop.worker else 0.0
    lone = (
        f"; only {stop.worker} has tried it: another worker is waited for, {settle_s:g} s at most" if settle_s else ""
    )
    core.notices.put(Notice(NOTICE, f"{stop.text}{lone}. {ADVICE}", task=core.tasks[number].spec.id))


def lift(core: RunState, tasks: Iterable[Task]) -> None:
    """Lease these tasks again, and watch their attempts anew."""
    for number in core.fail_fast.lift(task.number for task in tasks):
        core.turn.record.stops[number] = None
        core.notices.drop(NOTICE, task=core.tasks[number].spec.id)


def reopen(core: RunState, newcomer: Worker) -> bool:
    """Lease tasks again that only another worker has failed; return whether there are any."""
    stops = core.fail_fast.stops
    known = {"", newcomer.id, host_of(newcomer.id)}
    lone = [number for number, stop in stops.items() if stop.worker not in known]
    reopened = [number for number in lone if newcomer.may_run(core.tasks[number].spec)]
    for number in reopened:
        core.fail_fast.reopen(number)
        core.turn.record.stops[number] = None
        core.notices.drop(NOTICE, task=core.tasks[number].spec.id)
    return bool(reopened)


def standstill(core: RunState, now: float) -> tuple[str, bool]:
    """Return why nothing can run any more, where tasks were stopped and all else is over or waits for them; else "".

    And whether that is to be asked again at once: there are chunks that were not looked at. A stop that rests on one
    worker alone is not the end for a while: the others may be starting.
    """
    if core.leases.count_by_task or now < core.fail_fast.settled_s(core.settings):
        return "", False
    waiting = _downstream(core)
    for task in core.tasks:
        if task.unfinished and task.number not in waiting:
            frontier = core.frontiers[task.number]
            frontier.advance(1, core.settings.looks_a_turn)
            if core.ready_count(task.number) or not frontier.exhausted:
                return "", not core.ready_count(task.number)
    return "; ".join(stop.text for stop in core.fail_fast.stops.values()) + f". {ADVICE}", False


def _downstream(core: RunState) -> set[int]:
    """Return the stopped tasks, and those of which every block waits for one of them: there is nothing to look for.

    No block of a stopped task is done, so to wait for any of it is to wait.
    """
    found = set(core.fail_fast.stops)
    reached = [core.tasks[number] for number in found]
    while reached:
        for edge, down in reached.pop().downstream:
            if down.number in found or down.counts[Kind.DONE]:
                continue
            if all(_inside(box, edge.fed_box()) for box in down.boxes):
                found.add(down.number)
                reached.append(down)
    return found


def _inside(box: Box, other: Box) -> bool:
    return all(a <= b and c <= d for a, b, c, d in zip(other[0], box[0], box[1], other[1], strict=True))

"""What is over, and who is told: the one place where a run changes its state.

Whoever is there is told once, at the end of the turn in which a task or the run is over; whoever joins later is told
of all that is over by then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from blockyard.core.events import AnnounceRunOver, AnnounceTaskOver
from blockyard.core.state.journal import Record
from blockyard.core.state.task import Kind, Task
from blockyard.core.state.transitions import RunCause, moved
from blockyard.spec.errors import StoreError
from blockyard.wire.states import ENDED, RunPhase


class Over:
    """The state of a run, and the tasks of which no block will run any more."""

    def __init__(self) -> None:
        self.phase = RunPhase.RUNNING
        self.reason = ""
        """Why it is paused, where no person did that; "": nothing is to be said."""
        self.tasks: set[int] = set()
        """Numbers of the tasks of which it was announced."""
        self.ended_s: float | None = None
        """When the run was seen to have stopped; None: it has not."""
        self._announced = False

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        return self.phase in ENDED

    @property
    def has_stopped(self) -> bool:
        """Whether nothing will run unless a person does something: it has ended, or is paused for a reason."""
        return self.is_over or bool(self.reason)

    def load(self, phase: str, reason: str) -> None:
        """Take what the journal says; "": it says nothing. Raises StoreError for a state that there is not."""
        if phase and phase not in set(RunPhase):
            raise StoreError(f"the journal says that the run is '{phase}', which this version does not know")
        self.phase, self.reason = RunPhase(phase or RunPhase.RUNNING), reason

    def change(self, cause: RunCause, record: Record, reason: str = "") -> None:
        """Something has happened to the run; what changes is put into the record.

        Raises RuntimeError for what can't happen to it.
        """
        phase = moved(self.phase, cause)
        if phase is self.phase:
            return
        self.phase, self.reason = phase, reason
        record.state, record.reason = phase, reason
        self._announced = False

    def close(self, closed: Iterable[int], tasks: Sequence[Task], record: Record) -> Iterator[AnnounceTaskOver]:
        """Yield what to say of tasks that may be over since chunks of them were `closed`; the run is if all are."""
        for number in sorted(set(closed) - self.tasks):
            if not tasks[number].unfinished:
                self.tasks.add(number)
                yield AnnounceTaskOver(tasks[number].spec.id)
        if len(self.tasks) == len(tasks):
            self.change(RunCause.WORKED_OFF_IN_PART if _lack(tasks) else RunCause.WORKED_OFF, record)

    def is_outdated(self, tasks: Sequence[Task]) -> bool:
        """Whether a run that was worked off is not: there is more to do, or what failed is not asked for any more."""
        if self.phase not in {RunPhase.DONE, RunPhase.FAILED}:
            return False
        return any(task.unfinished for task in tasks) or _lack(tasks) is not (self.phase is RunPhase.FAILED)

    def tell(
        self, joined: Sequence[str | None], by_id: Mapping[str, Task]
    ) -> Iterator[AnnounceRunOver | AnnounceTaskOver]:
        """Yield that the run is over, once, and what is over to those who have just come, each for a task or None."""
        if self.is_over and (joined or not self._announced):
            self._announced = True
            yield AnnounceRunOver(self.phase)
        elif not self.is_over:
            for task in dict.fromkeys(filter(None, joined)):
                if task in by_id and by_id[task].number in self.tasks:
                    yield AnnounceTaskOver(task)

    def seen(self, now: float) -> None:
        """A turn ends: note since when the run has stopped."""
        self.ended_s = (now if self.ended_s is None else self.ended_s) if self.has_stopped else None


def _lack(tasks: Sequence[Task]) -> bool:
    """Whether blocks failed, or were orphaned."""
    return any(task.counts[Kind.FAILED] or task.counts[Kind.ORPHANED] for task in tasks)

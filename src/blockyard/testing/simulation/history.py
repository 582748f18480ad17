"""What happened, held against the promises at every step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from blockyard.core.scheduler import Scheduler
from blockyard.core.state import journal
from blockyard.core.state.task import Kind
from blockyard.testing.order import Name, beside_which, waits_of
from blockyard.wire.states import RunPhase


class BrokenPromiseError(AssertionError):
    """One of P1 to P6 does not hold; the text says which and why."""


class History:
    """Executions, acknowledgements and what the journal says is done."""

    def __init__(self, reference: Scheduler) -> None:
        """`reference` is a core of the same run, used for its arithmetic only."""
        self._tasks = reference.tasks
        self._waits = waits_of(reference)
        self._ever_written: set[Name] = set()
        self._forbids = beside_which(self._waits)
        self.done: set[Name] = set()
        """What the store says is done."""
        self._done_as_of: dict[int, frozenset[Name]] = {0: frozenset()}
        """By sequence of the last record."""
        self._acknowledgeable: set[Name] = set()
        """What the store said at some time: of the rest nobody may have been told that it is safe."""
        self._written: set[Name] = set()
        """What was done and has not been begun again: what waits for it finds its input, though the store forgot."""
        self.running: dict[Name, str] = {}
        self.executions = 0
        self._failures: Counter[Name] = Counter()

    @property
    def total(self) -> int:
        """Blocks of the run."""
        return len(self._waits)

    # --- what happens ------------------------------------------------------------------------------------------

    def started(self, name: Name, attempt: int, where: str) -> None:
        """A slot begins to run a block."""
        self.executions += 1
        for other in self._forbids[name]:
            if other in self.running:
                raise BrokenPromiseError(f"P3: {name} begins on {where} while {other} runs on {self.running[other]}")
        missing = self._waits[name] - self._written
        if missing:
            raise BrokenPromiseError(f"P4: {name} begins on {where} before {sorted(missing)[:3]} are done")
        if attempt > 1 + self._failures[name]:
            raise BrokenPromiseError(
                f"P6: {name} begins attempt {attempt}, and has failed {self._failures[name]} times"
            )
        self.running[name] = where
        self._written.discard(name)

    def set_up(self, task: str, where: str) -> None:
        """A worker of the user's own begins, and may read in its set-up what one of its blocks reads."""
        if not any(waits <= self._ever_written for name, waits in self._waits.items() if name[0] == task):
            raise BrokenPromiseError(f"P4: a worker of {task} is started on {where} before any of its blocks can run")

    def stopped(self, name: Name, *, failed: bool = False) -> None:
        """It finished, failed, or was killed."""
        del self.running[name]
        self._failures[name] += failed

    def stored(self, seq: int, record: bytes) -> None:
        """The store took a record: what it says is done is done, once."""
        for bits in journal.decode_record(record).bits:
            if bits.kind == Kind.ORPHANED or not bits.value:
                continue
            task = self._tasks[bits.task]
            addresses = np.frombuffer(bits.addresses, task.address_dtype).astype(np.int64)
            for block_id in task.grid.ravel(task.layout.indices(addresses)).tolist():
                name = (task.spec.id, block_id)
                if bits.kind == Kind.FAILED:
                    raise BrokenPromiseError(f"P6: {name} has failed although no block ever failed")
                if name in self.done:
                    raise BrokenPromiseError(f"P1: {name} is counted done twice")
                self.done.add(name)
                self._written.add(name)
                self._ever_written.add(name)
        self._acknowledgeable |= self.done
        self._done_as_of[seq] = frozenset(self.done)

    def forgot(self, seq: int) -> None:
        """The store went back to this record."""
        self.done = set(self._done_as_of[seq])

    def rewritten(self, core: Scheduler) -> None:
        """A living leader made the store hold all that it knows."""
        for task in core.tasks:
            indices = task.layout.indices(task.bits[Kind.DONE].addresses())
            self.done.update((task.spec.id, block_id) for block_id in task.grid.ravel(indices).tolist())
        self._acknowledgeable |= self.done
        self._written |= self.done
        self._ever_written |= self.done
        self._done_as_of[core.seq] = frozenset(self.done)

    def acknowledged(self, names: Iterable[Name]) -> None:
        """A worker was told that these are safe."""
        lost = set(names) - self._acknowledgeable
        if lost:
            raise BrokenPromiseError(f"P2: {sorted(lost)[:3]} were acknowledged and are not in the store")

    def restored(self, core: Scheduler) -> None:
        """A scheduler loaded the run: it must know all that is done."""
        counted = sum(task.counts[Kind.DONE] for task in core.tasks)
        if counted != len(self.done):
            raise BrokenPromiseError(f"P2: {len(self.done)} blocks are done, a restored scheduler knows {counted}")

    def ended(self, state: str) -> None:
        """The run ended."""
        done = len(self._acknowledgeable)
        if state != RunPhase.DONE or done != self.total:
            raise BrokenPromiseError(f"P5: the run ended as {state} with {done} of {self.total} blocks done")

"""What one turn gathers: the record that says what became true, and the effects that wait for it to be safe."""

from __future__ import annotations

from dataclasses import dataclass, field

from blockyard.core import events as ev
from blockyard.core.state import journal
from blockyard.core.state.leases import Grant
from blockyard.core.state.task import Kind, Task, Tries
from blockyard.plan.grid import Ints


@dataclass(slots=True)
class Turn:
    """From the end of the last turn to the end of this one."""

    effects: list[ev.Effect] = field(default_factory=list)
    errors: list[ev.FailureNote] = field(default_factory=list)
    record: journal.Record = field(default_factory=journal.Record)
    joined: list[str | None] = field(default_factory=list)
    """For each worker that joined, the only task it is here for (None: any): it must be told what is over."""
    finished: dict[int, list[Ints]] = field(default_factory=dict)
    """Addresses of blocks that were done, by task: what waits for them is counted down when the turn ends."""

    @property
    def changed(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self.errors) or self.record != journal.Record()

    def note_bits(self, task: Task, kind: Kind, addresses: Ints, *, value: bool) -> None:
        """Bits were set or cleared."""
        packed = addresses.astype(task.address_dtype).tobytes()
        self.record.bits.append(journal.BitsRecord(task.number, kind, value, packed))

    def note_grant(self, task: Task, grant: Grant) -> None:
        """Leases were granted."""
        packed = grant.addresses.astype(task.address_dtype).tobytes()
        self.record.grants.append(
            journal.GrantRecord(grant.number, task.number, grant.worker, packed, grant.max_running)
        )

    def note_end(self, grant: Grant, positions: Ints) -> None:
        """These leases of a grant end now."""
        which = b"" if len(positions) == grant.alive else positions.astype("<u4").tobytes()
        self.record.ends.append(journal.EndRecord(grant.number, len(grant.addresses), which))

    def set_tries(self, task: Task, address: int, tries: Tries | None) -> None:
        """Keep what a block has cost; None: forget it."""
        if tries is not None:
            task.tries[address] = tries
        elif task.tries.pop(address, None) is None:
            return
        self.record.tries.append(journal.TriesRecord(task.number, address, tries))

    def note_retry(self, task: Task) -> None:
        """An attempt failed and there will be another."""
        task.retries += 1
        self.record.retries[task.number] = task.retries

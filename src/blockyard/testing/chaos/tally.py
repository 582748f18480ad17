"""What the journal counted, from Redis' own append-only file: it has every record that was ever made safe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from blockyard.core.scheduler import Scheduler
from blockyard.core.state import journal
from blockyard.core.state.task import Kind
from blockyard.testing.order import Name


@dataclass(slots=True)
class Tally:
    """How often each block became what."""

    done: Counter[Name] = field(default_factory=Counter)
    failed: Counter[Name] = field(default_factory=Counter)
    misplaced: int = 0
    """Records that do not follow the one before them."""


def tally(records: Iterable[tuple[int, bytes]], core: Scheduler) -> Tally:
    """Count (sequence, record) in order; `core` is one of the same run, for its arithmetic only."""
    found = Tally()
    expected = 1
    for seq, record in records:
        found.misplaced += seq != expected
        expected = seq + 1
        for bits in journal.decode_record(record).bits:
            kind = Kind(bits.kind)
            if not bits.value or kind is Kind.ORPHANED:
                continue
            task = core.tasks[bits.task]
            addresses = np.frombuffer(bits.addresses, task.address_dtype).astype(np.int64)
            names = [(task.spec.id, block) for block in task.grid.ravel(task.layout.indices(addresses)).tolist()]
            (found.failed if kind is Kind.FAILED else found.done).update(names)
    return found

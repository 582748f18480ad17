"""Each change of a block's state that a turn has made, held against the table of what there can be."""

import numpy as np

from blockyard.core import events as ev
from blockyard.core.state.task import Kind
from blockyard.core.state.transitions import BLOCK, BlockCause
from blockyard.wire.states import BlockState

STATES = tuple(BlockState)
ASKED = {ev.RetryRequested: BlockCause.RETRIED, ev.RerunRequested: BlockCause.RERUN}
"""Nothing else takes back what is over."""


def ways(causes):
    """Which states a block in each state may be in after any number of moves by these causes, as a table of bools."""
    table = np.eye(len(STATES), dtype=bool)
    rows = [(STATES.index(before), STATES.index(after)) for (before, cause), after in BLOCK.items() if cause in causes]
    for _ in STATES:
        for before, after in rows:
            table[:, after] |= table[:, before]
    return table


WAYS = {asked: ways(set(BlockCause) - set(ASKED.values()) | set(asked)) for asked in (
    frozenset(), frozenset({BlockCause.RETRIED}), frozenset({BlockCause.RERUN}), frozenset(ASKED.values())
)}  # fmt: skip


def states_of(core, task):
    """The state of each address of a task, as a place in STATES."""
    addresses = np.arange(task.layout.chunks * task.layout.capacity)
    found = np.full(len(addresses), STATES.index(BlockState.PENDING))
    found[core.ready_addresses(task.number)] = STATES.index(BlockState.READY)
    found[core.leases.addresses(task.number)] = STATES.index(BlockState.LEASED)
    for kind in (Kind.DONE, Kind.SKIPPED, Kind.FAILED, Kind.ORPHANED):  # a skipped block is done too
        assert kind is Kind.SKIPPED or not (task.bits[kind].test(addresses) & (found > 2)).any(), "in two states"
        found[task.bits[kind].test(addresses)] = STATES.index(BlockState[kind.name])
    return found


class Moves:
    """Looks at all blocks of a run from turn to turn."""

    def __init__(self, core):
        self._core = core
        self._asked = set()
        self._before = [states_of(core, task) for task in core.tasks]

    def heard(self, event):
        """Take note of an event that lets more happen."""
        if type(event) in ASKED:
            self._asked.add(ASKED[type(event)])

    def check(self):
        """Compare with the last time."""
        after = [states_of(self._core, task) for task in self._core.tasks]
        allowed = WAYS[frozenset(self._asked)]
        for task, old, new in zip(self._core.tasks, self._before, after, strict=True):
            wrong = np.flatnonzero(~allowed[old, new])
            moves = {(STATES[old[at]].value, STATES[new[at]].value) for at in wrong}
            assert not moves, f"blocks of {task.spec.id} went from state to state as none may: {moves}"
        self._before, self._asked = after, set()

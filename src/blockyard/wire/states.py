"""The states of a run and of a block, as they are called in the core, the journal, the API and on a terminal."""

from __future__ import annotations

from enum import StrEnum


class RunPhase(StrEnum):
    """Where a run is."""

    RUNNING = "running"
    PAUSED = "paused"
    """Nothing is leased: a person asked for that, or what was stopped by fail-fast is all that is left."""
    DONE = "done"
    FAILED = "failed"
    """Nothing is left to run, and some blocks failed or wait for those."""
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    """Nobody works on it. No run that is led is in this state: it is what was left behind of one."""


ENDED = frozenset({RunPhase.DONE, RunPhase.FAILED, RunPhase.CANCELLED})
"""Of a run that is over."""


class BlockState(StrEnum):
    """Where a block of the grid is; each is in exactly one."""

    PENDING = "pending"
    """It waits, or was not looked at yet."""
    READY = "ready"
    """All that it waits for is done, and that is known."""
    LEASED = "leased"
    DONE = "done"
    SKIPPED = "skipped"
    """It was found done."""
    FAILED = "failed"
    """For good."""
    ORPHANED = "orphaned"
    """It waits for a block that has failed, and will not run."""
    OUTSIDE = "outside"
    """It is not in this run: no request wants it."""


IN_RUN = tuple(state for state in BlockState if state is not BlockState.OUTSIDE)
"""States of the blocks that a run counts."""

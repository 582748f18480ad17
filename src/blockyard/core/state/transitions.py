"""How a run and its blocks go from state to state; a row that is missing is an error that changes nothing.

The life of a block::

    pending --> ready <--> leased --> done, skipped
       |                     |
       v                     +------> failed
    orphaned

and from everywhere back to pending, where a person asks for it.
"""

from __future__ import annotations

from enum import Enum

from blockyard.wire.states import BlockState, RunPhase


class RunCause(Enum):
    """What moves a run."""

    PAUSED = "paused"
    RESUMED = "resumed"
    CANCELLED = "cancelled"
    UNDONE = "undone"
    """Blocks that were over are to run again."""
    ASKED_ANEW = "asked for something else"
    """Another request: blocks that are over are not all of the run, or not of it any more."""
    STOOD_STILL = "at a standstill"
    """All that is left was stopped by fail-fast, or waits for that."""
    LIFTED = "given another chance"
    """Of what was stopped by fail-fast something may run again."""
    WORKED_OFF = "worked off"
    WORKED_OFF_IN_PART = "worked off but for what failed"


_RUNNING, _PAUSED, _DONE = RunPhase.RUNNING, RunPhase.PAUSED, RunPhase.DONE
_FAILED, _CANCELLED = RunPhase.FAILED, RunPhase.CANCELLED

RUN: dict[tuple[RunPhase, RunCause], RunPhase] = {
    (_RUNNING, RunCause.PAUSED): _PAUSED,
    (_RUNNING, RunCause.RESUMED): _RUNNING,
    (_RUNNING, RunCause.CANCELLED): _CANCELLED,
    (_RUNNING, RunCause.UNDONE): _RUNNING,
    (_RUNNING, RunCause.STOOD_STILL): _PAUSED,
    (_RUNNING, RunCause.WORKED_OFF): _DONE,
    (_RUNNING, RunCause.WORKED_OFF_IN_PART): _FAILED,
    (_PAUSED, RunCause.PAUSED): _PAUSED,
    (_PAUSED, RunCause.RESUMED): _RUNNING,
    (_PAUSED, RunCause.CANCELLED): _CANCELLED,
    (_PAUSED, RunCause.UNDONE): _PAUSED,  # a person paused it, and a person lets it go on
    (_PAUSED, RunCause.LIFTED): _RUNNING,
    (_DONE, RunCause.PAUSED): _DONE,
    (_DONE, RunCause.RESUMED): _DONE,
    (_DONE, RunCause.CANCELLED): _DONE,
    (_DONE, RunCause.UNDONE): _RUNNING,
    (_FAILED, RunCause.PAUSED): _FAILED,
    (_FAILED, RunCause.RESUMED): _FAILED,
    (_FAILED, RunCause.CANCELLED): _FAILED,
    (_FAILED, RunCause.UNDONE): _RUNNING,
    (_DONE, RunCause.ASKED_ANEW): _RUNNING,
    (_FAILED, RunCause.ASKED_ANEW): _RUNNING,
    (_CANCELLED, RunCause.PAUSED): _CANCELLED,
    (_CANCELLED, RunCause.RESUMED): _RUNNING,
    (_CANCELLED, RunCause.CANCELLED): _CANCELLED,
    (_CANCELLED, RunCause.UNDONE): _CANCELLED,
}


class BlockCause(Enum):
    """What moves a block."""

    FOUND = "found ready"
    FORGOTTEN = "forgotten"
    """What is ready is derived, and derived anew after a restart, a retry or a rerun."""
    LEASED = "leased"
    RAN = "done"
    WAS_DONE = "skipped"
    CAME_BACK = "given back, lost, or to be tried again"
    GAVE_UP = "failed for good"
    UPSTREAM_FAILED = "orphaned"
    RETRIED = "to be tried again after all"
    RERUN = "to run again"


_S = BlockState
BLOCK: dict[tuple[BlockState, BlockCause], BlockState] = {
    (_S.PENDING, BlockCause.FOUND): _S.READY,
    (_S.READY, BlockCause.FORGOTTEN): _S.PENDING,
    (_S.READY, BlockCause.LEASED): _S.LEASED,
    (_S.LEASED, BlockCause.RAN): _S.DONE,
    (_S.LEASED, BlockCause.WAS_DONE): _S.SKIPPED,
    (_S.LEASED, BlockCause.CAME_BACK): _S.READY,
    (_S.LEASED, BlockCause.GAVE_UP): _S.FAILED,
    (_S.PENDING, BlockCause.UPSTREAM_FAILED): _S.ORPHANED,
    (_S.FAILED, BlockCause.RETRIED): _S.PENDING,
    (_S.ORPHANED, BlockCause.RETRIED): _S.PENDING,
    (_S.PENDING, BlockCause.RERUN): _S.PENDING,
    (_S.READY, BlockCause.RERUN): _S.PENDING,
    (_S.LEASED, BlockCause.RERUN): _S.PENDING,
    (_S.DONE, BlockCause.RERUN): _S.PENDING,
    (_S.SKIPPED, BlockCause.RERUN): _S.PENDING,
    (_S.FAILED, BlockCause.RERUN): _S.PENDING,
    (_S.ORPHANED, BlockCause.RERUN): _S.PENDING,
}
"""Of the blocks of a run. Arrays of them change at once, so no row is looked up when one does: the tests hold each
change that they see against these."""


def moved(phase: RunPhase, cause: RunCause) -> RunPhase:
    """Return where a run is then. Raises RuntimeError for what can't happen to it."""
    after = RUN.get((phase, cause))
    if after is None:
        raise RuntimeError(f"a run that is {phase} cannot be {cause.value}")
    return after

"""What the core needs to know of the settings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """Times in seconds; the defaults are those of design and of the settings table."""

    lease_s: float = 60.0
    grace_s: float = 5.0
    batch_s: float = 0.2
    """Work in one batch of leases."""
    most_in_batch: int = 8192
    looks_a_turn: int = 16
    """Chunks scanned in one turn at most (about 0.3 ms each)."""
    ready_ahead: int = 0
    """Ready blocks to know of although nobody asks for them: twice what all workers that there may ever be can hold."""
    kills: int = 3
    """Slots a block may be seen to kill before it has failed."""
    losses_alone: int = 3
    """Losses without a reason after which a block is leased alone, with backoff."""
    losses: int = 20
    """Losses without a reason after which a block has failed, so that a run always ends."""
    retry_backoff_s: float = 0.0
    """Wait before the first retry; doubled for each further one, up to `longest_backoff_s`."""
    longest_backoff_s: float = 60.0
    fail_fast: bool = False
    """Lease a task no more whose first attempts all failed alike (see `failfast.py`)."""
    fail_fast_settle_s: float = 10.0
    """Where only one worker has failed: so long a second one may take to come."""
    snapshot_records: int = 2048
    """Journal records after which snapshot pages are written."""

    @property
    def patience_s(self) -> float:
        """How long after its last word a worker's leases end: by then it has stopped by itself."""
        return self.lease_s + self.grace_s

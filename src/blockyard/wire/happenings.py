"""What a worker's session tells its shell: leases to run, to stop or to forget, and how the connection stands.

`blockyard.wire.session` says when; the shell (the agent, the `Client`, a simulation) carries them out in order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from blockyard.wire.messages import Welcome

Ids: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LeaseBatch:
    """Leased blocks of one task: the lease of ``blocks[j]`` is ``numbers[j]``."""

    task: str
    numbers: Ids
    blocks: Ids
    attempts: dict[int, int]
    """Lease number to attempt, where that is not 1."""
    max_running: int = 0
    """The most blocks of the task that may run at once here, from now on; 0: no limit."""

    def __len__(self) -> int:
        return len(self.numbers)

    def part(self, start: int, stop: int) -> LeaseBatch:
        """Return the blocks [start, stop) of the batch."""
        return replace(self, numbers=self.numbers[start:stop], blocks=self.blocks[start:stop])

    def only(self, keep: npt.NDArray[np.bool_]) -> LeaseBatch:
        """Return the blocks where `keep` is true."""
        return replace(self, numbers=self.numbers[keep], blocks=self.blocks[keep])


@dataclass(frozen=True, slots=True)
class Joined:
    """A leader took us: its terms and the pipeline."""

    welcome: Welcome


@dataclass(frozen=True, slots=True)
class BlocksGranted:
    """Run these blocks."""

    batches: tuple[LeaseBatch, ...]


@dataclass(frozen=True, slots=True)
class LeasesRevoked:
    """Stop these blocks; release nothing for them."""

    numbers: Ids


@dataclass(frozen=True, slots=True)
class LeasesLost:
    """The lease time is over: kill what runs and forget what waits, at once; another worker may begin these blocks."""

    numbers: Ids


@dataclass(frozen=True, slots=True)
class ReleaseSafe:
    """A release is in Redis; `stale` of its leases were no longer ours."""

    seq: int
    stale: int


@dataclass(frozen=True, slots=True)
class TaskWaits:
    """Blocks of the task are ready that no worker has taken (said to one who only listens, and wants)."""

    task: str
    leased: int
    """How many blocks our own workers were leased since this leader leads."""


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """No block of the task will run any more."""

    task: str


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run has ended: ``done``, ``failed`` or ``cancelled``."""

    state: str


@dataclass(frozen=True, slots=True)
class RefusedForGood:
    """The scheduler refused us and trying again cannot help."""

    reason: str
    code: str


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the connection (no need to call `connection_lost`); connect again at `retry_at_s` unless over."""

    reason: str


Happening: TypeAlias = (
    Joined
    | BlocksGranted
    | LeasesRevoked
    | LeasesLost
    | ReleaseSafe
    | TaskWaits
    | TaskEnded
    | RunEnded
    | RefusedForGood
    | Disconnect
)

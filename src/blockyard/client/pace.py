"""How long blocks take, and so how many make a batch."""

from __future__ import annotations

import math


class Pace:
    """The mean time of a block, weighted towards about the last second of work.

    >>> pace = Pace()
    >>> pace.blocks_in(0.2, most=1000)
    1
    >>> pace.saw(0.01, 10)
    >>> pace.blocks_in(0.2, most=1000)
    200
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._blocks = 0.0

    def saw(self, seconds: float, blocks: int) -> None:
        """Take note of `blocks` blocks that took `seconds` together."""
        keep = math.exp(-seconds)
        self._seconds = self._seconds * keep + seconds
        self._blocks = self._blocks * keep + blocks

    def blocks_in(self, seconds: float, most: int) -> int:
        """Return how many blocks fit into `seconds`: from 1 (also while nothing is known) to `most`."""
        if self._blocks == 0:
            return 1
        return int(min(max(seconds * self._blocks / max(self._seconds, 1e-9), 1), most))

"""Which tasks of a run a turn has to look at, so that its cost does not grow with those that only wait or are over."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Activity:
    """Numbers of tasks; the frontiers add to both, who has looked takes out."""

    live: set[int] = field(default_factory=set)
    """Tasks that may have blocks ready, or chunks to look at."""
    closed: set[int] = field(default_factory=set)
    """Tasks of which all blocks of a chunk are final since one last looked whether the task is over."""

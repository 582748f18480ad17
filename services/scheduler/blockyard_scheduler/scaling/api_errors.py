"""What the Kubernetes API did not do: told once, shown while it lasts, asked again with growing pauses.

Each thing that is asked for has its own pauses, so that a rule which the Role lacks for one holds up no other. Where
the API server wants to be left alone (`Retry-After`), all wait.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from blockyard.spec.errors import BlockyardError

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 60.0
MOST_DOUBLINGS = 10


@dataclass(slots=True)
class _Trouble:
    text: str
    failures: int
    again_s: float


class ApiErrors:
    """By what was asked for, and of which pool ("" for all): ``("pods", "")``, say."""

    def __init__(self) -> None:
        """Begin with none."""
        self.quiet_until_s = -math.inf
        """Nothing is to be asked before that."""
        self._known: dict[tuple[str, str], _Trouble] = {}

    def failed(self, what: str, pool: str, error: BlockyardError, now: float, *, wait_s: float = 0.0) -> None:
        """`what` could not be done; the API server wants to be left alone for `wait_s`."""
        text, before = str(error), self._known.get((what, pool))
        if before is None or before.text != text:
            log.warning("scaling%s: %s", f" pool '{pool}'" if pool else "", text)
        failures = min(before.failures + 1, MOST_DOUBLINGS) if before else 0
        pause_s = min(FIRST_PAUSE_S * 2.0**failures, LONGEST_PAUSE_S)
        self._known[what, pool] = _Trouble(text, failures, now + pause_s)
        self.quiet_until_s = max(self.quiet_until_s, now + wait_s)

    def over(self, what: str, pool: str) -> None:
        """`what` was done."""
        self._known.pop((what, pool), None)

    def due(self, what: str, pool: str, now: float) -> bool:
        """Whether to ask for `what` now."""
        known = self._known.get((what, pool))
        return now >= self.quiet_until_s and (known is None or now >= known.again_s)

    def of(self, pool: str) -> str:
        """Return what went wrong last with a pool, or with all; "" where nothing did."""
        return "; ".join(dict.fromkeys(known.text for (_, whose), known in self._known.items() if whose in (pool, "")))

    def why_not(self, what: str, pool: str) -> str:
        """Return why `what` could not be done last; "" where it was."""
        known = self._known.get((what, pool))
        return known.text if known is not None else ""

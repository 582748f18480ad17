"""Real processes, killed and frozen at random while a pipeline writes a real zarr; then its bytes are compared."""

from __future__ import annotations

from blockyard.testing.chaos.plan import Fault, Plan, draw
from blockyard.testing.chaos.run import Chaos, wreak
from blockyard.testing.chaos.verdict import Verdict

__all__ = ["Chaos", "Fault", "Plan", "Verdict", "draw", "wreak"]

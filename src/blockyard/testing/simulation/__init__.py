"""A whole cluster in one thread under a virtual clock: the real core and worker sessions, all else simulated.

Workers, schedulers and connections die, freeze and come back at random moments drawn from a seed; the store loses
answers, goes away and forgets. `history.py` checks the promises of `docs/guarantees.md` at every step. A seed repeats a
run.
"""

from blockyard.testing.simulation.cluster import KINDS, Cluster, Faults, crash_everywhere, simulate
from blockyard.testing.simulation.history import BrokenPromiseError

__all__ = ["KINDS", "BrokenPromiseError", "Cluster", "Faults", "crash_everywhere", "simulate"]

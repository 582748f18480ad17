"""A whole cluster in one thread under a virtual clock: the real core and worker sessions, all else simulated.

Workers, schedulers and connections die, freeze and come back at random moments drawn from a seed; the store loses
answers and goes away. `history.py` checks the promises of `docs/guarantees.md` at every step. A seed repeats a run.
"""

from blockyard.testing.simulation.cluster import Cluster, Faults, simulate
from blockyard.testing.simulation.history import BrokenPromiseError

__all__ = ["BrokenPromiseError", "Cluster", "Faults", "simulate"]

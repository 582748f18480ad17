"""What is done to whom and when: drawn from a seed, so that a plan can be repeated."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "kill agent", "kill slot", "freeze agent", "freeze slot", "kill scheduler", "freeze scheduler", "kill Redis",
    "freeze Redis",
]  # fmt: skip

WEIGHTS: dict[Kind, int] = {
    "kill agent": 4,
    "kill slot": 4,
    "freeze agent": 3,
    "freeze slot": 1,
    "kill scheduler": 4,
    "freeze scheduler": 3,
    "kill Redis": 2,
    "freeze Redis": 1,
}
"""How often each kind of fault is drawn."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong."""

    at_s: float
    """Seconds since faults began."""
    kind: Kind
    victim: int
    """Which of those there are then, modulo their number."""
    frozen_s: float = 0.0
    """How long it is stopped (SIGSTOP); 0 where it is killed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much goes wrong."""

    seed: int
    seconds: float
    """Faults happen for so long."""
    per_s: float = 3.0
    """Faults a second, on the average."""


def draw(plan: Plan, lease_s: float) -> Iterator[Fault]:
    """Return the faults of a plan in order of time; the same seed gives the same ones.

    Half of the freezes are shorter than a lease, the others up to twice as long.
    """
    rng = random.Random(plan.seed)  # noqa: S311 - to be repeated, not to be secret
    kinds = list(WEIGHTS)
    at_s = 0.0
    while (at_s := at_s + rng.expovariate(plan.per_s)) < plan.seconds:
        kind = rng.choices(kinds, list(WEIGHTS.values()))[0]
        frozen_s = rng.uniform(0.1, 2.0) * lease_s if kind.startswith("freeze") else 0.0
        yield Fault(at_s, kind, rng.getrandbits(16), min(frozen_s, lease_s if "Redis" in kind else frozen_s))

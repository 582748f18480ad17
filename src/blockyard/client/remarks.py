"""What a person should know of a task though no attempt has failed for it; who runs the blocks tells it."""

from __future__ import annotations

new: list[str] = []
"""Sentences that nobody has taken."""


def take() -> list[str]:
    """Return them; they are told."""
    taken = new[:]
    new.clear()
    return taken

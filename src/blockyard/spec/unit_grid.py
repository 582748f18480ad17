"""What is written into an array as one: a chunk, or a shard of several, as numbers that a scheduler can count with."""

from __future__ import annotations

import msgspec


class UnitGrid(msgspec.Struct, frozen=True):
    """The write units of an array on the axes that blocks have, in world units: those of the ROIs."""

    array: str
    """What tells two arrays apart: an absolute path, or a URL."""
    offset: tuple[int, ...]
    """Where unit 0 begins."""
    shape: tuple[int, ...]
    """Of one unit."""
    exclusive: bool = True
    """Whether blocks that touch one unit must not be written at once."""
    atomic: bool = False
    """Whether its writer replaces files in one step, so that a reader never sees half of one."""

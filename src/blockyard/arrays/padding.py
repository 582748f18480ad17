"""Reads outside a volume: which voxels inside stand for those outside, as numbers alone.

The modes are scipy.ndimage's. A volume ``a b c d`` read from -3 to 7::

    reflect   c b a | a b c d | d c b      (numpy calls it symmetric)
    mirror    d c b | a b c d | c b a      (numpy: reflect)
    nearest   a a a | a b c d | d d d      (numpy: edge)
    wrap      b c d | a b c d | a b c      (also grid-wrap)
    a number  0 0 0 | a b c d | 0 0 0
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from blockyard.spec.errors import SpecError, nearest

PADS = ("reflect", "mirror", "nearest", "wrap")

Pad: TypeAlias = str | float | int


def check_pad(pad: Pad) -> None:
    """Raise SpecError for what is no way to pad."""
    if isinstance(pad, str) and pad not in PADS:
        raise SpecError(f"there is no pad '{pad}'{nearest(pad, PADS)}; or write a number")


def inside(begin: int, end: int, size: int, pad: Pad) -> npt.NDArray[np.int64]:
    """Return which voxel of 0 ... size - 1 stands for each of begin ... end - 1; -1 where a number does.

    >>> inside(-3, 7, 4, "reflect").tolist(), inside(-1, 5, 4, 0).tolist()
    ([2, 1, 0, 0, 1, 2, 3, 3, 2, 1], [-1, 0, 1, 2, 3, -1])
    """
    at = np.arange(begin, end, dtype=np.int64)
    if not isinstance(pad, str):
        return np.where((at >= 0) & (at < size), at, -1)
    if pad == "nearest" or size == 1:
        return at.clip(0, size - 1)
    if pad == "wrap":
        return at % size
    if pad == "reflect":
        at %= 2 * size
        return np.minimum(at, 2 * size - 1 - at)
    at %= 2 * size - 2
    return np.minimum(at, 2 * size - 2 - at)

"""ROIs as they were given: the Coordinate of funlib.geometry cuts 0.5 down to 0 without a word.

A run on other voxels than those that were asked for is worse than none, so what a Roi is made of is looked at when it
is made, and one with a fraction is refused where a task, request or rerun is given it.
"""

from __future__ import annotations

import functools
import operator
import weakref
from collections.abc import Iterable
from typing import Any

from funlib.geometry import Coordinate, Roi

from blockyard.spec.errors import SpecError, brief
from blockyard.spec.model import RoiSpec

_fractions: dict[int, tuple[weakref.ref[Roi], str, Any]] = {}
"""By the id of a Roi: itself, and the place and value of its first number that is no whole one."""


def roi_spec(roi: Any, what: str) -> RoiSpec:
    """Return the integers of a Roi. Raises SpecError, in which `what` names it, for anything else or no bounds."""
    try:
        offset, shape = tuple(roi.offset), tuple(roi.shape)
    except (AttributeError, TypeError):
        raise SpecError(f"{what} must be a Roi, not {brief(roi)}") from None
    noted = _fractions.get(id(roi))
    if noted is not None and noted[0]() is roi:
        raise _no_voxel(what, noted[1], noted[2])
    if None in shape or None in offset:
        raise SpecError(f"{what} is {roi}, which has no bounds; give an offset and a shape for each axis")
    return RoiSpec(
        tuple(_voxel(x, what, f"offset[{axis}]") for axis, x in enumerate(offset)),
        tuple(_voxel(x, what, f"shape[{axis}]") for axis, x in enumerate(shape)),
    )


def _voxel(value: Any, what: str, place: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        if _is_whole(value):
            return int(value)
        raise _no_voxel(what, place, value) from None


def _no_voxel(what: str, place: str, value: Any) -> SpecError:
    return SpecError(f"{what}, {place}: expected a whole number, got {brief(value)}; a ROI is of whole voxels")


def _is_whole(value: Any) -> bool:
    try:
        return bool(value == int(value))
    except (TypeError, ValueError, OverflowError):
        return False


def _note(roi: Roi, place: str, value: Any) -> None:
    key = id(roi)
    _fractions[key] = (weakref.ref(roi, lambda _: _fractions.pop(key, None)), place, value)


def _listened(init: Any) -> Any:
    """Return the constructor of Roi that notes fractions; Coordinates, which have none any more, cost 0.1 us."""

    @functools.wraps(init)
    def __init__(self: Roi, offset: Iterable[Any], shape: Iterable[Any]) -> None:  # noqa: N807
        if type(offset) is Coordinate and type(shape) is Coordinate:
            init(self, offset, shape)
            return
        given = {
            name: tuple(numbers) if isinstance(numbers, Iterable) else (numbers,)  # funlib takes a number for one axis
            for name, numbers in (("offset", offset), ("shape", shape))
        }
        init(self, **given)
        for name, numbers in given.items():
            for axis, value in enumerate(numbers):
                if value is not None and not isinstance(value, int) and not _is_whole(value):
                    _note(self, f"{name}[{axis}]", value)
                    return

    __init__.listens = True  # type: ignore[attr-defined]
    return __init__


if not hasattr(Roi.__init__, "listens"):  # once, also where this module is loaded again
    Roi.__init__ = _listened(Roi.__init__)

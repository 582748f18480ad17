"""Voxel size and offset of an array, from what is written beside it: pure, so that every format is a row of a table.

World units are those of ROIs. funlib.persistence writes whole numbers, which are taken as they are; where scales have a
unit of length (OME-NGFF, N5, precomputed) world units are nanometres if every scale is whole in nm, else voxels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

NM: dict[str, int | Fraction] = {
    "": 1,
    "nm": 1, "nanometer": 1, "nanometre": 1,
    "um": 1000, "µm": 1000, "μm": 1000, "micron": 1000, "micrometer": 1000, "micrometre": 1000,
    "mm": 10**6, "millimeter": 10**6, "millimetre": 10**6,
    "m": 10**9, "meter": 10**9, "metre": 10**9,
    "angstrom": Fraction(1, 10), "picometer": Fraction(1, 1000), "pm": Fraction(1, 1000),
}  # fmt: skip
"""Nanometres of a unit; a number without one is taken as it is."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Where an array lies in the world, on its last axes, those that blocks have."""

    voxel_size: tuple[int, ...]
    offset: tuple[int, ...]
    note: str = ""
    """What should be known of it, as the end of a sentence; "" for nothing."""


def scale_of(
    ndim: int,
    attributes: Mapping[str, Any],
    group: Mapping[str, Any] | None = None,
    name: str = "",
    units: Sequence[tuple[float, str] | None] = (),
) -> Scale:
    """Return the scale of an array's last `ndim` axes.

    `attributes` are its own, `group` those of the group that it is in, under `name` (OME-NGFF says scales there), and
    `units` the scale and unit that its format has for each axis.

    >>> scale_of(2, {"voxel_size": [40, 4, 4], "offset": [0, 8]})
    Scale(voxel_size=(4, 4), offset=(0, 8), note='')
    >>> scale_of(2, {}, units=[(0.004, "um"), (0.0045, "um")]).note
    'has voxels of 4 x 4.5 nm, which are not whole: ROIs are in voxels'
    """
    size = _whole(attributes.get("voxel_size", attributes.get("resolution")), ndim, least=1)
    if size is not None:
        return Scale(size, _whole(attributes.get("offset"), ndim, least=None) or (0,) * ndim)
    found = _ome(group or {}, name) or _of_units(units)
    if found is None or len(found[0]) < ndim:
        return Scale((1,) * ndim, (0,) * ndim)
    sizes, offsets = found[0][-ndim:], found[1][-ndim:]
    if not all(n.denominator == 1 and n > 0 for n in sizes):
        shown = " x ".join(f"{float(n):g}" for n in sizes)
        return Scale((1,) * ndim, (0,) * ndim, f"has voxels of {shown} nm, which are not whole: ROIs are in voxels")
    if not all(n.denominator == 1 for n in offsets):
        shown = ", ".join(f"{float(n):g}" for n in offsets)
        return Scale((1,) * ndim, (0,) * ndim, f"begins at {shown} nm, which are not whole: ROIs are in voxels")
    return Scale(tuple(int(n) for n in sizes), tuple(int(n) for n in offsets))


Lengths = tuple[list[Fraction], list[Fraction]]
"""Voxel sizes and offsets in nm."""


def _ome(group: Mapping[str, Any], name: str) -> Lengths | None:
    """Read the scale of dataset `name` in OME-NGFF (0.4, or 0.5 under "ome"): the dataset's own, then that of all."""
    try:
        multiscales = group.get("ome", group)["multiscales"]
        for image in multiscales:
            axes = image["axes"]
            factor = [Fraction(NM[axis.get("unit", "")] if axis.get("type") == "space" else 1) for axis in axes]
            for dataset in image["datasets"]:
                if dataset["path"].strip("/") != name:
                    continue
                size, offset = [Fraction(1)] * len(axes), [Fraction(0)] * len(axes)
                steps = [*dataset["coordinateTransformations"], *image.get("coordinateTransformations", ())]
                for step in steps:
                    if step["type"] == "scale":
                        by = [_exact(n) for n in step["scale"]]
                        size = [s * b for s, b in zip(size, by, strict=True)]
                        offset = [o * b for o, b in zip(offset, by, strict=True)]
                    elif step["type"] == "translation":
                        offset = [o + _exact(n) for o, n in zip(offset, step["translation"], strict=True)]
                scaled = zip(size, offset, factor, strict=True)
                pairs = [(s * f, o * f) for s, o, f in scaled]
                return [s for s, _ in pairs], [o for _, o in pairs]
    except (KeyError, TypeError, ValueError, AttributeError):  # not written by the specification
        return None
    return None


def _of_units(units: Sequence[tuple[float, str] | None]) -> Lengths | None:
    if not any(unit is not None for unit in units) or any(unit is not None and unit[1] not in NM for unit in units):
        return None
    sizes = [Fraction(1) if unit is None else _exact(unit[0]) * NM[unit[1]] for unit in units]
    return sizes, [Fraction(0)] * len(sizes)


def _exact(number: float) -> Fraction:
    """Return a number as it was written: 0.004 is 4 thousandths, not the nearest binary fraction."""
    return Fraction(repr(number))


def _whole(value: Any, ndim: int, least: int | None) -> tuple[int, ...] | None:
    """Return a list of whole numbers, one for each of the last axes; None for anything else."""
    if not isinstance(value, list | tuple) or len(value) < ndim:
        return None
    numbers = value[-ndim:]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and n == n // 1 for n in numbers):
        return None
    whole = tuple(int(n) for n in numbers)
    return whole if least is None or min(whole) >= least else None

"""What files say of their axes and the size of their voxels: TIFF (ImageJ, OME), zarr (OME-NGFF, funlib), NIfTI."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Sizes: TypeAlias = tuple[float, ...] | None

UNITS = {"pm": 1e-6, "angstrom": 1e-4, "nm": 1e-3, "um": 1.0, "micron": 1.0, "mm": 1e3, "cm": 1e4, "inch": 25400.0}
UNITS |= {"picometer": 1e-6, "nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4}
UNITS |= {"m": 1e6, "meter": 1e6}
"""In micrometres; only ratios matter here, so that an unknown unit does no harm where all axes have it."""


@dataclass(frozen=True)
class Image:
    """What a file holds."""

    data: Array
    axes: str
    """A letter an axis: ``zyx``, ``c`` for channels (red, green, blue), ``t`` for time, ``?`` where nobody says."""
    voxel_size: Sizes
    """Of the axes z, y, x alone; None where the file does not say it."""


def scale(sizes: list[Any], units: list[Any]) -> Sizes:
    """Return sizes in one unit; None where one of them is missing or none.

    >>> scale([0.04, 4], ["micrometer", "nm"])
    (0.04, 0.004)
    """
    try:
        found = tuple(
            round(float(size) * UNITS.get(str(unit).lower().replace("µ", "u").replace("μ", "u"), 1.0), 12)
            for size, unit in zip(sizes, units, strict=True)
        )
    except (TypeError, ValueError):
        return None
    return found if found and min(found) > 0 and np.isfinite(found).all() else None


# ----- TIFF -----------------------------------------------------------------------------------------------------------


def read_tiff(path: Path) -> Image:
    """Read the first series of a TIFF file."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        letters = {"S": "c", "C": "c", "T": "t"}
        axes = "".join(letters.get(letter, letter.lower() if letter in "ZYX" else "?") for letter in series.axes)
        data = series.asarray()
        keep = [n > 1 or letter in "yx" for n, letter in zip(data.shape, axes, strict=True)]
        axes = "".join(letter for letter, kept in zip(axes, keep, strict=True) if kept)
        data = np.squeeze(data, tuple(axis for axis, kept in enumerate(keep) if not kept))
        deep = any(letter in "z?" for letter in axes)
        sizes = _ome_size(file.ome_metadata, deep) if file.is_ome else _tiff_size(file, deep)
    return Image(data, axes, sizes)


def _tiff_size(file: Any, deep: bool) -> Sizes:
    """Return the resolution of x and y, and ImageJ's spacing for z: without it only an image of two axes is known."""
    tags = file.pages[0].tags
    plane = []
    for name in ("YResolution", "XResolution"):
        pixels, length = tags[name].value if name in tags else (0, 1)
        plane.append(length / pixels if pixels else None)
    if not deep:
        return scale(plane, [""] * 2)
    spacing = (file.imagej_metadata or {}).get("spacing")
    return scale([spacing, *plane], [""] * 3)


def _ome_size(xml: str, deep: bool) -> Sizes:
    """Return the physical size of the first image, micrometres where no unit is said."""
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", xml)
    found = dict(re.findall(r'(PhysicalSize[XYZ](?:Unit)?)="([^"]*)"', pixels[0])) if pixels else {}
    names = [f"PhysicalSize{axis}" for axis in ("ZYX" if deep else "YX")]
    return scale([found.get(name) for name in names], [found.get(f"{name}Unit", "um") for name in names])


# ----- zarr -----------------------------------------------------------------------------------------------------------


def multiscale(attributes: Any) -> dict[str, Any] | None:
    """Return the first multiscale image of OME-NGFF attributes (0.4, or 0.5 under ``ome``)."""
    for holder in (attributes.get("ome"), attributes):
        if isinstance(holder, dict) or hasattr(holder, "get"):
            found = holder.get("multiscales")
            if isinstance(found, list) and found and isinstance(found[0], dict):
                return found[0]
    return None


def read_zarr_array(array: Any, name: str, group: Any) -> Image:
    """Read an array whose path in the group (or None) that says what it is is `name`."""
    data = np.asarray(array[:])
    image = multiscale(group.attrs) if group is not None else None
    if image is not None:
        found = _of_multiscale(image, name, data)
        if found is not None:
            return found
    attributes = dict(array.attrs)
    sizes = next((attributes[key] for key in ("voxel_size", "resolution") if key in attributes), None)
    units = attributes.get("units")
    axes = attributes.get("axis_names")
    letters = _letters(axes, data.ndim) if isinstance(axes, list) else "?" * data.ndim
    if not isinstance(sizes, list | tuple):
        return Image(data, letters, None)
    return Image(data, letters, scale(list(sizes), units if isinstance(units, list) else [""] * len(sizes)))


def _of_multiscale(image: dict[str, Any], name: str, data: Array) -> Image | None:
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in image.get("axes", [])]
    dataset = next((one for one in image.get("datasets", []) if one.get("path") == name), None)
    if dataset is None or len(axes) != data.ndim:
        return None
    factors = np.ones(data.ndim)
    for step in (*dataset.get("coordinateTransformations", ()), *image.get("coordinateTransformations", ())):
        if step.get("type") == "scale" and len(step.get("scale", ())) == data.ndim:
            factors = factors * np.asarray(step["scale"], float)
    letters = _letters(
        [axis.get("type") if axis.get("type") in ("time", "channel") else axis.get("name") for axis in axes], data.ndim
    )
    space = [n for n, letter in enumerate(letters) if letter not in "ct"]
    return Image(data, letters, scale([factors[n] for n in space], [axes[n].get("unit", "") for n in space]))


def _letters(names: list[Any], ndim: int) -> str:
    known = {"time": "t", "t": "t", "channel": "c", "c": "c", "c^": "c", "z": "z", "y": "y", "x": "x"}
    letters = "".join(known.get(str(name).lower(), "?") for name in names)
    return letters if len(letters) == ndim else "?" * ndim

"""Reading the demo's input: the head that nilearn ships, or a volume of your own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from image_files import Image, multiscale, read_tiff, read_zarr_array, scale

Array: TypeAlias = npt.NDArray[Any]

KINDS = ".npz, .npy, .tif, .tiff, .nii, .nii.gz or a folder .zarr"
HEAD = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
THIN = 8
"""An axis so many times shorter than the longest is taken for one of thick sections, when nothing else is known."""


COLOURS = (3, 4)
"""So many values on the last axis are colours, when nothing else is known."""
SIZES = ("voxel_size", "resolution", "spacing")
"""Names of the size of a voxel beside the array in an .npz."""


class InputError(Exception):
    """An input that the demo cannot take; its text is a sentence for the user."""


@dataclass(frozen=True)
class Volume:
    """An array of 2 or 3 axes, and the size of a voxel along each (only their ratios matter)."""

    data: Array
    voxel_size: tuple[float, ...]
    known_from: str = ""
    """Where the size of a voxel comes from, in words."""


def head() -> Path:
    """Give the file of the MNI152 T1 head (197 x 233 x 189, 1 mm) in the installed package nilearn; no network."""
    import importlib.util

    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise InputError(
            "the default input comes with the package nilearn: pip install 'blockyard[demo]', or give --input"
        )
    return Path(spec.origin).parent / "datasets" / "data" / HEAD


def load(
    path: Path, array: str | None = None, voxel_size: tuple[float, ...] | None = None, channel: int | None = None
) -> Volume:
    """Read the volume in `path`; `array` names one of several, `channel` (from 0) one of the colours of an image.

    Raises InputError with what is wrong.
    """
    if not path.exists():
        raise InputError(f"input '{path}' does not exist")
    try:
        image = _read(path, array)
    except InputError:
        raise
    except Exception as error:  # any of five libraries, each with errors of its own
        raise InputError(f"input '{path}' cannot be read: {type(error).__name__}: {error}") from error
    data = _one_value_a_voxel(path, image, channel)
    _refuse_odd(path, data)
    known = image.voxel_size if image.voxel_size is not None and len(image.voxel_size) == data.ndim else None
    size = voxel_size or known or guess_voxel_size(data.shape)
    if len(size) != data.ndim or min(size) <= 0:
        raise InputError(
            f"voxel size {size} does not fit input '{path}' of shape {data.shape}: one number above 0 an axis"
        )
    return Volume(data, size, "as told" if voxel_size else "of the file" if known else "guessed from the shape")


def _one_value_a_voxel(path: Path, image: Image, channel: int | None) -> Array:
    """Return the data without channels. Raises InputError where they have some and none is chosen, and for time."""
    data, axes = image.data, image.axes
    axes = axes if len(axes) == data.ndim else "?" * data.ndim
    if data.ndim > 2 and axes[-1] == "?" and data.shape[-1] in COLOURS:
        axes = axes[:-1] + "c"
    for letter in "ct":
        while (axis := axes.find(letter)) >= 0 and data.shape[axis] == 1:
            data, axes = np.take(data, 0, axis), axes[:axis] + axes[axis + 1 :]
    if "t" in axes:
        raise InputError(
            f"input '{path}' has shape {image.data.shape} with {data.shape[axes.find('t')]} times; give one"
        )
    if (axis := axes.find("c")) < 0:
        if channel is not None:
            raise InputError(f"--channel is {channel}, but input '{path}' of shape {data.shape} has no channels")
        return data
    n = data.shape[axis]
    if channel is None:
        rgb = axis == data.ndim - 1 and n in COLOURS
        what = "is an RGB image" if rgb else f"says that it has {n} channels, not slices,"
        raise InputError(
            f"input '{path}' {what} (shape {data.shape}), no volume of one value a voxel: choose a channel with"
            f" --channel 0 to {n - 1}, or convert it"
        )
    if not 0 <= channel < n:
        raise InputError(f"--channel is {channel}, but input '{path}' has channels 0 to {n - 1}")
    return np.take(data, channel, axis)


def guess_voxel_size(shape: tuple[int, ...]) -> tuple[float, ...]:
    """Take an axis that is far shorter than the longest for one of thick sections.

    >>> guess_voxel_size((20, 1024, 1024)), guess_voxel_size((197, 233, 189))
    ((8.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    """
    return tuple(float(THIN) if n * THIN < max(shape) else 1.0 for n in shape)


def _read(path: Path, array: str | None) -> Image:
    """Return the array in a file, and what the file says of its axes and the size of its voxels."""
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return _read_nifti(path)
    if name.endswith(".npz"):
        return _read_npz(path, array)
    if name.endswith(".npy"):
        return _plain(np.load(path, mmap_mode="r"))
    if name.endswith((".tif", ".tiff")):
        return read_tiff(path)
    if path.is_dir() and any((path / meta).exists() for meta in ("zarr.json", ".zarray", ".zgroup")):
        return _read_zarr(path, array)
    raise InputError(f"input '{path}' is of no known kind: {KINDS}")


def _plain(data: Array, voxel_size: tuple[float, ...] | None = None) -> Image:
    return Image(data, "?" * data.ndim, voxel_size)


def _read_npz(path: Path, array: str | None) -> Image:
    """Read one array, and `voxel_size` (or `resolution`, `spacing`) beside it where there is one."""
    with np.load(path) as arrays:
        sizes = {name: arrays[name] for name in SIZES if name in arrays.files and arrays[name].ndim <= 1}
        data = arrays[_choose(path, array, [name for name in arrays.files if name not in sizes or name == array])]
    size = next((np.atleast_1d(value).tolist() for value in sizes.values()), None)
    if size is not None and len(size) == 1:
        size = size * data.ndim
    return _plain(data, None if size is None else scale(size, [""] * len(size)))


def _read_nifti(path: Path) -> Image:
    """Read a NIfTI file as (z, y, x), front up."""
    import nibabel

    image: Any = nibabel.load(path)
    data = np.ascontiguousarray(np.asanyarray(image.dataobj).T[..., ::-1, :])
    return Image(data, "tzyx"[-data.ndim :], tuple(float(size) for size in image.header.get_zooms()[::-1])[-3:])


def _read_zarr(path: Path, array: str | None) -> Image:
    """Read an array, or an array of a group: the full resolution of an OME-NGFF image, if none is named."""
    import zarr

    node: Any = zarr.open(path, mode="r")
    if isinstance(node, zarr.Group):
        image = multiscale(node.attrs)
        levels = [one["path"] for one in image["datasets"]] if image is not None else []
        name = levels[0] if array is None and levels else _choose(path, array, [name for name, _ in node.arrays()])
        return read_zarr_array(node[name], name, node)
    try:
        around: Any = zarr.open_group(path.resolve().parent, mode="r")
    except (FileNotFoundError, ValueError):
        around = None
    return read_zarr_array(node, path.resolve().name, around)


def _choose(path: Path, array: str | None, names: list[str]) -> str:
    """Give the one array of `names` that is meant."""
    if array is None and len(names) == 1:
        return names[0]
    if array in names:
        return array
    wanted = "choose one with --array NAME" if array is None else f"but none '{array}'"
    raise InputError(f"input '{path}' holds {len(names)} arrays ({', '.join(names)}): {wanted}")


def _refuse_odd(path: Path, data: Array) -> None:
    """Raise InputError for what is no image of 2 or 3 axes."""
    if data.ndim not in (2, 3):
        raise InputError(f"input '{path}' has shape {data.shape}: the demo takes 2 or 3 axes")
    if data.dtype.kind not in "buif":
        raise InputError(f"input '{path}' holds {data.dtype}: the demo takes integers or real numbers")
    if data.size == 0:
        raise InputError(f"input '{path}' has shape {data.shape}: there is nothing in it")
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise InputError(f"input '{path}' holds values that are not finite (NaN or infinite): replace them first")

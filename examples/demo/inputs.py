"""Reading the demo's input: the head that nilearn ships, or a volume of your own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

KINDS = ".npz, .npy, .tif, .tiff, .nii, .nii.gz or a folder .zarr"
HEAD = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
THIN = 8
"""An axis so many times shorter than the longest is taken for one of thick sections, when nothing else is known."""


class InputError(Exception):
    """An input that the demo cannot take; its text is a sentence for the user."""


@dataclass(frozen=True)
class Volume:
    """An array of 2 or 3 axes, and the size of a voxel along each (only their ratios matter)."""

    data: Array
    voxel_size: tuple[float, ...]


def head() -> Path:
    """Give the file of the MNI152 T1 head (197 x 233 x 189, 1 mm) in the installed package nilearn; no network."""
    import importlib.util

    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise InputError(
            "the default input comes with the package nilearn: pip install 'blockyard[demo]', or give --input"
        )
    return Path(spec.origin).parent / "datasets" / "data" / HEAD


def load(path: Path, array: str | None = None, voxel_size: tuple[float, ...] | None = None) -> Volume:
    """Read the volume in `path`; `array` names one of several. Raises InputError with what is wrong."""
    if not path.exists():
        raise InputError(f"input '{path}' does not exist")
    try:
        data, known_size = _read(path, array)
    except InputError:
        raise
    except Exception as error:  # any of five libraries, each with errors of its own
        raise InputError(f"input '{path}' cannot be read: {type(error).__name__}: {error}") from error
    _refuse_odd(path, data)
    size = voxel_size or known_size or guess_voxel_size(data.shape)
    if len(size) != data.ndim or min(size) <= 0:
        raise InputError(
            f"voxel size {size} does not fit input '{path}' of shape {data.shape}: one number above 0 an axis"
        )
    return Volume(data, size)


def guess_voxel_size(shape: tuple[int, ...]) -> tuple[float, ...]:
    """Take an axis that is far shorter than the longest for one of thick sections.

    >>> guess_voxel_size((20, 1024, 1024)), guess_voxel_size((197, 233, 189))
    ((8.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    """
    return tuple(float(THIN) if n * THIN < max(shape) else 1.0 for n in shape)


def _read(path: Path, array: str | None) -> tuple[Array, tuple[float, ...] | None]:
    """Give the array in a file, and the size of its voxels where the file says it."""
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return _read_nifti(path)
    if name.endswith(".npz"):
        with np.load(path) as arrays:
            return arrays[_choose(path, array, arrays.files)], None
    if name.endswith(".npy"):
        return np.load(path, mmap_mode="r"), None
    if name.endswith((".tif", ".tiff")):
        import tifffile

        return np.squeeze(tifffile.imread(path)), None
    if path.is_dir() and any((path / meta).exists() for meta in ("zarr.json", ".zarray", ".zgroup")):
        return _read_zarr(path, array), None
    raise InputError(f"input '{path}' is of no known kind: {KINDS}")


def _read_nifti(path: Path) -> tuple[Array, tuple[float, ...]]:
    """Read a NIfTI file as (z, y, x), front up."""
    import nibabel

    image: Any = nibabel.load(path)
    data = np.ascontiguousarray(np.asanyarray(image.dataobj).T[..., ::-1, :])
    return data, tuple(float(size) for size in image.header.get_zooms()[::-1])


def _read_zarr(path: Path, array: str | None) -> Array:
    """Read an array, or an array of a group."""
    import zarr

    node: Any = zarr.open(path, mode="r")
    if isinstance(node, zarr.Group):
        node = node[_choose(path, array, [name for name, _ in node.arrays()])]
    return np.asarray(node[:])


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

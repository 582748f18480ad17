"""Arrays in their files, by tensorstore: opened whatever their format is, and made where there are none.

tensorstore reads and writes zarr (v2, v3, with shards), N5 and precomputed volumes, on disks and in object stores, says
what is written as one, and replaces files in one step; docs/notes says why it and not another. It is the extra
``arrays``, and imported when the first array is opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blockyard.arrays.scale import Scale, scale_of
from blockyard.spec.errors import SpecError

FASTEST_FIRST = ("n5", "neuroglancer_precomputed")
"""Formats that count axes from the fastest on; here the last is the fastest."""


class NoArrayError(SpecError):
    """There is nothing at a path."""


@dataclass(frozen=True, slots=True)
class Store:
    """An open array; axes in C order."""

    data: Any
    """tensorstore's own object."""
    shape: tuple[int, ...]
    unit: tuple[int, ...]
    """Voxels that are written as one: a shard where there are some, else a chunk."""
    is_sharded: bool
    dtype: np.dtype[Any]
    scale: Scale


def open_store(path: str, folder: Path, ndim: int) -> Store:
    """Open the array at a path or URL, of which blocks have the last `ndim` axes.

    Raises NoArrayError where there is nothing, SpecError for what can't be opened.
    """
    tensorstore = _tensorstore()
    place = _place(path, folder)
    try:
        data = tensorstore.open({"driver": "auto", "kvstore": place}).result()
    except (ValueError, OSError, NotImplementedError) as error:
        raise _not_opened(path, folder, error) from None
    driver = data.spec().to_json()["driver"]
    attributes = _attributes(data, driver)
    units = [None if unit is None else (unit.multiplier, unit.base_unit) for unit in data.dimension_units]
    if driver in FASTEST_FIRST:
        data, units = data.T, units[::-1]
    name = path.rstrip("/").rpartition("/")[2]
    group = {} if "voxel_size" in attributes else _group_attributes(path, folder)
    layout = data.chunk_layout
    unit = layout.write_chunk.shape
    return Store(
        data,
        tuple(data.shape),
        tuple(unit),
        tuple(layout.read_chunk.shape) != tuple(unit),
        data.dtype.numpy_dtype,
        scale_of(ndim, attributes, group, name, units),
    )


@dataclass(frozen=True, slots=True)
class NewArray:
    """An array to be made, as zarr v3; numbers of all its axes in voxels, of `scale` of those that blocks have."""

    path: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    dtype: str
    scale: Scale

    def describe(self) -> str:
        """Return what it is, for a person."""
        shards = f" in shards of {_by(self.shards)}" if self.shards else ""
        return f"'{self.path}': {self.dtype}, {_by(self.shape)} voxels in chunks of {_by(self.chunks)}{shards}"


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def make_array(new: NewArray, folder: Path) -> None:
    """Make an array unless there is one by now: whoever comes first makes it, and nothing is ever overwritten."""
    inner: list[dict[str, Any]] = [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "zstd", "configuration": {"level": 1}},
    ]
    sharded = {"name": "sharding_indexed", "configuration": {"chunk_shape": list(new.chunks), "codecs": inner}}
    scale = {"voxel_size": list(new.scale.voxel_size), "offset": list(new.scale.offset)}
    metadata = {
        "shape": list(new.shape),
        "data_type": new.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(new.shards or new.chunks)}},
        "codecs": [sharded] if new.shards else inner,
        "fill_value": False if new.dtype == "bool" else [0, 0] if new.dtype.startswith("complex") else 0,
        "attributes": scale,
    }
    place = _place(new.path, folder)
    try:
        _tensorstore().open({"driver": "zarr3", "kvstore": place, "metadata": metadata}, create=True).result()
    except (ValueError, OSError, NotImplementedError) as error:
        if "ALREADY_EXISTS" not in str(error):
            raise SpecError(f"the array '{new.path}' can't be made: {_said(error)}") from None


def identity(path: str, folder: Path) -> str:
    """Return what tells an array from others: its absolute path, or its URL."""
    return path.rstrip("/") if _is_url(path) else os.path.realpath(folder / path.removeprefix("file://"))


def _tensorstore() -> Any:
    try:
        import tensorstore
    except ImportError:
        raise SpecError(
            "tasks that declare what they read and write need tensorstore, which is not installed here; pip install"
            " 'blockyard[arrays]'"
        ) from None
    return tensorstore


def _is_url(path: str) -> bool:
    return "://" in path and not path.startswith("file://")


def _place(path: str, folder: Path) -> str | dict[str, str]:
    """Return where tensorstore finds a path: a URL as it is, a file by its path, whatever letters that has."""
    return path if _is_url(path) else {"driver": "file", "path": f"{identity(path, folder)}/"}


def _not_opened(path: str, folder: Path, error: Exception) -> SpecError:
    if not _is_url(path):
        place = Path(identity(path, folder))
        if not place.exists() or (place.is_dir() and not any(place.iterdir())):
            return NoArrayError(f"there is no array '{path}' ({place})")
        inside = sorted(at.name for at in place.iterdir() if at.is_dir()) if place.is_dir() else []
        arrays = [name for name in inside if any((place / name / file).is_file() for file in MARKS)]
        if arrays:
            return SpecError(f"'{path}' is no array but holds some; write '{path.rstrip('/')}/{arrays[0]}' or the like")
        return SpecError(f"'{path}' is there ({place}) but is no array that can be opened: {_said(error)}")
    missing = "NOT_FOUND" in str(error) or "Failed to detect format" in str(error)
    return (NoArrayError if missing else SpecError)(f"the array '{path}' can't be opened: {_said(error)}")


MARKS = ("zarr.json", ".zarray", "attributes.json", "info")
"""Files of which an array has one."""


def _said(error: Exception) -> str:
    """Return what tensorstore says, without the specification that it adds in brackets."""
    return str(error).partition(" [")[0].strip()


def _attributes(data: Any, driver: str) -> Mapping[str, Any]:
    """Return the attributes that an array has of its own."""
    if driver == "zarr3":
        return data.spec().to_json()["metadata"].get("attributes") or {}
    return _json(data.kvstore, ".zattrs") if driver == "zarr" else {}


def _group_attributes(path: str, folder: Path) -> Mapping[str, Any]:
    """Return the attributes of the group that an array is in; empty where there is none."""
    above = path.rstrip("/").rpartition("/")[0] if _is_url(path) else str(Path(identity(path, folder)).parent)
    try:
        place = f"{above}/" if _is_url(path) else {"driver": "file", "path": f"{above}/"}
        group = _tensorstore().KvStore.open(place).result()
        return _json(group, "zarr.json").get("attributes") or _json(group, ".zattrs")
    except (ValueError, OSError):  # it may not be ours to read
        return {}


def _json(store: Any, name: str) -> Mapping[str, Any]:
    try:
        found = json.loads(store.read(name).result().value or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}

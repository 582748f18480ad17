"""What zarr (v2, v3) and N5 arrays say of themselves, from the one small JSON file of each; no data is read.

No library is needed for that, and `plan` and every start of a run look here: importing zarr takes a second.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGEST_FILE = 16 * 2**20
"""Bytes of metadata that are read: consolidated metadata of a group may be some."""


@dataclass(frozen=True, slots=True)
class ArrayMetadata:
    """An array; axes in C order."""

    shape: tuple[int, ...]
    unit: tuple[int, ...]
    """What one object of the store holds: a shard where there are some, else a chunk."""
    is_sharded: bool
    attributes: dict[str, Any]


def read_metadata(path: Path) -> ArrayMetadata | None:
    """Return what the array in a folder says; None where there is none that is known."""
    for name, read in (("zarr.json", _zarr3), (".zarray", _zarr2), ("attributes.json", _n5)):
        found = _json(path / name)
        if isinstance(found, dict):
            try:
                array = read(found, path)
            except (KeyError, TypeError, ValueError, AttributeError):  # half written, or none of ours
                return None
            return array if array is not None and _is_sound(array) else None
    return None


def is_group(path: Path) -> bool:
    """Whether a folder holds arrays by name."""
    found = _json(path / "zarr.json")
    group = isinstance(found, dict) and found.get("node_type") == "group"
    return group or (path / ".zgroup").is_file() or (path / "attributes.json").is_file()


def _zarr3(found: dict[str, Any], _path: Path) -> ArrayMetadata | None:
    if found.get("node_type") != "array" or found["chunk_grid"]["name"] != "regular":
        return None
    sharded = any(codec.get("name") == "sharding_indexed" for codec in found.get("codecs", ()))
    unit = found["chunk_grid"]["configuration"]["chunk_shape"]
    return ArrayMetadata(tuple(found["shape"]), tuple(unit), sharded, found.get("attributes") or {})


def _zarr2(found: dict[str, Any], path: Path) -> ArrayMetadata:
    attributes = _json(path / ".zattrs")
    return ArrayMetadata(
        tuple(found["shape"]), tuple(found["chunks"]), False, attributes if isinstance(attributes, dict) else {}
    )


def _n5(found: dict[str, Any], _path: Path) -> ArrayMetadata | None:
    if "dimensions" not in found:
        return None
    shape, unit = found["dimensions"][::-1], found["blockSize"][::-1]  # N5 counts the fastest axis first
    return ArrayMetadata(tuple(shape), tuple(unit), False, {})


def _is_sound(array: ArrayMetadata) -> bool:
    whole = all(isinstance(n, int) and n >= 0 for n in array.shape) and all(
        isinstance(n, int) and n > 0 for n in array.unit
    )
    return whole and len(array.shape) == len(array.unit) > 0


def _json(path: Path) -> Any:
    try:
        if path.stat().st_size > LARGEST_FILE:
            return None
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None

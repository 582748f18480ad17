"""`map`: a function of arrays in memory, for each block over what it reads; the part that it writes is kept."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from blockyard.arrays.array import ArrayOfBlock
from blockyard.arrays.padding import Pad
from blockyard.spec.block import Block
from blockyard.spec.errors import BlockyardError
from blockyard.spec.maps import SOURCE


def run_mapped(
    function: Callable[..., Any],
    params: Mapping[str, Any],
    pad: Pad,
    block: Block,
    /,
    *,
    target: ArrayOfBlock,
    **sources: ArrayOfBlock,
) -> None:
    """Read, call ``function(source, **params)``, crop and write; sources with names are keyword arguments."""
    read = {name: array.read(block.read_roi, pad) for name, array in sources.items()}
    first = [read.pop(SOURCE)] if SOURCE in read and not _takes(function, SOURCE) else []
    found = np.asarray(function(*first, **read, **params))
    size = target.voxel_size
    shapes = [tuple(int(n) for n in roi.shape / size) for roi in (block.read_roi, block.write_roi)]
    ndim = len(shapes[0])
    if found.shape[-ndim:] not in shapes or found.ndim < ndim:
        raise BlockyardError(
            f"the function of a map returned an array of {list(found.shape)}; what it reads is {list(shapes[0])} and"
            f" what it writes {list(shapes[1])}"
        )
    target[block.write_roi] = found


def _takes(function: Callable[..., Any], name: str) -> bool:
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):  # of C, such as numpy's
        return False

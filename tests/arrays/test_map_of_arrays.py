"""`map` of a filter is the filter of the whole volume, read with another library than wrote it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage as ndi
import zarr

from blockyard import map_blocks
from blockyard.plan.declared import by_hand
from blockyard.spec.errors import BlockyardError, SpecError
from blockyard.spec.load import load_text
from blockyard.spec.model import RunSpec


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A volume whose sizes no block divides."""
    monkeypatch.chdir(tmp_path)
    raw = np.random.default_rng(1).integers(0, 1000, (13, 33, 20)).astype("i4")
    zarr.create_array("raw.zarr", data=raw, chunks=(8, 8, 8))
    return raw


FILTERS = [
    (ndi.gaussian_filter, {"sigma": 1.0, "output": "f8"}, 4, "reflect", "f8"),
    (ndi.median_filter, {"size": 5}, 2, "reflect", None),
    (ndi.median_filter, {"size": 5, "mode": "nearest"}, 2, "nearest", None),
    (ndi.maximum_filter, {"size": (3, 5, 3), "mode": "mirror"}, (1, 2, 1), "mirror", None),
    (ndi.uniform_filter, {"size": 3, "mode": "wrap", "output": "f8"}, 1, "wrap", "f8"),
    (ndi.minimum_filter, {"size": 3, "mode": "constant", "cval": 7}, 1, 7, None),
    (ndi.grey_dilation, {"size": (3, 3, 13)}, (1, 1, 6), "reflect", None),
]


@pytest.mark.parametrize(("function", "params", "halo", "pad", "dtype"), FILTERS)
@pytest.mark.parametrize("block", [[4, 8, 8], [6, 32, 3]])
def test_a_filter_of_blocks_is_the_filter_of_the_whole(
    folder: np.ndarray, function: Callable[..., Any], params: Any, halo: Any, pad: Any, dtype: Any, block: list[int]
) -> None:
    """Bit by bit for whole numbers; halos that are wider than the last block, and every way to pad."""
    target = {"path": "out.zarr", "dtype": dtype} if dtype else "out.zarr"
    assert map_blocks(function, "raw.zarr", target, block=block, halo=halo, pad=pad, serial=True, **params)
    found, expected = zarr.open_array("out.zarr", mode="r"), function(folder, **params)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found[...], expected, rtol=1e-12)


def test_several_sources_channels_and_functions_of_c(folder: np.ndarray) -> None:
    """Sources by name are keyword arguments; leading axes are channels, whole in each block."""
    both = {"a": "raw.zarr", "b": {"path": "raw.zarr"}}
    assert map_blocks(lambda a, b: a - 2 * b, both, "minus.zarr", block=[8, 8, 8], serial=True)
    assert (zarr.open_array("minus.zarr")[...] == -folder).all()
    assert map_blocks(np.negative, "raw.zarr", "c.zarr", block=[8, 8], serial=True)
    assert (zarr.open_array("c.zarr")[...] == -folder).all()


def test_what_a_map_can_not_write_is_one_sentence() -> None:
    """What the function returns has the shape of what is read, or of what is written."""
    with pytest.raises(BlockyardError, match=r"returned an array of \[\]; what it reads is \[10, 10, 10\]"):
        map_blocks(np.sum, "raw.zarr", "out.zarr", block=[8, 8, 8], halo=1, serial=True)


MAP = "name: m\ntasks:\n  - {id: f, map: 'm:f', "
GOOD = "reads: raw.zarr, writes: out.zarr, block: [8, 8, 8]"
BAD = [
    ("reads: raw.zarr, writes: out.zarr", "task 'f': a map needs 'block'"),
    (GOOD + ", total_roi: {offset: [0], shape: [1]}", "has map and total_roi"),
    ("reads: raw.zarr, block: [8], writes: {a: b}", "a map writes one array"),
    (GOOD.replace("8]", "x]"), "block is [8, 8, 'x']; it must be a list of whole numbers"),
    (GOOD + ", halo: [1, 2]", "halo is [1, 2], and block has 3 axes"),
    (GOOD + ", halo: -1", "of at least 0"),
    (GOOD + ", pad: refect", "pad"),
    (GOOD + ", exclusive: true", "unknown field 'exclusive'"),
]


@pytest.mark.parametrize(("text", "sentence"), BAD)
def test_a_map_that_says_too_little_or_too_much(text: str, sentence: str) -> None:
    """In a sentence with file and line."""
    with pytest.raises(SpecError) as error:
        load_text(MAP + text + "}\n", "p.yaml")
    assert sentence in str(error.value)
    assert str(error.value).startswith("p.yaml:3: ")


def test_a_scheduler_that_sees_no_arrays_refuses_a_map() -> None:
    """Its ROIs are not known then."""
    with pytest.raises(SpecError, match="is a map, whose ROIs follow from arrays that no scheduler opens"):
        by_hand(RunSpec(load_text(MAP + GOOD + ", halo: 3}\n")))

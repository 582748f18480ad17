"""Voxel size and offset, as each format of the field says them: pure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from blockyard.arrays.padding import inside
from blockyard.arrays.scale import scale_of


def ngff(*steps: dict[str, Any], units: tuple[str, ...], name: str = "0", **more: Any) -> dict[str, Any]:
    axes = [{"name": "c", "type": "channel"}] + [
        {"name": n, "type": "space", "unit": u} for n, u in zip("zyx", units, strict=True)
    ]
    dataset = {"path": name, "coordinateTransformations": list(steps)}
    return {"multiscales": [{"axes": axes, "datasets": [dataset], **more}]}


def scale(*numbers: float) -> dict[str, Any]:
    return {"type": "scale", "scale": list(numbers)}


def shift(*numbers: float) -> dict[str, Any]:
    return {"type": "translation", "translation": list(numbers)}


UM = ("micrometer",) * 3
GROUPS = [
    (ngff(scale(1, 0.04, 0.008, 0.008), units=UM), (40, 8, 8), (0, 0, 0)),
    ({"ome": ngff(scale(1, 0.04, 0.008, 0.008), units=UM)}, (40, 8, 8), (0, 0, 0)),
    (ngff(scale(1, 40, 8, 8), shift(0, 400, 0, -8), units=("nanometer",) * 3), (40, 8, 8), (400, 0, -8)),
    (ngff(scale(1, 2, 2, 2), units=UM, coordinateTransformations=[scale(1, 0.02, 4, 4)]), (40, 8000, 8000), (0, 0, 0)),
    (ngff(scale(1, 40, 8, 8), units=UM, name="s1"), (1, 1, 1), (0, 0, 0)),
    ({"multiscales": "?"}, (1, 1, 1), (0, 0, 0)),
]


@pytest.mark.parametrize(("group", "size", "offset"), GROUPS)
def test_ome_ngff_in_nanometres(group: dict[str, Any], size: tuple[int, ...], offset: tuple[int, ...]) -> None:
    """Of versions 0.4 and 0.5, with translations, scales of the whole image, another dataset, and nonsense."""
    found = scale_of(3, {}, group, "0")
    assert (found.voxel_size, found.offset, found.note) == (size, offset, "")


ATTRIBUTES = [
    ({"voxel_size": [40, 8, 8], "offset": [80, 0, 0]}, (40, 8, 8), (80, 0, 0)),
    ({"resolution": [40.0, 8.0, 8.0]}, (40, 8, 8), (0, 0, 0)),
    ({"voxel_size": [1, 40, 8, 8]}, (40, 8, 8), (0, 0, 0)),
    ({"voxel_size": [4.5, 4, 4]}, (1, 1, 1), (0, 0, 0)),
    ({"voxel_size": [0, 4, 4]}, (1, 1, 1), (0, 0, 0)),
    ({}, (1, 1, 1), (0, 0, 0)),
]


@pytest.mark.parametrize(("attributes", "size", "offset"), ATTRIBUTES)
def test_attributes_of_funlib_persistence(
    attributes: dict[str, Any], size: tuple[int, ...], offset: tuple[int, ...]
) -> None:
    """Whole numbers for the last axes are taken as they are."""
    found = scale_of(3, attributes)
    assert (found.voxel_size, found.offset) == (size, offset)


def test_scales_that_are_not_whole_are_said() -> None:
    """ROIs are in voxels then."""
    found = scale_of(3, {}, ngff(scale(1, 0.04, 0.0045, 0.0045), units=UM), "0")
    assert found.voxel_size == (1, 1, 1)
    assert "40 x 4.5 x 4.5 nm" in found.note


@pytest.mark.parametrize(
    ("pad", "of_numpy"), [("reflect", "symmetric"), ("mirror", "reflect"), ("nearest", "edge"), ("wrap", "wrap")]
)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_padding_is_numpys(pad: str, of_numpy: str, size: int) -> None:
    """Also where more is padded than there is."""
    expected = np.pad(np.arange(size), 7, mode=of_numpy)
    assert inside(-7, size + 7, size, pad).tolist() == expected.tolist()

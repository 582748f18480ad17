"""Declarations become numbers, or one sentence with what to write: on real arrays in small folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import zarr
from funlib.geometry import Roi

from blockyard.arrays.array import ArrayError
from blockyard.arrays.declare import declared_arrays, make_declared
from blockyard.arrays.opened import TaskArrays
from blockyard.arrays.warn import warnings_before
from blockyard.plan.declared import by_hand
from blockyard.plan.grid import Grid
from blockyard.spec.block import Block
from blockyard.spec.errors import SpecError
from blockyard.spec.load import load_text
from blockyard.spec.model import RunSpec
from blockyard.spec.unit_grid import UnitGrid


def task(more: str, *, name: str = "f", total: str = "0, 64", context: int = 0, write: int = 16) -> str:
    begin, size = total.split(", ")
    read = f"{{offset: [0, {-context}], shape: [{write}, {write + 2 * context}]}}"
    return (
        f"  - {{id: {name}, function: 'm:f', read_write_conflict: false,"
        f" total_roi: {{offset: [0, {begin}], shape: [64, {size}]}},"
        f" read_roi: {read}, write_roi: {{offset: [0, 0], shape: [{write}, {write}]}}, {more}}}\n"
    )


def run(*tasks: str) -> RunSpec:
    return RunSpec(load_text("name: r\ntasks:\n" + "".join(tasks)))


def raw(folder: Path, name: str = "raw.zarr", shape: tuple[int, ...] = (64, 64), **more: Any) -> np.ndarray:
    data = np.random.default_rng(0).integers(1, 255, shape).astype("u1")
    array = zarr.create_array(folder / name, shape=shape, dtype="u1", **({"chunks": (16,) * len(shape)} | more))
    array[...] = data
    return data


def n5(folder: Path) -> None:
    store = tensorstore.open(
        {"driver": "n5", "kvstore": {"driver": "file", "path": f"{folder}/raw.zarr/"}},
        create=True,
        dtype="uint8",
        shape=[64, 64],
        chunk_layout=tensorstore.ChunkLayout(chunk_shape=[8, 32]),
        dimension_units=[(4, "nm"), (8, "nm")],
    ).result()
    store[...] = np.ones((64, 64), "u1")


def ngff(folder: Path) -> None:
    raw(folder / "raw.zarr", "0")
    axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [0.008, 0.004]}]}
    attributes = {"ome": {"multiscales": [{"axes": axes, "datasets": [dataset]}]}}
    (folder / "raw.zarr" / "zarr.json").write_text(
        json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes})
    )


FORMATS = {
    "zarr v2": (lambda at: raw(at, zarr_format=2, attributes={"resolution": [8, 4]}), "raw.zarr", (8, 4), (16, 16)),
    "zarr v3": (lambda at: raw(at, attributes={"voxel_size": [8, 4]}), "raw.zarr", (8, 4), (16, 16)),
    "shards": (lambda at: raw(at, shards=(32, 64)), "raw.zarr", (1, 1), (32, 64)),
    "channels": (lambda at: raw(at, shape=(3, 64, 64), chunks=(1, 16, 32)), "raw.zarr", (1, 1), (16, 32)),
    "N5": (n5, "raw.zarr", (8, 4), (32, 8)),
    "OME-NGFF": (ngff, "raw.zarr/0", (8, 4), (16, 16)),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_says_its_units_and_its_scale(tmp_path: Path, kind: str) -> None:
    """In world units, axes in C order; what the worker opens says the same."""
    make, path, size, unit = FORMATS[kind]
    make(tmp_path)
    spec = run(task(f"reads: {{raw: {path}}}", write=16))
    found = declared_arrays(spec, tmp_path)
    (units,) = found.run.pipeline.tasks[0].read_units
    assert units == UnitGrid(str(tmp_path / path), (0, 0), tuple(u * v for u, v in zip(unit, size, strict=True)))
    assert found.run.pipeline.tasks[0].arrays["raw"].voxel_size == size


@pytest.mark.parametrize(
    ("writes", "shape", "chunks", "shards", "size"),
    [
        ("{path: o, dtype: float32}", (16, 64), (16, 16), None, (4, 1)),
        ("{path: o}", (16, 64), (16, 16), None, (4, 1)),
        ("{path: o, like: raw}", (16, 64), (16, 16), None, (4, 1)),
        ("{path: o, voxel_size: [2, 2]}", (32, 32), (16, 16), None, (2, 2)),
        ("{path: o, chunks: [4, 8], shards: [16, 32]}", (16, 64), (4, 8), (16, 32), (4, 1)),
        ("{path: o, shards: [16, 32]}", (16, 64), (4, 16), (16, 32), (4, 1)),
    ],
)
def test_an_output_that_is_missing_is_made_once(
    tmp_path: Path, writes: str, shape: Any, chunks: Any, shards: Any, size: Any
) -> None:
    """As declared, else like what is read and as the blocks write; never where there is one: seen by another."""
    raw(tmp_path, shape=(16, 64), attributes={"voxel_size": [4, 1]})
    found = declared_arrays(run(task(f"reads: {{raw: raw.zarr}}, writes: {{out: {writes}}}", write=16)), tmp_path)
    assert not (tmp_path / "o").exists()
    said: list[str] = []
    make_declared(found, said.append)
    made = zarr.open_array(tmp_path / "o")
    expected_chunks = tuple(min(c, n) for c, n in zip(chunks, shape, strict=True)) if shards else made.chunks
    assert (made.shape, made.chunks, made.shards) == (shape, expected_chunks, shards)
    assert tuple(made.attrs["voxel_size"]) == size
    assert made.dtype == ("f4" if "float32" in writes else "u1")
    made[...] = 7
    make_declared(found, said.append)
    assert (zarr.open_array(tmp_path / "o")[...] == 7).all()
    again = declared_arrays(run(task(f"reads: {{raw: raw.zarr}}, writes: {{out: {writes}}}", write=16)), tmp_path)
    assert again.new == []
    said.clear()
    make_declared(again, said.append, again=True)
    assert said == ["note: all blocks run again, over what is in 'o': arrays are never emptied"]
    assert again.run == found.run


TWO = "reads: {raw: raw.zarr}, writes: {out: {path: o}}"
BAD = [
    ([task("reads: {raw: gone.zarr}")], "reads: 'raw': there is no array 'gone.zarr'"),
    ([task("reads: {raw: vol}")], "'vol' is no array but holds some; write 'vol/a'"),
    ([task("writes: {out: notes}")], "is no array that can be opened"),
    ([task("writes: {out: o}")], "its dtype is needed"),
    ([task("reads: {raw: line.zarr}")], "has 1 axes, and blocks have 2"),
    ([task("reads: {raw: {path: raw.zarr, voxel_size: [1, 5]}}")], "write_roi is 16 on axis 1"),
    ([task("reads: {raw: {path: raw.zarr, voxel_size: [1, 5]}}")], "write 15 or 20"),
    ([task("writes: {out: raw.zarr}", total="0, 80")], "blocks write 0:80 on axis 1"),
    ([task("writes: {out: raw.zarr}", total="0, 80", context=4)], "a total_roi of -4:68 there writes all of it"),
    ([task("reads: {raw: raw.zarr}", total="640, 64")], "some blocks read nothing of the array 'raw'"),
    ([task(TWO), task(TWO, name="g")], "writes too, where their ROIs overlap, and nothing orders them"),
    ([task(TWO), task("reads: {o: ./o}", name="g")], "add 'requires: [f]' to 'g'"),
]


@pytest.mark.parametrize(("tasks", "sentence"), BAD)
def test_what_does_not_fit_is_one_sentence(tmp_path: Path, tasks: list[str], sentence: str) -> None:
    """And nothing is made."""
    raw(tmp_path)
    raw(tmp_path, "line.zarr", (64,))
    raw(tmp_path / "vol", "a")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SpecError) as error:
        declared_arrays(run(*tasks), tmp_path)
    assert sentence in str(error.value)
    assert str(error.value).startswith("task '")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("tasks", "warned"),
    [
        ([task(TWO), task("reads: {o: o}, writes: {p: {path: p, dtype: u2}}, requires: [f]", name="g")], []),
        ([task("writes: {out: raw.zarr}", total="16, 48")], ["total_roi of 0:64 there"]),
        ([task("writes: {out: raw.zarr}", write=32, total="0, 64")], []),
        ([task("writes: {out: raw.zarr}", write=8)], ["up to 4 blocks write into one chunk"]),
    ],
)
def test_warnings_of_declared_arrays(tmp_path: Path, tasks: list[str], warned: list[str]) -> None:
    """Of voxels that no block writes, and of units that blocks share."""
    raw(tmp_path)
    found = declared_arrays(run(*tasks), tmp_path)
    make_declared(found, lambda _: None)
    said = [warning.text for warning in warnings_before(found.run, tmp_path)]
    assert len(said) == len(warned), said
    assert all(any(text in sentence for sentence in said) for text in warned), said


def test_by_hand_or_a_sentence() -> None:
    """A scheduler opens nothing: what is written says its unit, or is refused."""
    spec = by_hand(run(task("writes: {out: {path: 's3://b/o', write_unit: [16, 32], voxel_size: [8, 4]}}")))
    assert spec.pipeline.tasks[0].write_units == (UnitGrid("s3://b/o", (0, 0), (128, 128)),)
    with pytest.raises(SpecError, match="which no scheduler opens; say what is written as one"):
        by_hand(run(task("writes: {out: 's3://b/o'}")))


def opened(folder: Path, monkeypatch: pytest.MonkeyPatch, more: str, **options: Any) -> tuple[TaskArrays, Any]:
    monkeypatch.chdir(folder)
    found = declared_arrays(run(task(more, **options)), folder)
    make_declared(found, lambda _: None)
    spec = found.run.pipeline.tasks[0]
    return TaskArrays(spec), Grid.of(spec)


def test_arrays_take_rois_in_world_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an offset, and channels that are read whole; outside the volume by reflection, or as asked."""
    data = raw(tmp_path, shape=(2, 16, 32), attributes={"voxel_size": [4, 2], "offset": [40, 0]}, chunks=(1, 4, 8))
    arrays, _ = opened(tmp_path, monkeypatch, "reads: {raw: {path: raw.zarr, offset: [0, 0]}}")
    array = arrays["raw"]
    assert array.roi == Roi((0, 0), (64, 64))
    assert (array[Roi((8, 4), (16, 8))] == data[:, 2:6, 2:6]).all()
    around = Roi((-8, -8), (80, 80))
    assert (array[around] == np.pad(data, ((0, 0), (2, 2), (4, 4)), mode="symmetric")).all()
    assert (array.read(around, pad=3) == np.pad(data, ((0, 0), (2, 2), (4, 4)), constant_values=3)).all()
    for roi, pad in ((around, None), (Roi((400, 0), (4, 4)), "reflect"), (Roi((1, 0), (4, 4)), "reflect")):
        with pytest.raises(ArrayError, match="array 'raw'"):
            array.read(roi, pad=pad)
    with pytest.raises(ArrayError, match="is in reads"):
        array[Roi((0, 0), (4, 4))] = 1


def test_what_a_block_made_of_its_read_roi_is_cropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a filter of what was read can be written as it is; written with one library, read with another."""
    data = raw(tmp_path)
    more = "reads: {raw: raw.zarr}, writes: {out: {path: o, chunks: [24, 24]}}"
    arrays, grid = opened(tmp_path, monkeypatch, more, total="-4, 72", context=4)
    for block_id in range(grid.size):
        block = Block(grid, "f", block_id)
        out = arrays["out"].of(block)
        out[block.write_roi] = arrays["raw"].of(block)[block.read_roi].astype("f8")
        with pytest.raises(ArrayError, match="was written"):
            out[Roi((60, 60), (8, 8))] = 1
    assert (zarr.open_array(tmp_path / "o")[...] == data).all()

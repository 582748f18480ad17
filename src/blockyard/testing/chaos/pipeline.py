"""The pipeline that is disturbed: each array is a real zarr, and a wrong order or a missing block changes its bytes.

Task `soften` averages its input over a halo. Task `sweep` streams behind it and folds into each block what its
neighbours of lower levels have written around it: its result depends on the order of conflicting blocks, which never
depends on timing. Both read nothing that they write themselves, so a block that runs twice gives the same bytes.

Whoever runs a block leaves evidence of his own, independent of the scheduler's word: see `evidence`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from funlib.geometry import Coordinate, Roi

from blockyard.spec.block import Block
from blockyard.spec.model import PipelineSpec, RoiSpec, RunSpec, TaskSpec
from blockyard.testing.chaos.evidence import Witness

WRITE = 8
"""Voxels of a block on each of the two axes, and of a chunk of the arrays: no two blocks write one file."""
HALO = 3
MODULE = "blockyard.testing.chaos.pipeline"


def make_arrays(folder: Path, side: int) -> None:
    """Make input and outputs of `side` x `side` blocks in a folder that is there."""
    import zarr  # an extra: `blockyard chaos` says what to install

    shape = (side * WRITE, side * WRITE)
    raw = np.random.default_rng(0).integers(0, 1000, shape, np.int64)
    for name in ("raw", "soft", "swept"):
        array = zarr.create_array(
            folder / f"{name}.zarr", shape=shape, chunks=(WRITE, WRITE), dtype="i8", fill_value=-1
        )
        if name == "raw":
            array[:] = raw


def pipeline(folder: Path, side: int, block_s: float) -> RunSpec:
    """Return the run over the arrays in `folder`; a block takes `block_s` at the least."""
    whole = RoiSpec((0, 0), (side * WRITE, side * WRITE))
    grown = RoiSpec((-HALO, -HALO), tuple(n + 2 * HALO for n in whole.shape))
    write = RoiSpec((0, 0), (WRITE, WRITE))
    read = RoiSpec((-HALO, -HALO), (WRITE + 2 * HALO, WRITE + 2 * HALO))

    def task(name: str, function: str, *, conflict: bool, requires: tuple[str, ...] = ()) -> TaskSpec:
        return TaskSpec(
            id=name,
            function=f"{MODULE}:{function}",
            params={"folder": str(folder), "block_s": block_s},
            total_roi=grown,
            read_roi=read,
            write_roi=write,
            read_write_conflict=conflict,
            max_retries=0,
            requires=requires,
        )

    soften = task("soften", "Soften", conflict=False)
    sweep = task("sweep", "Sweep", conflict=True, requires=("soften",))
    return RunSpec(PipelineSpec(name="chaos", tasks=(soften, sweep)))


class _Step:
    """Opens the arrays once a slot; a block is read, computed, waited for, written."""

    def __init__(self, folder: str, block_s: float) -> None:
        """Take the folder of the arrays."""
        import zarr

        self._arrays = {name: zarr.open_array(f"{folder}/{name}.zarr") for name in ("raw", "soft", "swept")}
        self._witness = Witness(Path(folder) / "evidence")
        self._block_s = block_s

    def _inside(self, roi: Roi) -> Roi:
        return roi.intersect(Roi((0, 0), self._arrays["raw"].shape))

    def _read(self, name: str, roi: Roi) -> Any:
        return self._arrays[name][roi.to_slices()]

    def __call__(self, block: Block) -> None:
        """Run one block."""
        self._witness.begins(block)
        data = self._computed(block)
        time.sleep(self._block_s)
        self._witness.writes(block)
        self._arrays[self.target][block.write_roi.to_slices()] = data
        self._witness.ends(block)

    target: str

    def _computed(self, block: Block) -> Any:
        raise NotImplementedError


class Soften(_Step):
    """Sums the input over each voxel's neighbourhood, as far as the volume goes."""

    target = "soft"

    def _computed(self, block: Block) -> Any:
        read = self._inside(block.read_roi)
        before = block.write_roi.begin - read.begin
        after = read.end - block.write_roi.end
        missing = [(HALO - b, HALO - a) for b, a in zip(before, after, strict=True)]
        padded = np.pad(self._read("raw", read), missing)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * HALO + 1, 2 * HALO + 1))
        return windows.sum(axis=(2, 3))


class Sweep(_Step):
    """Adds to each block what stands around it: its neighbours of lower levels have written, the others not yet."""

    target = "swept"

    def _computed(self, block: Block) -> Any:
        read = self._inside(block.read_roi)
        around = self._read("swept", read)
        around[(block.write_roi - Coordinate(read.begin)).to_slices()] = 0  # its own: of an earlier attempt, or nothing
        return self._read("soft", block.write_roi) + around.sum() % 1_000_003

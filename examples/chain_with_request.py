"""Two chained tasks in the API of 0.2, run for a part of the volume only: `python chain_with_request.py [FOLDER]`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import zarr
from scipy.ndimage import gaussian_filter, maximum_filter

from blockyard import Block, Coordinate, Parameter, Roi, Task, distribute

VOLUME = Roi((0, 0, 0), (40, 120, 120))
BLOCK = Roi((0, 0, 0), (10, 30, 30))


class Smooth(Task):
    """A Gaussian; a block reads 8 voxels around what it writes, as far as the volume goes."""

    folder = Parameter()
    sigma = Parameter(default=2.0)

    def prepare(self) -> None:
        context = Coordinate((8, 8, 8))
        zarr.create_array(f"{self.folder}/smooth", shape=VOLUME.shape, chunks=BLOCK.shape, dtype="f4")
        self.schedule(
            total_roi=VOLUME.grow(context, context),
            read_roi=BLOCK.grow(context, context),
            write_roi=BLOCK,
            process_function=self.smooth,
            read_write_conflict=False,
            num_workers=2,
        )

    def smooth(self, block: Block) -> None:
        read = block.read_roi.intersect(VOLUME)
        raw = zarr.open_array(f"{self.folder}/raw", mode="r")[read.to_slices()]
        inside = (block.write_roi - read.begin).to_slices()
        smooth = zarr.open_array(f"{self.folder}/smooth", mode="r+")
        smooth[block.write_roi.to_slices()] = gaussian_filter(raw, self.sigma, truncate=4)[inside]


class Peaks(Task):
    """Where the smoothed volume is higher than in all of its neighbourhood."""

    folder = Parameter()
    radius = Parameter(default=3)

    def requires(self) -> list[Task]:
        return [Smooth(folder=self.folder)]

    def prepare(self) -> None:
        context = Coordinate((self.radius,) * 3)
        zarr.create_array(f"{self.folder}/peaks", shape=VOLUME.shape, chunks=BLOCK.shape, dtype="u1")
        self.schedule(
            total_roi=VOLUME.grow(context, context),
            read_roi=BLOCK.grow(context, context),
            write_roi=BLOCK,
            process_function=self.find,
            read_write_conflict=False,
            num_workers=2,
        )

    def find(self, block: Block) -> None:
        read = block.read_roi.intersect(VOLUME)
        smooth = zarr.open_array(f"{self.folder}/smooth", mode="r")[read.to_slices()]
        peaks = maximum_filter(smooth, 2 * self.radius + 1) == smooth
        inside = (block.write_roi - read.begin).to_slices()
        zarr.open_array(f"{self.folder}/peaks", mode="r+")[block.write_roi.to_slices()] = peaks[inside]


def main(folder: str) -> bool:
    taken = [name for name in ("raw", "smooth", "peaks") if Path(folder, name).exists()]
    if taken:
        sys.exit(f"{folder} holds '{taken[0]}' already, which would be overwritten; give another folder")
    noise = np.random.default_rng(0).random(VOLUME.shape, np.float32)
    zarr.create_array(f"{folder}/raw", data=noise, chunks=BLOCK.shape)

    # Blocks of Peaks that write into the request run, and of Smooth those whose result they read: no others.
    request = Roi((12, 40, 40), (6, 40, 15))
    ok = distribute([{"task": Peaks(folder=folder), "request": [request]}])

    peaks = zarr.open_array(f"{folder}/peaks", mode="r")[request.to_slices()]
    print(f"{'done' if ok else 'failed'}: {np.count_nonzero(peaks)} peaks in {request}")
    return ok


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        where = Path(sys.argv[1] if len(sys.argv) > 1 else temporary).absolute()
        sys.exit(0 if main(str(where)) else 1)

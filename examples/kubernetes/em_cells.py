"""A user's block functions: what the image of this folder adds to the worker's."""

from __future__ import annotations

import zarr
from scipy.ndimage import gaussian_filter

import blockyard


class Smooth:
    """Smooths one array into another. A class is built once a slot, so what is dear to open is opened once."""

    def __init__(self, source: str, target: str, sigma: float) -> None:
        """Open both arrays; `sigma` in voxels."""
        self.source = zarr.open_array(source, mode="r")
        self.target = zarr.open_array(target, mode="r+")
        self.sigma = sigma

    def __call__(self, block: blockyard.Block) -> None:
        """Read the block's context as far as there is one, filter, write the block."""
        whole = blockyard.Roi((0,) * self.source.ndim, self.source.shape)
        read = block.read_roi.intersect(whole)
        write = block.write_roi.intersect(whole)
        smoothed = gaussian_filter(self.source[read.to_slices()], self.sigma, output="f4", truncate=4)
        self.target[write.to_slices()] = smoothed[(write - read.begin).to_slices()]

"""The four block functions of the demo: a watershed of a whole volume, computed block by block.

Each voxel brighter than `floor` is linked to the neighbour (8 in 2-D, 26 in 3-D) towards which the smoothed image rises
most steeply, and across its faces to neighbours of its own value; what is brighter than `peak` counts as one value. All
that is linked is one segment.

    raw --Smooth--> smoothed --Fragments--> fragments, counts, pairs --Merge--> offsets, table --Relabel--> segments

Everything is an array of one zarr group. A chunk is what one block writes, so no two blocks share one, and a block that
was killed half-way and runs again writes the same bytes. Each class is built once in a worker process, which opens its
arrays then, and is called with block after block.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import zarr
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from blockyard import Block, Roi

Array: TypeAlias = npt.NDArray[Any]
Slices: TypeAlias = tuple[slice, ...]

TRUNCATE = 4.0
"""The Gaussian ends at this many sigmas (scipy's default)."""

CONTEXT = 2
"""What a block of `Fragments` must see around its own voxels: neighbours (1), and to where those climb (2)."""


def kernel_radius(sigma: float) -> int:
    """Give how many voxels away the Gaussian of scipy still looks."""
    return int(TRUNCATE * sigma + 0.5)


class BlockFunction:
    """What the four have in common: the open arrays, and a line about each finished block for the demo's picture."""

    def __init__(self, volume: str) -> None:
        self.group = zarr.open_group(volume, mode="r+")
        self.shape: tuple[int, ...] = self.array("raw").shape
        self.record = Path(volume).with_name("record") / f"{os.getpid()}.csv"

    def __call__(self, block: Block) -> None:
        """Run the block; then note the task, the block, the process, begin and end (seconds since 1970)."""
        begin = time.time()
        self.run(block)
        with self.record.open("a") as lines:
            lines.write(f"{block.task_id},{block.block_id},{os.getpid()},{begin:.6f},{time.time():.6f}\n")

    def run(self, block: Block) -> None:
        """Read what the block reads, write what it writes."""
        raise NotImplementedError

    def array(self, name: str) -> Any:
        """Open an array of the group."""
        return self.group[name]

    def inside(self, roi: Roi, grow: int = 0) -> Slices:
        """Give the part of `roi`, grown by some voxels, that lies in the volume."""
        return tuple(
            slice(max(b - grow, 0), min(e + grow, n)) for b, e, n in zip(roi.begin, roi.end, self.shape, strict=True)
        )


class Smooth(BlockFunction):
    """Filter with a Gaussian; bit for bit what the filter gives on the whole volume.

    The block reads the radius of the kernel around what it writes, so nothing that it keeps was computed near a false
    border. At the true borders reading ends where the volume ends, and scipy mirrors it there as it does for the whole.
    """

    def __init__(self, volume: str, sigma: Sequence[float]) -> None:
        super().__init__(volume)
        self.sigma = sigma
        self.source, self.target = self.array("raw"), self.array("smoothed")

    def run(self, block: Block) -> None:
        read, write = self.inside(block.read_roi), self.inside(block.write_roi)
        self.target[write] = smooth(self.source[read], self.sigma)[relative(write, read)]


class Fragments(BlockFunction):
    """Label the segments as far as the block goes, and carry on the labels of neighbours that ran before.

    A segment that reaches into such a neighbour takes over its label there; when it reaches several, they are found to
    be one, which goes into `pairs`. That needs an order: with ``read_write_conflict: true`` the scheduler never runs
    two neighbours at once, and always has them in the same order, whatever the number of workers.
    """

    def __init__(self, volume: str, floor: float, peak: float | None) -> None:
        super().__init__(volume)
        self.floor, self.peak = floor, peak
        self.source, self.target = self.array("smoothed"), self.array("fragments")
        self.counts, self.pairs = self.array("counts"), self.array("pairs")
        self.labels_per_block = math.prod(self.target.chunks)

    def run(self, block: Block) -> None:
        read, write = self.inside(block.read_roi), self.inside(block.write_roi)
        smoothed = self.source[read]
        labels = self.neighbours(block, read, write)
        own = np.zeros(smoothed.shape, bool)
        own[relative(write, read)] = True
        first_new = block.block_id * self.labels_per_block + 1
        count, pairs = carry_on(smoothed, labels, own, self.floor, self.peak, first_new)
        row = np.zeros(self.pairs.shape[1:], np.uint64)
        row[: len(pairs)] = pairs
        self.pairs[block.block_id] = row
        self.counts[block.block_id] = count
        self.target[write] = labels[relative(write, read)]

    def neighbours(self, block: Block, read: Slices, write: Slices) -> Array:
        """Give an array over `read` with the labels that earlier blocks left one voxel around `write`, and 0 else.

        What stands there of blocks that are yet to come is from an earlier run, and that of the block itself may be
        from an attempt that was killed: neither must show in the result.
        """
        labels = np.zeros([s.stop - s.start for s in read], np.uint64)
        around = self.inside(block.write_roi, grow=1)
        labels[relative(around, read)] = self.target[around]
        below_inside_above = [
            (slice(0, w.start), slice(w.start, w.stop), slice(w.stop, None)) for w in relative(write, read)
        ]
        for way in itertools.product((-1, 0, 1), repeat=labels.ndim):
            neighbour = tuple(i + step for i, step in zip(block.index, way, strict=True))
            if not self.turn(neighbour) < self.turn(block.index):
                labels[tuple(parts[step + 1] for parts, step in zip(below_inside_above, way, strict=True))] = 0
        return labels

    def turn(self, index: tuple[int, ...]) -> tuple[int, ...]:
        """Give what the scheduler sorts neighbours by: the higher remainders of the index go first."""
        blocks = self.target.cdata_shape
        rounds = (min(1 + math.ceil(CONTEXT / s), n) for s, n in zip(self.target.chunks, blocks, strict=True))
        return tuple(-(i % r) for i, r in zip(index, rounds, strict=True))


class Merge(BlockFunction):
    """One block: from the pairs that all blocks found, a table from the labels of fragments to those of segments.

    Label l = 1, 2, 3 ... of block b stands in ``table[offsets[b] + l - 1]``; segments are 1, 2, 3 ... as well.
    """

    def run(self, block: Block) -> None:  # noqa: ARG002 - it reads all blocks
        counts = self.array("counts")[:].astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        per_block = math.prod(self.array("fragments").chunks)
        found = self.array("pairs")
        pairs = np.concatenate([row[row[:, 0] > 0] for row in (found[b] for b in range(len(counts)))])
        numbers = number_of(pairs, offsets, per_block)
        table = components(numbers[:, 0], numbers[:, 1], int(offsets[-1])) + 1
        for name, data in (("offsets", offsets), ("table", table.astype(np.uint64))):
            self.group.create_array(name, data=data, overwrite=True)


class Relabel(BlockFunction):
    """Give every fragment of the block the label of its segment."""

    def __init__(self, volume: str) -> None:
        super().__init__(volume)
        self.source, self.target = self.array("fragments"), self.array("segments")
        # The class is built when the process gets its first block of this task: the table is there by then.
        self.offsets, self.table = self.array("offsets")[:], self.array("table")[:]

    def run(self, block: Block) -> None:
        write = self.inside(block.write_roi)
        fragments = self.source[write]
        segments = np.zeros_like(fragments)
        labelled = fragments > 0
        numbers = number_of(fragments[labelled], self.offsets, math.prod(self.source.chunks))
        segments[labelled] = self.table[numbers]
        self.target[write] = segments


# ----- the same, of arrays: used by the blocks, and by the check of the whole volume ------------------------------


def smooth(raw: Array, sigma: Sequence[float]) -> Array:
    """Filter with a Gaussian of `sigma` voxels an axis, in 32 bits, mirroring at the border."""
    smoothed: Array = gaussian_filter(raw.astype(np.float32), sigma, mode="reflect", truncate=TRUNCATE)
    return smoothed


def label(smoothed: Array, floor: float, peak: float | None) -> Array:
    """Segment an array as a whole: a label above 0 for each segment, and 0 for what is not above `floor`."""
    component = components(*links(smoothed, floor, peak), smoothed.size).reshape(smoothed.shape)
    return np.where(smoothed > floor, component + 1, 0)


def carry_on(
    smoothed: Array, labels: Array, own: Array, floor: float, peak: float | None, first_new: int
) -> tuple[int, Array]:
    """Write into `labels`, where `own` is true, the segments of `smoothed`, carrying on the labels that stand around.

    A segment that meets none of those gets a new one: `first_new`, and so on. Gives the number of new labels, and
    an array of shape (n, 2) of labels that turned out to be one segment, the lower one first.
    """
    near, far = links(smoothed, floor, peak)
    inner, known = own.ravel(), labels.ravel()
    usable = (inner[near] & (inner[far] | (known[far] > 0))) | (inner[far] & (known[near] > 0))
    near, far = near[usable], far[usable]
    # Nodes of the graph are the voxels; then the labels around, each of which stands for all voxels that bear it.
    old, at = np.unique(known[known > 0], return_inverse=True)
    node = np.arange(smoothed.size)
    node[known > 0] = smoothed.size + at
    component = components(node[near], node[far], smoothed.size + len(old))
    return name_components(component, old, labels, own & (smoothed > floor), first_new)


def name_components(
    component: Array, old: Array, labels: Array, foreground: Array, first_new: int
) -> tuple[int, Array]:
    """Give each component the lowest of the `old` labels in it, or a new one; write them into `labels`."""
    most = len(component)
    of_old = component[labels.size :]
    mine = component[: labels.size][foreground.ravel()]
    names = np.zeros(most, np.uint64)
    names[of_old[::-1]] = old[::-1]  # `old` is sorted: the lowest is written last, and stays
    present = np.zeros(most, bool)
    present[mine] = True
    nameless = np.flatnonzero(present & (names == 0))
    names[nameless] = np.arange(first_new, first_new + len(nameless), dtype=np.uint64)
    labels[foreground] = names[mine]
    others = names[of_old] != old
    return len(nameless), np.stack([names[of_old][others], old[others]], axis=1)


def links(smoothed: Array, floor: float, peak: float | None) -> tuple[Array, Array]:
    """Give the linked pairs of voxels above `floor`: two arrays of flat indices.

    A link holds for the whole volume when it is found in any box that contains its two voxels and their neighbours.
    """
    height = smoothed if peak is None else np.minimum(smoothed, np.float32(peak))
    uphill = climb(height)
    foreground = smoothed > floor
    flat = np.arange(smoothed.size, dtype=np.int32 if smoothed.size < 2**31 else np.int64).reshape(smoothed.shape)
    pairs = []
    for number, (near, far) in enumerate(neighbours(smoothed.ndim), 1):
        linked = (uphill[near] == number) | (uphill[far] == -number)
        if distance(near) == 1:
            linked |= height[near] == height[far]
        linked &= foreground[near] & foreground[far]
        pairs.append((flat[near][linked], flat[far][linked]))
    return np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs])


def climb(height: Array) -> Array:
    """Give for each voxel where its steepest rise leads: k or -k for pair k of `neighbours`, 0 where nothing is higher.

    Of equally steep ones the first in the order of `neighbours` counts, so the answer is the same in every block.
    """
    steepest, uphill = np.zeros_like(height), np.zeros(height.shape, np.int8)
    for number, (near, far) in enumerate(neighbours(height.ndim), 1):
        rise = (height[far] - height[near]) / np.float32(distance(near))
        for here, slope, way in ((near, rise, number), (far, -rise, -number)):
            higher = slope > steepest[here]
            np.copyto(steepest[here], slope, where=higher)
            uphill[here][higher] = way
    return uphill


def neighbours(ndim: int) -> list[tuple[Slices, Slices]]:
    """Give the pairs of slices that lay each voxel beside a neighbour: 4 in 2-D, 13 in 3-D, every pair once."""
    ways = [step for step in itertools.product((-1, 0, 1), repeat=ndim) if step > (0,) * ndim]
    return [(shifted([-s for s in step]), shifted(step)) for step in ways]


def shifted(step: Sequence[int]) -> Slices:
    """Give the slices of an array that leave out its first (+1) or last (-1) voxel on each axis."""
    return tuple(slice(max(s, 0) or None, min(s, 0) or None) for s in step)


def distance(near: Slices) -> float:
    """Give the distance of the neighbours in a pair of slices, in voxels."""
    return math.sqrt(sum(s != slice(None) for s in near))


def components(near: Array, far: Array, size: int) -> Array:
    """Give the connected component of each of `size` nodes: 0, 1, 2 ... in an order that only the graph decides."""
    graph = coo_array((np.ones(len(near), bool), (near, far)), shape=(size, size))
    component: Array = connected_components(graph, directed=False)[1]
    return component


def number_of(labels: Array, offsets: Array, labels_per_block: int) -> Array:
    """Give the place in the table of labels of fragments (block number * labels per block + 1, 2, 3 ...)."""
    block, local = np.divmod(labels.astype(np.int64) - 1, labels_per_block)
    return offsets[block] + local


def relative(inner: Slices, outer: Slices) -> Slices:
    """Give `inner` as slices of an array that holds `outer`."""
    return tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))

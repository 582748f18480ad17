"""A worker of one's own: the task's function takes no argument, and acquires and releases blocks itself.

    python own_worker.py [FOLDER]

Worth it where a loop of your own has something to keep between blocks that a class per slot cannot: here each process
keeps a running histogram, and writes it once at the end. An exception inside the with statement fails its block, which
is then tried again.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from blockyard import Client, Roi, run_blockwise

VOLUME = Roi((0, 0, 0), (32, 64, 64))
BLOCK = Roi((0, 0, 0), (8, 32, 32))


def make_volume(folder: Path) -> np.ndarray:
    """Write a volume of random bytes."""
    volume = np.random.default_rng(1).integers(0, 256, VOLUME.shape, np.uint8)
    np.save(folder / "volume.npy", volume)
    return volume


def count_values(folder: Path) -> None:
    """Acquire blocks until there are no more; what was counted is written at the end."""
    volume = np.load(folder / "volume.npy", mmap_mode="r")
    counts = np.zeros(256, np.int64)
    blocks = 0
    with Client() as client:
        while True:
            with client.acquire_block() as block:
                if block is None:
                    break
                voxels = volume[block.write_roi.to_slices()]
                counts += np.bincount(voxels.ravel(), minlength=256)
                blocks += 1
    np.save(folder / f"counts-{os.getpid()}.npy", counts)
    print(f"process {os.getpid()} counted {blocks} blocks")


def main(folder: Path) -> int:
    """Count the values of a volume with two processes and compare with numpy."""
    volume = make_volume(folder)
    done = run_blockwise(
        VOLUME,
        BLOCK,
        BLOCK,
        process_function=lambda: count_values(folder),  # no argument: it drives a Client itself
        read_write_conflict=False,
        num_workers=2,
    )
    counts = sum(np.load(path) for path in folder.glob("counts-*.npy"))
    right = bool(np.array_equal(counts, np.bincount(volume.ravel(), minlength=256)))
    print("the counts are those of the whole volume" if done and right else "the counts are wrong")
    return 0 if done and right else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(main(Path(temporary)))

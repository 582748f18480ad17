"""First task of the demo on a cluster: makes the arrays that `demo.py` makes before a run on one machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import demo
import inputs

import blockyard


def prepare(block: blockyard.Block, volume: str, chunk: list[int]) -> None:
    """Write the MNI152 head and empty arrays for the other tasks; one block, and whole or not at all."""
    path = Path(volume)
    path.with_name("record").mkdir(exist_ok=True)
    part = path.with_suffix(f".part-{block.attempt}")
    shutil.rmtree(part, ignore_errors=True)
    demo.create_arrays(part, inputs.load(inputs.head()).data, tuple(chunk))
    if path.exists():
        shutil.rmtree(part)  # an attempt before this one came so far
    else:
        part.rename(path)

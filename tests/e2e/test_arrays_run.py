"""Arrays that a task declares reach its code, whatever kind it is of, and what it writes is there: read by zarr."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from scipy.ndimage import gaussian_filter, maximum_filter

from blockyard import Client, Roi, Task, distribute, run_blockwise

TOTAL, BLOCK = Roi((0, 0), (64, 64)), Roi((0, 0), (16, 16))


def add(block: Any, raw: Any, out: Any) -> None:
    out[block.write_roi] = raw[block.write_roi] + 1


class Built:
    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def __call__(self, block: Any, out: Any) -> None:
        out[block.write_roi] = self.raw[block.write_roi] + 1


class Called:
    def __call__(self, block: Any, **arrays: Any) -> None:
        add(block, **arrays)


def own() -> None:
    client = Client()
    while (block := client.acquire_block()) is not None:
        add(block, client.array("raw"), client.array("out"))
        client.release_block(block)


def is_done(block: Any, out: Any) -> bool:
    return bool(out[block.write_roi].all())


def made(folder: Path) -> np.ndarray:
    raw = np.arange(64 * 64, dtype="u2").reshape(64, 64)
    zarr.create_array(folder / "raw.zarr", data=raw, chunks=(16, 16))
    return raw


@pytest.mark.parametrize("function", [add, Built, Called])
def test_functions_and_classes_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any]
) -> None:
    """By name: at each call, or by the constructor; a check too. One that is missing is made."""
    monkeypatch.chdir(tmp_path)
    raw = made(tmp_path)
    arrays = {"reads": {"raw": "raw.zarr"}, "writes": {"out": {"path": tmp_path / "out.zarr", "dtype": np.uint16}}}
    for _ in range(2):
        assert run_blockwise(TOTAL, BLOCK, BLOCK, function, is_done, False, serial=True, **arrays)
    assert (zarr.open_array("out.zarr")[...] == raw + 1).all()


def test_a_client_and_a_program_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`client.array(name)`, and paths in the JSON."""
    monkeypatch.chdir(tmp_path)
    raw = made(tmp_path)

    class Own(Task):
        def prepare(self) -> None:
            arrays = {"reads": {"raw": "raw.zarr"}, "writes": {"out": {"path": "out.zarr"}}}
            self.schedule(TOTAL, BLOCK, BLOCK, own, read_write_conflict=False, **arrays)

    class Program(Task):
        def requires(self) -> list[Task]:
            return [Own()]

        def prepare(self) -> None:
            code = "import sys; open('told.json', 'w').write(sys.stdin.read())"
            command = [sys.executable, "-c", code]
            self.schedule(TOTAL, TOTAL, TOTAL, command=command, reads={"out": "out.zarr"})

    assert distribute([Program()])
    assert (zarr.open_array("out.zarr")[...] == raw + 1).all()
    assert json.loads(Path("told.json").read_text())["reads"] == {"out": "out.zarr"}


STEPS = """
from scipy.ndimage import gaussian_filter
def smooth(block, raw, smooth, sigma):
    smooth[block.write_roi] = gaussian_filter(raw[block.read_roi], sigma, output="f4")
"""
PIPELINE = """
name: arrays
tasks:
  - id: smooth
    function: steps_arrays:smooth
    params: {sigma: 1.0}
    reads: {raw: raw.zarr}
    writes: {smooth: {path: smooth.zarr, dtype: float32, chunks: [8, 8], shards: [64, 64]}}
    total_roi: {offset: [-4, -4], shape: [72, 72]}
    read_roi: {offset: [-4, -4], shape: [24, 24]}
    write_roi: {offset: [0, 0], shape: [16, 16]}
    read_write_conflict: false
  - id: peaks
    requires: [smooth]
    map: scipy.ndimage:maximum_filter
    params: {size: 3}
    reads: smooth.zarr
    writes: peaks.zarr
    block: [24, 24]
    halo: 1
"""


def test_four_workers_and_one_shard_lose_nothing(tmp_path: Path) -> None:
    """The filter of the blocks is that of the whole, bit by bit, though all write into one file; so is a map of it."""
    raw = made(tmp_path)
    (tmp_path / "steps_arrays.py").write_text(STEPS)
    (tmp_path / "p.yaml").write_text(PIPELINE)
    blockyard = [sys.executable, "-m", "blockyard.cli"]
    plan = subprocess.run([*blockyard, "plan", "p.yaml"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "will be made: 'smooth.zarr': float32, 64 x 64 voxels in chunks of 8 x 8 in shards of 64 x 64" in plan.stdout
    assert "up to 16 blocks write into one shard" in plan.stdout
    assert not (tmp_path / "smooth.zarr").exists()
    command = [*blockyard, "run", "p.yaml", "--workers", "4"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "made 'smooth.zarr'" in ran.stderr
    expected = gaussian_filter(raw, 1.0, output="f4")
    assert (zarr.open_array(tmp_path / "smooth.zarr", mode="r")[...] == expected).all()
    assert (zarr.open_array(tmp_path / "peaks.zarr", mode="r")[...] == maximum_filter(expected, 3)).all()
    (tmp_path / "peaks.zarr").rename(tmp_path / "elsewhere.zarr")
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "the array 'peaks.zarr' that it writes is gone" in again.stderr
    assert not (tmp_path / "peaks.zarr").exists()
    (tmp_path / "elsewhere.zarr").rename(tmp_path / "peaks.zarr")
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "nothing was left to do" in again.stdout

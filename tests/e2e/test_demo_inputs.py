"""The demo's input: what it reads, what it chooses from it, and the sentences for what it cannot take."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "demo"))

import demo
import inputs

RAMP = np.arange(6 * 8 * 10, dtype=np.uint16).reshape(6, 8, 10)


def write(folder: Path, kind: str) -> tuple[Path, str | None]:
    """Write RAMP as a file of that kind; give its path and which array is meant."""
    path = folder / f"volume.{kind.split(maxsplit=1)[0]}"
    if kind == "npy":
        np.save(path, RAMP)
    elif kind == "npz":
        np.savez_compressed(path, raw=RAMP)
    elif kind == "npz with two":
        np.savez_compressed(path, raw=RAMP, mask=RAMP > 3)
        return path, "raw"
    elif kind == "tif":
        tifffile.imwrite(path, RAMP)
    elif kind == "zarr":
        zarr.create_array(path, data=RAMP)
    elif kind == "zarr group":
        zarr.create_group(path).create_array("raw", data=RAMP)
    return path, None


@pytest.mark.parametrize("kind", ["npy", "npz", "npz with two", "tif", "zarr", "zarr group"])
def test_every_kind_of_file_gives_the_same_volume(tmp_path: Path, kind: str) -> None:
    """What is read is what was written."""
    volume = inputs.load(*write(tmp_path, kind))
    assert np.array_equal(volume.data, RAMP)
    assert volume.voxel_size == (1.0, 1.0, 1.0)


def test_the_default_is_the_head_of_nilearn() -> None:
    """It is found in the installed package, as (z, y, x), with its voxel size; nothing is downloaded."""
    volume = inputs.load(inputs.head())
    assert volume.data.shape == (189, 233, 197)
    assert volume.voxel_size == (1.0, 1.0, 1.0)


def refused(folder: Path, data: np.ndarray, *arguments: str) -> list[str]:
    """Arguments of the demo for a volume of these data."""
    np.save(folder / "volume.npy", data)
    return ["--input", str(folder / "volume.npy"), "--out", str(folder / "out"), *arguments]


@pytest.mark.parametrize(
    ("data", "arguments", "says"),
    [
        (np.zeros((2, 3, 4, 5)), [], "has shape (2, 3, 4, 5): the demo takes 2 or 3 axes"),
        (np.zeros(7), [], "has shape (7,)"),
        (np.zeros((0, 7)), [], "there is nothing in it"),
        (np.full((4, 4), np.nan), [], "NaN"),
        (np.zeros((4, 4), complex), [], "complex128"),
        (np.zeros((9, 9)), ["--block", "3,3,3"], "--block 3,3,3 does not fit a volume of shape (9, 9)"),
        (np.zeros((9, 9)), ["--block", "0,3"], "--block 0,3 does not fit"),
        (np.zeros((9, 9)), ["--voxel-size", "1,0"], "voxel size (1.0, 0.0) does not fit"),
        (np.zeros((9, 9)), ["--sigma", "-1"], "--sigma is -1"),
        (np.zeros((9, 9)), ["--peak", "120"], "--peak is 120"),
        (np.zeros((9, 9)), ["--workers", "0"], "--workers is 0"),
    ],
)
def test_what_cannot_be_taken_gets_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: np.ndarray, arguments: list[str], says: str
) -> None:
    """Exit status 2, the reason with the values, no traceback, nothing left behind."""
    assert demo.main(refused(tmp_path, data, *arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("demo: ")
    assert says in error
    assert not (tmp_path / "out").exists()


def test_files_that_cannot_be_read_get_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing file, one of no known kind, a broken one, an array that is not there."""
    (tmp_path / "notes.txt").write_text("no volume")
    (tmp_path / "broken.npz").write_text("no volume")
    two, _ = write(tmp_path, "npz with two")
    for arguments, says in (
        ([tmp_path / "gone.npy"], "gone.npy' does not exist"),
        ([tmp_path / "notes.txt"], "is of no known kind: .npz, .npy"),
        ([tmp_path / "broken.npz"], "cannot be read"),
        ([two], "holds 2 arrays (raw, mask): choose one with --array NAME"),
        ([two, "--array", "labels"], "holds 2 arrays (raw, mask): but none 'labels'"),
    ):
        assert demo.main(["--input", *map(str, arguments), "--out", str(tmp_path / "out")]) == 2
        assert says in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_gets_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file where the folder should be."""
    (tmp_path / "out").write_text("")
    np.save(tmp_path / "volume.npy", RAMP)
    assert demo.main(["--input", str(tmp_path / "volume.npy"), "--out", str(tmp_path / "out")]) == 2
    assert "cannot write to" in capsys.readouterr().err


def test_nothing_to_resume_gets_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--resume goes on with a run that was begun."""
    assert demo.main(["--resume", "--out", str(tmp_path)]) == 2
    assert "nothing to resume" in capsys.readouterr().err


@pytest.mark.parametrize("shape", [(189, 233, 197), (20, 1024, 1024), (2048, 2048), (5, 6, 7), (3, 4000), (1, 1)])
def test_blocks_are_some_hundred_where_the_volume_is_large_enough(shape: tuple[int, ...]) -> None:
    """And thick sections get blocks that are long across them, not cubes of one section."""
    block = demo.block_shape(shape, inputs.guess_voxel_size(shape))
    blocks = math.prod(math.ceil(n / b) for n, b in zip(shape, block, strict=True))
    assert all(1 <= b <= n for b, n in zip(block, shape, strict=True))
    assert blocks <= 600
    assert blocks >= 150 or math.prod(shape) < 300 * 4 ** len(shape) * 8


def test_what_was_in_the_folder_is_kept(tmp_path: Path) -> None:
    """Starting over removes what the demo made, nothing else."""
    np.save(tmp_path / "volume.npy", RAMP)
    (tmp_path / "thesis.txt").write_text("years of work")
    for _ in range(2):
        demo.prepare(demo.parse(["--input", str(tmp_path / "volume.npy"), "--out", str(tmp_path)]), tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
